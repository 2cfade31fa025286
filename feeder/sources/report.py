"""What was read of a source otherwise than expected, or not at all: counts and examples for the summary of a feed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from late_interaction.text import printable

__all__ = ["EXAMPLES", "Note", "SourceReport"]

EXAMPLES = 5  # named of each kind


@dataclass(frozen=True, slots=True)
class Note:
    """Something a feed's summary tells about its sources, such as files that were left out.

    kind: a fixed word for programs, such as `left_out`. message: what is counted, as a phrase that follows the number, such as
    "files left out (no known kind)". examples: the first of them.
    """

    kind: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Examples may be names of files, which hold any character."""
        object.__setattr__(self, "examples", tuple(printable(example) for example in self.examples))

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} {self.message}" + (f": {', '.join(self.examples)}{more}" if self.examples else "")


class SourceReport:
    """Notes as they come up; those of one kind and message become one."""

    def __init__(self, notes: Iterable[Note] = ()) -> None:
        self._notes: dict[tuple[str, str], Note] = {}
        for note in notes:
            self.add(note)

    def add(self, note: Note) -> None:
        key = (note.kind, note.message)
        known = self._notes.get(key, Note(*key, 0))
        examples = dict.fromkeys(known.examples + note.examples)
        self._notes[key] = Note(*key, known.count + note.count, tuple(examples)[:EXAMPLES])

    @property
    def notes(self) -> tuple[Note, ...]:
        return tuple(self._notes.values())
