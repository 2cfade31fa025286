"""The server beside the library: latency, throughput and memory while documents are written, and what HTTP adds to one query.

    python -m benchmarks.serve [--seconds 60] [--documents N] [--clients N]... [--still] [--json FILE]

A sample of the standard library's documentation is indexed with MiniLM's bundle (both made once, in the user's cache), and
copied: for `colbert-vespa serve`, a process on a loopback port, and for the library, a process with one `Client` and as many
threads. Callers ask one text query after another, ten hits, each as soon as the last is answered; beside them one writer puts a
document every half second, through the server or a `DocumentStore`. Requests have 60 s, the longest that the server gives by
default: what 200 callers wait is their own queue. A caller who is told 429 waits as long as it is told, a second at most.

requests     answered; those of the writer are under `written`, its 429s and errors with the others
RSS          resident memory of the process before and after
of library   requests a second, divided by the library's
overhead     no writer, one caller: the same query by the library and served, in turn; median of the differences

The callers of the server are asyncio and httpx in one process on the same cores, so that their time is taken from the server's;
`caller ms` is their processor time for a request. Ends with exit code 1 where there was an error other than 429.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from colbert_vespa.cli.stdlib_docs import first_sentence, stdlib_documents
from colbert_vespa.store import DocumentStore
from exporter import ExportOptions, export
from exporter.hub import minilm_folder
from feeder import FeedOptions, start_feed
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import cache_folder
from late_interaction.documents import Document, passage_text
from query import Client

SEED = 17
HITS = 10
TIMEOUT = 60  # seconds of a request
WRITE_EVERY = 0.5  # seconds
CLIENTS = (1, 8, 200)
PAIRS = 100
NEXT_PLAID = "next-plaid's server: not built: crates.io has no crate next-plaid-api, and next-plaid is an engine without HTTP"


@dataclass
class Tally:
    """What callers saw. milliseconds: of answered requests."""

    milliseconds: list[float] = field(default_factory=list)
    busy: int = 0
    errors: int = 0
    written: int = 0
    first_error: str = ""

    def answered(self, status: int, milliseconds: float, body: str = "") -> None:
        if status == 200:
            self.milliseconds.append(milliseconds)
        elif status == 429:
            self.busy += 1
        else:
            self.failed(f"{status} {body}")

    def put(self, status: int, body: str = "") -> None:
        if status == 200:
            self.written += 1
        elif status == 429:
            self.busy += 1
        else:
            self.failed(f"put: {status} {body}")

    def failed(self, reason: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or reason[:300]


@dataclass(frozen=True)
class Run:
    """side: "server" or "library". caller_ms: processor milliseconds of the callers for a request; none of the library, which
    they are in."""

    side: str
    clients: int
    requests: int
    busy: int
    errors: int
    first_error: str
    written: int
    p50: float
    p95: float
    p99: float
    per_second: float
    rss_begin_mb: float
    rss_end_mb: float
    caller_ms: float | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of them do not exceed; nan of none."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def summed_up(
    side: str, clients: int, tally: Tally, seconds: float, rss: tuple[float, float], caller_s: float | None = None
) -> Run:
    times = tally.milliseconds
    return Run(
        side=side,
        clients=clients,
        requests=len(times),
        busy=tally.busy,
        errors=tally.errors,
        first_error=tally.first_error,
        written=tally.written,
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        p99=percentile(times, 0.99),
        per_second=len(times) / seconds,
        rss_begin_mb=rss[0],
        rss_end_mb=rss[1],
        caller_ms=None if caller_s is None else 1000 * caller_s / max(1, len(times)),
    )


def ratios(runs: Sequence[Run]) -> dict[int, float]:
    """Throughput of the server in the library's, by number of callers."""
    library = {run.clients: run.per_second for run in runs if run.side == "library"}
    served = {run.clients: run.per_second for run in runs if run.side == "server"}
    return {clients: rate / library[clients] for clients, rate in served.items() if library.get(clients)}


COLUMNS = ("callers", "requests", "429", "errors", "written", "p50 ms", "p95", "p99", "requests/s", "RSS MB begin, end",
           "of library", "caller ms")  # fmt: skip


def table(runs: Sequence[Run]) -> str:
    """As docs/performance/notes.md has it."""
    found = ratios(runs)
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for run in runs:
        ratio = f"{found[run.clients]:.2f}" if run.side == "server" and run.clients in found else ""
        caller = "" if run.caller_ms is None else f"{run.caller_ms:.1f}"
        rows.append((
            f"{run.side}, {run.clients}", f"{run.requests:,}", f"{run.busy:,}", f"{run.errors:,}", f"{run.written:,}",
            f"{run.p50:.1f}", f"{run.p95:.1f}", f"{run.p99:.1f}", f"{run.per_second:.1f}",
            f"{run.rss_begin_mb:.0f}, {run.rss_end_mb:.0f}", ratio, caller,
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def resident_mb(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def made_index(documents: Sequence[Document]) -> Path:
    """Kept, by the documents."""
    kept = cache_folder() / "benchmarks" / "serve"
    kept.mkdir(parents=True, exist_ok=True)
    if not (kept / "bundle").is_dir():
        sample = [passage_text(d.title, d.text) for d in documents[:2_000]]
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            export(minilm_folder(), Path(scratch) / "bundle", ExportOptions(quantize=("int8",), sample=sample))
            (Path(scratch) / "bundle").rename(kept / "bundle")
    index = kept / f"index-{len(documents)}-{platform.python_version()}"
    if not index.is_dir():
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            options = FeedOptions(
                to=str(Path(scratch) / "index"), bundle=Bundle.open(kept / "bundle"), journal=Path(scratch) / "journal"
            )
            with start_feed([documents], options) as run:
                summary = run.go()
            if summary.acknowledged != len(documents):
                sys.exit(f"fed {summary.acknowledged} of {len(documents)} documents")
            (Path(scratch) / "index").rename(index)
    return index


def texts_and_documents(count: int, *, still: bool = False) -> tuple[list[str], list[Document], list[Document]]:
    """Queries, what is indexed, and what is written meanwhile (nothing, where `still`): a seeded sample, shuffled."""
    every = [d for d in stdlib_documents() if not d.blank]
    random.Random(SEED).shuffle(every)
    indexed, rest = every[:count], [] if still else every[count:] or every
    queries = [first_sentence(document.text)[0] for document in every]
    return [text for text in queries if len(text.split()) >= 4], indexed, rest


@contextlib.contextmanager
def served(index: Path, log: Path) -> Iterator[tuple[str, int]]:
    """The server's URL and process id, when it is ready."""
    command = [sys.executable, "-m", "colbert_vespa", "serve", f"docs={index}", "--port", "0"]
    with log.open("w") as out, subprocess.Popen(command, stderr=out) as process:
        try:
            yield _ready(process, log), process.pid
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        _, there, url = log.read_text().partition("docs at ")
        if there and "\n" in url:
            address = url.split()[0]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/ready").status_code == 200:
                    return address
        time.sleep(0.1)
    sys.exit(f"the server did not start: {log.read_text()[-2000:]}")


async def ask_server(url: str, clients: int, seconds: float, queries: Sequence[str], written: Sequence[Document]) -> Tally:
    tally = Tally()
    limits = httpx.Limits(max_connections=clients + 1, max_keepalive_connections=clients + 1)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT + 10, limits=limits) as caller:
        end = time.perf_counter() + seconds

        async def asking(number: int) -> None:
            place = number * 37
            while time.perf_counter() < end:
                body = {"query": queries[place % len(queries)], "k": HITS, "timeout": TIMEOUT}
                place += 1
                start = time.perf_counter()
                try:
                    got = await caller.post("/v1/search", json=body)
                except httpx.HTTPError as error:
                    tally.failed(repr(error))
                    continue
                tally.answered(got.status_code, 1000 * (time.perf_counter() - start), "" if got.is_success else got.text)
                if got.status_code == 429:
                    await asyncio.sleep(min(1.0, float(got.headers.get("Retry-After", 1))))

        async def writing() -> None:
            place = 0
            while written and (start := time.perf_counter()) < end:
                document = written[place % len(written)]
                body = {"title": document.title, "text": document.text, "metadata": dict(document.metadata)}
                place += 1
                try:
                    headers = {"X-Timeout": str(TIMEOUT)}
                    got = await caller.put(f"/v1/indexes/docs/documents/{document.id}", json=body, headers=headers)
                    tally.put(got.status_code, got.text)
                except httpx.HTTPError as error:
                    tally.failed(repr(error))
                await asyncio.sleep(max(0.0, min(end, start + WRITE_EVERY) - time.perf_counter()))

        await asyncio.gather(writing(), *map(asking, range(clients)))
    return tally


def ask_library(
    client: Client, index: Path, clients: int, seconds: float, queries: Sequence[str], written: Sequence[Document]
) -> Tally:
    tally, lock = Tally(), threading.Lock()
    end = time.perf_counter() + seconds

    def asking(number: int) -> None:
        place = number * 37
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                client.search(queries[place % len(queries)], HITS, timeout=TIMEOUT)
                with lock:
                    tally.answered(200, 1000 * (time.perf_counter() - start))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                with lock:
                    tally.failed(repr(error))
            place += 1

    def writing() -> None:
        store, place = DocumentStore(index), 0
        while written and (start := time.perf_counter()) < end:
            failed = store.put([written[place % len(written)]]).failed
            place += 1
            with lock:
                tally.put(500 if failed else 200, str(failed))
            time.sleep(max(0.0, min(end, start + WRITE_EVERY) - time.perf_counter()))
        store.close()

    threads = [threading.Thread(target=asking, args=(number,)) for number in range(clients)]
    threads.append(threading.Thread(target=writing))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def library_child(index: Path, clients: int, seconds: float, count: int, *, still: bool) -> None:
    """In a process of its own, as the server is."""
    queries, _, written = texts_and_documents(count, still=still)
    with Client(index) as client:
        for text in queries[:20]:
            client.search(text, HITS)
        begin, start = resident_mb(), time.perf_counter()
        tally = ask_library(client, index, clients, seconds, queries, written)
        took = time.perf_counter() - start
    print(json.dumps(asdict(summed_up("library", clients, tally, took, (begin, resident_mb())))))


def overhead(url: str, index: Path, queries: Sequence[str], pairs: int) -> dict[str, float]:
    """p50 milliseconds: by the library, served, and of the differences of the same query; the first tenth warms both up. The
    exchange is http.client's, whose own time is small, and ends when the answer's bytes are here."""
    library: list[float] = []
    over: list[float] = []
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=TIMEOUT)
    with Client(index) as client:
        for number in range(pairs + pairs // 10):
            text = queries[number % len(queries)]
            body = json.dumps({"query": text, "k": HITS})

            def by_library(text: str = text) -> None:
                client.search(text, HITS)

            def by_server(body: str = body) -> None:
                connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if answer.status != 200:
                    sys.exit(f"overhead: {answer.status} {answer.read()[:300]!r}")
                answer.read()

            turns = [(library, by_library), (over, by_server)]
            for times, run in turns if number % 2 else reversed(turns):
                start = time.perf_counter()
                run()
                times.append(1000 * (time.perf_counter() - start))
    connection.close()
    first = pairs // 10
    library, over = library[first:], over[first:]
    differences = [slow - fast for slow, fast in zip(over, library, strict=True)]
    return {"library_ms": statistics.median(library), "served_ms": statistics.median(over),
            "overhead_ms": statistics.median(differences)}  # fmt: skip


def measure(seconds: float, count: int, clients: Sequence[int], *, still: bool) -> dict[str, object]:
    queries, indexed, written = texts_and_documents(count, still=still)
    index = made_index(indexed)
    runs: list[Run] = []
    load_begin = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="serve-", dir=index.parent) as scratch:
        copy, log = Path(scratch) / "served", Path(scratch) / "log"
        shutil.copytree(index, copy)
        with served(copy, log) as (url, pid):
            extra = overhead(url, copy, queries, PAIRS)
            for number in clients:
                asyncio.run(ask_server(url, min(number, 8), 1.0, queries, written[:1]))
                before, busy = resident_mb(pid), time.process_time()
                start = time.perf_counter()
                tally = asyncio.run(ask_server(url, number, seconds, queries, written))
                elapsed, caller_s = time.perf_counter() - start, time.process_time() - busy
                runs.append(summed_up("server", number, tally, elapsed, (before, resident_mb(pid)), caller_s))
                called = Path(scratch) / f"called-{number}"
                shutil.copytree(index, called)
                runs.append(_library(called, number, seconds, count, still=still))
                print(table(runs[-2:]).split("\n", 2)[2], file=sys.stderr, flush=True)
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "load_begin": load_begin,
        "load_end": os.getloadavg(),
        "seconds": seconds,
        "still": still,
        "documents": len(indexed),
        "runs": [asdict(run) for run in runs],
        "of_library": ratios(runs),
        "overhead": extra,
        "next_plaid": NEXT_PLAID,
    }


def _library(index: Path, clients: int, seconds: float, count: int, *, still: bool) -> Run:
    command = [sys.executable, "-m", "benchmarks.serve", "--child", str(index), str(clients), "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--documents", str(count), *["--still"] * still], stdout=subprocess.PIPE, text=True, check=True
    )
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--documents", type=int, default=2_000, help="in the index")
    parser.add_argument("--clients", type=int, action="append", help="callers at once; default: 1, 8 and 200")
    parser.add_argument("--still", action="store_true", help="write nothing meanwhile, so that both sides do the same work")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        library_child(Path(options.child[0]), int(options.child[1]), options.seconds, options.documents, still=options.still)
        return
    found = measure(options.seconds, options.documents, options.clients or CLIENTS, still=options.still)
    runs = [Run(**run) for run in found["runs"]]  # type: ignore[attr-defined]
    print(report(found, runs))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(failed(runs))


def report(found: dict[str, object], runs: Sequence[Run]) -> str:
    extra = found["overhead"]
    assert isinstance(extra, dict)
    lines = [
        f"{found['machine']}; load average {_loads(found['load_begin'])} at the begin, {_loads(found['load_end'])} at the end",
        f"{found['documents']:,} documents, {found['seconds']:g} s a run\n",
        table(runs),
        "\noverhead {overhead_ms:.2f} ms p50 (library {library_ms:.2f}, served {served_ms:.2f})".format(**extra),
        str(found["next_plaid"]),
        *(f"{run.side}, {run.clients}: first error: {run.first_error}" for run in runs if run.errors),
    ]
    return "\n".join(lines)


def _loads(values: object) -> str:
    assert isinstance(values, Sequence)
    return ", ".join(f"{value:.1f}" for value in values)


def failed(runs: Sequence[Run]) -> int:
    """The exit code."""
    return int(any(run.errors for run in runs))


if __name__ == "__main__":
    main()
