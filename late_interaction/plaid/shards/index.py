"""An index of several shards: one folder with SHARDS.json and a local index per shard. See docs/reference/index-format.md."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from late_interaction.array_types import Mask, Matrix, Vector
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.cores import cores
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.filters import Filter
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.index import LocalIndex, Planned
from late_interaction.plaid.inputs import ScaledQuery, checked_count, dense_query
from late_interaction.plaid.searching.tuning import find_effort
from late_interaction.plaid.shards.intent import read_intent
from late_interaction.plaid.shards.layout import Sharding, shard_path, write_sharding
from late_interaction.plaid.shards.merging import merged
from late_interaction.plaid.shards.reading import OpenedShards, ShardReaders
from late_interaction.plaid.shards.settings import ShardSettings
from late_interaction.plaid.shards.states import OpenedStates, ShardedVersion, ShardState, first_readable
from late_interaction.plaid.shards.wire import filter_to_json, result_from_json, settings_to_json
from late_interaction.plaid.shards.writer import ShardedWriter
from late_interaction.plaid.store.creating import new_index
from late_interaction.plaid.store.opened import opened_bundle
from late_interaction.plaid.store.versions import Tuned, Version
from late_interaction.plaid.types import DenseForm, LocalResult, LocalScores, SearchSettings, ShardCoverage, Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from late_interaction.workers.router import Worker
from late_interaction.workers.process import WorkerProcess
from late_interaction.workers.router import Router

__all__ = ["ShardedIndex"]

WORKER = "late_interaction.plaid.shards.worker"


class ShardedIndex:
    """A reader of one version of every shard; `refresh` moves it to the newest.

    Create one with `create` or `open`, and `close` it. Searches run in one worker process per shard, started by the first
    search. A version that was pruned before all processes had opened it cannot be read; the reader then moves to the newest
    by itself.

    Attributes:
        path: the folder.
    """

    def __init__(
        self,
        path: Path,
        settings: ShardSettings | None = None,
        *,
        launch: Callable[[int], Worker] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the state of every shard. launch: starts the worker of a shard, by default a process."""
        self.path = path
        self.settings = settings or ShardSettings()
        self._shards = OpenedStates(path)
        self._threads = max(1, cores() // self.sharding.count)
        self._readers = ShardReaders()
        self._opened: OpenedShards | None = None
        self._bundle: Bundle | None = None
        self._router = Router(launch or self._start_worker, start=self.settings.start, clock=clock)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        bundle: Bundle,
        schema: MetadataSchema,
        sharding: Sharding,
        storage: Storage | None = None,
        settings: ShardSettings | None = None,
    ) -> ShardedIndex:
        """Create an empty index of shards, each with the bundle (one copy on disk, if the file system has hard links).

        Args:
            path: the folder.
            bundle: encodes its queries and documents.
            schema: its metadata fields.
            sharding: how it is sharded.
            storage: codec, bits and int8 rows.
            settings: settings of the router.

        Raises:
            LocalIndexError: if `path` exists and is not an empty folder.
            UsageError: as in `LocalIndex.create`, or if the schema lacks the sharding field.
        """
        root, form = Path(path), storage or Storage()
        sharding.check(schema)
        with new_index(root) as staging:
            for shard in range(sharding.count):
                LocalIndex.create(
                    shard_path(staging, shard), bundle=bundle, schema=schema, codec=form.codec, bits=form.bits,
                    refine=form.refine,
                )  # fmt: skip
                _share_bundle(shard_path(staging, 0), shard_path(staging, shard))
            write_sharding(staging, sharding)
        return cls.open(root, settings)

    @classmethod
    def open(cls, path: str | Path, settings: ShardSettings | None = None) -> ShardedIndex:
        """Read which version of every shard is current; a shard that cannot be read is missing from answers.

        Args:
            path: the folder.
            settings: settings of the router.

        Raises:
            LocalIndexError: if SHARDS.json is damaged, no shard can be read, or they do not belong together.
        """
        return cls(Path(path), settings)

    def __enter__(self) -> ShardedIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers, which also stop when the process ends."""
        self._router.close()

    def refresh(self) -> bool:
        """Move to the newest version that all shards have; return whether anything has changed."""
        return self._shards.refresh()

    def pinned(self, *, timeout: float | None = None) -> ShardedIndex:
        """Return a reader of the same versions and workers that `refresh` of this one does not move.

        Args:
            timeout: seconds that shards have for a query; None for those of the settings.
        """
        pinned = copy.copy(self)
        if timeout is not None:
            pinned.settings = replace(self.settings, timeout=timeout)
        pinned._shards = copy.copy(self._shards)
        return pinned

    def writer(self, *, resume: bool = False) -> ShardedWriter:
        """Open the only writer.

        Args:
            resume: take up what an interrupted writer had made durable.

        Raises:
            LocalIndexError: if a shard is missing or another writer has the index.
        """
        return ShardedWriter(self._shards, resume=resume)

    def planned(self, *, resume: bool = False) -> Planned:
        """Return what `passages_of` of a writer would see, without opening one.

        Raises:
            LocalIndexError: if a shard cannot be read, or the log of one is damaged.
        """
        parts = [reader.planned(resume=resume) for reader in self._all_readers().values()]
        return lambda document_id: {id_: digest for part in parts for id_, digest in part(document_id).items()}

    @property
    def bundle(self) -> Bundle:
        """Return the bundle of the first shard that can be read."""
        first, known = first_readable(self._states), self._bundle
        wanted = first.opened[1].bundle
        if known is None or known.sha256 != wanted:
            known = self._bundle = opened_bundle(first.path, wanted)
        return known

    @property
    def sharding(self) -> Sharding:
        """Return how the index is sharded."""
        return self._shards.sharding

    @property
    def _form(self) -> Version:
        return self._shards.form

    @property
    def _states(self) -> tuple[ShardState, ...]:
        return self._shards.states

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._form.schema

    @property
    def codec(self) -> str:
        """Return the name of the codec."""
        return self._form.codec

    @property
    def bits(self) -> int | None:
        """Return the bits per dimension of a residual; None for codecs without residuals."""
        return self._form.residual_bits

    @property
    def codebook(self) -> Codebook | None:
        """Return the codebook of all readable shards; None if each has its own, or before the first commit."""
        books = {book.sha256: book for reader in self.readers().values() if (book := reader.codebook) is not None}
        return next(iter(books.values())) if len(books) == 1 else None

    @property
    def drift(self) -> float | None:
        """Return the drift of the shard that has drifted farthest; see `LocalIndex.drift`."""
        drifts = [reader.drift for reader in self.readers().values() if reader.drift is not None]
        return max(drifts, key=lambda drift: math.inf if math.isnan(drift) else drift, default=None)

    @property
    def refine(self) -> bool:
        """Tell whether int8 rows are kept."""
        return self._form.refine

    @property
    def dim(self) -> int:
        """Return the dimensions of a token vector."""
        return self._form.dim

    @property
    def dense(self) -> Mapping[str, DenseForm]:
        """Return the dense models of which each passage has a vector, by name."""
        return self._form.dense

    @property
    def one_vector(self) -> str:
        """As LocalIndex.one_vector."""
        form = self._form.one_vector
        return "" if form is None else form.encoding

    @property
    def version(self) -> int:
        """Return the number of the open version."""
        return self._form.number

    @property
    def current(self) -> tuple[tuple[int, str] | None, ...]:
        """Return number and checksum of each shard's version; None for one that cannot be read."""
        return tuple(state.current for state in self._states)

    @property
    def effort(self) -> Tuned | None:
        """Return the tuned effort of the first readable shard: all are tuned together."""
        return self._form.effort

    def versions(self) -> list[ShardedVersion]:
        """Return the versions that all readable shards still have, oldest first; `rollback` can go to any of them."""
        return self._shards.versions()

    @property
    def passages(self) -> int:
        """Return the number of passages of the readable shards."""
        return sum(state.passages for state in self._states)

    @property
    def token_vectors(self) -> int:
        """Return the number of token vectors of the readable shards."""
        return sum(version.token_vectors for state in self._states if (version := state.version) is not None)

    @property
    def bytes_per_token(self) -> float:
        """Return the stored bytes per token vector of the readable shards."""
        snapshots = [reader.snapshot for reader in self.readers().values()]
        stored = sum(entry.token_vectors for snapshot in snapshots for entry in snapshot.version.segments)
        return sum(snapshot.stored_bytes() for snapshot in snapshots) / stored if stored else 0.0

    @property
    def documents(self) -> int:
        """Return the number of documents of the readable shards.

        A document whose passages have several keys counts in each of their shards.
        """
        return sum(reader.documents for reader in self.readers().values())

    @property
    def missing(self) -> dict[int, str]:
        """Return the shards that cannot be read, and why; those with damaged files are known once `readers` was called."""
        damaged = {} if self._opened is None else self._opened.damaged
        return OpenedShards(self._states, {}, damaged, gone=False).missing

    @property
    def readable(self) -> ShardCoverage:
        """Return how much of the index the readable shards have."""
        return ShardCoverage.of([state.size for state in self._states], self.missing)

    def search(
        self,
        Q: Matrix,
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        settings: SearchSettings | None = None,
        exact: bool = False,
    ) -> LocalResult:
        """Search the shards that answer in time; `coverage` and `missing` of the result tell which.

        Equal scores: those of a lower shard come first, within a shard in order of insertion. Effort (`settings`, or a
        shard's default for its size) applies to each shard. Arguments are those of `LocalIndex.search`.

        Raises:
            UsageError: as in `LocalIndex.search`.
            LocalIndexError: if no shard answers or, with `require_full`, not all do.
        """
        return self.search_many([Q], k, where=where, ids=ids, settings=settings, exact=exact)[0]

    def search_many(
        self,
        queries: Sequence[Matrix],
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        settings: SearchSettings | None = None,
        exact: bool = False,
        threads: int | None = None,
    ) -> list[LocalResult]:
        """Run `search` for each of `queries`, sent at once.

        The time that the shards have grows with the number of queries. `threads` is the total over all shards.
        """
        k = checked_count("k", k)
        count = self._threads if threads is None else max(1, checked_count("threads", threads) // self.sharding.count)
        if not queries:
            return []
        body = {
            "do": "search", "k": k, "where": filter_to_json(where), "ids": None if ids is None else list(ids),
            "settings": settings_to_json(settings), "exact": exact, "threads": count,
        }  # fmt: skip
        start = time.perf_counter()
        bodies, coverage = self._ask(body, queries)
        answered = {shard: [result_from_json(one) for one in body["results"]] for shard, body in bodies.items()}
        seconds = time.perf_counter() - start
        return [merged([results[i] for results in answered.values()], k, coverage, seconds) for i in range(len(queries))]

    def scores(self, Q: Matrix, passage_ids: Sequence[str]) -> LocalScores:
        """Return `LocalIndex.scores` of the shards that answer in time."""
        bodies, coverage = self._ask({"do": "score", "ids": list(passage_ids)}, [Q])
        return LocalScores(_ordered(bodies, passage_ids), coverage.share, coverage.missing)

    def score(self, Q: Matrix, passage_ids: Sequence[str]) -> dict[str, float]:
        """Return `LocalIndex.score`; passages of shards that do not answer are left out, like unknown ones."""
        return dict(self.scores(Q, passage_ids).scores)

    def dense_search(
        self,
        name: str,
        vector: Vector,
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        exact: bool = False,
    ) -> LocalScores:
        """Return `LocalIndex.dense_search` of the shards that answer in time; equal scores are ordered as in `search`."""
        k, wanted = checked_count("k", k), None if ids is None else list(ids)
        body = {"do": "dense", "name": name, "k": k, "where": filter_to_json(where), "ids": wanted, "exact": exact}
        bodies, coverage = self._ask_dense(body, name, vector)
        found = [pair for body in bodies.values() for pair in body["scores"].items()]
        best = sorted(found, key=lambda pair: -pair[1])[:k]
        return LocalScores(dict(best), coverage.share, coverage.missing)

    def dense_scores(self, name: str, vector: Vector, passage_ids: Sequence[str]) -> LocalScores:
        """Return `LocalIndex.dense_scores` of the shards that answer in time."""
        bodies, coverage = self._ask_dense({"do": "dense_scores", "name": name, "ids": list(passage_ids)}, name, vector)
        return LocalScores(_ordered(bodies, passage_ids), coverage.share, coverage.missing)

    def dense_vectors(self, passage_ids: Iterable[str]) -> dict[str, dict[str, Vector]]:
        """Return `LocalIndex.dense_vectors` of the shards that can be read."""
        wanted = list(passage_ids)
        parts = [reader.dense_vectors(wanted) for reader in self.readers().values()]
        return {id_: part[id_] for id_ in wanted for part in parts if id_ in part}

    def _ask_dense(self, body: Mapping[str, Any], name: str, vector: Vector) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        checked = dense_query(vector, name, self._form.row_sets)  # rejected here, not by the workers
        return self._ask_shards(body, checked.astype("<f4").tobytes(), 1)

    def _ask(self, body: Mapping[str, Any], queries: Sequence[Matrix]) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        for Q in queries:
            ScaledQuery.of(Q, self.dim)  # rejected here, not by the workers
        rows = b"".join(np.asarray(Q, "<f4").tobytes() for Q in queries)
        return self._ask_shards({**body, "rows": [len(Q) for Q in queries]}, rows, len(queries))

    def _ask_shards(
        self, body: Mapping[str, Any], rows: bytes, queries: int
    ) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        """Return the answers by shard, in order, and how much of the index they cover."""
        while True:
            states = self._states
            requests = {n: ({**body, "version": state.current}, rows) for n, state in enumerate(states) if state.current}
            answers = self._router.ask(requests, self.settings.timeout * queries)
            if not (answers.gone and self._moved_from(states)):
                break
        silent = {**{n: state.error for n, state in enumerate(states) if state.error}, **answers.silent}
        coverage = ShardCoverage.of([state.size for state in states], silent)
        if not answers.bodies or (silent and self.settings.require_full):
            raise LocalIndexError(f"{self.path}: {'; '.join(coverage.missing)}")
        return dict(sorted(answers.bodies.items())), coverage

    def passage(self, passage_id: str) -> Passage | None:
        """Return the passage of that id; None if there is none."""
        return next((found for reader in self.readers().values() if (found := reader.passage(passage_id)) is not None), None)

    def vectors(self, passage_id: str) -> Matrix:
        """Return the stored unit rows `[t, d]` of a passage.

        Raises:
            LocalIndexError: if there is no such passage.
        """
        for reader in self.readers().values():
            if reader.passage(passage_id) is not None:
                return reader.vectors(passage_id)
        raise LocalIndexError(f"{self.path} has no passage {passage_id!r}")

    def passages_of(self, document_ids: Iterable[str], where: Filter | None = None) -> dict[str, tuple[Passage, ...]]:
        """Return the passages of those documents by document id.

        Raises:
            LocalIndexError: if a shard cannot be read.
        """
        ids = list(document_ids)
        passages: dict[str, tuple[Passage, ...]] = {}
        for reader in self._all_readers().values():
            for id_, stored in reader.passages_of(ids, where).items():
                passages[id_] = tuple(sorted((*passages.get(id_, ()), *stored), key=Passage.place))
        return passages

    def documents_with(self, where: Filter | None) -> Iterator[str]:
        """Yield the document id of each passage that the filter selects.

        Raises:
            LocalIndexError: if a shard cannot be read.
        """
        for reader in self._all_readers().values():
            yield from reader.documents_with(where)

    def _all_readers(self) -> Mapping[int, LocalIndex]:
        """Return all readers; LocalIndexError if a shard cannot be read."""
        opened = self._open_shards()
        for shard, why in opened.missing.items():
            raise LocalIndexError(f"{self.path}: shard-{shard} cannot be read: {why}")
        return opened.readers

    def selected(self, where: Filter | None, ids: Iterable[str] | None = None) -> Mask:
        """Tell which living passages are selected; see `LocalIndex.selected`."""
        wanted = None if ids is None else list(ids)
        parts = (reader.selected(where, wanted) for reader in self.readers().values())
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def iter_passages(self) -> Iterator[Passage]:
        """Yield living passages shard by shard, of those that can be read."""
        for reader in self.readers().values():
            yield from reader.iter_passages()

    def readers(self) -> Mapping[int, LocalIndex]:
        """Return readers in this process of the readable shards, at their versions.

        The workers have their own readers. `missing` names the other shards. Each shard is opened once per version, for all
        threads and `pinned` readers.
        """
        return self._open_shards().readers

    def _open_shards(self) -> OpenedShards:
        opened = self._opened
        while opened is None or opened.states is not self._states or opened.damaged:
            opened = self._opened = self._readers.at(self._states)
            if not (opened.gone and self._moved_from(opened.states)):
                break
        return opened

    def _moved_from(self, states: Sequence[ShardState]) -> bool:
        """Tell whether there is a newer version; another thread may have taken it up already."""
        bundle = self._form.bundle
        self.refresh()
        if self._form.bundle != bundle:
            raise LocalIndexError(f"{self.path} was replaced by an index with another bundle during the search; search again")
        return self._states is not states

    def verify(self) -> None:
        """Read every file of every shard, and check that each passage is in its own shard.

        Raises:
            LocalIndexError: if a checksum differs, a shard is missing, or a passage is in the wrong shard; the message
                names the first.
        """
        read_intent(self.path)
        for shard, reader in self._all_readers().items():
            reader.verify()
            for passage in reader.iter_passages():
                if self.sharding.of_passage(passage, self.schema) != shard:
                    raise LocalIndexError(f"{self.path} is damaged: passage {passage.id!r} does not belong in shard-{shard}")

    def tune(self, queries: Sequence[Matrix], *, recall: float, k: int = 10) -> Tuned:
        """Tune like `LocalIndex.tune`: every shard takes the effort with which the merged answers reach the recall.

        Raises:
            UsageError: as in `LocalIndex.tune`.
            LocalIndexError: if a shard does not answer, or another writer has the index.
        """
        rows, k = [ScaledQuery.of(Q, self.dim).rows for Q in queries], checked_count("k", k)
        with self.writer() as writer:
            writer.check_usable()

            def ask(Q: Matrix, settings: SearchSettings | None) -> LocalResult:
                found = self.search(Q, k, settings=settings, exact=settings is None)
                if found.missing:
                    raise LocalIndexError(f"{self.path} cannot be tuned: {'; '.join(found.missing)}")
                return found

            found = find_effort(ask, rows, k, recall, self.token_vectors)
            writer.store_tuned(found)
        return found

    def _start_worker(self, shard: int) -> Worker:
        return WorkerProcess(shard_path(self.path, shard), self._threads, WORKER)


def _ordered(bodies: Mapping[int, dict[str, Any]], passage_ids: Sequence[str]) -> dict[str, float]:
    """Return the scores of all answers, in the order of the ids."""
    scores = {id_: score for body in bodies.values() for id_, score in body["scores"].items()}
    return {id_: scores[id_] for id_ in passage_ids if id_ in scores}


def _share_bundle(first: Path, other: Path) -> None:
    """Hard-link the files of `other`'s bundle to those of `first`'s, if the file system has hard links."""
    if first == other:
        return
    with contextlib.suppress(OSError):
        for file in sorted((other / "bundle").rglob("*")):
            if file.is_file():
                link = file.with_name(f".{file.name}.link")
                os.link(first / file.relative_to(other), link)
                os.replace(link, file)
