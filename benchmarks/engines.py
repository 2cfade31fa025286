"""Local late-interaction engines on the same token vectors, one process each, pinned to the same cores.

    python -m benchmarks.engines [--quick] [--json] [--collection scifact|docs|cranfield|PATH] [--engine NAME]... [--plot FILE]
    python -m benchmarks.engines --collection docs:20000     its first 20,000 passages: how cost grows
    python -m benchmarks.engines --collection synthetic-1m    docs-100k and nine changed versions of each passage; 13 GB of disk
    python -m benchmarks.engines --synthetic 1000000          made-up vectors, 32 a passage; 8 GB of disk and the indexes

Engines build with two threads and search with one, with their defaults and then over a few efforts each: `ms_at_95` and
`ms_at_98` are the p50 of the fastest effort with this recall, `cpu_at_95` and `cpu_at_98` the mean processor time of a query
(for a machine that does other work too). recall@10 is against exact MaxSim of the vectors as given; bytes_per_token is the
index folder after building. The peers' environments are made once, in .cache/benchmarks; a peer that is not available is
listed with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.engine_data import REPEATED, repeat, write_collection, write_synthetic
from benchmarks.engine_peers import CACHE, ENGINES, HOUR, ROOT, Engine, Unavailable, program, variables
from benchmarks.engine_report import figures, plot, table
from benchmarks.vespa_collections import COLLECTIONS


@dataclass(frozen=True)
class Bench:
    """folder: has `data`, and becomes the place of the indexes. threads: of a search, and of building."""

    folder: Path
    threads: int
    build_threads: int
    token_vectors: int

    def run(self, engine: Engine) -> tuple[dict[str, Any], dict[str, Any]]:
        """What building and searching measured. Raises: Unavailable."""
        command = program(engine)
        index = self.folder / (engine.built_by or engine.name)
        built, out = self.folder / f"{index.name}.build.json", self.folder / f"{engine.name}.search.json"
        if not built.exists():
            cpu = self._process(engine, [*command, "build"], index, built, self.build_threads)
            built.write_text(json.dumps({**json.loads(built.read_text()), "cpu_s": cpu}))
        before = _out_of_memory(index)
        self._process(engine, [*command, "search"], index, out, self.threads)
        after = _out_of_memory(index)
        searched = {**json.loads(out.read_text()), "bytes_per_token": before / self.token_vectors}
        left_out = len(engine.efforts) - len(searched["efforts"])
        if left_out > 0:
            searched["efforts_left_out"] = left_out
        if after > before * 1.01:
            searched["bytes_per_token_used"] = after / self.token_vectors
        if "engine_bytes" in searched:
            searched["engine_bytes_per_token"] = searched["engine_bytes"] / self.token_vectors
        return json.loads(built.read_text()), searched

    def _process(self, engine: Engine, command: list[str], index: Path, out: Path, threads: int) -> float:
        """Its processor time, in seconds, with that of the processes it started."""
        before = _children_cpu_s()
        cores = sorted(os.sched_getaffinity(0))[: max(2, self.threads, self.build_threads)]  # batches take two threads
        more = {} if engine.ours is None else {"OURS": json.dumps(dict(engine.ours))}
        try:
            done = subprocess.run(
                [*command, str(self.folder / "data"), str(index), str(out)], env=variables(engine, threads, more), cwd=ROOT,
                capture_output=True, text=True, errors="replace", timeout=HOUR, check=False,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[-1]} took more than an hour") from None
        if done.returncode or not out.exists():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"{command[-1]} failed ({done.returncode}): {lines[-1][:200] if lines else 'nothing said'}")
        return _children_cpu_s() - before


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engine is ended and its folder removed
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        if options.synthetic:
            name, counts = f"{options.synthetic} made-up passages", write_synthetic(data, options.synthetic)
        else:
            name = options.collection
            source, times = REPEATED.get(name, (name, 1))
            counts = write_collection(data, source, quick=options.quick)
            counts = repeat(data, times) if times > 1 else counts
        bench = Bench(Path(folder), options.threads, options.build_threads, counts["token_vectors"])
        found, unavailable = _run_all(bench, _chosen(options))
    result = {"collection": name, **counts, "engines": found, "unavailable": unavailable}
    plot(found, options.plot or CACHE / f"engines-{Path(name).name.replace(' ', '-')}.png")
    print(table(result), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 20 queries")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    parser.add_argument(
        "--collection", default="scifact", help=f"{', '.join([*COLLECTIONS, *REPEATED])}, or a folder; NAME:N for its first N"
    )
    parser.add_argument("--synthetic", type=int, metavar="N", help="N made-up passages of 32 vectors")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="default: all, of a million passages ours")
    parser.add_argument("--threads", type=int, default=1, help="of a search")
    parser.add_argument("--build-threads", type=int, default=2, help="of building")
    parser.add_argument("--plot", type=Path, help="picture (needs matplotlib; default: in .cache/benchmarks)")
    options = parser.parse_args()
    whole = options.collection.partition(":")[0]
    if (
        options.synthetic is None
        and options.collection not in REPEATED
        and whole not in COLLECTIONS
        and not Path(whole).is_dir()
    ):
        parser.error(f"{options.collection} is no collection's name and no folder")
    if options.synthetic is not None and options.synthetic < 1:
        parser.error("--synthetic needs a number of at least 1")
    return options


def _chosen(options: argparse.Namespace) -> list[str]:
    asked = options.engine or (["ours"] if options.synthetic or options.collection in REPEATED else list(ENGINES))
    return ["exact", *(name for name in asked if name != "exact")]


def _run_all(bench: Bench, names: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    found: dict[str, dict[str, Any]] = {}
    unavailable: dict[str, str] = {}
    truth: list[list[int]] | None = None
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            built, searched = bench.run(ENGINES[name])
        except Unavailable as reason:
            unavailable[name] = str(reason)
            print(f"  {reason}", file=sys.stderr, flush=True)
            continue
        if name == "exact":
            truth = searched["ids"]
        found[name] = figures(built, searched, truth)
        print(f"  {json.dumps(found[name])}", file=sys.stderr, flush=True)
    return found, unavailable


def _children_cpu_s() -> float:
    """User and system time of all processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _out_of_memory(index: Path) -> int:
    """Bytes of an index's files, which are no longer in the page cache then: every engine opens from the disk."""
    total = 0
    for file in index.rglob("*"):
        if file.is_file():
            total += file.stat().st_size
            with contextlib.suppress(OSError), file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return total


if __name__ == "__main__":
    main()
