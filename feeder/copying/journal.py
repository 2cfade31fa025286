"""How far a copy is, on disk: one JSON line for each stretch that is durable at the target."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from feeder.own_files import AppendedFile, check_own_file, first_line
from late_interaction.errors import CollectionError
from late_interaction.structured import Count, read

__all__ = ["KIND", "CopyJournal", "Stretch"]

KIND = "copy journal"
MAX_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Stretch:
    """All that was brought up to here: batches, documents, passages and token vectors since the beginning; resume: where to go
    on. already_there: of the documents, those that the target had as they are."""

    resume: str = ""
    batches: Count = 0
    documents: Count = 0
    passages: Count = 0
    token_vectors: Count = 0
    already_there: Count = 0


class CopyJournal:
    """`last`: how far an earlier run came, or nothing. `resumed`: whether there was one."""

    def __init__(self, path: Path, copy: str, *, resume: bool) -> None:
        """copy: what is copied where. Nothing is written before `begin`.

        Raises: CollectionError where the file is damaged or belongs to another copy.
        """
        self.path = path
        self.last = Stretch()
        self._header = first_line(KIND, copy=copy)
        check_own_file(path, KIND)
        self._whole = self._read() if resume and path.exists() else 0
        self.resumed = self._whole > 0
        self._file = AppendedFile(path, "copy journal", KIND)

    def begin(self) -> None:
        """Raises: CollectionError where the file cannot be written, or another run has it."""
        self._file.open(self._whole)
        if not self.resumed:
            self._file.append(self._header)

    def _read(self) -> int:
        """The length of the part that is whole."""
        whole = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
                    if not line.endswith(b"\n") and not file.read(1):
                        break  # torn
                    if number == 1 and line != self._header:
                        raise CollectionError(
                            f"{self.path} is of another copy, or what it copies has changed: leave --resume out"
                        )
                    if number > 1:
                        self.last = read(Stretch, json.loads(line), CollectionError, f"{self.path}:{number} is damaged")
                    whole += len(line)
        except OSError as error:
            raise CollectionError(f"copy journal {self.path} cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, RecursionError):
            raise CollectionError(f"copy journal {self.path}:{number} is damaged: leave --resume out") from None
        return whole

    def note(self, stretch: Stretch) -> None:
        """Durable when this returns. Raises: CollectionError where the disk refuses."""
        self._file.append(json.dumps(dataclasses.asdict(stretch)).encode() + b"\n")
        self.last = stretch

    def close(self, *, remove: bool) -> None:
        """remove: the copy is complete."""
        if remove:
            self._file.remove()
        self._file.close()
