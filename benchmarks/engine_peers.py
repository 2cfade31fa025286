"""The engines of `benchmarks.engines`, and the programs that run them.

A peer's Python environment, or its program, is made once in .cache/benchmarks, with uv or cargo, from pinned versions; other
pins bring it up to date.

tachiom is published as source alone: cargo builds it, from its dependencies vectorium and kannolo on GitHub and vectorium's
dependency `fixed`, a fork on GitLab. Where those hosts cannot be reached, build a wheel of the pinned version from copies of
vectorium and kannolo, with `fixed` and `rgbisect` of crates.io, and name its folder in UV_FIND_LINKS. 0.3.4 is pinned because
0.4.0 has not been built so far: it needs vectorium 0.9.1 and kannolo 0.11.2.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["CACHE", "ENGINES", "HOUR", "ROOT", "Engine", "Unavailable", "cause", "program", "variables"]

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "engine_runs"
CACHE = ROOT / ".cache" / "benchmarks"
HOUR = 3600
THREADS = tuple(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON", "TORCH"))


@dataclass(frozen=True)
class Engine:
    """script: of engine_runs. ours: options, where it is our engine. packages: of its own environment. crate: a folder of
    engine_runs. built_by: the engine whose index it searches. efforts: settings of a search, beside its defaults. building:
    environment variables of the installation."""

    name: str
    script: str = ""
    ours: Mapping[str, object] | None = None
    packages: tuple[str, ...] = ()
    crate: str = ""
    built_by: str = ""
    efforts: tuple[Mapping[str, object], ...] = ()
    building: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Path:
        return CACHE / f"peers-{self.name}"


def _ladder(first: str, second: str, rungs: Iterable[tuple[object, object]]) -> tuple[Mapping[str, object], ...]:
    return tuple({first: a, second: b} for a, b in rungs)


SMALL = [(1, 24), (2, 32), (2, 48), (4, 48), (4, 96), (4, 128), (8, 128), (8, 256)]
OURS = _ladder("probes", "rerank", [*SMALL, (8, 512), (16, 128), (16, 256), (16, 512), (32, 512)])
FULL_SCORES = ("n_ivf_probe", "n_full_scores")

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("exact", "run_exact.py"),
        Engine("ours", "run_ours.py", {"bits": 4}, efforts=OURS),
        Engine("ours-exact", "run_ours.py", {"bits": 4, "exact": True}, built_by="ours"),
        Engine("ours-2bit", "run_ours.py", {"bits": 2}, efforts=OURS),
        Engine("ours-refine", "run_ours.py", {"bits": 4, "refine": True}, efforts=OURS),
        Engine(
            "colbert-ai",
            "run_colbert_ai.py",
            packages=(
                "colbert-ai==0.2.22", "torch==2.15.0", "faiss-cpu==1.15.1", "transformers==4.49.0", "numpy==2.2.6",
                "setuptools==80.10.2", "ninja==1.13.2",
            ),
            efforts=(
                {"ncells": 2, "centroid_score_threshold": 0.45, "ndocs": 1024},  # its own for k = 100
                {"ncells": 4, "centroid_score_threshold": 0.4, "ndocs": 4096},  # and above
            ),
        ),
        Engine(
            "fast-plaid",
            "run_fast_plaid.py",
            packages=("fast-plaid==1.7.0.2110", "torch==2.11.0", "numpy==2.4.6"),
            efforts=_ladder(*FULL_SCORES, [(4, 256), (8, 512), (8, 1024), (32, 4096)]),
        ),
        Engine(
            "next-plaid",
            crate="next_plaid",
            efforts=_ladder(*FULL_SCORES, [*product((2, 4, 8), (128, 256, 512, 1024)), (32, 4096), (32, 16384)]),
        ),
        Engine(
            "xtr-warp-rs",
            "run_xtr_warp.py",
            packages=("xtr-warp-rs==2.1.0.2110", "torch==2.11.0", "numpy==2.4.6"),
            efforts=(
                *_ladder("nprobe", "centroid_score_threshold", [(8, 0.4), (16, 0.3), (32, 0.2), (64, 0.1), (128, 0.0)]),
                {"nprobe": 512, "centroid_score_threshold": 0.0, "bound": 4096},  # bound: by default too small for so many
            ),
        ),
        Engine(
            "tachiom",
            "run_tachiom.py",
            packages=("tachiom==0.3.4", "numpy==2.4.6"),
            efforts=_ladder(
                "k_centroids",
                "k_docs_to_score",
                [*product((10, 20, 40), (50, 100, 200, 500)), (80, 500), (80, 1000), (160, 1000), (160, 2000), (320, 4000)],
            ),
            # as its documentation says; vectorium uses features of Rust that a stable compiler has only with the second
            building={"RUSTFLAGS": "-C target-cpu=native", "RUSTC_BOOTSTRAP": "1"},
        ),
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
    return {**found, "EFFORTS": json.dumps(engine.efforts), **more}


def _python(engine: Engine) -> Path:
    python, stamp, wanted = engine.environment / "bin" / "python", engine.environment / "ready", "\n".join(engine.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
        _made([uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", str(engine.environment)])
        _made([uv, "pip", "install", "--quiet", "--python", str(python), *engine.packages], engine.building)
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


def _made(command: list[str], more: Mapping[str, str] | None = None) -> None:
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HOUR, env=environment)
    if done.returncode:
        raise Unavailable(f"{Path(command[0]).name} {command[1]} failed: {cause(done.stderr) or done.returncode}")


def cause(stderr: str) -> str:
    """The line of a tool's messages that says what is wrong: the innermost tool's, which uv and cargo quote below their own."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for pattern in ("fatal:", "error(?!: Failed to build)", "error"):
        found = [line for line in lines if re.match(pattern, line)]
        if found:
            return found[0][:200]
    return lines[-1][:200] if lines else ""
