"""Feeding: operations a second beside pyvespa and Vespa's own command line, memory over a million, and what the encoder loses.

    python -m benchmarks.feed [--quick] [--json] [--part accept|memory|node|encoder]...

accept   the same ready-made operations to a local server that accepts everything (accept_all/, needs Go): ours, pyvespa's
         feed_async_iterable and the `vespa feed` binary in turn, medians of three; beside them what the server takes from a
         load generator (h2load, where there is one) and its processor time for an operation: it is not the limit
memory   a million operations to that server: resident memory after 100,000 and at the end
node     the same to the node of COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL, where what is deployed is replaced
encoder  the encoder pinned to one core, alone and in a feed to the server that accepts everything, in turn; and a feed that
         encodes in its own process beside one with two encoding processes

The binary is COLBERT_VESPA_CLI, else `vespa` or /opt/vespa/bin/vespa. An operation is a passage of 100 token vectors of 128
bits (5 kB), with `--codec bfloat16` of as many bytes as that has (53 kB).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feeder.sending.jobs import Job
from feeder.sending.operations import put
from feeder.sending.sender import open_sender
from late_interaction.bundle_cache import cache_folder

HERE = Path(__file__).parent
ROUNDS = 3
WARM_UP, WARM_UPS = 10_000, 10  # operations, and how often at most
SCHEMA, NAMESPACE = "passage", "colbert"
TOKENS, DIM = 100, 128
CELLS = {"binary": DIM // 8, "bfloat16": 2 * DIM}  # bytes of a token vector
FEEDERS = ("ours", "pyvespa", "vespa feed")


def operations(count: int, codec: str, distinct: int = 512) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and fields; of `distinct` different contents."""
    source = random.Random(0)
    words = [f"word{number}" for number in range(500)]
    made = []
    for _ in range(distinct):
        cells = source.randbytes(TOKENS * CELLS[codec]).hex() if codec == "binary" else _bfloat16(source)
        width = 2 * CELLS[codec]
        blocks = {str(row): cells[row * width : (row + 1) * width] for row in range(TOKENS)}
        text = " ".join(source.choices(words, k=80))
        made.append({"title": text[:40], "text": text, "present": [], "digest": "", "vectors": {"blocks": blocks}})
    for number in range(count):
        id_ = f"d{number}#0"
        yield id_, {"id": id_, "document_id": f"d{number}", **made[number % distinct]}


def _bfloat16(source: random.Random) -> str:
    matrix = np.random.default_rng(source.randrange(1 << 30)).standard_normal((TOKENS, DIM)).astype(np.float32)
    return (matrix.view(np.uint32) >> 16).astype(">u2").tobytes().hex()


def feed_ours(url: str, made: Sequence[tuple[str, dict[str, Any]]]) -> None:
    sender = open_sender(url)
    failed = 0
    for number, (id_, fields) in enumerate(made):
        path = f"/document/v1/{NAMESPACE}/{SCHEMA}/docid/{id_.replace('#', '%23')}"
        sender.submit(Job(id_, [[put(path, fields)]]))
        if number % 256 == 0:
            failed += sum(job.failure is not None for job in sender.settled())
    failed += sum(job.failure is not None for job in sender.settled(wait=True))
    sender.close()
    if failed:
        sys.exit(f"{failed} operations failed")


def feed_pyvespa(url: str, made: Sequence[tuple[str, dict[str, Any]]]) -> None:
    from vespa.application import Vespa

    failed = []
    address, _, port = url.rpartition(":")
    app = Vespa(url=address, port=int(port))
    app.feed_async_iterable(
        ({"id": id_, "fields": fields} for id_, fields in made),
        schema=SCHEMA,
        namespace=NAMESPACE,
        callback=lambda response, id_: None if response.status_code == 200 else failed.append(response),
    )
    if failed:
        sys.exit(f"{len(failed)} operations failed: {failed[0].json}")


def feed_binary(url: str, file: Path) -> tuple[float, float]:
    """Seconds that it feeds by its own account, and of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([_binary(), "feed", "--target", url, str(file)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    if said["feeder.ok.count"] != said["feeder.operation.count"]:
        sys.exit(f"vespa feed: {said}")
    return said["feeder.seconds"], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _binary() -> str:
    return os.environ.get("COLBERT_VESPA_CLI") or shutil.which("vespa") or "/opt/vespa/bin/vespa"


def child(feeder: str, url: str, count: int, codec: str) -> None:
    """One contestant in a process of its own; operations are made before the clock starts."""
    made = list(operations(count, codec))
    start, cpu = time.perf_counter(), time.process_time()
    (feed_ours if feeder == "ours" else feed_pyvespa)(url, made)
    print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}))


def run_child(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.feed", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def accepting(described: str = "{}") -> Iterator[tuple[str, int]]:
    """The server that accepts everything: its address and process id."""
    if shutil.which("go") is None:
        sys.exit("the server that accepts everything needs Go (https://go.dev)")
    server = cache_folder() / "benchmarks" / "accept_all"
    server.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-o", str(server), "."], cwd=HERE / "accept_all", check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as answer:
        answer.write(described)
        answer.flush()
        process = subprocess.Popen([str(server), answer.name], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()
            process.wait()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_turn(url: str, count: int, codec: str, rounds: int) -> dict[str, object]:
    """The contestants one after the other, each round begun by the next of them; medians."""
    feeders = [name for name in FEEDERS if name != "vespa feed" or Path(_binary()).exists()]
    seconds: dict[str, list[float]] = {name: [] for name in feeders}
    cpu: dict[str, list[float]] = {name: [] for name in feeders}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "operations.jsonl"
        with file.open("w") as out:
            for id_, fields in operations(count, codec):
                out.write(json.dumps({"put": f"id:{NAMESPACE}:{SCHEMA}::{id_}", "fields": fields}) + "\n")
        for number in range(rounds):
            for name in feeders[number % len(feeders) :] + feeders[: number % len(feeders)]:
                if name == "vespa feed":
                    took, busy = feed_binary(url, file)
                else:
                    found = run_child("--child", name, url, str(count), "--codec", codec)
                    took, busy = found["seconds"], found["cpu"]
                seconds[name].append(took)
                cpu[name].append(busy)
    rates = {name: count / statistics.median(times) for name, times in seconds.items()}
    return {
        "operations": count,
        "rounds": rounds,
        "per_second": rates,
        "client_cpu_us": {name: 1e6 * statistics.median(times) / count for name, times in cpu.items()},
        "times_others": {name: rates["ours"] / rate for name, rate in rates.items() if name != "ours"},
    }


def accept(*, quick: bool, codec: str) -> dict[str, object]:
    count, rounds = (4_000, 1) if quick else (20_000, ROUNDS)
    with accepting() as (url, pid):
        busy = processor_seconds(pid)
        found = in_turn(url, count, codec, rounds)
        served = (processor_seconds(pid) - busy) / (3 * rounds * count)
        return found | {"server_cpu_us": 1e6 * served, "h2load_per_second": _h2load(url, count, codec)}


def _h2load(url: str, count: int, codec: str) -> float | None:
    """What the server takes of a load generator written in C, on as few connections."""
    if shutil.which("h2load") is None:
        return None
    with tempfile.NamedTemporaryFile() as body:
        _, fields = next(operations(1, codec))
        body.write(json.dumps({"fields": fields}).encode())
        body.flush()
        command = ["h2load", "-n", str(5 * count), "-c", "8", "-m", "32", "-d", body.name, f"{url}/document/v1/x"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"finished in [^,]+, ([\d.]+) req/s", done.stdout)
    return float(found[1]) if found else None


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(*, quick: bool, codec: str) -> dict[str, object]:
    count = 100_000 if quick else 1_000_000
    first = count // 10
    with accepting() as (url, _):
        sender = open_sender(url)
        at_first = 0.0
        for number, (id_, fields) in enumerate(operations(count, codec)):
            sender.submit(Job(id_, [[put(f"/document/v1/{NAMESPACE}/{SCHEMA}/docid/{number}", fields)]]))
            if number % 256 == 0:
                sender.settled()
            if number == first:
                at_first = resident_mb()
        sender.settled(wait=True)
        at_end = resident_mb()
        sender.close()
    return {"operations": count, f"mb_after_{first}": at_first, "mb_at_end": at_end}


def node(*, quick: bool, codec: str) -> dict[str, object]:
    url, config_url = os.environ.get("COLBERT_VESPA_URL"), os.environ.get("COLBERT_VESPA_CONFIG_URL")
    if not url or not config_url:
        sys.exit("COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL name no Vespa node")
    _deploy(url, config_url, codec)
    count, rounds = (2_000, 1) if quick else (5_000, ROUNDS)
    warm_up(url, codec)
    return in_turn(url, count, codec, rounds)


def warm_up(url: str, codec: str) -> None:
    """Until the node takes no more than a tenth more than before: a container that has just started compiles its code on the
    way, and takes three times as many operations a second after some fifty thousand."""
    best = 0.0
    for _ in range(WARM_UPS):
        rate = WARM_UP / run_child("--child", "ours", url, str(WARM_UP), "--codec", codec)["seconds"]
        if rate < 1.1 * best:
            return
        best = rate


def _deploy(url: str, config_url: str, codec: str) -> None:
    import dataclasses

    from benchmarks.node import CLUSTER, replace_application
    from benchmarks.vespa_collections import open_collection
    from late_interaction.metadata import MetadataSchema
    from vespa_app import default_settings

    bundle = open_collection("cranfield", quick=True).bundle
    chosen = default_settings(bundle, MetadataSchema({}), codec=codec, candidates=("exhaustive",))
    settings = dataclasses.replace(chosen, schema=SCHEMA, namespace=NAMESPACE, embedder=False, cluster=CLUSTER)
    replace_application(bundle, settings, url, config_url)


class Pinned:
    """An encoder of one thread, whose calls run on the first core."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.bundle, self.precision = encoder.bundle, encoder.precision

    def encode_documents(self, texts: Sequence[str], rows: Any = None) -> Any:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            return self._encoder.encode_documents(texts, rows)
        finally:
            os.sched_setaffinity(0, cores)


def encoder(*, quick: bool, codec: str) -> dict[str, object]:
    """Documents a second. alone: batches as the feed makes them, tokenized and encoded on the first core with nothing beside
    them. fed: the same in a feed. here, workers: a feed as it is by default, and with two encoding processes."""
    from benchmarks.vespa_collections import open_collection
    from feeder.encoding.batches import HereEncoding, Text
    from feeder.encoding.passages import Splitting
    from feeder.feeding.pipeline import BATCH
    from late_interaction.encoder import Encoder
    from late_interaction.metadata import MetadataSchema
    from vespa_app import default_settings
    from vespa_app.running import Description

    collection = open_collection("cranfield", quick=True)
    count, rounds = (200, 1) if quick else (1200, ROUNDS)
    texts = [(document.title, document.text) for document in collection.documents[:count]]
    settings = default_settings(collection.bundle, MetadataSchema({}), codec=codec, candidates=("exhaustive",))
    described = Description(settings, collection.bundle.sha256, None).to_json()
    pinned = Pinned(Encoder(collection.bundle, precision="int8", threads=1))
    two = Encoder(collection.bundle, precision="int8", threads=2)
    encoding = HereEncoding(Splitting(), two.tokenizing, pinned)
    seconds: dict[str, list[float]] = {"alone": [], "fed": [], "here": [], "workers": []}
    with accepting(json.dumps({"fields": {"description": json.dumps(described)}})) as (url, _):
        for _ in range(rounds):
            start = time.perf_counter()
            for first in range(0, len(texts), BATCH):
                encoding.submit([Text(*item) for item in texts[first : first + BATCH]]).result()
            seconds["alone"].append(time.perf_counter() - start)
            seconds["fed"].append(_fed(url, texts, bundle=collection.bundle, encoder=pinned))
            seconds["here"].append(_fed(url, texts, bundle=collection.bundle, encoder=two))
            seconds["workers"].append(_fed(url, texts, bundle=collection.bundle, workers=2))
    encoding.close()
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    return {"documents": len(texts), "documents_per_second": rates, "kept": rates["fed"] / rates["alone"]}


def _fed(url: str, texts: Sequence[tuple[str, str]], **options: Any) -> float:
    """Seconds of a feed, with the start of its processes."""
    from feeder import FeedOptions, start_feed
    from late_interaction.documents import Document

    documents = [Document(f"d{number}", title, text) for number, (title, text) in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        wanted = FeedOptions(to=url, journal=Path(folder) / "journal", **options)
        with start_feed([documents], wanted) as run:
            start = time.perf_counter()
            summary = run.go()
            took = time.perf_counter() - start
    if summary.acknowledged != len(documents):
        sys.exit(f"fed {summary.acknowledged} of {len(documents)} documents")
    return took


PARTS = {"accept": accept, "memory": memory, "node": node, "encoder": encoder}


def shown(value: object) -> object:
    """Three significant digits."""
    if isinstance(value, Mapping):
        return {name: shown(item) for name, item in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of fewer operations")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--codec", choices=CELLS, default="binary")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1], int(options.child[2]), options.codec)
        return
    found: dict[str, object] = {}
    for name in options.part or PARTS:
        found[name] = PARTS[name](quick=options.quick, codec=options.codec)
        print(name, json.dumps(shown(found[name])), file=sys.stderr, flush=True)
    print(json.dumps(found) if options.json else json.dumps(shown(found), indent=1))


if __name__ == "__main__":
    main()
