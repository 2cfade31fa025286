"""The progress of a copy, on disk: one JSON line for each stretch that is durable at the target."""

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
    """The progress so far.

    Attributes:
        resume: where to continue.
        batches: batches since the beginning.
        documents: documents since the beginning.
        passages: passages since the beginning.
        token_vectors: token vectors since the beginning.
        already_there: how many of the documents the target had already.
    """

    resume: str = ""
    batches: Count = 0
    documents: Count = 0
    passages: Count = 0
    token_vectors: Count = 0
    already_there: Count = 0


class CopyJournal:
    """The journal of a copy.

    Attributes:
        last: progress of an earlier run, or none.
        resumed: whether there was an earlier run.
    """

    def __init__(self, path: Path, copy: str, *, resume: bool) -> None:
        """Read the journal. Nothing is written before `begin`.

        Args:
            path: the file.
            copy: what is copied where.
            resume: continue an earlier run.

        Raises:
            CollectionError: if the file is damaged or belongs to another copy.
        """
        self.path = path
        self.last = Stretch()
        self._header = first_line(KIND, copy=copy)
        check_own_file(path, KIND)
        self._whole = self._read() if resume and path.exists() else 0
        self.resumed = self._whole > 0
        self._file = AppendedFile(path, "copy journal", KIND)

    def begin(self) -> None:
        """Start writing.

        Raises:
            CollectionError: if the file cannot be written, or another run has it.
        """
        self._file.open(self._whole)
        if not self.resumed:
            self._file.append(self._header)

    def _read(self) -> int:
        """Read the file; return the length of its complete part."""
        whole = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
                    if not line.endswith(b"\n") and not file.read(1):
                        break  # torn
                    if number == 1 and line != self._header:
                        raise CollectionError(
                            f"{self.path} belongs to another copy, or its source has changed; run without --resume"
                        )
                    if number > 1:
                        self.last = read(Stretch, json.loads(line), CollectionError, f"{self.path}:{number} is damaged")
                    whole += len(line)
        except OSError as error:
            raise CollectionError(f"copy journal {self.path} cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, RecursionError):
            raise CollectionError(f"copy journal {self.path}:{number} is damaged; run without --resume") from None
        return whole

    def note(self, stretch: Stretch) -> None:
        """Record progress; it is durable on return.

        Raises:
            CollectionError: if the disk refuses.
        """
        self._file.append(json.dumps(dataclasses.asdict(stretch)).encode() + b"\n")
        self.last = stretch

    def close(self, *, remove: bool) -> None:
        """Close the file. remove: delete it, because the copy is complete."""
        if remove:
            self._file.remove()
        self._file.close()
