"""Versions of an index: `versions/N.json` lists the files of one version, `CURRENT` names the version that counts.

CURRENT holds the number and the sha256 of that version's file, so that a version is read whole or not at all. Every version's
file also begins with the sha256 of the rest of it, for the versions that CURRENT does not name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from late_interaction.bundle import FileEntry, check_dense_name
from late_interaction.errors import LocalIndexError, MetadataError
from late_interaction.files import atomic_write
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.store.codecs import CODECS
from late_interaction.plaid.types import ONE_VECTOR, DenseForm, OneVectorForm
from late_interaction.structured import Count, parse, read

__all__ = [
    "FORMAT_VERSION",
    "Fit",
    "NamedFile",
    "SegmentEntry",
    "Tuned",
    "Version",
    "check_is_folder",
    "now",
    "publish",
    "read_current",
    "read_version",
    "version_path",
]

FORMAT_VERSION = 4
WITH_DENSE = 5  # of an index with dense vectors: earlier releases would not see that they lack them
WITH_ONE_VECTOR = 6  # of an index with one vector a passage for candidates pooled: likewise
CURRENT = "CURRENT"
TUNED_UP_TO = 2  # times the token vectors that an index was tuned with: past that its effort finds less
_CURRENT = re.compile(rb"([0-9]{1,18}) ([0-9a-f]{64})\n")
_HEAD = b'{\n "sha256": "%b",\n'  # of a version's file; what follows is a JSON object without its first line, "{"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of the index by its path below the index folder."""

    name: str
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One immutable segment, `segments/NAME/`, and which of its passages are deleted in this version."""

    name: str
    passages: Count
    token_vectors: Count
    files: Mapping[str, FileEntry]
    deleted: NamedFile | None = None
    deleted_passages: Count = 0
    deleted_vectors: Count = 0
    fit: float = 0.0  # mean similarity of its vectors to their centroids


@dataclass(frozen=True, slots=True)
class Fit:
    """How near vectors were to their centroids when the codebook was taken up: `mean`, and `low`, the lowest 5 % quantile."""

    mean: float
    low: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The least effort that found the share `recall` of the exact top `k` in `queries` queries, when the index had so many
    `token_vectors`."""

    probes: Count
    rerank: Count
    recall: float
    k: Count
    queries: Count
    token_vectors: Count = 0


@dataclass(frozen=True, slots=True)
class Version:
    """codec, bits, refine: how vectors are stored (codecs.py); bits: of the codebook. trained_on: token vectors that the index
    had when its codebook was trained; 0 where the bundle brought it. fit: of the codebook. tuned: effort of a search that names
    none. name: given by the user; a named version is kept. created: seconds since 1970. dense: dense models, by name.
    one_vector: what candidates `pooled` search.
    """

    number: Count
    bits: Count
    dim: Count
    schema: MetadataSchema
    bundle: str
    codec: str = "residual"
    refine: bool = False
    codebook: NamedFile | None = None
    segments: tuple[SegmentEntry, ...] = field(default=())
    trained_on: Count = 0
    fit: Fit | None = None
    tuned: Tuned | None = None
    name: str = ""
    created: Count = 0
    dense: Mapping[str, DenseForm] = field(default_factory=dict)
    one_vector: OneVectorForm | None = None

    @property
    def passages(self) -> int:
        return sum(s.passages - s.deleted_passages for s in self.segments)

    @property
    def token_vectors(self) -> int:
        return sum(s.token_vectors - s.deleted_vectors for s in self.segments)

    @property
    def drift(self) -> float | None:
        """As LocalIndex.drift."""
        stored = sum(segment.token_vectors for segment in self.segments)
        if self.fit is None or not stored:
            return None
        return self.fit.mean - sum(segment.fit * segment.token_vectors for segment in self.segments) / stored

    @property
    def dense_width(self) -> int:
        """Numbers of the dense vectors that a passage has."""
        return sum(form.dim for form in self.dense.values())

    @property
    def row_sets(self) -> Mapping[str, DenseForm]:
        """All vectors that are one a passage: of the dense models, and the one of candidates `pooled`."""
        one = self.one_vector
        return self.dense if one is None else {**self.dense, ONE_VECTOR: DenseForm(one.dim, one.normalized)}

    @property
    def residual_bits(self) -> int | None:
        """None of codecs without residuals, whose codebook has `bits` all the same."""
        return self.bits if self.codec == "residual" else None

    @property
    def effort(self) -> Tuned | None:
        """What the index was tuned to, unless it has more than twice the token vectors by now."""
        if self.tuned is None or self.token_vectors > TUNED_UP_TO * self.tuned.token_vectors:
            return None
        return self.tuned

    def to_json(self) -> bytes:
        data = {
            "format_version": _format_version(self.dense, self.one_vector),
            "version": self.number,
            "name": self.name,
            "created": self.created,
            "codec": self.codec,
            "bits": self.bits,
            "refine": self.refine,
            "dim": self.dim,
            "schema": self.schema.to_json(),
            "bundle": self.bundle,
            **({"dense": {name: dataclasses.asdict(form) for name, form in self.dense.items()}} if self.dense else {}),
            **({} if self.one_vector is None else {"one_vector": dataclasses.asdict(self.one_vector)}),
            "codebook": _named_json(self.codebook),
            "trained_on": self.trained_on,
            "fit": None if self.fit is None else dataclasses.asdict(self.fit),
            "tuned": None if self.tuned is None else dataclasses.asdict(self.tuned),
            "segments": [
                {
                    "name": s.name,
                    "passages": s.passages,
                    "token_vectors": s.token_vectors,
                    "files": {name: {"sha256": e.sha256, "bytes": e.bytes} for name, e in sorted(s.files.items())},
                    "deleted": _named_json(s.deleted),
                    "deleted_passages": s.deleted_passages,
                    "deleted_vectors": s.deleted_vectors,
                    "fit": s.fit,
                }
                for s in self.segments
            ],
        }
        text = (json.dumps(data, indent=1) + "\n").encode()
        return _head(text) + text[2:]

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Version:
        """Raises: LocalIndexError on an unknown format version, or anything that is not as `to_json` has written it."""
        data = parse(text, LocalIndexError, where)
        known = _format_version(data.get("dense"), data.get("one_vector"))
        if (found := data.pop("format_version", None)) != known:
            raise LocalIndexError(f"{where}: format version {found!r:.60} unknown, this release reads {known}")
        size = len(_HEAD % (b"0" * 64))
        if text[:size] != _head(b"{\n" + text[size:]):
            raise LocalIndexError(f"{where} was changed (its checksum differs)")
        try:
            del data["sha256"]
            data |= {"number": data.pop("version"), "schema": MetadataSchema.from_json(data["schema"])}
            for holder, key in ((data, "codebook"), *((segment, "deleted") for segment in data["segments"])):
                holder[key] = _named(holder[key])
        except (KeyError, TypeError, AttributeError, MetadataError) as error:
            raise LocalIndexError(f"{where} is damaged ({type(error).__name__}: {error})") from None
        version = read(cls, data, LocalIndexError, f"{where} is damaged")
        if version.codec not in CODECS:
            raise LocalIndexError(f"{where} is damaged (codec {version.codec[:40]!r} is none of {', '.join(CODECS)})")
        for name in version.dense:
            check_dense_name(name, LocalIndexError, f"{where} is damaged")
        return version

    def files(self) -> Iterator[NamedFile]:
        """Every file that this version needs, its own and the bundle's apart."""
        if self.codebook is not None:
            yield self.codebook
        for segment in self.segments:
            for name, entry in segment.files.items():
                yield NamedFile(f"segments/{segment.name}/{name}", entry)
            if segment.deleted is not None:
                yield segment.deleted


def _format_version(dense: object, one_vector: object) -> int:
    return WITH_ONE_VECTOR if one_vector else WITH_DENSE if dense else FORMAT_VERSION


def _head(text: bytes) -> bytes:
    """The first lines of a version's file whose object alone is `text`."""
    return _HEAD % hashlib.sha256(text).hexdigest().encode()


def _named_json(file: NamedFile | None) -> dict[str, object] | None:
    return None if file is None else {"file": file.name, "sha256": file.entry.sha256, "bytes": file.entry.bytes}


def _named(data: Any) -> dict[str, object] | None:
    return None if data is None else {"name": data["file"], "entry": {"sha256": data["sha256"], "bytes": data["bytes"]}}


def now() -> int:
    """Seconds since 1970, or SOURCE_DATE_EPOCH where it is set, so that a build can be repeated byte for byte."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))


def check_is_folder(root: Path) -> None:
    """Raises: LocalIndexError where nothing or a file is at the place of an index."""
    if root.is_dir():
        return
    if root.exists():
        raise LocalIndexError(f"{root} is a file, not the folder of an index")
    raise LocalIndexError(f"no index at {root}: make one with `colbert-vespa feed ... --to {root}`")


def read_current(root: Path) -> tuple[int, str]:
    """Number and sha256 of the version that counts.

    Raises: LocalIndexError where the folder is no index or CURRENT is damaged.
    """
    check_is_folder(root)
    try:
        match = _CURRENT.fullmatch((root / CURRENT).read_bytes())
    except FileNotFoundError:
        raise LocalIndexError(f"{root} is no index (it has no {CURRENT} file)") from None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {CURRENT} cannot be read ({error})") from None
    if match is None:
        raise LocalIndexError(f"{root} is damaged: {CURRENT} names no version")
    return int(match[1]), match[2].decode()


def version_path(root: Path, number: int) -> Path:
    return root / "versions" / f"{number}.json"


def read_version(root: Path, number: int, digest: str | None = None) -> Version:
    """digest: sha256 of its file, as CURRENT has it.

    Raises: LocalIndexError naming the version's file where it is missing, changed or of an unknown format.
    """
    name = f"versions/{number}.json"
    try:
        text = version_path(root, number).read_bytes()
    except FileNotFoundError:
        raise LocalIndexError(f"{root} is damaged: {name} is missing") from None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {name} cannot be read ({error})") from None
    if digest is not None and hashlib.sha256(text).hexdigest() != digest:
        raise LocalIndexError(f"{root} is damaged: {name} was changed (its checksum differs)")
    version = Version.from_json(text, f"{root}/{name}")
    if version.number != number:
        raise LocalIndexError(f"{root} is damaged: {name} is that of version {version.number}")
    return version


def publish(root: Path, version: Version) -> str:
    """Makes `version`, whose files are all durable, the one that counts, and returns the sha256 that CURRENT has of it.

    A crash leaves the old version or this one; so does an OSError.
    """
    text = version.to_json()
    digest = hashlib.sha256(text).hexdigest()
    atomic_write(version_path(root, version.number), text)
    atomic_write(root / CURRENT, f"{version.number} {digest}\n".encode())
    return digest
