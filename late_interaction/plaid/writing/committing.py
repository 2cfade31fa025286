"""Write the segments of a new version, from the log and from what is stored already."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.array_types import I32, U8, Mask, Matrix, Packed, TokenVectors, Vector
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.files import fsync_folder
from late_interaction.one_vector import one_vector
from late_interaction.plaid.store.codecs import CODECS
from late_interaction.plaid.store.dense import dense_stem, lacks_links
from late_interaction.plaid.store.linking import can_link
from late_interaction.plaid.store.opened import OpenedVersion
from late_interaction.plaid.store.segment import Segment
from late_interaction.plaid.store.snapshot import Snapshot, index_thresholds
from late_interaction.plaid.store.storage import write_array
from late_interaction.plaid.store.versions import Fit, NamedFile, SegmentEntry, Version, now
from late_interaction.plaid.writing.build import Rows, build_encoded_segment, build_segment, merge_segments
from late_interaction.plaid.writing.changes import Changes
from late_interaction.plaid.writing.pending import PendingLog
from late_interaction.plaid.writing.training import FIT_VECTORS, Taken, adopt, bundle_codebook, grow, sample_of, take_codebook

__all__ = ["Commit", "Uncommitted", "code_bytes", "merged_from", "packed_rows"]

MAX_SEGMENTS = 8
ENCODED_AT_ONCE = 256  # passages as one vector each
OUTGROWN = 8  # the codebook is retrained at this multiple of the vectors it was trained on
COMPACTED = 2  # the same, where the index is compacted
DRIFTED = 0.03  # drift from which a compaction trains a codebook


def code_bytes(codebook: Codebook) -> int:
    """Return the bytes of a code and its residual in the log."""
    return 4 + codebook.residual_bytes


def packed_rows(encoded: Packed, dim: int) -> Matrix:
    """Pack codes and residuals into rows like vectors `[t, dim]`, for the log."""
    codes, residuals = encoded
    rows = np.zeros((len(codes), 4 * dim), np.uint8)
    rows[:, :4] = codes.astype("<i4")[:, None].view(np.uint8)
    rows[:, 4 : 4 + residuals.shape[1]] = residuals
    return rows.view("<f4")


@dataclass(frozen=True)
class Uncommitted:
    """The changes that wait for a commit.

    adopted: codebook that an index without one takes up, from the codes in the log or from the other shards.
    """

    opened: OpenedVersion
    log: PendingLog
    changes: Changes
    adopted: Codebook | None

    def read(self, places: Sequence[int]) -> Iterator[tuple[Passage, TokenVectors, Vector]]:
        """Yield passages and vectors, with the ids of their rows, at those log places; codes and residuals are decoded."""
        encoded = self.changes.encoded
        for place, (passage, rows, dense) in zip(places, self.log.read(places), strict=True):
            yield passage, (self.codebook().decode(*self._unpacked(rows[0])), None) if place in encoded else rows, dense

    def read_encoded(self) -> Iterator[tuple[Passage, Packed, Vector]]:
        """Yield passages with codes and residuals."""
        places = [place for place in self.changes.places if place in self.changes.encoded]
        return ((passage, self._unpacked(rows), dense) for passage, (rows, _), dense in self.log.read(places))

    def _unpacked(self, rows: Matrix) -> Packed:
        """Unpack `packed_rows`; LocalIndexError if they name centroids that do not exist."""
        book, root = self.codebook(), self.opened.path
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), 4 * self.opened.version.dim)
        codes = np.ascontiguousarray(data[:, :4]).view("<i4")[:, 0].astype(np.int32)
        if len(codes) and not 0 <= codes.min() <= codes.max() < book.size:
            raise LocalIndexError(
                f"{root}: the uncommitted codes belong to another codebook; drop them with `colbert-vespa index discard {root}`"
            )
        return codes, np.ascontiguousarray(data[:, 4 : code_bytes(book)])

    def codebook(self) -> Codebook:
        """Return the codebook of the codes in the log."""
        book, root = self.opened.snapshot.codebook or self.adopted, self.opened.path
        if book is None:
            raise LocalIndexError(
                f"{root}: an interrupted copy has left codes without their codebook; continue that copy with "
                f"--resume, or drop them with `colbert-vespa index discard {root}`"
            )
        return book


class Commit:
    """Writes the segments of the next version; the writer publishes it."""

    def __init__(self, uncommitted: Uncommitted) -> None:
        self._uncommitted = uncommitted
        self._opened = uncommitted.opened
        self._changes = uncommitted.changes
        self._root = uncommitted.opened.path
        self._snapshot = uncommitted.opened.snapshot
        self._number = self._snapshot.version.number + 1

    def write(self, *, compact: bool) -> Version:
        """Write the segments. compact: as in `IndexWriter.commit`."""
        old, rows = self._snapshot.version, self._changes.rows
        taken = self._taken() or (self._adopted(rows) if self._adopts(rows) else None)
        total = self._living_rows() + rows
        if (taken is None or self._snapshot.codebook is not None) and self._trains(rows, total, compact):
            taken = take_codebook(self._root, self._opened.bundle, old.bits, _vectors(self._everything()), total)
            segments = self._built(self._everything(), taken)
            if segments:  # drift is measured on all vectors, not on the sample that k-means saw
                taken = dataclasses.replace(taken, fit=Fit(segments[-1].fit, taken.fit.low))
        else:
            segments, taken = self._appended(taken, rows)
        version = dataclasses.replace(old, number=self._number, segments=tuple(segments), created=now())
        if taken is not None:
            version = dataclasses.replace(version, codebook=taken.named, trained_on=taken.trained_on, fit=taken.fit)
        whole = len(segments) == 1 and not segments[0].deleted_passages and not _gains_links(segments[0], old.row_sets)
        if compact and segments and not whole:
            return self._merged(version, 0)
        sizes = [s.passages - s.deleted_passages + s.token_vectors - s.deleted_vectors for s in segments]
        return self._merged(version, merged_from(sizes)) if len(segments) > MAX_SEGMENTS else version

    def _taken(self) -> Taken | None:
        """Return the codebook that the index has."""
        version = self._snapshot.version
        if self._snapshot.codebook is None or version.codebook is None or version.fit is None:
            return None
        return Taken(self._snapshot.codebook, version.codebook, version.trained_on, version.fit)

    def _adopts(self, rows: int) -> bool:
        return bool(self._changes.encoded) or (rows > 0 and self._uncommitted.adopted is not None)

    def _adopted(self, rows: int) -> Taken:
        """Return a codebook that was trained elsewhere, for an index without one."""
        codebook, vectors = self._uncommitted.codebook(), _vectors(self._uncommitted.read(self._changes.places))
        sample = sample_of(vectors, min(rows, FIT_VECTORS), rows, codebook.dim)
        return adopt(self._root, codebook, 0 if bundle_codebook(self._opened.bundle) is not None else rows, sample)

    def _trains(self, rows: int, total: int, compact: bool) -> bool:
        """Tell whether this commit of `rows` vectors trains a codebook.

        The first commit does, and one whose codebook was trained on far fewer vectors. A compaction to `total` vectors does
        so earlier, but not each time: decoded vectors lose a little when they are encoded again.
        """
        version = self._snapshot.version
        trained_on, drift = version.trained_on, version.drift
        if rows and (self._snapshot.codebook is None or (trained_on > 0 and total >= OUTGROWN * trained_on)):
            return True
        drifted = drift is not None and not drift < DRIFTED
        return compact and trained_on > 0 and total > 0 and (drifted or total >= COMPACTED * trained_on)

    def _living_rows(self) -> int:
        """Count the token vectors of committed passages that this commit leaves alive."""
        rows = self._snapshot.version.token_vectors
        for part in self._snapshot.living:
            removed = self._changes.removed(part.segment.entry.name)
            rows -= int(part.segment.lengths()[removed].sum())
        return rows

    def _everything(self) -> Iterator[tuple[Passage, TokenVectors, Vector]]:
        """Yield living passages with decoded vectors and the ids that their centroids belong to, then those in the log."""
        for part in self._snapshot.living:
            living = part.mask.copy()
            living[self._changes.removed(part.segment.entry.name)] = False
            updates = self._changes.updates(part.segment.entry.name)
            for row in np.flatnonzero(living).tolist():
                start, stop = part.segment.offsets[row : row + 2].tolist()
                vectors, ids = np.empty((0, self._snapshot.version.dim), np.float32), None
                if (book := self._snapshot.codebook) is not None:
                    vectors = self._snapshot.best_vectors(part, slice(start, stop))
                    ids = None if book.owners is None else book.owners[part.segment.codes[start:stop]]
                passage = part.segment.passage(row)
                if row in updates:
                    passage, _, _ = next(self._uncommitted.log.read([updates[row]]))
                yield passage, (vectors, ids), part.segment.dense_of(row)
        yield from self._with_one_vector(self._uncommitted.read(self._changes.places))

    def _appended(self, taken: Taken | None, rows: int) -> tuple[list[SegmentEntry], Taken | None]:
        """Keep the old segments and add one of the new passages; the codebook may have grown for it."""
        log, encoded = self._uncommitted.log, self._changes.encoded
        entries = [self._with_deletions(part.segment, part.mask) for part in self._snapshot.living]
        fsync_folder(self._root / "deletions")
        segments = [entry for entry in entries if entry.deleted_passages < entry.passages]
        places = [place for place in self._changes.places if place not in encoded]
        if taken is not None and encoded:
            fields = (self._snapshot.version.schema, taken.codebook, self._snapshot.form)
            packed = self._with_one_vector(self._uncommitted.read_encoded(), taken.codebook.decode)
            segments.append(build_encoded_segment(self._root, f"{self._number}e", *fields, packed))
        elif taken is not None and places:
            taken = grow(self._root, taken, _vectors(log.read(places)), rows)
        return [*segments, *self._built(self._with_one_vector(log.read(places)), taken), *self._updated(taken)], taken

    def _with_one_vector(
        self, items: Iterator[tuple[Passage, Rows, Vector]], decode: Callable[[I32, U8], Matrix] | None = None
    ) -> Iterator[tuple[Passage, Rows, Vector]]:
        """Append the vector that candidates `pooled` search to the dense vectors, if the index has one.

        decode: decodes rows that are encoded already.
        """
        form = self._snapshot.version.one_vector
        if form is None:
            yield from items
            return
        encoding = one_vector(self._opened.bundle, form.encoding)
        while block := list(itertools.islice(items, ENCODED_AT_ONCE)):
            vectors = encoding.passages([_decoded(rows, decode) for _, rows, _ in block])
            for (passage, rows, dense), vector in zip(block, vectors, strict=True):
                yield passage, rows, np.concatenate([dense, vector])

    def _built(self, items: Iterator[tuple[Passage, TokenVectors, Vector]], taken: Taken | None) -> list[SegmentEntry]:
        """Write a segment of those passages; none if there are none."""
        old, codec = self._snapshot.version, None
        first = next(items, None)
        if first is None:
            return []
        codebook = None if taken is None else taken.codebook
        if codebook is not None:
            codec = CODECS[old.codec].open(codebook, lambda: index_thresholds(self._root, old.dim, old.bundle))
        passages = itertools.chain([first], items)
        fields = (old.schema, codebook, codec, self._snapshot.form)
        return [build_segment(self._root, str(self._number), *fields, passages)]

    def _updated(self, taken: Taken | None) -> list[SegmentEntry]:
        """Write a segment of the passages whose metadata change, with their stored vectors. Memory use is their metadata."""
        parts: list[tuple[Segment, Mask]] = []
        places: list[int] = []
        for part in self._snapshot.living:
            if updates := self._changes.updates(part.segment.entry.name):
                mask = np.zeros(part.segment.passages, np.bool_)
                mask[list(updates)] = True
                parts.append((part.segment, mask))
                places += updates.values()
        if not parts:
            return []
        passages = self._uncommitted.log.read(places)
        changed = [Passage("", "", "", "", passage.metadata, passage.digest) for passage, _, _ in passages]
        fields = (self._snapshot.version.schema, None if taken is None else taken.codebook, self._snapshot.form)
        return [merge_segments(self._root, f"{self._number}u", *fields, parts, changed)]

    def _with_deletions(self, segment: Segment, mask: Mask) -> SegmentEntry:
        entry = next(e for e in self._snapshot.version.segments if e.name == segment.entry.name)
        removed = [*self._changes.removed(entry.name), *self._changes.updates(entry.name)]
        if not removed:
            return entry
        living = mask.copy()
        living[removed] = False
        rows = np.flatnonzero(~living).astype(np.int32)
        name = f"deletions/{entry.name}-{self._number}.npy"
        file = NamedFile(name, write_array(self._root / name, rows))
        vectors = int(segment.lengths()[rows].sum())
        return dataclasses.replace(entry, deleted=file, deleted_passages=len(rows), deleted_vectors=vectors)

    def _merged(self, version: Version, first: int) -> Version:
        """Merge the segments from the `first` on into one."""
        snapshot = Snapshot(self._root, version, self._snapshot)
        parts = [(part.segment, part.mask) for part in snapshot.living[first:]]
        fields = (version.schema, snapshot.codebook, snapshot.form)
        entry = merge_segments(self._root, f"{version.number}m", *fields, parts)
        return dataclasses.replace(version, segments=(*version.segments[:first], entry))


def _decoded(rows: TokenVectors | Packed, decode: Callable[[I32, U8], Matrix] | None) -> Matrix:
    return rows[0] if decode is None else decode(*rows)  # type: ignore[return-value]  # packed where there is one


def _vectors(items: Iterable[tuple[Passage, TokenVectors, Vector]]) -> Iterator[TokenVectors]:
    return (rows for _, rows, _ in items)


def _gains_links(segment: SegmentEntry, dense: Iterable[str]) -> bool:
    """Tell whether a graph would be built if the segment were written again."""
    return can_link() and any(lacks_links(segment.files, dense_stem(name), segment.passages) for name in dense)


def merged_from(sizes: Sequence[int]) -> int:
    """Return the place of the first segment to merge.

    The last two are merged, and those before as long as each is no larger than all after it. So a passage that is written
    again goes into a segment of at least twice the size, and each passage is written about four times in 1,000 commits of
    one size, and eight times in 10,000.
    """
    first = max(0, len(sizes) - 2)
    total = sum(sizes[first:])
    while first and sizes[first - 1] <= total:
        first -= 1
        total += sizes[first]
    return first
