"""manifest.json of a backup: its contents, with a checksum for every file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from feeder.copying.parts import LARGEST
from feeder.targets import Kept
from late_interaction.bundle import check_dense_name
from late_interaction.errors import CollectionError, MetadataError
from late_interaction.files import sha256_file
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.reading import read_regular
from late_interaction.structured import Count, parse, read

__all__ = ["MANIFEST", "PART", "BackupManifest", "FileNote", "PartNote"]

MANIFEST = "manifest.json"
FORMAT, VERSION, WITH_DENSE = "colbert-vespa backup", 1, 2
MAX_BYTES = 256 << 20
PART = re.compile(r"\d{6,9}\.gz")


@dataclass(frozen=True, slots=True)
class FileNote:
    """Name, size and checksum of a file."""

    name: str
    bytes: Count
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileNote:
        """Read a file and return its note."""
        return cls(path.name, path.stat().st_size, sha256_file(path))


@dataclass(frozen=True, slots=True)
class PartNote:
    """A part of a backup.

    Attributes:
        file: its file.
        unpacked: its size in bytes, uncompressed.
        documents: number of documents.
        passages: number of passages.
        token_vectors: number of token vectors.
    """

    file: FileNote
    unpacked: Count
    documents: Count
    passages: Count
    token_vectors: Count


@dataclass(frozen=True)
class BackupManifest:
    """The content of manifest.json.

    Attributes:
        source: the address that it was made from.
        bundle_sha256: checksum of the bundle.
        schema: metadata fields.
        kept: what is kept of a vector.
        storage: storage of the index.
        codebook: its file, if rows are packed.
        parts: the parts.
        dense: dimensions of dense models by name; if there are any, the format version is 2.
    """

    source: str
    bundle_sha256: str
    schema: MetadataSchema
    kept: Kept
    storage: Storage
    codebook: FileNote | None
    parts: tuple[PartNote, ...]
    dense: Mapping[str, Annotated[int, msgspec.Meta(ge=1)]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json."""
        data = {
            "format": FORMAT,
            "version": WITH_DENSE if self.dense else VERSION,
            **({"dense": dict(self.dense)} if self.dense else {}),
            "source": self.source,
            "bundle_sha256": self.bundle_sha256,
            "metadata": self.schema.to_json(),
            "kept": dataclasses.asdict(self.kept),
            "storage": dataclasses.asdict(self.storage),
            "codebook": None if self.codebook is None else dataclasses.asdict(self.codebook),
            "documents": sum(note.documents for note in self.parts),
            "passages": sum(note.passages for note in self.parts),
            "token_vectors": sum(note.token_vectors for note in self.parts),
            "parts": [dataclasses.asdict(note) for note in self.parts],
        }
        return json.dumps(data | {"sha256": _checksum(data)}, indent=1).encode()

    @classmethod
    def read(cls, folder: Path) -> BackupManifest:
        """Read manifest.json.

        Raises:
            CollectionError: if it is missing, damaged or of another version.
        """
        path = folder / MANIFEST
        try:
            text = read_regular(path, MAX_BYTES)
        except FileNotFoundError:
            raise CollectionError(f"{folder} is not a complete backup: it has no {MANIFEST}, which is written last") from None
        except (OSError, ValueError) as error:
            raise CollectionError(f"{path} cannot be read: {error}") from None
        head: dict[str, Any] = {"format": FORMAT}
        data = parse(text, CollectionError, str(path), **head)
        head["version"] = WITH_DENSE if data.get("dense") else VERSION
        if (found := data.pop("version", None)) != head["version"]:
            raise CollectionError(f"{path}: version {found!r:.60} is unknown; this release reads {head['version']}")
        if data.pop("sha256", None) != _checksum(head | data):
            raise CollectionError(f"{path} is damaged (its checksum differs); use another backup")
        try:
            totals = {name: data.pop(name) for name in ("documents", "passages", "token_vectors")}
            data["schema"] = MetadataSchema.from_json(data.pop("metadata"))
        except (KeyError, TypeError, AttributeError, MetadataError) as error:
            raise CollectionError(f"{path} is damaged: {error}") from None
        manifest = read(cls, data, CollectionError, f"{path} is damaged")
        for name, total in totals.items():
            if total != sum(getattr(note, name) for note in manifest.parts):
                raise CollectionError(f"{path} is damaged: {name} is not the sum of its parts")
        for name in manifest.dense:
            check_dense_name(name, CollectionError, f"{path} is damaged")
        for note in manifest.parts:
            if not PART.fullmatch(note.file.name) or note.unpacked > LARGEST:
                raise CollectionError(f"{path} is damaged: part {note.file.name!r} is not possible")
        return manifest


def _checksum(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
