"""A local PLAID index: one folder, many readers, one writer. The format is described in docs/reference/index-format.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np

from late_interaction.array_types import Mask, Matrix, Vector
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.cores import cores
from late_interaction.documents import Passage
from late_interaction.errors import BundleError, LocalIndexError, UsageError
from late_interaction.filters import Filter
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector import chosen_encoding, one_vector
from late_interaction.plaid.inputs import ScaledQuery, checked_count, chosen_bits, dense_query
from late_interaction.plaid.searching.dense import dense_scores, dense_search
from late_interaction.plaid.searching.scoring import exact_scores
from late_interaction.plaid.searching.search import search, search_selected
from late_interaction.plaid.searching.tuning import find_effort
from late_interaction.plaid.store.codecs import CODECS
from late_interaction.plaid.store.columns import evaluate
from late_interaction.plaid.store.creating import check_free, new_index
from late_interaction.plaid.store.history import known_versions, verify_versions, version_named
from late_interaction.plaid.store.opened import OpenedVersion
from late_interaction.plaid.store.selection import WantedIds
from late_interaction.plaid.store.snapshot import Living, Snapshot
from late_interaction.plaid.store.versions import Tuned, Version, now, publish, read_current
from late_interaction.plaid.types import DenseForm, LocalResult, LocalScores, OneVectorForm, SearchSettings, ShardCoverage
from late_interaction.plaid.writing.changes import Changes
from late_interaction.plaid.writing.pending import PendingLog
from late_interaction.plaid.writing.training import bundle_codebook
from late_interaction.plaid.writing.writer import IndexWriter

__all__ = ["LocalIndex", "Planned"]

Planned: TypeAlias = Callable[[str], Mapping[str, str]]  # document id -> ids of its passages, and their digests


class LocalIndex:
    """A reader of one version of a local index; `refresh` moves it to the newest.

    Create one with `create` or `open`. Searches may run in several threads. Calling `refresh` meanwhile is safe: a search
    keeps the version it started with.

    Attributes:
        path: the folder.
    """

    def __init__(self, opened: OpenedVersion) -> None:
        self.path = opened.path
        self._opened = opened

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        bundle: Bundle,
        schema: MetadataSchema,
        codec: str = "residual",
        bits: int | None = None,
        refine: bool = False,
    ) -> LocalIndex:
        """Create an empty index with its own copy of the bundle.

        For each dense model of the bundle, the index stores a vector of each passage.

        Args:
            path: folder of the index.
            bundle: encodes its queries and documents.
            schema: its metadata fields.
            codec: residual, binary or float32.
            bits: 1, 2 or 4 per dimension of a residual; None for those of the bundle's codebook named `residual`, or 4 if
                it has none.
            refine: also keep int8 rows (one byte per dimension), from which the final scores are computed: a search reads
                them for the best hits only, `exact` and small selections for all.

        Raises:
            LocalIndexError: if `path` exists and is not an empty folder, or cannot be written.
            UsageError: if bits are not 1, 2, 4 or those of the bundle's codebook, do not belong to the codec, the codec is
                unknown, or it needs unit rows and the bundle's are not.
        """
        root = Path(path)
        if codec not in CODECS:
            raise UsageError(f"codec {codec!r} is unknown; known for a local index: {', '.join(CODECS)}")
        if codec != "float32" and not bundle.manifest.normalized:
            raise UsageError(f"codec {codec} needs normalised rows, but those of {bundle.path} are not; choose codec float32")
        ready = bundle_codebook(bundle)
        chosen = chosen_bits(bits, codec, None if ready is None else ready.bits)
        check_free(root)
        with new_index(root) as staging:
            for folder in ("bundle", "codebooks", "deletions", "segments", "versions"):
                (staging / folder).mkdir()
            bundle.copy_to(staging / "bundle")
            form = (chosen, bundle.manifest.dim, schema, bundle.sha256, codec, refine)
            dense = {name: DenseForm(part.dim, part.normalized) for name, part in sorted(bundle.manifest.dense.items())}
            publish(staging, Version(0, *form, created=now(), dense=dense, one_vector=_one_vector_form(bundle)))
        return cls.open(root)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False, version: int | str | None = None) -> LocalIndex:
        """Open the newest committed version, or read-only the one of that number or name.

        Args:
            path: the folder.
            verify: also read all files and compare their checksums, as the method `verify` does. Without it, damage inside
                large files (codes, vectors, inverted lists, texts) may go unnoticed or change answers; the other files are
                always checked.
            version: number or name of a version; None for the newest.

        Raises:
            LocalIndexError: if there is no index or no such version, or it is damaged or of an unknown format.
        """
        root = Path(path)
        if version is None:
            index = cls(OpenedVersion.newest(root))
        else:
            found = version_named(root, known_versions(root), version)
            index = cls(OpenedVersion(root, Snapshot(root, found), (found.number, ""), fixed=True))
        if verify:
            index.verify()
        return index

    def __enter__(self) -> LocalIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: there are no workers, and files are closed when no reader uses them."""

    def refresh(self) -> bool:
        """Move to the newest version; return whether there was a newer one."""
        return self._opened.refresh()

    def pinned(self, *, timeout: float | None = None) -> LocalIndex:
        """Return a reader of the same version that `refresh` of this one does not move.

        Args:
            timeout: seconds that shards have for a query; ignored here.
        """
        return LocalIndex(self._opened.pinned())

    def writer(self, *, resume: bool = False) -> IndexWriter:
        """Open the only writer, for use as a context manager.

        Args:
            resume: take up what an interrupted writer had made durable.

        Raises:
            LocalIndexError: if another writer has the index.
            UsageError: if an older version was opened.
        """
        if self._opened.fixed:
            raise UsageError(f"{self.path} was opened read-only at version {self.version}; open it without a version to write")
        return IndexWriter(self._opened, resume=resume)

    def planned(self, *, resume: bool = False) -> Planned:
        """Return what `passages_of` of a writer opened with that `resume` would see, without opening one.

        Nothing is locked or changed.

        Raises:
            LocalIndexError: if the log of an interrupted writer is damaged.
        """
        changes = Changes(self.snapshot)
        for record in self._log(self.version).records() if resume else ():
            changes.note(record)
        return changes.passages_of

    def _log(self, base: int) -> PendingLog:
        return PendingLog(self.path, self.dim, base, self.snapshot.version.dense_width)

    @property
    def bundle(self) -> Bundle:
        """Return the index's own copy of the bundle, of the version that this reader has open.

        Raises:
            BundleError: if one of its files is missing or has another size.
            LocalIndexError: if it belongs to another index.
        """
        return self._opened.bundle

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self.snapshot.version.schema

    @property
    def version(self) -> int:
        """Return the number of the open version."""
        return self.snapshot.version.number

    @property
    def passages(self) -> int:
        """Return the number of passages."""
        return self.snapshot.version.passages

    @property
    def documents(self) -> int:
        """Return the number of documents."""
        return self.snapshot.documents

    @property
    def token_vectors(self) -> int:
        """Return the number of token vectors."""
        return self.snapshot.version.token_vectors

    @property
    def codec(self) -> str:
        """Return the name of the codec."""
        return self.snapshot.version.codec

    @property
    def bits(self) -> int | None:
        """Return the bits per dimension of a residual; None for codecs without residuals."""
        return self.snapshot.version.residual_bits

    @property
    def refine(self) -> bool:
        """Tell whether int8 rows are kept."""
        return self.snapshot.version.refine

    @property
    def dim(self) -> int:
        """Return the dimensions of a token vector."""
        return self.snapshot.version.dim

    @property
    def dense(self) -> Mapping[str, DenseForm]:
        """Return the dense models of which each passage has a vector, by name."""
        return self.snapshot.version.dense

    @property
    def one_vector(self) -> str:
        """The encoding of each passage as one vector, which `dense_search` finds as ONE_VECTOR; empty where there is none."""
        form = self.snapshot.version.one_vector
        return "" if form is None else form.encoding

    @property
    def bytes_per_token(self) -> float:
        """Return the bytes of codes, residuals and inverted lists per token vector; 0 for an empty index."""
        stored = sum(entry.token_vectors for entry in self.snapshot.version.segments)
        return self.snapshot.stored_bytes() / stored if stored else 0.0

    @property
    def codebook(self) -> Codebook | None:
        """Return the codebook; None before the first vector is committed."""
        return self.snapshot.codebook

    @property
    def drift(self) -> float | None:
        """Return how much farther stored vectors are from their centroids than the codebook's first vectors were.

        The unit is mean similarity; None for an empty index. From .03 on, `compact` trains better centroids.
        """
        return self.snapshot.version.drift

    def versions(self) -> list[Version]:
        """Return the versions that still exist, oldest first; a writer's `rollback` can go to any of them."""
        return known_versions(self.path)

    @property
    def effort(self) -> Tuned | None:
        """Return the effort that the index was tuned to; None if it was not."""
        return self.snapshot.version.effort

    @property
    def sharding(self) -> None:
        """Return None: this is one index, not several shards."""
        return None

    @property
    def missing(self) -> dict[int, str]:
        """Return the missing shards: none here."""
        return {}

    @property
    def readable(self) -> ShardCoverage:
        """Return how much of the index can be read: all of it here."""
        return ShardCoverage()

    def readers(self) -> Mapping[int, LocalIndex]:
        """Return the reader of each shard: this one only."""
        return {0: self}

    @property
    def current(self) -> tuple[int, str]:
        """Return number and checksum of the open version."""
        return self._opened.current

    @property
    def snapshot(self) -> Snapshot:
        """Return the open version."""
        return self._opened.snapshot

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
        """Return the k best passages for `Q [q, d]`.

        There are k hits if at least k passages are selected and have rows. A query without rows has no hits. Rows of Q may
        have any length: scores grow with it, their order stays.

        Args:
            Q: query rows `[q, d]`.
            k: how many hits.
            where: a filter on metadata.
            ids: only passages of these documents; unknown ones are ignored.
            settings: effort of the search; None for the index's own.
            exact: MaxSim over all stored vectors instead of PLAID's stages.

        Raises:
            UsageError: if Q has another width or is not finite, or k is less than 1.
            FilterError: if the filter is not valid.
        """
        snapshot = self.snapshot
        question = ScaledQuery.of(Q, snapshot.version.dim)
        found = search(snapshot, question.rows, checked_count("k", k), where=where, ids=ids, settings=settings, exact=exact)
        return question.restored(found)

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
        """Run `search` for each of `queries` in one version of the index.

        Args:
            queries: query rows `[q, d]` of each query.
            k: how many hits each.
            where: a filter on metadata.
            ids: only passages of these documents.
            settings: effort of the search.
            exact: MaxSim over all stored vectors.
            threads: cores to use; None for all that this process may use.

        Raises:
            UsageError: as in `search`.
        """
        k, snapshot = checked_count("k", k), self.snapshot
        questions = [ScaledQuery.of(Q, snapshot.version.dim) for Q in queries]
        count = cores() if threads is None else checked_count("threads", threads)
        masks = snapshot.select(where, ids)

        def one(question: ScaledQuery) -> LocalResult:
            result = search_selected(snapshot, question.rows, k, masks, settings=settings, exact=exact)
            return question.restored(result)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, questions))

    def tune(self, queries: Sequence[Matrix], *, recall: float, k: int = 10) -> Tuned:
        """Find the least effort that reaches `recall` against exact search, and store it in the index.

        Searches that name no effort then use it.

        Args:
            queries: query rows `[q, d]` of each query.
            recall: share of the exact top k to find.
            k: how many hits count.

        Raises:
            UsageError: if no effort reaches the recall or no query is usable.
            LocalIndexError: if another writer has the index.
        """
        rows, k = [ScaledQuery.of(Q, self.dim).rows for Q in queries], checked_count("k", k)
        with self.writer() as writer:
            writer.check_usable()
            snapshot = self.snapshot

            def ask(Q: Matrix, settings: SearchSettings | None) -> LocalResult:
                return search(snapshot, Q, k, settings=settings, exact=settings is None)

            found = find_effort(ask, rows, k, recall, snapshot.version.token_vectors)
            writer.store_tuned(found)
        return found

    def score(self, Q: Matrix, passage_ids: Sequence[str]) -> dict[str, float]:
        """Return MaxSim of `Q [q, d]` with the stored vectors of those passages, equal to the scores of hits.

        Unknown ids are left out; passages without rows score -inf.
        """
        snapshot = self.snapshot
        question = ScaledQuery.of(Q, snapshot.version.dim)
        places: dict[str, int] = {}
        for passage_id in passage_ids:
            if (found := snapshot.find(passage_id)) is not None:
                places[passage_id] = found[0].base + found[1]
        if snapshot.codebook is None:
            return dict.fromkeys(places, float("-inf"))
        order = np.fromiter(places.values(), np.int64, len(places))
        scores = map(question.score, exact_scores(snapshot, question.rows, order).tolist())
        return dict(zip(places, scores, strict=True))

    def scores(self, Q: Matrix, passage_ids: Sequence[str]) -> LocalScores:
        """Return the scores of `score` with their coverage, which may be partial in an index of shards."""
        return LocalScores(self.score(Q, passage_ids))

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
        """Return the k passages whose vectors of dense model `name` have the greatest inner products with `vector [dim]`.

        The best come first, equal ones in order of insertion. There are k if at least k passages are selected and have
        rows.

        Args:
            name: name of the dense model.
            vector: the query's vector `[dim]`.
            k: how many passages.
            where: a filter on metadata.
            ids: only passages of these documents.
            exact: compare all.

        Raises:
            UsageError: if there is no such model, the vector has another shape or is not finite, or k is less than 1.
        """
        snapshot, k = self.snapshot, checked_count("k", k)
        checked = dense_query(vector, name, snapshot.version.row_sets)
        return LocalScores(dense_search(snapshot, name, checked, k, where=where, ids=ids, exact=exact))

    def dense_scores(self, name: str, vector: Vector, passage_ids: Sequence[str]) -> LocalScores:
        """Return inner products of `vector [dim]` with the vectors of those passages; unknown ids are left out.

        Raises:
            UsageError: if there is no such model, or the vector does not fit it.
        """
        snapshot = self.snapshot
        return LocalScores(dense_scores(snapshot, name, dense_query(vector, name, snapshot.version.row_sets), passage_ids))

    def dense_vectors(self, passage_ids: Iterable[str]) -> dict[str, dict[str, Vector]]:
        """Return stored vectors `[dim]` of those passages, by id and dense model; unknown ids are left out."""
        found = {id_: self.snapshot.find(id_) for id_ in passage_ids}
        return {
            id_: {name: place[0].segment.dense[name].vectors(slice(place[1], place[1] + 1))[0] for name in self.dense}
            for id_, place in found.items()
            if place is not None
        }

    def passage(self, passage_id: str) -> Passage | None:
        """Return the passage of that id; None if there is none."""
        found = self.snapshot.find(passage_id)
        return None if found is None else found[0].segment.passage(found[1])

    def vectors(self, passage_id: str) -> Matrix:
        """Return stored unit rows `[t, d]`: the int8 rows if the index keeps them, else the decoded ones.

        Raises:
            LocalIndexError: if there is no such passage.
        """
        snapshot = self.snapshot
        found = snapshot.find(passage_id)
        if found is None:
            raise LocalIndexError(f"{self.path} has no passage {passage_id!r}")
        part, row = found
        if snapshot.codebook is None:
            return np.empty((0, snapshot.version.dim), np.float32)
        start, stop = part.segment.offsets[row : row + 2].tolist()
        return snapshot.best_vectors(part, slice(start, stop))

    def passages_of(self, document_ids: Iterable[str], where: Filter | None = None) -> dict[str, tuple[Passage, ...]]:
        """Return the passages of those documents that the filter selects, in order, by document id.

        Unknown ids are left out.
        """
        wanted = WantedIds(document_ids)
        passages: dict[str, list[Passage]] = {}
        for part, mask in self._selected(where):
            rows = wanted.document_rows(part.segment)
            for row in rows[mask[rows]].tolist():
                passage = part.segment.passage(row)
                passages.setdefault(passage.document_id, []).append(passage)
        return {id_: tuple(sorted(stored, key=Passage.place)) for id_, stored in passages.items()}

    def documents_with(self, where: Filter | None) -> Iterator[str]:
        """Yield the document id of each passage that the filter selects; of all passages without a filter."""
        for part, mask in self._selected(where):
            yield from (part.segment.documents[row] for row in np.flatnonzero(mask).tolist())

    def _selected(self, where: Filter | None) -> Iterator[tuple[Living, Mask]]:
        """Yield segments with a mask of the living passages that the filter selects, including those without rows."""
        for part in self.snapshot.living:
            segment = part.segment
            yield part, part.mask if where is None else part.mask & evaluate(where, segment.columns, segment.passages)

    def selected(self, where: Filter | None, ids: Iterable[str] | None = None) -> Mask:
        """Tell which living passages are selected, in the order of `iter_passages`.

        A passage is selected if it is of one of the documents `ids`, the filter selects it and it has rows.
        """
        snapshot = self.snapshot
        masks = [mask[part.mask] for part, mask in zip(snapshot.living, snapshot.select(where, ids), strict=True)]
        return np.concatenate([np.zeros(0, np.bool_), *masks])

    def iter_passages(self) -> Iterator[Passage]:
        """Yield living passages in order of insertion; a passage that was put again counts from its last put."""
        return self.snapshot.iter_passages()

    def verify(self) -> None:
        """Read every file of every version, of the bundle, and the log of uncommitted changes.

        A writer may work meanwhile.

        Raises:
            LocalIndexError: if a checksum differs; the message names the first such file.
        """
        verify_versions(self.path)
        try:
            bundle = Bundle.open(self.path / "bundle", verify=True)
        except BundleError as error:
            raise LocalIndexError(f"{self.path} is damaged: {error}") from None
        if bundle.sha256 != self.snapshot.version.bundle:
            raise LocalIndexError(f"{self.path} is damaged: bundle/manifest.json has changed")
        self._log(read_current(self.path)[0]).check()


def _one_vector_form(bundle: Bundle) -> OneVectorForm | None:
    encoding = chosen_encoding(bundle)
    if not encoding:
        return None
    found = one_vector(bundle, encoding)
    return OneVectorForm(encoding, found.dim, found.normalized)
