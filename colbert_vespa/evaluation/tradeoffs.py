"""Measure quality, bytes and latency over codecs, pooling and candidates, each on a local index built for it."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.evaluation.metrics import Metric, percentile
from colbert_vespa.evaluation.plots import new_figure, save_figure
from late_interaction.bundle import Bundle, Pooling
from late_interaction.documents import Document, Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.pooling import pool
from late_interaction.progress import StepReport
from late_interaction.tokenizing import Tokenizing, row_token_ids
from late_interaction.vector_cache import DocumentEncoder
from query import Client

__all__ = [
    "CANDIDATES",
    "POOLINGS",
    "STORAGES",
    "Point",
    "Tradeoffs",
    "built_index",
    "measure_tradeoffs",
    "plot_tradeoffs",
]

STORAGES = (
    Storage("float32"),
    Storage("residual", 4),
    Storage("residual", 2),
    Storage("residual", 1),
    Storage("binary"),
)
POOLINGS = (1, 2, 3)
CANDIDATES = ("centroid", "exhaustive", "bm25", "hybrid")
NDCG = Metric("ndcg", 10)
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of storage and search.

    Attributes:
        codec: Name of the codec with its bits, as `residual4`.
        bytes_per_passage: Bytes of codes, residuals and inverted lists.
        build_s: Seconds to build the index from ready vectors.
        p50_ms: Median milliseconds of a search, encoding of the query included.
        p95_ms: 95th percentile of the same.
        by_bytes: Whether no other point has more quality for as few bytes.
        by_latency: Whether no other point has more quality for as little latency.
    """

    codec: str
    pooling: int
    candidates: str
    ndcg_at_10: float
    bytes_per_passage: float
    build_s: float
    p50_ms: float
    p95_ms: float
    by_bytes: bool = False
    by_latency: bool = False


@dataclass(frozen=True)
class Tradeoffs:
    """Quality, size and latency of each combination of storage and search on one collection."""

    collection: str
    passages: int
    queries: int
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, object]:
        """Return the result as it is written to JSON."""
        return asdict(self)


def measure_tradeoffs(
    encoder: DocumentEncoder,
    judged: Judged,
    *,
    storages: Sequence[Storage] = STORAGES,
    poolings: Sequence[int] = POOLINGS,
    candidates: Sequence[str] = CANDIDATES,
    step: StepReport | None = None,
) -> Tradeoffs:
    """Measure quality, size and latency of each combination of storage, pooling and candidates.

    Each index trains a codebook on its own vectors, so that bits can differ.

    Args:
        encoder: Encodes documents and queries.
        judged: Documents, queries and judgements.
        storages: Codecs to measure.
        poolings: Pool factors to measure, on top of the bundle's own.
        candidates: Strategies to search with.
        step: Called with the progress of each step.

    Returns:
        One point for each combination.
    """
    say = step or (lambda _what, _done, _total: None)
    points: list[Point] = []
    total = len(storages) * len(poolings)
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch:
        for factor in poolings:
            for storage in storages:
                folder = Path(scratch) / f"{storage.codec}{storage.bits or ''}-{factor}"
                points += _measured(folder, encoder, judged, storage, factor, candidates)
                say("indexes", len(points) // len(candidates), total)
    bytes_front = front([(p.bytes_per_passage, p.ndcg_at_10) for p in points])
    time_front = front([(p.p50_ms, p.ndcg_at_10) for p in points])
    marked = tuple(
        dataclasses.replace(point, by_bytes=place in bytes_front, by_latency=place in time_front)
        for place, point in enumerate(points)
    )
    return Tradeoffs(judged.name, len(judged.documents), len(judged.queries), marked)


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the places of (cost, quality) that no other point dominates."""
    best, found = -np.inf, set()
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if points[place][1] > best:
            best = points[place][1]
            found.add(place)
    return found


def _measured(
    folder: Path, encoder: DocumentEncoder, judged: Judged, storage: Storage, factor: int, candidates: Sequence[str]
) -> list[Point]:
    index, seconds = built_index(folder, encoder, judged.documents, storage, factor)
    per_passage = index.bytes_per_token * index.token_vectors / len(judged.documents)
    codec = f"{storage.codec}{index.bits or ''}"
    points = []
    with Client(str(folder)) as client:
        for name in candidates:
            ndcg, p50, p95 = _asked(client, judged, name)
            points.append(Point(codec, factor, name, ndcg, per_passage, seconds, p50, p95))
    return points


def built_index(
    folder: Path, encoder: DocumentEncoder, documents: Sequence[Document], storage: Storage, factor: int
) -> tuple[LocalIndex, float]:
    """Return the index, and the seconds it took to build from ready vectors."""
    index = LocalIndex.create(
        folder, bundle=without_parts(encoder.bundle), schema=MetadataSchema({}), codec=storage.codec, bits=storage.bits
    )
    seconds = 0.0
    pooling = Pooling(factor)
    tokenizing, merged = Tokenizing(encoder.bundle), encoder.bundle.manifest.pooling or (pooling if factor > 1 else None)
    with index.writer() as writer:
        for first in range(0, len(documents), BLOCK):
            passages = [Passage.of(dataclasses.replace(document, metadata={})) for document in documents[first : first + BLOCK]]
            tokens = tokenizing.documents([passage.encoded_text for passage in passages])
            vectors = encoder.encode_documents([passage.encoded_text for passage in passages], tokens)
            start = time.perf_counter()
            for passage, D, rows in zip(passages, vectors, tokens, strict=True):
                writer.put(passage, D if factor == 1 else pool(D, pooling), row_token_ids(rows, merged))
            seconds += time.perf_counter() - start
        start = time.perf_counter()
        writer.commit()
    return index, seconds + time.perf_counter() - start


def without_parts(bundle: Bundle) -> Bundle:
    """Return the bundle with token vectors alone.

    A codebook would determine the bits of an index, and a dense model would need vectors.
    """
    manifest = bundle.manifest
    parts = {*manifest.codebooks.values(), *(name for part in manifest.dense.values() for name in part.files)}
    files = {name: entry for name, entry in manifest.files.items() if name not in parts}
    return dataclasses.replace(bundle, manifest=dataclasses.replace(manifest, codebooks={}, dense={}, files=files))


def _asked(client: Client, judged: Judged, candidates: str) -> tuple[float, float, float]:
    """Return nDCG@10, and p50 and p95 in milliseconds."""
    client.search(judged.queries[0].text, 10, candidates=candidates)  # loads and compiles
    rankings, seconds = {}, []
    for query in judged.queries:
        start = time.perf_counter()
        found = client.search(query.text, 10, candidates=candidates)
        seconds.append(time.perf_counter() - start)
        rankings[query.id] = [hit.id for hit in found.hits]
    values = NDCG.values(rankings, judged.qrels, [query.id for query in judged.queries])
    return float(np.mean(values)), 1000 * percentile(seconds, 0.5), 1000 * percentile(seconds, 0.95)


def plot_tradeoffs(tradeoffs: Tradeoffs, path: Path) -> None:
    """Plot nDCG@10 against bytes per passage and against p50, with the Pareto fronts as lines.

    The format follows the file's ending.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    figure = new_figure(12, 5)
    from matplotlib import ticker

    codecs = list(dict.fromkeys(point.codec for point in tradeoffs.points))
    panels = figure.subplots(1, 2, sharey=True)
    sides = (("bytes_per_passage", "by_bytes", "bytes a passage"), ("p50_ms", "by_latency", "latency p50, ms"))
    for axes, (cost, on_front, label) in zip(panels, sides, strict=True):
        for place, codec in enumerate(codecs):
            for candidates, marker in zip(dict.fromkeys(p.candidates for p in tradeoffs.points), "o^sDvP", strict=False):
                chosen = [p for p in tradeoffs.points if (p.codec, p.candidates) == (codec, candidates)]
                axes.scatter(
                    [getattr(p, cost) for p in chosen], [p.ndcg_at_10 for p in chosen], marker=marker, color=f"C{place}",
                    s=[60 / p.pooling for p in chosen], label=f"{codec}, {candidates}",
                )  # fmt: skip
        best = sorted((getattr(p, cost), p.ndcg_at_10) for p in tradeoffs.points if getattr(p, on_front))
        axes.step(*zip(*best, strict=True), where="post", color="black", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel(label)
    panels[0].set_ylabel("nDCG@10")
    panels[0].set_title(
        f"{tradeoffs.collection}: {tradeoffs.passages:,} passages, {tradeoffs.queries} queries", loc="left", fontsize=10
    )
    panels[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), title="smaller marks: pooled", title_fontsize=7)
    save_figure(figure, path, tight=True)
