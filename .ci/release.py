"""Build what a release publishes, and try it as a stranger would: `make release [TAG=vX.Y.Z]`.

sdist and wheel are built into dist/, their contents are checked, and the wheel is installed into empty environments: without
extras, where the command line starts and torch is absent; with the extra `demo`, where the demo runs; and with `local`, `feed`
and `serve`, where the demo's index is searched and served, again without torch. Sizes and times (of the import: processor time)
are printed and compared with limits and with what README.md states.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("colbert_vespa", "exporter", "feeder", "late_interaction", "query", "vespa_app")
LIMITS = {"wheel KB": 2_000, "sdist KB": 4_000, "base MB": 220, "import s": 1.0, "install s": 180.0}
STATED = {  # what the README says, by figure
    "base MB": r"packages: (\d+) MB, no torch",
    "limit base MB": r"below (\d+) MB",
    "limit install s": r"installs in (\d+) s",
    "limit import s": r"starts in (\d+) s of processor time",
}
STATED_WITHIN = 0.1  # of the size that is measured
MB = 1 << 20
START_S = 600.0  # for the server of the tried wheel: a busy machine compiles and loads slowly


def wheel_faults(names: list[str]) -> list[str]:
    """What is wrong with a wheel's contents."""
    tops = {name.partition("/")[0] for name in names}
    info = [top for top in tops if top.endswith(".dist-info")]
    faults = [f"{top} does not belong into the wheel" for top in sorted(tops.difference(PACKAGES, info))]
    wanted = [f"{package}/py.typed" for package in PACKAGES] + [f"{top}/licenses/LICENSE" for top in info]
    wanted += ["colbert_vespa/server/page/index.html"]
    faults += [f"{name} is missing" for name in wanted if name not in names]
    return faults + [f"{name} is not ours to ship" for name in names if name.endswith((".npz", ".onnx", ".parquet", ".pyc"))]


def sdist_faults(names: list[str]) -> list[str]:
    """names: below the folder of the version."""
    faults = [f"{name} is missing" for name in ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml") if name not in names]
    return faults + [
        f"{name} does not belong into the sdist" for name in names if name.partition("/")[0] in ("tests", "benchmarks")
    ]


def version_faults(tag: str, project: dict[str, object], changelog: str) -> list[str]:
    """A tag names the version that the project has, and the changelog has an entry for it."""
    version = str(project["version"])
    if not tag:
        return []
    faults = [] if tag == f"v{version}" else [f"tag {tag} is not v{version}, the version in pyproject.toml"]
    return faults + ([] if f"## [{version}]" in changelog else [f"CHANGELOG.md has no entry [{version}]"])


def readme_faults(readme: str, figures: dict[str, float]) -> list[str]:
    """What README.md states against the limits, and against the size of the base install where `figures` has it."""
    text, faults = " ".join(readme.split()), []
    known = {f"limit {name}": limit for name, limit in LIMITS.items()} | figures
    for name, pattern in STATED.items():
        found = re.search(pattern, text)
        if found is None:
            faults.append(f"README.md does not state {name}")
        elif name in known and abs(float(found[1]) - known[name]) > STATED_WITHIN * known[name] * (name in figures):
            faults.append(f"README.md states {name} as {found[1]}, it is {known[name]:.0f}")
    return faults


def run(*command: str | Path, **more: object) -> str:
    print("release:", Path(command[0]).name, *command[1:], file=sys.stderr, flush=True)
    done = subprocess.run([str(part) for part in command], text=True, stdout=subprocess.PIPE, check=False, **more)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"release: {' '.join(map(str, command))} ended with {done.returncode}")
    return str(done.stdout)


def environment(uv: str, folder: Path, wheel: Path, extras: str = "") -> tuple[Path, float]:
    """The `bin` of a new environment with the wheel, and the seconds that installing took."""
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    start = time.perf_counter()
    run(uv, "pip", "install", "--quiet", "--python", folder, f"colbert-vespa{extras} @ {wheel.as_uri()}")
    return folder / "bin", time.perf_counter() - start


def tried(uv: str, wheel: Path, scratch: Path) -> dict[str, float]:
    """Figures of the wheel's environments. Exits where something does not work."""
    base, install_s = environment(uv, scratch / "base", wheel)
    size = sum(file.stat().st_size for file in (scratch / "base").rglob("*") if file.is_file() and not file.is_symlink()) / MB
    code = "import time; t = time.process_time(); import colbert_vespa.cli.commands; print(time.process_time() - t)"
    run(base / "python", "-c", code)  # compiles
    import_s = float(run(base / "python", "-c", code))
    run(base / "colbert-vespa", "doctor", "--json")
    run(base / "python", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)")
    demo, _ = environment(uv, scratch / "demo", wheel, "[demo]")
    run(demo / "colbert-vespa", "demo", "-o", scratch / "made", "--json")
    serve, _ = environment(uv, scratch / "serve", wheel, "[local,feed,serve]")
    run(serve / "python", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)")
    index = scratch / "made" / "index"
    found = json.loads(run(serve / "colbert-vespa", "search", "parse a date", "--from", index, "--json").splitlines()[-1])
    if not found["hits"]:
        sys.exit("release: a search in the demo's index finds nothing")
    served(serve / "colbert-vespa", index, scratch / "log")
    return {"base MB": size, "install s": install_s, "import s": import_s}


def served(command: Path, index: Path, log: Path) -> None:
    """Exits where the server does not answer."""
    with log.open("w") as out, subprocess.Popen([command, "serve", f"docs={index}", "--port", "0"], stderr=out) as process:
        try:
            url = _ready(process, log)
            body = json.dumps({"query": "parse a date", "k": 3}).encode()
            request = urllib.request.Request(f"{url}/v1/search", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                hits = json.load(answer)["results"][0]["hits"]
            with urllib.request.urlopen(url, timeout=30) as page:
                there = b"<html" in page.read()
        finally:
            process.terminate()
    if not hits or not there:
        sys.exit("release: the server finds nothing, or has no page")


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and process.poll() is None:
        _, there, rest = log.read_text().partition("docs at ")
        if there and "\n" in rest:
            url = rest.split()[0]
            try:
                with urllib.request.urlopen(f"{url}/ready", timeout=5):
                    return url
            except OSError:
                pass
        time.sleep(0.2)
    ended = "" if process.poll() is None else f" and ended with {process.returncode}"
    sys.exit(f"release: the server did not start within {START_S:.0f} s{ended}: {log.read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", required=True)
    parser.add_argument("--tag", default="")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(options.uv, "build", "--quiet", "--out-dir", dist, ROOT)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        faults = wheel_faults(archive.namelist())
    with tarfile.open(sdist) as archive:
        faults += sdist_faults([name.partition("/")[2] for name in archive.getnames()])
    faults += version_faults(options.tag, project, (ROOT / "CHANGELOG.md").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        figures = tried(options.uv, wheel, Path(scratch)) if not faults else {}
    figures |= {"wheel KB": wheel.stat().st_size / 1024, "sdist KB": sdist.stat().st_size / 1024}
    for name, value in figures.items():
        print(f"{name:10} {value:8.1f}   limit {LIMITS[name]:g}")
        if not value <= LIMITS[name]:
            faults.append(f"{name} {value:.1f} is above its limit of {LIMITS[name]:g}")
    faults += readme_faults((ROOT / "README.md").read_text("utf-8"), figures)
    sys.exit("\n".join(f"release: {fault}" for fault in faults) or 0)


if __name__ == "__main__":
    main()
