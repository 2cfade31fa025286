"""The one writer of an index: puts and deletions are logged, and a commit makes all of them searchable at once."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.plaid.build import build_segment, merge_segments
from late_interaction.plaid.codecs import open_codec
from late_interaction.plaid.pending import PUT, REMOVE_DOCUMENT, REMOVE_PASSAGE, PendingLog
from late_interaction.plaid.segment import Segment
from late_interaction.plaid.snapshot import Snapshot, index_thresholds
from late_interaction.plaid.storage import write_array
from late_interaction.plaid.training import Taken, grow, take_codebook
from late_interaction.plaid.types import CommitSummary
from late_interaction.plaid.versions import (
    Fit,
    NamedFile,
    SegmentEntry,
    Tuned,
    Version,
    known_versions,
    now,
    publish,
    remove_unused,
)

if TYPE_CHECKING:
    from late_interaction.plaid.index import LocalIndex

__all__ = ["IndexWriter"]

MAX_SEGMENTS = 8
OUTGROWN = 8  # times the vectors that the codebook was trained on: then it is trained anew
COMPACTED = 2  # the same, where the index is compacted
DRIFTED = 0.03  # drift from which on a compaction trains a codebook
Matrix = NDArray[np.float32]


@dataclasses.dataclass(slots=True)
class _Put:
    place: int
    rows: int
    document_id: str


class IndexWriter:
    """Use as a context manager; leaving it without `commit` keeps what was flushed for a writer with `resume=True`."""

    def __init__(self, index: LocalIndex, *, resume: bool) -> None:
        self._index = index
        self._root = index.path
        self._lock = _lock(index.path)
        try:
            index.refresh()
            self._log = PendingLog(self._root, index.dim, index.version, resume=resume)
        except BaseException:
            self._lock.close()
            raise
        self._forget()
        for record in self._log.recovered:
            if record.passage is not None:
                self._note_put(record.passage, record.place, record.rows)
            elif record.kind == REMOVE_DOCUMENT:
                self._note_removed_document(record.id)
            else:
                self._note_removed(record.id)

    def _forget(self) -> None:
        self._puts: dict[str, _Put] = {}  # in order of the last put
        self._by_document: dict[str, dict[str, None]] = {}
        self._removed: dict[str, set[int]] = {}  # segment -> rows that the commit will delete

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._log.close()
        self._lock.close()

    @property
    def pending(self) -> Mapping[str, int]:
        """Ids of the passages that wait for the commit, those of a resumed run included, with their number of rows."""
        return {id_: put.rows for id_, put in self._puts.items()}

    def put(self, passage: Passage, vectors: Matrix) -> None:
        """Adds `passage` with `vectors [t, d]`, L2-normalised, or replaces the one of that id.

        Raises: UsageError where the id is empty or the vectors have another width or are not finite; MetadataError where
        the metadata does not fit the schema. The index stays as it was.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._index.dim:
            raise UsageError(f"passage {passage.id!r}: vectors have shape {rows.shape}, the index takes [t, {self._index.dim}]")
        if not np.isfinite(rows).all():
            raise UsageError(f"passage {passage.id!r}: vectors must be finite")
        if not passage.id or not passage.document_id:
            raise UsageError("a passage needs an id and a document id")
        passage = dataclasses.replace(passage, metadata=self._index.schema.check(passage.metadata))
        place = self._log.append(PUT, passage.id, passage, rows)
        self._note_put(passage, place, len(rows))

    def delete_document(self, document_id: str) -> int:
        """Deletes all passages of the document, those put since the last commit included; how many there were."""
        self._log.append(REMOVE_DOCUMENT, document_id)
        return self._note_removed_document(document_id)

    def delete_passage(self, passage_id: str) -> int:
        """Deletes one passage; 1, or 0 where there was none."""
        self._log.append(REMOVE_PASSAGE, passage_id)
        return self._note_removed(passage_id)

    def flush(self) -> None:
        """What was put and deleted so far survives a crash (for `resume=True`); searches do not see it before `commit`."""
        self._log.flush()

    def _note_put(self, passage: Passage, place: int, rows: int) -> None:
        self._note_removed(passage.id)
        self._puts[passage.id] = _Put(place, rows, passage.document_id)
        self._by_document.setdefault(passage.document_id, {})[passage.id] = None

    def _note_removed(self, passage_id: str) -> int:
        put = self._puts.pop(passage_id, None)
        if put is not None:
            del self._by_document[put.document_id][passage_id]
            return 1
        found = self._index.snapshot.find(passage_id)
        return 0 if found is None else self._remove_row(found[0].segment, found[1])

    def _remove_row(self, segment: Segment, row: int) -> int:
        rows = self._removed.setdefault(segment.entry.name, set())
        if row in rows:
            return 0
        rows.add(row)
        return 1

    def _note_removed_document(self, document_id: str) -> int:
        pending = self._by_document.pop(document_id, {})
        for passage_id in pending:
            del self._puts[passage_id]
        count = len(pending)
        for part in self._index.snapshot.living:
            for row in part.segment.find_document(document_id):
                if part.mask[row]:
                    count += self._remove_row(part.segment, row)
        return count

    def commit(self, name: str = "", *, compact: bool = False) -> CommitSummary:
        """Makes everything since the last commit searchable, atomically and durably.

        name: keeps this version from being pruned; there may be nothing new to commit. compact: one segment without what was
        deleted. Its vectors stay as they are stored, unless a new codebook is worth it: where the index has twice the vectors
        that its own was trained on, or their drift is .03. One that the bundle brought stays.

        A crash before the end leaves the old version and what was flushed; readers see the new version at `refresh`.

        Raises: LocalIndexError where the disk refuses; the old version stands. UsageError on a name that is taken or a number.
        """
        start = time.perf_counter()
        self._check_name(name)
        self._log.flush()
        if self._puts or any(self._removed.values()) or name or compact:
            self._publish(lambda: dataclasses.replace(self._write_version(compact), name=name))
        return self._done(start)

    def rollback(self, to: int | str) -> CommitSummary:
        """Makes a new version with the passages of version `to`, a number or a name; what was not committed is dropped.

        Raises: LocalIndexError where there is no such version, naming those that are there.
        """
        start = time.perf_counter()
        known = known_versions(self._root)
        found = [version for version in known if to in (version.number, version.name) and to != ""]
        if not found:
            names = ", ".join(f"{v.number} ({v.name})" if v.name else str(v.number) for v in known)
            raise LocalIndexError(f"{self._root} has no version {to!r}; it has: {names}")
        self._publish(lambda: dataclasses.replace(found[0], name="", number=self._next_number(), created=now()))
        return self._done(start)

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """A new version, the same but for the effort that searches take by default."""
        start = time.perf_counter()
        old = self._index.snapshot.version
        number = self._next_number()
        self._publish(lambda: dataclasses.replace(old, tuned=tuned, name="", number=number, created=now()))
        return self._done(start)

    def prune(self, keep: int = 1) -> list[int]:
        """Removes all versions but the newest `keep`, the current and the named ones; the numbers of those removed."""
        if keep < 1:
            raise UsageError(f"keep must be at least 1, got {keep}")
        return remove_unused(self._root, self._index.snapshot.version, keep)

    def _check_name(self, name: str) -> None:
        if name.isdecimal():
            raise UsageError(f"a version's name cannot be a number, got {name!r}")
        if name and any(version.name == name for version in known_versions(self._root)):
            raise UsageError(f"{self._root} has a version named {name!r} already: give another name")

    def _publish(self, make: Callable[[], Version]) -> None:
        old = self._index.snapshot.version
        try:
            version = make()
            publish(self._root, version)
        except OSError as error:
            raise LocalIndexError(f"{self._root}: commit failed, version {old.number} stands ({error})") from None
        self._index.refresh()
        remove_unused(self._root, version)

    def _done(self, start: float) -> CommitSummary:
        self._log.restart(self._index.version)
        self._forget()
        index = self._index
        return CommitSummary(index.version, index.passages, index.token_vectors, time.perf_counter() - start)

    def _next_number(self) -> int:
        files = (self._root / "versions").glob("*.json")
        return 1 + max(self._index.version, *(int(file.stem) for file in files if file.stem.isdecimal()))

    def _write_version(self, compact: bool) -> Version:
        snapshot = self._index.snapshot
        old, number = snapshot.version, self._next_number()
        rows = sum(put.rows for put in self._puts.values())
        taken = self._taken(snapshot)
        segments: list[SegmentEntry] = []
        items: Iterator[tuple[Passage, Matrix]] = iter(())
        total = self._living_rows(snapshot) + rows
        trains = self._outgrown(snapshot, rows) or (compact and self._worth_training(total))
        if trains:
            taken = take_codebook(self._root, self._index.bundle, old.bits, self._vectors(self._everything(snapshot)), total)
            items = self._everything(snapshot)
        else:
            segments = [self._with_deletions(part.segment, part.mask, number) for part in snapshot.living]
            segments = [entry for entry in segments if entry.deleted_passages < entry.passages]
            if self._puts:
                items = self._log.read(self._places())
                if taken is not None:
                    taken = grow(self._root, taken, self._vectors(self._log.read(self._places())), rows)
        if (first := next(items, None)) is not None:
            codebook = None if taken is None else taken.codebook
            codec = None
            if codebook is not None:
                codec = open_codec(old.codec, codebook, lambda: index_thresholds(self._root, old.dim))
            passages = itertools.chain([first], items)
            segments.append(build_segment(self._root, str(number), old.schema, codebook, codec, snapshot.form, passages))
            if trains and taken is not None:  # drift is counted from all vectors, not from the sample that k-means saw
                taken = dataclasses.replace(taken, fit=Fit(segments[-1].fit, taken.fit.low))
        version = dataclasses.replace(old, number=number, segments=tuple(segments), created=now())
        if taken is not None:
            version = dataclasses.replace(version, codebook=taken.named, trained_on=taken.trained_on, fit=taken.fit)
        whole = len(segments) == 1 and not segments[0].deleted_passages
        if compact and segments and not whole:
            return self._merged(version, 0)
        sizes = [s.passages - s.deleted_passages + s.token_vectors - s.deleted_vectors for s in segments]
        return self._merged(version, merged_from(sizes)) if len(segments) > MAX_SEGMENTS else version

    @staticmethod
    def _taken(snapshot: Snapshot) -> Taken | None:
        version = snapshot.version
        if snapshot.codebook is None or version.codebook is None or version.fit is None:
            return None
        return Taken(snapshot.codebook, version.codebook, version.trained_on, version.fit)

    def _places(self) -> list[int]:
        return [put.place for put in self._puts.values()]

    @staticmethod
    def _vectors(items: Iterable[tuple[Passage, Matrix]]) -> Iterator[Matrix]:
        return (vectors for _, vectors in items)

    def _outgrown(self, snapshot: Snapshot, rows: int) -> bool:
        """Whether this commit of `rows` vectors trains a codebook: the first, or the last was trained on far fewer."""
        if snapshot.codebook is None or not rows:
            return rows > 0
        trained_on = snapshot.version.trained_on
        return trained_on > 0 and self._living_rows(snapshot) + rows >= OUTGROWN * trained_on

    def _worth_training(self, total: int) -> bool:
        """Whether a compaction to `total` vectors trains a codebook. Not each time: decoded vectors that are encoded again lose
        a little more."""
        trained_on, drift = self._index.snapshot.version.trained_on, self._index.drift
        drifted = drift is not None and drift >= DRIFTED
        return trained_on > 0 and total > 0 and (drifted or total >= COMPACTED * trained_on)

    def _living_rows(self, snapshot: Snapshot) -> int:
        """Token vectors of the committed passages that this commit leaves alive."""
        rows = snapshot.version.token_vectors
        for part in snapshot.living:
            removed = sorted(self._removed.get(part.segment.entry.name, ()))
            rows -= int(part.segment.lengths()[removed].sum())
        return rows

    def _everything(self, snapshot: Snapshot) -> Iterator[tuple[Passage, Matrix]]:
        """Living passages with their decoded vectors, then what waits in the log."""
        for part in snapshot.living:
            living = part.mask.copy()
            living[sorted(self._removed.get(part.segment.entry.name, ()))] = False
            for row in np.flatnonzero(living).tolist():
                start, stop = part.segment.offsets[row : row + 2].tolist()
                vectors = np.empty((0, self._index.dim), np.float32)
                if snapshot.codebook is not None:
                    vectors = snapshot.best_vectors(part, slice(start, stop))
                yield part.segment.passage(row), vectors
        yield from self._log.read(self._places())

    def _with_deletions(self, segment: Segment, mask: NDArray[np.bool_], number: int) -> SegmentEntry:
        entry = next(e for e in self._index.snapshot.version.segments if e.name == segment.entry.name)
        removed = self._removed.get(entry.name)
        if not removed:
            return entry
        living = mask.copy()
        living[sorted(removed)] = False
        rows = np.flatnonzero(~living).astype(np.int32)
        name = f"deletions/{entry.name}-{number}.npy"
        file = NamedFile(name, write_array(self._root / name, rows))
        vectors = int(segment.lengths()[rows].sum())
        return dataclasses.replace(entry, deleted=file, deleted_passages=len(rows), deleted_vectors=vectors)

    def _merged(self, version: Version, first: int) -> Version:
        """The segments from the `first` on become one."""
        snapshot = Snapshot(self._root, version, self._index.snapshot)
        parts = [(part.segment, part.mask) for part in snapshot.living[first:]]
        fields = (version.schema, snapshot.codebook, snapshot.form)
        entry = merge_segments(self._root, f"{version.number}m", *fields, parts)
        return dataclasses.replace(version, segments=(*version.segments[:first], entry))


def merged_from(sizes: Sequence[int]) -> int:
    """Place of the first of the segments that a merge makes one: the last two, and those before them as long as each is no
    larger than all behind it.

    So a passage that is written again comes into a segment of at least twice the size, and all commits together write each
    passage some four times for 1,000 commits of one size, and eight for 10,000.
    """
    first = max(0, len(sizes) - 2)
    total = sum(sizes[first:])
    while first and sizes[first - 1] <= total:
        first -= 1
        total += sizes[first]
    return first


def _lock(root: Path) -> BinaryIO:
    """The lock of the index, held as long as the file is open: the system drops it when the process ends, however."""
    file = (root / "LOCK").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise LocalIndexError(f"{root} is being written by another process or writer: wait for it, or stop it") from None
    return file
