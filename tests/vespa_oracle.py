"""Vespa's own Java code as a test oracle: one JVM, JSON lines in and out (tests/vespa/oracle).

The class path is resolved by Maven once and the sources are compiled once, both cached under .cache/ by the hash of pom.xml
and the sources.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from filelock import FileLock

__all__ = ["Oracle", "oracle", "vespa_oracle", "why_no_oracle"]

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "tests" / "vespa" / "oracle"
BUILD_TIMEOUT_S = 900


class Oracle:
    """A running JVM. `ask("validate", app=folder)` gives its reply; `reply["ok"]` says whether Vespa was content."""

    def __init__(self, class_path: str, log: IO[str]) -> None:
        self._log = log
        self._process = subprocess.Popen(
            ["java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path, "oracle.Main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"cmd": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the oracle's JVM ended: {self._log.read()[-2000:]}")
        return json.loads(line)

    def validate(self, app: Path, target: str = "self-hosted", previous: Path | None = None) -> dict[str, Any]:
        """Vespa's config model on a copy of the package (it writes into the folder)."""
        with tempfile.TemporaryDirectory() as scratch:
            copies = {"app": _copy(app, Path(scratch) / "app")}
            if previous is not None:
                copies["previous"] = _copy(previous, Path(scratch) / "previous")
            return self.ask("validate", target=target, **copies)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _copy(app: Path, target: Path) -> str:
    shutil.copytree(app, target)
    return str(target)


def why_no_oracle() -> str:
    """Why tests marked `oracle` cannot run here; empty where they can."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    return f"Vespa's Java code needs {', '.join(missing)}" if missing else ""


@contextmanager
def oracle() -> Iterator[Oracle]:
    """One JVM; for a session fixture."""
    class_path = _built()
    with tempfile.TemporaryFile("w+") as log:
        running = Oracle(class_path, log)
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="session")
def vespa_oracle() -> Iterator[Oracle]:
    """For tests marked `oracle`: they skip where Java or Maven are missing."""
    if reason := why_no_oracle():
        pytest.skip(reason)
    with oracle() as running:
        yield running


def _built() -> str:
    sources = sorted((PROJECT / "src").rglob("*.java"))
    pom = PROJECT / "pom.xml"
    cache = ROOT / ".cache" / "vespa-oracle"
    jars = cache / f"{_digest([pom])}.classpath"
    classes = cache / f"{_digest([pom, *sources])}.classes"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):  # workers of one run, each with a JVM
        if not jars.is_file() or not all(Path(jar).is_file() for jar in jars.read_text().strip().split(":")):
            _run(["mvn", "-B", "-q", "-f", str(pom), "dependency:build-classpath", f"-Dmdep.outputFile={jars}.new"])
            Path(f"{jars}.new").replace(jars)
        path = jars.read_text().strip()
        if not classes.is_dir():
            staging = tempfile.mkdtemp(dir=cache)
            _run(["javac", "--release", "17", "-nowarn", "-Xlint:none", "-cp", path, "-d", staging, *map(str, sources)])
            Path(staging).replace(classes)
    return f"{classes}:{path}"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-3000:]}")
