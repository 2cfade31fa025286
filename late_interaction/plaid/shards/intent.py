"""COMMITTING: the step that all shards are taking, so that the next writer can finish what an interrupted one began."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.files import atomic_write, fsync_folder
from late_interaction.plaid.store.versions import Tuned
from late_interaction.structured import parse_sealed, read, sealed

__all__ = ["Intent", "read_intent", "remove_half_written", "remove_intent", "write_intent"]

COMMITTING = "COMMITTING"


@dataclass(frozen=True, slots=True)
class Intent:
    """The step that brings every shard to the version `version`.

    Without `to`, `tuned` and `fields`, the step commits what each shard's log holds, with `name` and `compact`.

    Attributes:
        version: number of the new version.
        name: its name.
        compact: whether shards are compacted.
        to: the version whose passages are restored; None otherwise.
        tuned: for each shard, the new effort of its searches.
        fields: metadata fields that are added, with their types.
    """

    version: int
    name: str = ""
    compact: bool = False
    to: int | None = None
    tuned: tuple[Tuned, ...] | None = None
    fields: Mapping[str, str] | None = None


def write_intent(root: Path, intent: Intent) -> None:
    """Write COMMITTING.

    Raises:
        LocalIndexError: if it cannot be written.
    """
    data = dataclasses.asdict(intent)
    if intent.tuned is not None:
        data["tuned"] = [dataclasses.asdict(tuned) for tuned in intent.tuned]
    try:
        atomic_write(root / COMMITTING, (json.dumps(sealed(data)) + "\n").encode())
    except OSError as error:
        raise LocalIndexError(f"{root} cannot be written: {error}") from None


def read_intent(root: Path) -> Intent | None:
    """Read COMMITTING; None if no step is under way or interrupted.

    Raises:
        LocalIndexError: if the file is damaged.
    """
    try:
        text = (root / COMMITTING).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {COMMITTING} cannot be read ({error})") from None
    where = f"{root} is damaged: {COMMITTING}"
    return read(Intent, parse_sealed(text, LocalIndexError, where), LocalIndexError, where)


def remove_half_written(root: Path) -> None:
    """Remove what a killed writer has left of the file. Only for the writer."""
    with contextlib.suppress(OSError):
        for path in root.glob(f".{COMMITTING}.*"):
            path.unlink(missing_ok=True)


def remove_intent(root: Path) -> None:
    """Remove COMMITTING.

    Raises:
        LocalIndexError: if it cannot be removed.
    """
    try:
        (root / COMMITTING).unlink()
        fsync_folder(root)
    except OSError as error:
        raise LocalIndexError(f"{root} cannot be written: {error}") from None
