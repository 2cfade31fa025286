"""What the query client takes, stage by stage, beside the encoder: no Vespa is needed, a small server gives a canned answer.

    python -m benchmarks.query [--quick] [--json] [--bundle FOLDER]

    encode      one query text, by precision of the bundle
    lookup      the 32 centroids nearest to each query row
    request     a request of candidates `centroid` with them (32 probes), as bytes, the look-up taken off
    overhead    a search from ready rows, less what the look-up took in it and less a bare socket's exchange of the same bytes;
                overhead_cpu is the same in processor time of the client's thread, for a machine that does other things too

All are medians in milliseconds. Without --bundle MiniLM is exported with int8, once, into .cache/benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from colbert_vespa.cli.stdlib_docs import first_sentence, stdlib_documents
from exporter import ExportOptions, export
from exporter.codebooks import add_codebook
from exporter.hub import minilm_folder
from late_interaction.bundle import Bundle
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from query import AsyncClient, Client
from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_request import search_request
from vespa_app.candidates import StrategyRequest
from vespa_app.codecs import bundle_codebooks, codebook_sha256
from vespa_app.running import Description
from vespa_app.settings import AppSettings

CACHE = Path(".cache/benchmarks/query-bundle")
HITS = 10
DESCRIPTION = "/document/v1/"


def made_bundle() -> Bundle:
    texts = [passage_text(d.title, d.text) for d in stdlib_documents()]
    if not CACHE.is_dir():
        export(minilm_folder(), CACHE, ExportOptions(quantize=("int8",), sample=texts, force=True))
    bundle = Bundle.open(CACHE)
    if not bundle.manifest.codebooks:
        bundle = add_codebook(bundle, texts, Encoder(bundle, precision="int8"))
    return bundle


def canned_answer() -> bytes:
    fields = {
        "document_id": "d",
        "title": "A title of some words",
        "text": "word " * 120,
        "present": [],
        "sddocname": "passage",
    }
    hits = [
        {"id": f"index:content/0/{n}", "relevance": 20.0 - n, "source": "content",
         "fields": {**fields, "id": f"d{n}#0", "matchfeatures": {"firstPhase": 12.5}}}
        for n in range(HITS)
    ]  # fmt: skip
    root = {"relevance": 1.0, "fields": {"totalCount": 5000}, "children": hits,
            "coverage": {"coverage": 100, "documents": 5000, "full": True, "nodes": 1}}  # fmt: skip
    return json.dumps({"timing": {"querytime": 0.0, "summaryfetchtime": 0.0, "searchtime": 0.0}, "root": root}).encode()


def serve(listener: socket.socket, description: bytes, answer: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_one, args=(connection, description, answer), daemon=True).start()


def serve_one(connection: socket.socket, description: bytes, answer: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            if not (more := connection.recv(1 << 16)):
                return
            waiting += more
        head, _, waiting = waiting.partition(b"\r\n\r\n")
        lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while len(waiting) < sum(lengths):
            waiting += connection.recv(1 << 16)
        waiting = waiting[sum(lengths) :]
        connection.sendall(http(description if head.startswith(b"GET") else answer))


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def median_ms(run: Callable[[], object], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    for _ in range(max(3, rounds // 10)):
        run()
    taken = []
    for _ in range(rounds):
        start = clock()
        run()
        taken.append(clock() - start)
    return 1000 * statistics.median(taken)


def bare_exchange(port: int, sent: int, answer: bytes) -> Callable[[], None]:
    """POSTs as many bytes as the client's request has, and reads the answer, over one open connection."""
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = b"POST /search/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % sent + b"x" * sent
    wanted = len(http(answer))

    def exchange() -> None:
        plain.sendall(request)
        left = wanted
        while left:
            left -= len(plain.recv(left))

    return exchange


def encode_times(bundle: Bundle, rounds: int) -> dict[str, float]:
    texts = [first_sentence(d.text)[0] for d in list(stdlib_documents())[:rounds]]
    found = {}
    for precision in bundle.manifest.models:
        encoder = Encoder(bundle, precision=precision)
        source = iter(texts * 3)
        found[precision] = median_ms(lambda encoder=encoder, source=source: encoder.encode_queries([next(source)]), rounds)  # type: ignore[misc]
    return found


def measure(bundle: Bundle, rounds: int) -> dict[str, object]:
    dim, rows = bundle.manifest.dim, 32
    settings = AppSettings(dim=dim, query_rows=rows, candidates=("centroid", "exhaustive"))
    description = Description(settings, bundle.sha256, codebook_sha256(bundle))
    told = json.dumps({"fields": {"description": json.dumps(description.to_json())}}).encode()
    answer = canned_answer()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = multiprocessing.get_context("fork").Process(target=serve, args=(listener, told, answer), daemon=True)
    server.start()
    try:
        Q = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
        Q /= np.linalg.norm(Q, axis=1, keepdims=True)
        books = bundle_codebooks(bundle)
        assert books.codebook is not None
        codebook = books.codebook
        lookup = median_ms(lambda: codebook.lookup.lists(Q, settings.probes), rounds)
        question, options = EncodedQuery(Q, "x"), SearchOptions(HITS)

        def request() -> bytes:
            body = search_request(description, books, question, options, "centroid").body(["passage"])
            return json.dumps(body, separators=(",", ":")).encode()

        whole_request = median_ms(request, rounds)
        bare = median_ms(bare_exchange(port, len(request()), answer), rounds)
        url = f"http://127.0.0.1:{port}"
        with Client(url, bundle) as client:
            search = median_ms(lambda: client.search(Q, HITS), rounds)
            overhead = without_lookups(lambda: client.search(Q, HITS), rounds, time.perf_counter) - bare
            overhead_cpu = without_lookups(lambda: client.search(Q, HITS), rounds, time.thread_time)
        searched = asyncio.run(async_ms(url, bundle, Q, rounds))
    finally:
        server.kill()
        server.join()
    return {
        "centroids": codebook.size,
        "request_bytes": len(request()),
        "lookup_ms": lookup,
        "request_ms": whole_request - lookup,
        "bare_exchange_ms": bare,
        "search_ms": search,
        "overhead_ms": overhead,
        "overhead_cpu_ms": overhead_cpu,
        "async_overhead_ms": searched - bare,
    }


@contextmanager
def timed_lookups(clock: Callable[[], float]) -> Iterator[list[float]]:
    """Seconds of each look-up where the client makes it."""
    found: list[float] = []
    lists = StrategyRequest.__dict__["lists"]
    plain = lists.func

    def timed(request: StrategyRequest) -> object:
        start = clock()
        try:
            return plain(request)
        finally:
            found.append(clock() - start)

    lists.func = timed
    try:
        yield found
    finally:
        lists.func = plain


def without_lookups(search: Callable[[], object], rounds: int, clock: Callable[[], float]) -> float:
    """Median milliseconds of a search, its look-up taken off."""
    taken = []
    with timed_lookups(clock) as lookups:
        for _ in range(rounds + 20):
            lookups.clear()
            start = clock()
            search()
            taken.append(clock() - start - sum(lookups))
    return 1000 * statistics.median(taken[20:])


async def async_ms(url: str, bundle: Bundle, Q: np.ndarray, rounds: int) -> float:
    taken = []
    with timed_lookups(time.perf_counter) as lookups:
        async with AsyncClient(url, bundle) as client:
            for _ in range(rounds + 10):
                lookups.clear()
                start = time.perf_counter()
                await client.search(Q, HITS)
                taken.append(time.perf_counter() - start - sum(lookups))
    return 1000 * statistics.median(taken[10:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    parser.add_argument("--bundle", type=Path, help="a bundle with a codebook")
    arguments = parser.parse_args()
    out = sys.stderr if arguments.json else sys.stdout
    bundle = Bundle.open(arguments.bundle) if arguments.bundle else made_bundle()
    rounds = 100 if arguments.quick else 1000
    result = measure(bundle, rounds) | {"encode_ms": encode_times(bundle, min(rounds, 200))}
    for name, value in result.items():
        print(f"{name:20} {value if not isinstance(value, float) else f'{value:.3f}'}", file=out)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
