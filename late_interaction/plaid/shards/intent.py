"""COMMITTING: what all shards are being brought to, so that the next writer can finish what an interrupted one began."""

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
    """Every shard gets the version `version` by the same step.

    to: the version whose passages it has again. tuned: for each shard, the effort that its searches take. fields: metadata
    fields that it has from then on, with their types. Where there is none of these, it commits what its log holds, with `name`
    and `compact`.
    """

    version: int
    name: str = ""
    compact: bool = False
    to: int | None = None
    tuned: tuple[Tuned, ...] | None = None
    fields: Mapping[str, str] | None = None


def write_intent(root: Path, intent: Intent) -> None:
    """Raises: LocalIndexError where the disk refuses."""
    data = dataclasses.asdict(intent)
    if intent.tuned is not None:
        data["tuned"] = [dataclasses.asdict(tuned) for tuned in intent.tuned]
    try:
        atomic_write(root / COMMITTING, (json.dumps(sealed(data)) + "\n").encode())
    except OSError as error:
        raise LocalIndexError(f"{root} cannot be written: {error}") from None


def read_intent(root: Path) -> Intent | None:
    """None where no step is under way or was interrupted. Raises: LocalIndexError where the file is damaged."""
    try:
        text = (root / COMMITTING).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {COMMITTING} cannot be read ({error})") from None
    where = f"{root} is damaged: {COMMITTING}"
    return read(Intent, parse_sealed(text, LocalIndexError, where), LocalIndexError, where)


def remove_half_written(root: Path) -> None:
    """What a writer that was killed has left of one. Only for the writer."""
    with contextlib.suppress(OSError):
        for path in root.glob(f".{COMMITTING}.*"):
            path.unlink(missing_ok=True)


def remove_intent(root: Path) -> None:
    """Raises: LocalIndexError where the disk refuses."""
    try:
        (root / COMMITTING).unlink()
        fsync_folder(root)
    except OSError as error:
        raise LocalIndexError(f"{root} cannot be written: {error}") from None
