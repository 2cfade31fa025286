"""SHARDS.json: the number of shards, and what assigns passages to them. The format is in docs/reference/index-format.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.files import atomic_write
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.store.storage import string_hash
from late_interaction.plaid.store.versions import CURRENT, check_is_folder
from late_interaction.structured import parse_sealed, read, sealed

__all__ = ["MAX_SHARDS", "SHARDS", "Sharding", "is_index_folder", "read_sharding", "shard_path", "write_sharding"]

SHARDS = "SHARDS.json"
FORMAT_VERSION = 2
MAX_SHARDS = 64
_PARTS = {"bundle", "codebooks", "deletions", "pending", "segments", "versions"}  # folders in an index
_OWN_ENTRIES = re.compile(r"CURRENT|LOCK|SHARDS\.json|COMMITTING|\.(CURRENT|SHARDS\.json|COMMITTING)\.\w+|shard-\d+")


@dataclass(frozen=True, slots=True)
class Sharding:
    """How an index is sharded.

    Attributes:
        count: number of shards.
        field: the metadata field whose value assigns a passage to its shard; None for its document's id.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS)]
    field: str | None = None

    def __post_init__(self) -> None:
        """Check the number of shards.

        Raises:
            UsageError: if it is not 1 to 64.
        """
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MAX_SHARDS:
            raise UsageError(f"an index has 1 to {MAX_SHARDS} shards, got {self.count!r}")

    def __str__(self) -> str:
        return f"{self.count} shards by {'id' if self.field is None else f'metadata field {self.field!r}'}"

    def check(self, schema: MetadataSchema) -> None:
        """Check that the schema has the sharding field.

        Raises:
            UsageError: if it does not.
        """
        if self.field is not None and self.field not in schema.fields:
            known = ", ".join(schema.fields) or "none"
            raise UsageError(f"shards by {self.field!r}: the index has no such metadata field; its fields: {known}")

    def of_document(self, document_id: str) -> int | None:
        """Return the shard of that document's passages; None if their metadata assign it."""
        return string_hash(document_id) % self.count if self.field is None else None

    def of_passage(self, passage: Passage, schema: MetadataSchema) -> int:
        """Return the shard of a passage.

        Raises:
            MetadataError: if the value of the sharding field has another type.
        """
        if self.field is None:
            return string_hash(passage.document_id) % self.count
        value = schema.check({self.field: passage.metadata.get(self.field)}).get(self.field)
        return string_hash(json.dumps(value, sort_keys=True)) % self.count


def shard_path(root: Path, shard: int) -> Path:
    """Return the folder of a shard."""
    return root / f"shard-{shard}"


def is_index_folder(folder: Path) -> bool:
    """Tell whether `folder` holds an index, with or without shards, and nothing else, so that it may be replaced."""
    if not ((folder / CURRENT).is_file() or (folder / SHARDS).is_file()):
        return False
    return all(
        entry.name in _PARTS if entry.is_dir() and not entry.name.startswith("shard-") else _OWN_ENTRIES.fullmatch(entry.name)
        for entry in folder.iterdir()
    )


def write_sharding(root: Path, sharding: Sharding) -> None:
    """Write SHARDS.json."""
    data: dict[str, object] = {"format_version": FORMAT_VERSION, "count": sharding.count}
    data |= {"key": "id"} if sharding.field is None else {"key": "metadata", "field": sharding.field}
    atomic_write(root / SHARDS, (json.dumps(sealed(data), indent=1) + "\n").encode())


def read_sharding(root: Path) -> Sharding:
    """Read SHARDS.json.

    Raises:
        LocalIndexError: if the file is missing, damaged or of an unknown format version.
    """
    check_is_folder(root)
    try:
        text = (root / SHARDS).read_bytes()
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {SHARDS} cannot be read ({error})") from None
    where = f"{root} is damaged: {SHARDS}"
    data = parse_sealed(text, LocalIndexError, where, format_version=FORMAT_VERSION)
    if data.pop("key", None) != ("metadata" if "field" in data else "id"):
        raise LocalIndexError(f"{where}: key must be 'id', or 'metadata' with a field")
    return read(Sharding, data, LocalIndexError, where)
