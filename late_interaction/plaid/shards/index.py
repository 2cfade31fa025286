"""An index of several shards: one folder with SHARDS.json and a local index for each shard (docs/reference/index-format.md)."""

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
    """A reader of one version of every shard, which `refresh` moves to the newest. Use `create` or `open`, and `close`.

    Searches run in one worker process for each shard, started by the first search. A version that was pruned before all
    processes had opened it cannot be read: then the reader moves to the newest by itself.
    """

    def __init__(
        self,
        path: Path,
        settings: ShardSettings | None = None,
        *,
        launch: Callable[[int], Worker] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """launch: starts the worker of a shard, by default a process. Raises: as `open`."""
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
        """Makes an empty index of shards, each with the bundle (one copy on disk, where the file system has hard links).

        Raises: LocalIndexError where `path` is there and not an empty folder. UsageError as LocalIndex.create, or where the
        schema does not have the field that decides.
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
        """Reads which version of every shard counts; a shard that cannot be read is missing from answers.

        Raises: LocalIndexError where SHARDS.json is damaged, no shard can be read, or they do not belong together.
        """
        return cls(Path(path), settings)

    def __enter__(self) -> ShardedIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; the end of the process does, too."""
        self._router.close()

    def refresh(self) -> bool:
        """Moves to the newest version that all shards have; whether anything has changed."""
        return self._shards.refresh()

    def pinned(self, *, timeout: float | None = None) -> ShardedIndex:
        """A reader of the same versions, asking the same workers, that `refresh` of this one does not move. timeout: seconds
        that shards have for a query of it, in place of those of the settings."""
        pinned = copy.copy(self)
        if timeout is not None:
            pinned.settings = replace(self.settings, timeout=timeout)
        pinned._shards = copy.copy(self._shards)
        return pinned

    def writer(self, *, resume: bool = False) -> ShardedWriter:
        """As LocalIndex.writer. Raises: LocalIndexError where a shard is missing or another writer has the index."""
        return ShardedWriter(self._shards, resume=resume)

    def planned(self, *, resume: bool = False) -> Planned:
        """As LocalIndex.planned. Raises: LocalIndexError where a shard cannot be read, or the log of one is damaged."""
        parts = [reader.planned(resume=resume) for reader in self._all_readers().values()]
        return lambda document_id: {id_: digest for part in parts for id_, digest in part(document_id).items()}

    @property
    def bundle(self) -> Bundle:
        """The copy of the first shard that can be read. Raises: as LocalIndex.bundle."""
        first, known = first_readable(self._states), self._bundle
        wanted = first.opened[1].bundle
        if known is None or known.sha256 != wanted:
            known = self._bundle = opened_bundle(first.path, wanted)
        return known

    @property
    def sharding(self) -> Sharding:
        """Into how many shards the index is cut, and by what."""
        return self._shards.sharding

    @property
    def _form(self) -> Version:
        return self._shards.form

    @property
    def _states(self) -> tuple[ShardState, ...]:
        return self._shards.states

    @property
    def schema(self) -> MetadataSchema:
        return self._form.schema

    @property
    def codec(self) -> str:
        return self._form.codec

    @property
    def bits(self) -> int | None:
        """As LocalIndex.bits."""
        return self._form.residual_bits

    @property
    def codebook(self) -> Codebook | None:
        """That of all shards that can be read; None where each has trained its own, or before the first vector is committed."""
        books = {book.sha256: book for reader in self.readers().values() if (book := reader.codebook) is not None}
        return next(iter(books.values())) if len(books) == 1 else None

    @property
    def drift(self) -> float | None:
        """As LocalIndex.drift, of the shard that has drifted farthest."""
        drifts = [reader.drift for reader in self.readers().values() if reader.drift is not None]
        return max(drifts, key=lambda drift: math.inf if math.isnan(drift) else drift, default=None)

    @property
    def refine(self) -> bool:
        return self._form.refine

    @property
    def dim(self) -> int:
        return self._form.dim

    @property
    def dense(self) -> Mapping[str, DenseForm]:
        """As LocalIndex.dense."""
        return self._form.dense

    @property
    def one_vector(self) -> str:
        """As LocalIndex.one_vector."""
        form = self._form.one_vector
        return "" if form is None else form.encoding

    @property
    def version(self) -> int:
        return self._form.number

    @property
    def current(self) -> tuple[tuple[int, str] | None, ...]:
        """As LocalIndex.current of each shard; None of one that cannot be read."""
        return tuple(state.current for state in self._states)

    @property
    def effort(self) -> Tuned | None:
        """As Version.effort of the first shard that can be read: all are tuned at once."""
        return self._form.effort

    def versions(self) -> list[ShardedVersion]:
        """Those that all shards that can be read still have, oldest first; `rollback` of a writer goes to any of them."""
        return self._shards.versions()

    @property
    def passages(self) -> int:
        """Of the shards that can be read."""
        return sum(state.passages for state in self._states)

    @property
    def token_vectors(self) -> int:
        return sum(version.token_vectors for state in self._states if (version := state.version) is not None)

    @property
    def bytes_per_token(self) -> float:
        """As LocalIndex.bytes_per_token, of the shards that can be read."""
        snapshots = [reader.snapshot for reader in self.readers().values()]
        stored = sum(entry.token_vectors for snapshot in snapshots for entry in snapshot.version.segments)
        return sum(snapshot.stored_bytes() for snapshot in snapshots) / stored if stored else 0.0

    @property
    def documents(self) -> int:
        """Of the shards that can be read; a document whose passages have several keys counts in each of their shards."""
        return sum(reader.documents for reader in self.readers().values())

    @property
    def missing(self) -> dict[int, str]:
        """The shards that cannot be read, and why; of those whose files are damaged, since `readers` was asked."""
        damaged = {} if self._opened is None else self._opened.damaged
        return OpenedShards(self._states, {}, damaged, gone=False).missing

    @property
    def readable(self) -> ShardCoverage:
        """How much of the index the shards have that are not `missing`."""
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
        """As LocalIndex.search, of the shards that answer in time: `coverage` and `missing` of the result tell.

        Equal scores: those of a lower shard first, within a shard in order of insertion. Effort (`settings`, or a shard's
        default for its size) is each shard's own.

        Raises: UsageError as LocalIndex.search; LocalIndexError where no shard answers or, with `require_full`, not all do.
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
        """As `search` for each of `queries`, sent at once; the time that the shards have grows with their number. threads: of
        all shards together."""
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
        """As LocalIndex.scores, of the shards that answer in time."""
        bodies, coverage = self._ask({"do": "score", "ids": list(passage_ids)}, [Q])
        return LocalScores(_ordered(bodies, passage_ids), coverage.share, coverage.missing)

    def score(self, Q: Matrix, passage_ids: Sequence[str]) -> dict[str, float]:
        """As LocalIndex.score; passages of shards that do not answer are left out, as unknown ones are."""
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
        """As LocalIndex.dense_search, of the shards that answer in time; equal scores as `search` has them."""
        k, wanted = checked_count("k", k), None if ids is None else list(ids)
        body = {"do": "dense", "name": name, "k": k, "where": filter_to_json(where), "ids": wanted, "exact": exact}
        bodies, coverage = self._ask_dense(body, name, vector)
        found = [pair for body in bodies.values() for pair in body["scores"].items()]
        best = sorted(found, key=lambda pair: -pair[1])[:k]
        return LocalScores(dict(best), coverage.share, coverage.missing)

    def dense_scores(self, name: str, vector: Vector, passage_ids: Sequence[str]) -> LocalScores:
        """As LocalIndex.dense_scores, of the shards that answer in time."""
        bodies, coverage = self._ask_dense({"do": "dense_scores", "name": name, "ids": list(passage_ids)}, name, vector)
        return LocalScores(_ordered(bodies, passage_ids), coverage.share, coverage.missing)

    def dense_vectors(self, passage_ids: Iterable[str]) -> dict[str, dict[str, Vector]]:
        """As LocalIndex.dense_vectors, of the shards that can be read."""
        wanted = list(passage_ids)
        parts = [reader.dense_vectors(wanted) for reader in self.readers().values()]
        return {id_: part[id_] for id_ in wanted for part in parts if id_ in part}

    def _ask_dense(self, body: Mapping[str, Any], name: str, vector: Vector) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        checked = dense_query(vector, name, self._form.row_sets)  # refused here, not by the workers
        return self._ask_shards(body, checked.astype("<f4").tobytes(), 1)

    def _ask(self, body: Mapping[str, Any], queries: Sequence[Matrix]) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        for Q in queries:
            ScaledQuery.of(Q, self.dim)  # refused here, not by the workers
        rows = b"".join(np.asarray(Q, "<f4").tobytes() for Q in queries)
        return self._ask_shards({**body, "rows": [len(Q) for Q in queries]}, rows, len(queries))

    def _ask_shards(
        self, body: Mapping[str, Any], rows: bytes, queries: int
    ) -> tuple[dict[int, dict[str, Any]], ShardCoverage]:
        """Answers by shard, in order, and how much of the index they cover."""
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
        return next((found for reader in self.readers().values() if (found := reader.passage(passage_id)) is not None), None)

    def vectors(self, passage_id: str) -> Matrix:
        """Decoded unit rows `[t, d]`. Raises: LocalIndexError where there is no such passage."""
        for reader in self.readers().values():
            if reader.passage(passage_id) is not None:
                return reader.vectors(passage_id)
        raise LocalIndexError(f"{self.path} has no passage {passage_id!r}")

    def passages_of(self, document_ids: Iterable[str], where: Filter | None = None) -> dict[str, tuple[Passage, ...]]:
        """As LocalIndex.passages_of. Raises: LocalIndexError where a shard cannot be read."""
        ids = list(document_ids)
        passages: dict[str, tuple[Passage, ...]] = {}
        for reader in self._all_readers().values():
            for id_, stored in reader.passages_of(ids, where).items():
                passages[id_] = tuple(sorted((*passages.get(id_, ()), *stored), key=Passage.place))
        return passages

    def documents_with(self, where: Filter | None) -> Iterator[str]:
        """As LocalIndex.documents_with. Raises: LocalIndexError where a shard cannot be read."""
        for reader in self._all_readers().values():
            yield from reader.documents_with(where)

    def _all_readers(self) -> Mapping[int, LocalIndex]:
        """Raises: LocalIndexError where a shard cannot be read."""
        opened = self._open_shards()
        for shard, why in opened.missing.items():
            raise LocalIndexError(f"{self.path}: shard-{shard} cannot be read: {why}")
        return opened.readers

    def selected(self, where: Filter | None, ids: Iterable[str] | None = None) -> Mask:
        """As LocalIndex.selected."""
        wanted = None if ids is None else list(ids)
        parts = (reader.selected(where, wanted) for reader in self.readers().values())
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def iter_passages(self) -> Iterator[Passage]:
        """Living passages shard by shard, of those that can be read."""
        for reader in self.readers().values():
            yield from reader.iter_passages()

    def readers(self) -> Mapping[int, LocalIndex]:
        """Readers in this process of the shards that can be read, at their versions; the workers have their own. `missing`
        names the others. Each is opened once for a version, for all threads and `pinned` readers."""
        return self._open_shards().readers

    def _open_shards(self) -> OpenedShards:
        opened = self._opened
        while opened is None or opened.states is not self._states or opened.damaged:
            opened = self._opened = self._readers.at(self._states)
            if not (opened.gone and self._moved_from(opened.states)):
                break
        return opened

    def _moved_from(self, states: Sequence[ShardState]) -> bool:
        """Whether there is something newer; another thread may have taken it up already."""
        bundle = self._form.bundle
        self.refresh()
        if self._form.bundle != bundle:
            raise LocalIndexError(f"{self.path} was replaced by an index of another bundle while it was asked: ask again")
        return self._states is not states

    def verify(self) -> None:
        """Reads every file of every shard, and checks that each passage is in the shard where it belongs.

        Raises: LocalIndexError naming the first file whose checksum differs, the shard that is missing, or the passage.
        """
        read_intent(self.path)
        for shard, reader in self._all_readers().items():
            reader.verify()
            for passage in reader.iter_passages():
                if self.sharding.of_passage(passage, self.schema) != shard:
                    raise LocalIndexError(f"{self.path} is damaged: passage {passage.id!r} does not belong into shard-{shard}")

    def tune(self, queries: Sequence[Matrix], *, recall: float, k: int = 10) -> Tuned:
        """As LocalIndex.tune: every shard takes the effort with which their merged answers have the recall.

        Raises: as LocalIndex.tune; LocalIndexError where a shard does not answer.
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
    """Scores of all answers, in the order of the ids."""
    scores = {id_: score for body in bodies.values() for id_, score in body["scores"].items()}
    return {id_: scores[id_] for id_ in passage_ids if id_ in scores}


def _share_bundle(first: Path, other: Path) -> None:
    """The files of `other`'s bundle become those of `first`'s, where the file system has hard links."""
    if first == other:
        return
    with contextlib.suppress(OSError):
        for file in sorted((other / "bundle").rglob("*")):
            if file.is_file():
                link = file.with_name(f".{file.name}.link")
                os.link(first / file.relative_to(other), link)
                os.replace(link, file)
