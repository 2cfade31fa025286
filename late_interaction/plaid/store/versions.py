"""Versions of an index: `versions/N.json` lists the files of one version, `CURRENT` names the current version.

CURRENT holds the number and the sha256 of that version's file, so that a version is read whole or not at all. Every
version's file also begins with the sha256 of its own remainder, for the versions that CURRENT does not name.
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
WITH_DENSE = 5  # of an index with dense vectors, so that earlier releases refuse it
WITH_ONE_VECTOR = 6  # of an index with one vector a passage for candidates pooled: likewise
CURRENT = "CURRENT"
TUNED_UP_TO = 2  # times the token vectors at tuning; beyond that the effort finds less
_CURRENT = re.compile(rb"([0-9]{1,18}) ([0-9a-f]{64})\n")
_HEAD = b'{\n "sha256": "%b",\n'  # start of a version's file; a JSON object without its first line, "{", follows


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of the index, by its path below the index folder."""

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
    """How near vectors were to their centroids when the codebook was taken up.

    Attributes:
        mean: mean similarity.
        low: the lowest 5 % quantile.
    """

    mean: float
    low: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The least effort that reached a recall in a measurement.

    Attributes:
        probes: centroids per query row.
        rerank: passages reranked.
        recall: share of the exact top `k` that it found.
        k: how many hits counted.
        queries: number of queries.
        token_vectors: size of the index at the time.
    """

    probes: Count
    rerank: Count
    recall: float
    k: Count
    queries: Count
    token_vectors: Count = 0


@dataclass(frozen=True, slots=True)
class Version:
    """The content of a version's file.

    Attributes:
        number: its number.
        bits: bits of the codebook.
        dim: dimensions of a token vector.
        schema: metadata fields.
        bundle: checksum of the bundle.
        codec: how vectors are stored (codecs.py).
        refine: whether int8 rows are kept.
        codebook: its file; None before the first vector.
        segments: the segments.
        trained_on: token vectors in the index when its codebook was trained; 0 if the bundle brought it.
        fit: fit of the codebook.
        tuned: effort of a search that names none.
        name: given by the user; a named version is never pruned.
        created: seconds since 1970.
        dense: dense models, by name.
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
        """Return the number of living passages."""
        return sum(s.passages - s.deleted_passages for s in self.segments)

    @property
    def token_vectors(self) -> int:
        """Return the number of living token vectors."""
        return sum(s.token_vectors - s.deleted_vectors for s in self.segments)

    @property
    def drift(self) -> float | None:
        """Return the drift; see `LocalIndex.drift`."""
        stored = sum(segment.token_vectors for segment in self.segments)
        if self.fit is None or not stored:
            return None
        return self.fit.mean - sum(segment.fit * segment.token_vectors for segment in self.segments) / stored

    @property
    def dense_width(self) -> int:
        """Return the total dimensions of a passage's dense vectors."""
        return sum(form.dim for form in self.dense.values())

    @property
    def row_sets(self) -> Mapping[str, DenseForm]:
        """All vectors that are one a passage: of the dense models, and the one of candidates `pooled`."""
        one = self.one_vector
        return self.dense if one is None else {**self.dense, ONE_VECTOR: DenseForm(one.dim, one.normalized)}

    @property
    def residual_bits(self) -> int | None:
        """Return the bits of a residual; None for codecs without residuals, whose codebook has `bits` anyway."""
        return self.bits if self.codec == "residual" else None

    @property
    def effort(self) -> Tuned | None:
        """Return the tuned effort; None if the index now has more than twice the token vectors."""
        if self.tuned is None or self.token_vectors > TUNED_UP_TO * self.tuned.token_vectors:
            return None
        return self.tuned

    def to_json(self) -> bytes:
        """Return the content of the version's file."""
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
        """Parse a version's file.

        Raises:
            LocalIndexError: if the format version is unknown, or the content is not what `to_json` writes.
        """
        data = parse(text, LocalIndexError, where)
        known = _format_version(data.get("dense"), data.get("one_vector"))
        if (found := data.pop("format_version", None)) != known:
            raise LocalIndexError(f"{where}: format version {found!r:.60} is unknown; this release reads {known}")
        size = len(_HEAD % (b"0" * 64))
        if text[:size] != _head(b"{\n" + text[size:]):
            raise LocalIndexError(f"{where} has changed (its checksum differs)")
        try:
            del data["sha256"]
            data |= {"number": data.pop("version"), "schema": MetadataSchema.from_json(data["schema"])}
            for holder, key in ((data, "codebook"), *((segment, "deleted") for segment in data["segments"])):
                holder[key] = _named(holder[key])
        except (KeyError, TypeError, AttributeError, MetadataError) as error:
            raise LocalIndexError(f"{where} is damaged ({type(error).__name__}: {error})") from None
        version = read(cls, data, LocalIndexError, f"{where} is damaged")
        if version.codec not in CODECS:
            raise LocalIndexError(f"{where} is damaged (codec {version.codec[:40]!r} is not one of {', '.join(CODECS)})")
        for name in version.dense:
            check_dense_name(name, LocalIndexError, f"{where} is damaged")
        return version

    def files(self) -> Iterator[NamedFile]:
        """Yield every file that this version needs, except its own and the bundle's."""
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
    """Return the first lines of a version's file whose object is `text`."""
    return _HEAD % hashlib.sha256(text).hexdigest().encode()


def _named_json(file: NamedFile | None) -> dict[str, object] | None:
    return None if file is None else {"file": file.name, "sha256": file.entry.sha256, "bytes": file.entry.bytes}


def _named(data: Any) -> dict[str, object] | None:
    return None if data is None else {"name": data["file"], "entry": {"sha256": data["sha256"], "bytes": data["bytes"]}}


def now() -> int:
    """Return seconds since 1970, or SOURCE_DATE_EPOCH if it is set, so that builds are reproducible byte for byte."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))


def check_is_folder(root: Path) -> None:
    """Check that `root` is a folder.

    Raises:
        LocalIndexError: if it does not exist or is a file.
    """
    if root.is_dir():
        return
    if root.exists():
        raise LocalIndexError(f"{root} is a file, not the folder of an index")
    raise LocalIndexError(f"no index at {root}; create one with `colbert-vespa feed ... --to {root}`")


def read_current(root: Path) -> tuple[int, str]:
    """Return number and sha256 of the current version.

    Raises:
        LocalIndexError: if the folder is not an index or CURRENT is damaged.
    """
    check_is_folder(root)
    try:
        match = _CURRENT.fullmatch((root / CURRENT).read_bytes())
    except FileNotFoundError:
        raise LocalIndexError(f"{root} is not an index (it has no {CURRENT} file)") from None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {CURRENT} cannot be read ({error})") from None
    if match is None:
        raise LocalIndexError(f"{root} is damaged: {CURRENT} does not name a version")
    return int(match[1]), match[2].decode()


def version_path(root: Path, number: int) -> Path:
    """Return the path of a version's file."""
    return root / "versions" / f"{number}.json"


def read_version(root: Path, number: int, digest: str | None = None) -> Version:
    """Read a version.

    Args:
        root: the index.
        number: its number.
        digest: sha256 of its file, as in CURRENT.

    Raises:
        LocalIndexError: if the file is missing, changed or of an unknown format; the message names it.
    """
    name = f"versions/{number}.json"
    try:
        text = version_path(root, number).read_bytes()
    except FileNotFoundError:
        raise LocalIndexError(f"{root} is damaged: {name} is missing") from None
    except OSError as error:
        raise LocalIndexError(f"{root} is damaged: {name} cannot be read ({error})") from None
    if digest is not None and hashlib.sha256(text).hexdigest() != digest:
        raise LocalIndexError(f"{root} is damaged: {name} has changed (its checksum differs)")
    version = Version.from_json(text, f"{root}/{name}")
    if version.number != number:
        raise LocalIndexError(f"{root} is damaged: {name} belongs to version {version.number}")
    return version


def publish(root: Path, version: Version) -> str:
    """Make `version`, whose files are all durable, the current one; return the sha256 recorded in CURRENT.

    A crash leaves the old version or this one; so does an OSError.
    """
    text = version.to_json()
    digest = hashlib.sha256(text).hexdigest()
    atomic_write(version_path(root, version.number), text)
    atomic_write(root / CURRENT, f"{version.number} {digest}\n".encode())
    return digest
