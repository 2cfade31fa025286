"""Candidates `centroid` with codebooks that grow with the collection, counted from the vectors: no Vespa is needed.

    python -m benchmarks.centroids [--collection NAME] [--passages N]... [--centroids N]... [--share S] [--quick] [--json]

For each number of passages (more than the collection has: repeated with changes, engine_data.repeat) a codebook is trained with
vocabulary ids, every row gets its code, and every query asks for the M best lists of each row with the weights that
`CentroidCandidates` sends. recall: share of the exact top 10 among the best `rerank` by total weight. postings: of a row, the
passages of its lists. share: of the passages that codes are assigned to, besides the exact top 10; with less than 1, ranks and
postings are those of the sample divided by it, which is an estimate.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.engine_data import repeat, write_collection
from late_interaction.array_types import I32, I64, Matrix, TokenIds
from late_interaction.bundle_cache import cache_folder
from late_interaction.codebook import Codebook
from late_interaction.codebook_training import HELD_OUT, MIN_PER_CENTROID, default_centroids, train_codebook
from vespa_app.candidates.centroid import list_weights

K = 10
BLOCK = 1_000  # passages
LISTS = (4, 8, 16, 32, 64, 128)
RERANKED = (100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Row:
    """lists: of each query row. postings: passages in them, mean over query rows. candidates: of a query, mean. recall: of the
    exact top 10 within the best so many by total weight."""

    passages: int
    centroids: int
    lists: int
    postings: float
    candidates: float
    recall: dict[int, float]


class Vectors:
    """Arrays of engine_data, of the first passages, some at a time."""

    def __init__(self, folder: Path, passages: int) -> None:
        self.offsets: I64 = np.load(folder / "offsets.npy")[: passages + 1]
        self._rows = np.load(folder / "vectors.npy", mmap_mode="r")
        self.token_ids = np.load(folder / "token_ids.npy", mmap_mode="r")[: self.offsets[-1]]

    @property
    def passages(self) -> int:
        return len(self.offsets) - 1

    @property
    def total(self) -> int:
        return int(self.offsets[-1])

    def blocks(self) -> Iterator[tuple[int, Matrix, TokenIds]]:
        """The first passage, and rows with vocabulary ids of BLOCK passages from it on."""
        for first in range(0, self.passages, BLOCK):
            span = slice(self.offsets[first], self.offsets[min(first + BLOCK, self.passages)])
            yield first, np.array(self._rows[span], np.float32), self.token_ids[span].astype(np.int32)

    def sample(self, count: int) -> tuple[np.ndarray, TokenIds]:
        """Rows float16 of whole passages, `count` of them or somewhat more."""
        share = min(1.0, count / self.total)
        chosen = np.flatnonzero(np.random.default_rng(0).random(self.passages) < share)
        parts = [slice(self.offsets[n], self.offsets[n + 1]) for n in chosen]
        rows = np.concatenate([self._rows[part].astype(np.float16) for part in parts])
        return rows, np.concatenate([self.token_ids[part] for part in parts]).astype(np.int32)


def exact_top(vectors: Vectors, queries: Sequence[Matrix]) -> list[list[int]]:
    """The K best passages of each query by exact MaxSim."""
    every, ends = np.concatenate(queries), np.cumsum([len(Q) for Q in queries])
    scores = np.empty((len(queries), vectors.passages), np.float32)
    for first, rows, _ in vectors.blocks():
        count = min(BLOCK, vectors.passages - first)
        starts = vectors.offsets[first : first + count] - vectors.offsets[first]
        best = np.maximum.reduceat(rows @ every.T, starts, axis=0)
        scores[:, first : first + count] = np.add.reduceat(best, ends - [len(Q) for Q in queries], axis=1).T
    return [np.argsort(-own, kind="stable")[:K].tolist() for own in scores]


def assigned(vectors: Vectors, codebook: Codebook, kept: np.ndarray) -> tuple[I32, I64]:
    """Passages of each list, those of `kept` alone, and where the list of each centroid begins."""
    keys: list[I64] = []
    for first, rows, ids in vectors.blocks():
        count = min(BLOCK, vectors.passages - first)
        owners = np.repeat(np.arange(first, first + count), np.diff(vectors.offsets[first : first + count + 1]))
        wanted = kept[owners]
        if wanted.any():
            codes = codebook.assign_near(rows[wanted], ids[wanted])
            keys.append(np.unique(codes.astype(np.int64) * vectors.passages + owners[wanted]))
    every = np.sort(np.concatenate(keys))
    starts = np.searchsorted(every, np.arange(codebook.size + 1, dtype=np.int64) * vectors.passages)
    return (every % vectors.passages).astype(np.int32), starts


def total_weights(Q: Matrix, codebook: Codebook, lists: int, members: I32, starts: I64, out: I64) -> float:
    """Adds up in `out [n]` what Vespa's totalWeight is of each passage; returns the mean number of postings of a row."""
    ids, _, gains = codebook.lookup.lists(Q, min(lists, codebook.size))
    postings = 0
    for row, weights in zip(ids, list_weights(gains), strict=True):
        parts = [members[starts[code] : starts[code + 1]] for code in row]
        postings += sum(map(len, parts))
        found, first = np.unique(np.concatenate(parts), return_index=True)  # lists come best first
        out[found] += np.repeat(weights, [len(part) for part in parts])[first]
    return postings / max(1, len(Q))


def kept_top(vectors: Vectors, queries: Sequence[Matrix], folder: Path) -> list[list[int]]:
    """As exact_top, kept in the folder."""
    file = folder / f"exact-{vectors.passages}-{len(queries)}.npy"
    if not file.is_file():
        say(f"exact top {K} of {len(queries)} queries among {vectors.passages:,} passages")
        np.save(file, np.array(exact_top(vectors, queries), np.int64))
    found: list[list[int]] = np.load(file).tolist()
    return found


def trained(vectors: Vectors, centroids: int, folder: Path, *, plain: bool = False) -> Codebook:
    """On a sample of the vectors that bears so many centroids; kept in the folder. plain: without vocabulary ids."""
    file = folder / f"codebook-{vectors.passages}-{centroids}{'-plain' if plain else ''}.npz"
    if not file.is_file():
        say(f"training {centroids:,} centroids for {vectors.passages:,} passages")
        sample, ids = vectors.sample(MIN_PER_CENTROID * centroids + min(HELD_OUT, vectors.total // 20))
        train_codebook(sample, token_ids=None if plain else ids, centroids=centroids).save(file)
    return Codebook.load(file)


def measure(vectors: Vectors, queries: Sequence[Matrix], codebook: Codebook, share: float, truth: list[list[int]]) -> list[Row]:
    say(f"assigning the rows of {share:.0%} of the passages to {codebook.size:,} centroids")
    kept = np.random.default_rng(1).random(vectors.passages) < share
    kept[list(itertools.chain.from_iterable(truth))] = True
    members, starts = assigned(vectors, codebook, kept)
    return [_row(vectors.passages, queries, codebook, lists, members, starts, truth, kept) for lists in LISTS]


def _row(
    passages: int,
    queries: Sequence[Matrix],
    codebook: Codebook,
    lists: int,
    members: I32,
    starts: I64,
    truth: list[list[int]],
    kept: np.ndarray,
) -> Row:
    share = float(kept.mean())
    postings, candidates, ranks = [], [], []
    for Q, best in zip(queries, truth, strict=True):
        weights = np.zeros(passages, np.int64)
        postings.append(total_weights(Q, codebook, lists, members, starts, weights) / share)
        candidates.append(np.count_nonzero(weights) / share)
        order = np.argsort(-weights, kind="stable")
        places = np.empty(passages, np.int64)
        places[order] = np.arange(passages)
        ranks.append(np.where(weights[best] > 0, places[best] / share, np.inf))
    found = np.array(ranks)
    recall = {rerank: round(float((found < rerank).mean()), 4) for rerank in RERANKED}
    return Row(passages, codebook.size, lists, float(np.mean(postings)), float(np.mean(candidates)), recall)


def data_folder(collection: str, passages: int, *, quick: bool) -> Path:
    """Arrays of the collection, made once; repeated where it has fewer passages."""
    folder = cache_folder() / "benchmarks" / "centroids" / f"{collection}{'-quick' if quick else ''}"
    if not (folder / "queries.npy").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_collection(folder, collection, quick=quick)
    there = len(np.load(folder / "offsets.npy")) - 1
    if passages <= there:
        return folder
    times = -(-passages // there)
    larger = folder.with_name(f"{folder.name}-x{times}")
    if not (larger / "offsets.npy").is_file() or len(np.load(larger / "offsets.npy")) - 1 < passages:
        larger.mkdir(exist_ok=True)
        for file in folder.glob("*.npy"):
            shutil.copyfile(file, larger / file.name)
        repeat(larger, times)
    return larger


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    heads = " | ".join(f"best {rerank}" for rerank in RERANKED)
    lines = [f"| passages | centroids | lists | postings a row | candidates | {heads} |", "|---" * (5 + len(RERANKED)) + "|"]
    for row in rows:
        cells = " | ".join(f"{row.recall[rerank]:.3f}" for rerank in RERANKED)
        lines.append(
            f"| {row.passages:,} | {row.centroids:,} | {row.lists} | {row.postings:,.0f} | {row.candidates:,.0f} | {cells} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", default="docs-100k", help="of benchmarks.vespa_collections")
    parser.add_argument("--passages", type=int, action="append", help="default: 60,000 and 1,000,000")
    parser.add_argument("--centroids", type=int, action="append", help="default: as for a collection of that size")
    parser.add_argument("--queries", type=int, default=0, help="at most so many; default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the passages that are assigned; less is an estimate")
    parser.add_argument("--plain", action="store_true", help="codebooks without vocabulary ids")
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 20 queries")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    options = parser.parse_args()
    rows: list[Row] = []
    for passages in options.passages or ([2_000] if options.quick else [60_000, 1_000_000]):
        folder = data_folder(options.collection, passages, quick=options.quick)
        vectors = Vectors(folder, passages)
        every, ends = np.load(folder / "queries.npy"), np.load(folder / "query_offsets.npy")
        queries = [every[a:b] for a, b in itertools.pairwise(ends)][: options.queries or None]
        truth = kept_top(vectors, queries, folder)
        for centroids in options.centroids or [default_centroids(vectors.total)]:
            codebook = trained(vectors, centroids, folder, plain=options.plain)
            rows += measure(vectors, queries, codebook, options.share, truth)
            say("\n" + table(rows[-len(LISTS) :]))
    print(json.dumps({"rows": [asdict(row) for row in rows]}) if options.json else table(rows))


if __name__ == "__main__":
    main()
