"""The changes that a writer has received since the last commit, by id. Texts and vectors are in the log (pending.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from late_interaction.plaid.store.segment import Segment
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.writing.pending import PUT, PUT_ENCODED, REMOVE_DOCUMENT, UPDATE, LogRecord

__all__ = ["Changes"]


@dataclass(slots=True)
class _Put:
    place: int
    rows: int
    document_id: str
    digest: str
    encoded: bool = False


class Changes:
    """Changes to the passages of `snapshot`. Memory use is about 500 bytes per passage put."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._puts: dict[str, _Put] = {}  # in order of the last put
        self._by_document: dict[str, dict[str, None]] = {}
        self._removed: dict[str, set[int]] = {}  # segment -> rows that the commit will delete
        self._updates: dict[str, dict[int, int]] = {}  # segment -> rows with other metadata, and where in the log that is

    def __bool__(self) -> bool:
        return bool(self._puts) or any(self._removed.values()) or any(self._updates.values())

    @property
    def puts(self) -> Mapping[str, int]:
        """Return ids of the passages put, with their number of rows."""
        return {id_: put.rows for id_, put in self._puts.items()}

    @property
    def places(self) -> list[int]:
        """Return the log places of the passages put, in order of their last put."""
        return [put.place for put in self._puts.values()]

    @property
    def encoded(self) -> set[int]:
        """Return the `places` that hold codes and residuals instead of vectors."""
        return {put.place for put in self._puts.values() if put.encoded}

    @property
    def rows(self) -> int:
        """Return the number of rows of the passages put."""
        return sum(put.rows for put in self._puts.values())

    def removed(self, segment: str) -> list[int]:
        """Return the rows of the segment that are deleted or replaced, ascending."""
        return sorted(self._removed.get(segment, ()))

    def has(self, passage_id: str) -> bool:
        """Tell whether a passage of that id exists after these changes."""
        if passage_id in self._puts:
            return True
        found = self._snapshot.find(passage_id)
        return found is not None and found[1] not in self._removed.get(found[0].segment.entry.name, ())

    def updates(self, segment: str) -> dict[int, int]:
        """Return the rows of the segment whose metadata change, ascending, and the log place of their new metadata."""
        return dict(sorted(self._updates.get(segment, {}).items()))

    def passages_of(self, document_id: str) -> dict[str, str]:
        """Return the ids of the document's passages after these changes, and their digests."""
        found = {id_: self._puts[id_].digest for id_ in self._by_document.get(document_id, ())}
        for segment, row in self._rows_of(document_id):
            updated = row in self._updates.get(segment.entry.name, ())
            found[segment.ids[row]] = "" if updated else segment.digests[row]
        return found

    def place_of(self, passage_id: str) -> tuple[int | None, tuple[Segment, int] | None]:
        """Return where a passage is: its place in the log and its segment and row, each None if it is not there.

        A passage in a segment has a place in the log if its metadata change.
        """
        if (put := self._puts.get(passage_id)) is not None:
            return put.place, None
        found = self._snapshot.find(passage_id)
        if found is None or found[1] in self._removed.get(found[0].segment.entry.name, ()):
            return None, None
        segment, row = found[0].segment, found[1]
        return self._updates.get(segment.entry.name, {}).get(row), (segment, row)

    def note(self, record: LogRecord) -> None:
        """Record a record of the log."""
        if record.kind in (PUT, PUT_ENCODED):
            encoded = record.kind == PUT_ENCODED
            self.put(record.id, record.document_id, record.place, record.rows, record.digest, encoded=encoded)
        elif record.kind == UPDATE:
            self.update(record.id, record.place)
        elif record.kind == REMOVE_DOCUMENT:
            self.remove_document(record.id)
        else:
            self.remove_passage(record.id)

    def put(self, passage_id: str, document_id: str, place: int, rows: int, digest: str, *, encoded: bool = False) -> None:
        """Record a put."""
        self.remove_passage(passage_id)
        self._puts[passage_id] = _Put(place, rows, document_id, digest, encoded)
        self._by_document.setdefault(document_id, {})[passage_id] = None

    def update(self, passage_id: str, place: int) -> None:
        """Give a committed passage, which must exist, the metadata at `place` of the log."""
        _, committed = self.place_of(passage_id)
        if committed is not None:
            segment, row = committed
            self._updates.setdefault(segment.entry.name, {})[row] = place

    def remove_passage(self, passage_id: str) -> int:
        """Remove a passage; return 1, or 0 if there was none."""
        put = self._puts.pop(passage_id, None)
        if put is not None:
            del self._by_document[put.document_id][passage_id]
            return 1
        found = self._snapshot.find(passage_id)
        return 0 if found is None else self._remove_row(found[0].segment, found[1])

    def remove_document(self, document_id: str) -> int:
        """Remove a document; return how many passages it had."""
        pending = self._by_document.pop(document_id, {})
        for passage_id in pending:
            del self._puts[passage_id]
        count = len(pending)
        for segment, row in list(self._rows_of(document_id)):
            count += self._remove_row(segment, row)
        return count

    def _rows_of(self, document_id: str) -> Iterator[tuple[Segment, int]]:
        """Return the committed passages of the document that these changes leave."""
        for part in self._snapshot.living:
            removed = self._removed.get(part.segment.entry.name, ())
            for row in part.segment.find_document(document_id):
                if part.mask[row] and row not in removed:
                    yield part.segment, row

    def _remove_row(self, segment: Segment, row: int) -> int:
        rows = self._removed.setdefault(segment.entry.name, set())
        if row in rows:
            return 0
        rows.add(row)
        self._updates.get(segment.entry.name, {}).pop(row, None)
        return 1
