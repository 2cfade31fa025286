"""The engines of `benchmarks.engines`, and the programs that run them.

A peer's Python environment, or its program, is made once in .cache/benchmarks, with uv or cargo, from pinned versions; other
pins bring it up to date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["CACHE", "ENGINES", "HOUR", "ROOT", "Engine", "Unavailable", "program", "variables"]

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "engine_runs"
CACHE = ROOT / ".cache" / "benchmarks"
HOUR = 3600
THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON", "TORCH"))


@dataclass(frozen=True)
class Engine:
    """script: of engine_runs. ours: options, where it is our engine. packages: of its own environment. crate: a folder of
    engine_runs. built_by: the engine whose index it searches."""

    name: str
    script: str = ""
    ours: Mapping[str, object] | None = None
    packages: tuple[str, ...] = ()
    crate: str = ""
    built_by: str = ""

    @property
    def environment(self) -> Path:
        return CACHE / f"peers-{self.name}"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("exact", "run_exact.py"),
        Engine("ours", "run_ours.py", {"bits": 4}),
        Engine("ours-exact", "run_ours.py", {"bits": 4, "exact": True}, built_by="ours"),
        Engine("ours-fast", "run_ours.py", {"bits": 4, "probes": 1, "rerank": 24}, built_by="ours"),  # at next-plaid's recall
        Engine("ours-2bit", "run_ours.py", {"bits": 2}),
        Engine("ours-refine", "run_ours.py", {"bits": 4, "refine": True}),
        Engine(
            "colbert-ai",
            "run_colbert_ai.py",
            packages=(
                "colbert-ai==0.2.22", "torch==2.15.0", "faiss-cpu==1.15.1", "transformers==4.49.0", "numpy==2.2.6",
                "setuptools==80.10.2", "ninja==1.13.2",
            ),
        ),
        Engine("fast-plaid", "run_fast_plaid.py", packages=("fast-plaid==1.7.0.2110", "torch==2.11.0", "numpy==2.4.6")),
        Engine("next-plaid", crate="next_plaid"),
    )
}  # fmt: skip


class Unavailable(Exception):
    """Why an engine has no figures."""


def program(engine: Engine) -> list[str]:
    """The command that builds or searches. Raises: Unavailable."""
    try:
        if engine.crate:
            return [str(_cargo(engine))]
        if not engine.packages:
            return [sys.executable, str(RUNS / engine.script)]
        return [str(_python(engine)), str(RUNS / engine.script)]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from None


def variables(engine: Engine, threads: int, more: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a run: so many threads, no GPU."""
    found = {
        **os.environ,
        **dict.fromkeys(THREADS, str(threads)),
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    found["TORCH_EXTENSIONS_DIR"] = str(engine.environment / "extensions")  # colbert-ai compiles some at its first search
    found["PATH"] = f"{engine.environment / 'bin'}{os.pathsep}{found['PATH']}"  # ninja, for those
    return {**found, **more}


def _python(engine: Engine) -> Path:
    python, stamp, wanted = engine.environment / "bin" / "python", engine.environment / "ready", "\n".join(engine.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
        _made([uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", str(engine.environment)])
        _made([uv, "pip", "install", "--quiet", "--python", str(python), *engine.packages])
        stamp.write_text(wanted)
    for lock in (engine.environment / "extensions").rglob("lock"):  # of a compilation that was interrupted
        lock.unlink()
    return python


def _cargo(engine: Engine) -> Path:
    source, target = RUNS / engine.crate, engine.environment
    made, stamp = target / "release" / "run-next-plaid", target / "ready"
    wanted = (source / "Cargo.toml").read_text() + (source / "src" / "main.rs").read_text()
    if not made.exists() or not stamp.exists() or stamp.read_text() != wanted:
        if not shutil.which("cargo"):
            raise Unavailable("there is no cargo to build it with")
        with TemporaryDirectory() as scratch:  # Cargo.lock names a registry, and is not kept
            copy = Path(shutil.copytree(source, Path(scratch) / "source"))
            manifest = str(copy / "Cargo.toml")
            _made(["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, "--target-dir", str(target)])
        stamp.write_text(wanted)
    return made


def _made(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HOUR)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(f"{Path(command[0]).name} {command[1]} failed: {lines[-1][:200] if lines else done.returncode}")
