"""What was read differently than expected, or not at all: counts and examples for the summary of a feed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from late_interaction.text import printable

__all__ = ["EXAMPLES", "Note", "SourceReport"]

EXAMPLES = 5  # examples of each kind


@dataclass(frozen=True, slots=True)
class Note:
    """A note about a feed's sources, such as files that were skipped.

    Attributes:
        kind: a fixed word for programs, such as `left_out`.
        message: what is counted, as a phrase that follows the number, such as "files skipped".
        count: how many.
        examples: the first of them.
    """

    kind: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Clean the examples, which may be names of files with any character."""
        object.__setattr__(self, "examples", tuple(printable(example) for example in self.examples))

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} {self.message}" + (f": {', '.join(self.examples)}{more}" if self.examples else "")


class SourceReport:
    """Collects notes; those of one kind and message are merged."""

    def __init__(self, notes: Iterable[Note] = ()) -> None:
        self._notes: dict[tuple[str, str], Note] = {}
        for note in notes:
            self.add(note)

    def add(self, note: Note) -> None:
        """Add a note."""
        key = (note.kind, note.message)
        known = self._notes.get(key, Note(*key, 0))
        examples = dict.fromkeys(known.examples + note.examples)
        self._notes[key] = Note(*key, known.count + note.count, tuple(examples)[:EXAMPLES])

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return the notes."""
        return tuple(self._notes.values())
