"""What a writer was given since the last commit, by id. Texts and vectors are in the log (pending.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from late_interaction.plaid.segment import Segment
from late_interaction.plaid.snapshot import Snapshot

__all__ = ["Changes"]


@dataclass(slots=True)
class _Put:
    place: int
    rows: int
    document_id: str


class Changes:
    """Changes to the passages of `snapshot`. Memory: some 500 bytes a passage put."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._puts: dict[str, _Put] = {}  # in order of the last put
        self._by_document: dict[str, dict[str, None]] = {}
        self._removed: dict[str, set[int]] = {}  # segment -> rows that the commit will delete

    def __bool__(self) -> bool:
        return bool(self._puts) or any(self._removed.values())

    @property
    def puts(self) -> Mapping[str, int]:
        """Ids of the passages put, with their number of rows."""
        return {id_: put.rows for id_, put in self._puts.items()}

    @property
    def places(self) -> list[int]:
        """Where in the log the passages are that were put, in order of their last put."""
        return [put.place for put in self._puts.values()]

    @property
    def rows(self) -> int:
        return sum(put.rows for put in self._puts.values())

    def removed(self, segment: str) -> list[int]:
        """Rows of the segment that are deleted or replaced, ascending."""
        return sorted(self._removed.get(segment, ()))

    def has(self, passage_id: str) -> bool:
        """Whether a passage of that id is there once these changes are made."""
        if passage_id in self._puts:
            return True
        found = self._snapshot.find(passage_id)
        return found is not None and found[1] not in self._removed.get(found[0].segment.entry.name, ())

    def put(self, passage_id: str, document_id: str, place: int, rows: int) -> None:
        self.remove_passage(passage_id)
        self._puts[passage_id] = _Put(place, rows, document_id)
        self._by_document.setdefault(document_id, {})[passage_id] = None

    def remove_passage(self, passage_id: str) -> int:
        """1, or 0 where there was no such passage."""
        put = self._puts.pop(passage_id, None)
        if put is not None:
            del self._by_document[put.document_id][passage_id]
            return 1
        found = self._snapshot.find(passage_id)
        return 0 if found is None else self._remove_row(found[0].segment, found[1])

    def remove_document(self, document_id: str) -> int:
        """How many passages it had."""
        pending = self._by_document.pop(document_id, {})
        for passage_id in pending:
            del self._puts[passage_id]
        count = len(pending)
        for part in self._snapshot.living:
            for row in part.segment.find_document(document_id):
                if part.mask[row]:
                    count += self._remove_row(part.segment, row)
        return count

    def _remove_row(self, segment: Segment, row: int) -> int:
        rows = self._removed.setdefault(segment.entry.name, set())
        if row in rows:
            return 0
        rows.add(row)
        return 1
