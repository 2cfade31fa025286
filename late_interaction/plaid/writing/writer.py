"""The one writer of an index: puts and deletions are logged, and a commit makes all of them searchable at once."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from late_interaction.array_types import Mask, Matrix
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.files import fsync_folder
from late_interaction.metadata import MetadataSchema, Value
from late_interaction.plaid.inputs import document_rows
from late_interaction.plaid.store.codecs import open_codec
from late_interaction.plaid.store.history import (
    check_version,
    known_versions,
    remove_leftovers,
    remove_uncommitted,
    remove_unused,
    version_named,
)
from late_interaction.plaid.store.lock import WriterLock
from late_interaction.plaid.store.segment import Segment
from late_interaction.plaid.store.snapshot import Snapshot, index_thresholds
from late_interaction.plaid.store.storage import write_array
from late_interaction.plaid.store.versions import (
    Fit,
    NamedFile,
    SegmentEntry,
    Tuned,
    Version,
    now,
    publish,
    read_current,
)
from late_interaction.plaid.types import CommitSummary
from late_interaction.plaid.writing.build import Encoded, build_encoded_segment, build_segment, merge_segments
from late_interaction.plaid.writing.changes import Changes
from late_interaction.plaid.writing.fields import widened
from late_interaction.plaid.writing.pending import PUT, PUT_ENCODED, REMOVE_DOCUMENT, REMOVE_PASSAGE, UPDATE, PendingLog
from late_interaction.plaid.writing.training import FIT_VECTORS, Taken, adopt, bundle_codebook, grow, sample_of, take_codebook
from late_interaction.text import checked_id

if TYPE_CHECKING:
    from late_interaction.plaid.index import LocalIndex

__all__ = ["IndexWriter", "left_over_error"]

MAX_SEGMENTS = 8
OUTGROWN = 8  # times the vectors that the codebook was trained on: then it is trained anew
COMPACTED = 2  # the same, where the index is compacted
DRIFTED = 0.03  # drift from which on a compaction trains a codebook


class IndexWriter:
    """Use as a context manager; leaving it without `commit` keeps what was flushed for a writer with `resume=True`.

    Where an interrupted run has left changes and this writer does not resume them, they stay as they are, and whatever would
    make them worthless is refused until `discard`.
    """

    def __init__(self, index: LocalIndex, *, resume: bool) -> None:
        self._index = index
        self._root = index.path
        self._lock = WriterLock(index.path)
        self._unusable = ""
        self._adopted: Codebook | None = None
        try:
            self._fresh_start()
            self._log = PendingLog(self._root, index.dim, index.version)
            self._changes = Changes(index.snapshot)
            self._left_over = not resume and self._log.left_over
            for record in self._log.resume() if resume else ():
                self._changes.note(record)
        except BaseException:
            self._lock.release()
            raise

    def _fresh_start(self) -> None:
        try:
            fsync_folder(self._root)  # CURRENT may have been replaced by a writer that failed to make it durable
        except OSError as error:
            raise LocalIndexError(f"{self._root} cannot be written: {error}") from None
        remove_leftovers(self._root)
        self._index.refresh()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock.held:
            self._log.close()
            self._lock.release()

    @property
    def pending(self) -> Mapping[str, int]:
        """Ids of the passages that wait for the commit, those of a resumed run included, with their number of rows."""
        return self._changes.puts

    @property
    def changed(self) -> bool:
        """Whether the next commit makes a version."""
        return bool(self._changes)

    @property
    def left_over(self) -> bool:
        """Whether an interrupted run has left changes that this writer neither took up nor dropped."""
        return self._left_over

    def check_usable(self) -> None:
        """Raises: UsageError on a closed writer; LocalIndexError where an interrupted run has left changes."""
        self._check_open()
        if self._left_over:
            raise left_over_error(self._root)

    def _check_open(self) -> None:
        if not self._lock.held:
            raise UsageError(f"this writer of {self._root} is closed, or belongs to the parent process: open another")
        if self._unusable:
            raise LocalIndexError(self._unusable)

    def discard(self) -> None:
        """Drops everything since the last commit, what an interrupted run has left included."""
        self._check_open()
        self._start_over()

    def _start_over(self) -> None:
        self._log.restart(self._index.version)
        self._changes = Changes(self._index.snapshot)
        self._left_over = False

    def has(self, passage_id: str) -> bool:
        """Whether the next commit leaves or makes a passage of that id."""
        return self._changes.has(passage_id)

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """Ids of the passages that the document has after the next commit, and their digests."""
        return self._changes.passages_of(document_id)

    def put(self, passage: Passage, vectors: Matrix) -> None:
        """Adds `passage` with `vectors [t, d]`, or replaces the one of that id. Rows have length 1, give or take 0.01; codec
        float32 takes any that are shorter than 1,000, and scores their inner products.

        Raises: UsageError where an id or text cannot be one, or the vectors have another width or length or are not finite;
        MetadataError where the metadata does not fit the schema; LocalIndexError where the disk refuses. The index stays as it
        was.
        """
        self.check_usable()
        rows = document_rows(passage.id, vectors, self._index.dim, self._index.codec)
        passage = dataclasses.replace(passage.checked(), metadata=self._index.schema.check(passage.metadata))
        place = self._log.append(PUT, passage.id, passage, rows)
        self._changes.put(passage.id, passage.document_id, place, len(rows), passage.digest)

    def takes_codes_of(self, codebook: Codebook) -> bool:
        """Whether `put_encoded` takes codes and residuals of that codebook: an index without vectors takes up the codebook
        itself, unless its bundle has another."""
        index = self._index
        fits = index.codec == "residual" and not index.refine
        if not fits or (codebook.bits, codebook.dim) != (index.bits, index.dim) or _code_bytes(codebook) > 4 * index.dim:
            return False
        own = index.codebook or bundle_codebook(index.bundle)
        if own is not None and own.sha256 != codebook.sha256:
            return False
        self._adopted = codebook
        return True

    def put_encoded(self, passage: Passage, encoded: Encoded) -> None:
        """As `put`, of codes `[t]` and residuals `[t, bytes]` of a codebook that `takes_codes_of` has agreed to: they are
        stored as they are."""
        self.check_usable()
        codes, residuals = encoded
        rows = np.zeros((len(codes), 4 * self._index.dim), np.uint8)
        rows[:, :4] = codes.astype("<i4")[:, None].view(np.uint8)
        rows[:, 4 : 4 + residuals.shape[1]] = residuals
        passage = dataclasses.replace(passage.checked(), metadata=self._index.schema.check(passage.metadata))
        place = self._log.append(PUT_ENCODED, passage.id, passage, rows.view("<f4"))
        self._changes.put(passage.id, passage.document_id, place, len(rows), passage.digest, encoded=True)

    def _read(self, places: Sequence[int]) -> Iterator[tuple[Passage, Matrix]]:
        """Passages and vectors at those places of the log; codes and residuals are decoded."""
        encoded = self._changes.encoded
        for place, (passage, rows) in zip(places, self._log.read(places), strict=True):
            yield passage, self._codes_book().decode(*self._encoded(rows)) if place in encoded else rows

    def _encoded(self, rows: Matrix) -> Encoded:
        """What `put_encoded` has packed. Raises: LocalIndexError where they name centroids that are not there."""
        book = self._codes_book()
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), 4 * self._index.dim)
        codes = np.ascontiguousarray(data[:, :4]).view("<i4")[:, 0].astype(np.int32)
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(book.centroids):
            raise LocalIndexError(f"{self._root}: codes that wait for a commit are of another codebook: discard them")
        return codes, np.ascontiguousarray(data[:, 4 : _code_bytes(book)])

    def _codes_book(self) -> Codebook:
        book = self._index.codebook or self._adopted
        if book is None:
            raise LocalIndexError(
                f"{self._root}: an interrupted copy has left codes without their codebook: go on with that copy (--resume), or "
                f"drop them with `colbert-vespa index discard {self._root}`"
            )
        return book

    def delete_document(self, document_id: str) -> int:
        """Deletes all passages of the document, those put since the last commit included; how many there were."""
        self.check_usable()
        document_id = checked_id(document_id, "document id")
        self._log.append(REMOVE_DOCUMENT, document_id)
        return self._changes.remove_document(document_id)

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """Sets the fields given, and takes away those given as None, of all passages of the document; how many it has. Their
        vectors stay as they are stored; their digests become empty, as they are no longer those of what was fed.

        Raises: MetadataError where a value does not fit the schema; LocalIndexError where the disk refuses.
        """
        self.check_usable()
        checked = self._index.schema.check(metadata)
        passage_ids = list(self._changes.passages_of(checked_id(document_id, "document id")))
        for passage_id in passage_ids:
            self._update_passage(passage_id, metadata, checked)
        return len(passage_ids)

    def _update_passage(self, passage_id: str, metadata: Mapping[str, object], checked: Mapping[str, Value]) -> None:
        place, committed = self._changes.place_of(passage_id)
        rows = np.empty((0, self._index.dim), np.float32)
        if place is not None:
            self._log.flush()
            old, rows = next(self._read([place]))
        else:
            assert committed is not None
            old = committed[0].passage(committed[1])
        kept = {name: value for name, value in old.metadata.items() if name not in metadata}
        new = dataclasses.replace(old, metadata={**kept, **checked}, digest="")
        if committed is None:
            place = self._log.append(PUT, new.id, new, rows)
            self._changes.put(new.id, new.document_id, place, len(rows), "")
        else:
            self._changes.update(new.id, self._log.append(UPDATE, new.id, new))

    def delete_passage(self, passage_id: str) -> int:
        """Deletes one passage; 1, or 0 where there was none."""
        self.check_usable()
        passage_id = checked_id(passage_id, "passage id")
        self._log.append(REMOVE_PASSAGE, passage_id)
        return self._changes.remove_passage(passage_id)

    def flush(self) -> None:
        """What was put and deleted so far survives a crash (for `resume=True`); searches do not see it before `commit`."""
        self._check_open()
        self._log.flush()

    def commit(self, name: str = "", *, compact: bool = False, always: bool = False) -> CommitSummary:
        """Makes everything since the last commit searchable, atomically and durably.

        name: keeps this version from being pruned; there may be nothing new to commit. compact: one segment without what was
        deleted. Its vectors stay as they are stored, unless a new codebook is worth it: where the index has twice the vectors
        that its own was trained on, or their drift is .03. One that the bundle brought stays. always: makes a version though
        there is nothing new.

        A crash before the end leaves the old version and what was flushed; readers see the new version at `refresh`.

        Raises: LocalIndexError where the disk refuses, saying which version stands. UsageError on a name that is taken or a
        number.
        """
        start = time.perf_counter()
        self._check_open()
        self.check_name(name)
        self._log.flush()
        if self._changes or name or compact or always:
            self._publish(lambda: dataclasses.replace(self._write_version(compact), name=name))
        return self._done(start)

    def rollback(self, to: int | str) -> CommitSummary:
        """Makes a new version with the passages of version `to`, a number or a name; what was not committed is dropped.

        Raises: LocalIndexError where there is no such version, naming those that are there, or a file of it is damaged.
        """
        start = time.perf_counter()
        self.check_usable()
        old = version_named(self._root, known_versions(self._root), to)
        check_version(self._root, old)
        self._publish(lambda: dataclasses.replace(old, name="", number=self._next_number(), created=now()))
        return self._done(start)

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """A new version, the same but for the effort that searches take by default.

        Raises: UsageError where something waits for a commit.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has changes that wait for a commit: commit or discard them before tuning")
        old = self._index.snapshot.version
        number = self._next_number()
        self._publish(lambda: dataclasses.replace(old, tuned=tuned, name="", number=number, created=now()))
        return self._done(start)

    def add_fields(self, further: MetadataSchema) -> CommitSummary:
        """A new version that has these metadata fields too; those that are there already change nothing.

        Raises: UsageError where something waits for a commit; MetadataError where a field is there with another type.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has changes that wait for a commit: commit or discard them before adding fields")
        snapshot, number = self._index.snapshot, self._next_number()
        if further.fields.items() - snapshot.version.schema.fields.items():
            self._publish(lambda: widened(self._root, snapshot, number, further))
        return self._done(start)

    def prune(self, keep: int = 1) -> list[int]:
        """Removes all versions but the newest `keep`, the current and the named ones; the numbers of those removed."""
        self._check_open()
        if keep < 1:
            raise UsageError(f"keep must be at least 1, got {keep}")
        return remove_unused(self._root, known_versions(self._root), self._index.snapshot.version, keep)

    def check_name(self, name: str) -> None:
        """Raises: UsageError where no version can have that name."""
        if name.isdecimal():
            raise UsageError(f"a version's name cannot be a number, got {name!r}")
        if name and any(version.name == name for version in known_versions(self._root)):
            raise UsageError(f"{self._root} has a version named {name!r} already: give another name")

    def _publish(self, make: Callable[[], Version]) -> None:
        """The version that `make` writes becomes the one that counts, once it is known to open."""
        self.check_usable()
        remove_uncommitted(self._root)
        known, old = known_versions(self._root), self._index.snapshot
        try:
            version = make()
            snapshot = Snapshot(self._root, version, old)
            current = version.number, publish(self._root, version)
        except OSError as error:
            raise LocalIndexError(self._after_failure(old.version, error)) from None
        self._index.move_to(snapshot, current)
        remove_unused(self._root, [*known, version], version)

    def _after_failure(self, old: Version, error: OSError) -> str:
        """What to say of a commit that the disk refused, when it has been cleared away as far as may be."""
        if read_current(self._root)[0] == old.number:
            remove_uncommitted(self._root)
            return f"{self._root}: commit failed, version {old.number} stands ({error})"
        self._index.refresh()
        self._unusable = (
            f"{self._root}: version {self._index.version} is in place, but the disk refused to make that durable ({error}): "
            f"a power failure may bring back version {old.number}; open a new writer"
        )
        return self._unusable

    def _done(self, start: float) -> CommitSummary:
        if not self._left_over:
            self._start_over()
        index = self._index
        return CommitSummary(index.version, index.passages, index.token_vectors, time.perf_counter() - start)

    def _next_number(self) -> int:
        return self._index.version + 1

    def _write_version(self, compact: bool) -> Version:
        snapshot = self._index.snapshot
        old, number = snapshot.version, self._next_number()
        rows = self._changes.rows
        encoded = self._changes.encoded
        taken = self._taken(snapshot) or (self._take_adopted(rows) if encoded else None)
        segments: list[SegmentEntry] = []
        items: Iterator[tuple[Passage, Matrix]] = iter(())
        total = self._living_rows(snapshot) + rows
        trains = (taken is None or snapshot.codebook is not None) and (
            self._outgrown(snapshot, rows) or (compact and self._worth_training(total))
        )
        if trains:
            taken = take_codebook(self._root, self._index.bundle, old.bits, self._vectors(self._everything(snapshot)), total)
            items = self._everything(snapshot)
        else:
            segments = [self._with_deletions(part.segment, part.mask, number) for part in snapshot.living]
            fsync_folder(self._root / "deletions")
            segments = [entry for entry in segments if entry.deleted_passages < entry.passages]
            places = [place for place in self._changes.places if place not in encoded]
            if encoded and taken is not None:
                coded = self._log.read([place for place in self._changes.places if place in encoded])
                packed = ((passage, self._encoded(rows)) for passage, rows in coded)
                fields = (old.schema, taken.codebook, snapshot.form)
                segments.append(build_encoded_segment(self._root, f"{number}e", *fields, packed))
            if places:
                items = self._log.read(places)
                if taken is not None and not encoded:
                    taken = grow(self._root, taken, self._vectors(self._log.read(places)), rows)
        if (first := next(items, None)) is not None:
            codebook = None if taken is None else taken.codebook
            codec = None
            if codebook is not None:
                codec = open_codec(old.codec, codebook, lambda: index_thresholds(self._root, old.dim, old.bundle))
            passages = itertools.chain([first], items)
            segments.append(build_segment(self._root, str(number), old.schema, codebook, codec, snapshot.form, passages))
            if trains and taken is not None:  # drift is counted from all vectors, not from the sample that k-means saw
                taken = dataclasses.replace(taken, fit=Fit(segments[-1].fit, taken.fit.low))
        if not trains and (updated := self._updated(snapshot, number, taken)) is not None:
            segments.append(updated)
        version = dataclasses.replace(old, number=number, segments=tuple(segments), created=now())
        if taken is not None:
            version = dataclasses.replace(version, codebook=taken.named, trained_on=taken.trained_on, fit=taken.fit)
        whole = len(segments) == 1 and not segments[0].deleted_passages
        if compact and segments and not whole:
            return self._merged(version, 0)
        sizes = [s.passages - s.deleted_passages + s.token_vectors - s.deleted_vectors for s in segments]
        return self._merged(version, merged_from(sizes)) if len(segments) > MAX_SEGMENTS else version

    def _updated(self, snapshot: Snapshot, number: int, taken: Taken | None) -> SegmentEntry | None:
        """A segment of the passages whose metadata change, with their vectors as they are stored. Memory: their metadata."""
        parts: list[tuple[Segment, Mask]] = []
        places: list[int] = []
        for part in snapshot.living:
            if updates := self._changes.updates(part.segment.entry.name):
                mask = np.zeros(part.segment.passages, np.bool_)
                mask[list(updates)] = True
                parts.append((part.segment, mask))
                places += updates.values()
        if not parts:
            return None
        changed = [Passage("", "", "", "", passage.metadata, passage.digest) for passage, _ in self._log.read(places)]
        codebook = None if taken is None else taken.codebook
        return merge_segments(self._root, f"{number}u", snapshot.version.schema, codebook, snapshot.form, parts, changed)

    def _take_adopted(self, rows: int) -> Taken:
        """The codebook of the codes that are put into an index without one."""
        codebook, vectors = self._codes_book(), self._vectors(self._read(self._changes.places))
        sample = sample_of(vectors, min(rows, FIT_VECTORS), rows, codebook.dim).astype(np.float32)
        return adopt(self._root, codebook, 0 if bundle_codebook(self._index.bundle) is not None else rows, sample)

    @staticmethod
    def _taken(snapshot: Snapshot) -> Taken | None:
        version = snapshot.version
        if snapshot.codebook is None or version.codebook is None or version.fit is None:
            return None
        return Taken(snapshot.codebook, version.codebook, version.trained_on, version.fit)

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
        drifted = drift is not None and not drift < DRIFTED
        return trained_on > 0 and total > 0 and (drifted or total >= COMPACTED * trained_on)

    def _living_rows(self, snapshot: Snapshot) -> int:
        """Token vectors of the committed passages that this commit leaves alive."""
        rows = snapshot.version.token_vectors
        for part in snapshot.living:
            removed = self._changes.removed(part.segment.entry.name)
            rows -= int(part.segment.lengths()[removed].sum())
        return rows

    def _everything(self, snapshot: Snapshot) -> Iterator[tuple[Passage, Matrix]]:
        """Living passages with their decoded vectors, then what waits in the log."""
        for part in snapshot.living:
            living = part.mask.copy()
            living[self._changes.removed(part.segment.entry.name)] = False
            updates = self._changes.updates(part.segment.entry.name)
            for row in np.flatnonzero(living).tolist():
                start, stop = part.segment.offsets[row : row + 2].tolist()
                vectors = np.empty((0, self._index.dim), np.float32)
                if snapshot.codebook is not None:
                    vectors = snapshot.best_vectors(part, slice(start, stop))
                passage = part.segment.passage(row)
                if row in updates:
                    passage, _ = next(self._log.read([updates[row]]))
                yield passage, vectors
        yield from self._read(self._changes.places)

    def _with_deletions(self, segment: Segment, mask: Mask, number: int) -> SegmentEntry:
        entry = next(e for e in self._index.snapshot.version.segments if e.name == segment.entry.name)
        removed = [*self._changes.removed(entry.name), *self._changes.updates(entry.name)]
        if not removed:
            return entry
        living = mask.copy()
        living[removed] = False
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


def _code_bytes(codebook: Codebook) -> int:
    """Of a code and its residual in the log."""
    return 4 + codebook.residual_bytes


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


def left_over_error(root: Path) -> LocalIndexError:
    return LocalIndexError(
        f"{root} has changes of an interrupted run that are not committed: go on with "
        f"`colbert-vespa feed ... --to {root} --resume`, or drop them with `colbert-vespa index discard {root}`"
    )
