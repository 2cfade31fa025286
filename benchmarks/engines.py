"""Local late-interaction engines on the same token vectors, one process each, pinned to the same cores.

    python -m benchmarks.engines [--quick] [--json] [--collection scifact|docs|cranfield] [--engine NAME]... [--plot FILE]
    python -m benchmarks.engines --synthetic 1000000          ours alone, made-up vectors, 32 a passage

Engines build with two threads and search with one. recall@10 is against exact MaxSim of the float32 vectors. The peers' Python
environments and next-plaid's program are made once, in .cache/benchmarks; a peer that cannot be had is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.vespa_collections import COLLECTIONS, open_collection
from late_interaction.metrics import overlap_at_k, percentile

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "engine_runs"
CACHE = ROOT / ".cache" / "benchmarks"
HOUR = 3600


@dataclass(frozen=True)
class Engine:
    """script: of engine_runs. ours: options, where it is our engine. packages: of its own environment. built_by: the engine
    whose index it searches."""

    name: str
    script: str
    ours: Mapping[str, object] | None = None
    packages: tuple[str, ...] = ()
    crate: str = ""
    built_by: str = ""


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("exact", "run_exact.py"),
        Engine("ours", "run_ours.py", {"bits": 4}),
        Engine("ours-exact", "run_ours.py", {"bits": 4, "exact": True}, built_by="ours"),
        Engine("ours-2bit", "run_ours.py", {"bits": 2}),
        Engine("ours-refine", "run_ours.py", {"bits": 4, "refine": True}),
        Engine(
            "colbert-ai",
            "run_colbert_ai.py",
            packages=("colbert-ai==0.2.22", "torch", "faiss-cpu", "transformers<4.50", "numpy<2.3", "setuptools<81", "ninja"),
        ),
        Engine("fast-plaid", "run_fast_plaid.py", packages=("fast-plaid==1.4.6.*", "numpy")),
        Engine("next-plaid", "", crate="next_plaid"),
    )
}


class Unavailable(Exception):
    """Why an engine has no figures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 20 queries")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    parser.add_argument("--collection", default="scifact", choices=sorted(COLLECTIONS))
    parser.add_argument("--synthetic", type=int, metavar="N", help="N made-up passages of 32 vectors; ours alone, no recall")
    parser.add_argument("--engine", action="append", choices=sorted(ENGINES), help="default: all")
    parser.add_argument("--plot", type=Path, help="recall against p50, as a picture (needs matplotlib)")
    options = parser.parse_args()
    with TemporaryDirectory(dir=_scratch()) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        if options.synthetic:
            name, counts = f"synthetic {options.synthetic}", _synthetic(data, options.synthetic)
            chosen = options.engine or ["ours"]
        else:
            name, counts = options.collection, _collected(data, options.collection, quick=options.quick)
            chosen = ["exact", *(engine for engine in options.engine or ENGINES if engine != "exact")]
        found, unavailable = _run_all(Path(folder), chosen)
    result = {"collection": name, **counts, "engines": found, "unavailable": unavailable}
    if options.plot:
        _plot(found, options.plot)
    print(_table(result), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))


def _scratch() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def _run_all(folder: Path, names: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    found: dict[str, dict[str, Any]] = {}
    unavailable: dict[str, str] = {}
    truth: list[list[int]] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            built, searched = _run(ENGINES[name], folder)
        except Unavailable as reason:
            unavailable[name] = str(reason)
            continue
        if name == "exact":
            truth = searched["ids"]
        total = int(np.load(folder / "data" / "offsets.npy")[-1])
        found[name] = _figures(built, searched, truth, total)
        print(f"  {found[name]}", file=sys.stderr, flush=True)
    return found, unavailable


def _figures(built: Mapping[str, Any], searched: Mapping[str, Any], truth: list[list[int]], total: int) -> dict[str, Any]:
    ms = searched["ms"]
    figures: dict[str, Any] = {}
    if truth:
        overlaps = [overlap_at_k(_texts(a), _texts(b), 10) for a, b in zip(searched["ids"], truth, strict=True)]
        figures["recall_at_10"] = round(float(np.mean(overlaps)), 4)
    figures |= {"p50_ms": round(percentile(ms, 0.5), 2), "p95_ms": round(percentile(ms, 0.95), 2)}
    figures["qps"] = round(1000 * len(ms) / sum(ms), 1)
    figures["build_s"] = round(built["seconds"], 1)
    figures["bytes_per_token"] = round(searched.get("engine_bytes", built["bytes"]) / total, 1)
    figures["peak_rss_mb"] = round(max(built["peak_rss_mb"], searched["peak_rss_mb"]))
    figures["build_rss_mb"], figures["search_rss_mb"] = round(built["peak_rss_mb"]), round(searched["peak_rss_mb"])
    kept = ("open_s", "first_answer_s", "batch_qps", "mapped_mb")
    return figures | {key: searched[key] for key in kept if key in searched}


def _texts(ids: list[int]) -> list[str]:
    return [str(id_) for id_ in ids]


def _run(engine: Engine, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    index = folder / (engine.built_by or engine.name)
    program = _program(engine)
    built_file = folder / f"{index.name}.build.json"
    if not built_file.exists():
        _process(engine, [*program, "build"], folder / "data", index, built_file, threads=2)
    out = folder / f"{engine.name}.search.json"
    _process(engine, [*program, "search"], folder / "data", index, out, threads=1)
    return json.loads(built_file.read_text()), json.loads(out.read_text())


def _process(engine: Engine, command: list[str], data: Path, index: Path, out: Path, *, threads: int) -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{environment['PATH']}"  # ninja, for colbert-ai's extensions
    if engine.ours is not None:
        environment["OURS"] = json.dumps(dict(engine.ours))
    cores = sorted(os.sched_getaffinity(0))[:2]  # both, as batches take two threads
    full = [*command, str(data), str(index), str(out)]
    try:
        done = subprocess.run(
            full, env=environment, capture_output=True, text=True, timeout=HOUR, check=False, cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[-1]} took more than an hour") from None
    if done.returncode or not out.exists():
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{command[-1]} failed: {lines[-1][:200] if lines else done.returncode}")


def _program(engine: Engine) -> list[str]:
    if engine.crate:
        return [str(_cargo(engine))]
    if not engine.packages:
        return [sys.executable, str(RUNS / engine.script)]
    environment = CACHE / f"peers-{engine.name}"
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
        shutil.rmtree(environment, ignore_errors=True)
        _made([uv, "venv", "--quiet", "--python", "3.11", str(environment)])
        _made([uv, "pip", "install", "--quiet", "--python", str(python), *engine.packages])
        (environment / "ready").touch()
    return [str(python), str(RUNS / engine.script)]


def _cargo(engine: Engine) -> Path:
    target = CACHE / f"peers-{engine.name}"
    program = target / "release" / "run-next-plaid"
    if not program.exists():
        if not shutil.which("cargo"):
            raise Unavailable("there is no cargo to build it with")
        source = RUNS / engine.crate
        with TemporaryDirectory() as scratch:  # Cargo.lock names a registry, and is not kept
            shutil.copytree(source, Path(scratch) / "source")
            manifest = str(Path(scratch) / "source" / "Cargo.toml")
            _made(["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, "--target-dir", str(target)])
    return program


def _made(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HOUR)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(f"{Path(command[0]).name} {command[1]} failed: {lines[-1][:200] if lines else done.returncode}")


def _collected(data: Path, name: str, *, quick: bool) -> dict[str, int]:
    collection = open_collection(name, quick=quick)
    lengths: list[int] = []
    rows: list[np.ndarray] = []
    for documents, vectors in collection.blocks():
        assert len(documents) == len(vectors)
        rows += vectors
        lengths += [len(part) for part in vectors]
    queries = [Q for _, Q in collection.queries if len(Q)]
    return _written(data, np.concatenate(rows), lengths, queries)


def _synthetic(data: Path, passages: int) -> dict[str, int]:
    """Unit vectors around 4,096 skewed words and the passage's topic."""
    random = np.random.default_rng(0)
    words, topics = random.standard_normal((4096, 128)), random.standard_normal((512, 128))
    vectors = np.lib.format.open_memmap(data / "vectors.npy", "w+", np.float32, (passages * 32, 128))
    for first in range(0, passages, 10_000):
        count = min(10_000, passages - first)
        chosen = (4096 * random.random((count, 32)) ** 2).astype(int)
        rows = words[chosen] + 0.4 * topics[random.integers(512, size=count)][:, None]
        rows += 0.5 * random.standard_normal((count, 32, 128))
        rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
        vectors[32 * first : 32 * (first + count)] = rows.reshape(-1, 128)
    vectors.flush()
    asked = random.integers(passages, size=100)
    queries = [np.array(vectors[32 * n : 32 * n + 32]) + 0.05 * random.standard_normal((32, 128)) for n in asked]
    return _written(data, vectors, [32] * passages, [Q.astype(np.float32) for Q in queries])


def _written(data: Path, vectors: np.ndarray, lengths: list[int], queries: list[np.ndarray]) -> dict[str, int]:
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "queries": np.concatenate(queries).astype(np.float32),
        "query_offsets": np.concatenate([[0], np.cumsum([len(Q) for Q in queries])]).astype(np.int64),
    }
    if not (data / "vectors.npy").exists():
        np.save(data / "vectors.npy", vectors.astype(np.float32, copy=False))
        vectors.astype(np.float32, copy=False).tofile(data / "vectors.bin")
    for name, array in arrays.items():
        np.save(data / f"{name}.npy", array)
        array.tofile(data / f"{name}.bin")
    return {"passages": len(lengths), "token_vectors": len(vectors), "queries": len(queries)}


def _table(result: Mapping[str, Any]) -> str:
    columns = ("recall_at_10", "p50_ms", "p95_ms", "qps", "build_s", "bytes_per_token", "build_rss_mb", "search_rss_mb")
    lines = [f"{result['collection']}: {result['passages']} passages, {result['token_vectors']} token vectors", ""]
    lines += ["| engine | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in result["engines"].items():
        lines.append(f"| {name} | " + " | ".join(str(figures.get(column, "-")) for column in columns) + " |")
    for name, figures in result["engines"].items():
        if "batch_qps" in figures:
            rates = figures["batch_qps"]
            lines.append(
                f"{name}: opens in {1000 * figures['open_s']:.0f} ms, first answer after {figures['first_answer_s']:.2f} s, "
                f"batches {rates['1']:.0f}/s on one thread, {rates['2']:.0f}/s on two"
            )
    lines += [f"{name}: not measured: {reason}" for name, reason in result["unavailable"].items()]
    return "\n".join(lines)


def _plot(found: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    figure, axes = plt.subplots(figsize=(7, 5))
    for name, figures in found.items():
        axes.scatter(figures["p50_ms"], figures.get("recall_at_10", 1))
        axes.annotate(name, (figures["p50_ms"], figures.get("recall_at_10", 1)))
    axes.set_xscale("log")
    axes.set_xlabel("p50 ms, one thread")
    axes.set_ylabel("recall@10 against exact MaxSim")
    figure.savefig(file)


if __name__ == "__main__":
    main()
