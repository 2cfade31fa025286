"""Versions of an index: `versions/N.json` lists the files of one version, `CURRENT` names the version that counts.

CURRENT holds the number and the sha256 of that version's file, so that a version is read whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError, MetadataError
from late_interaction.files import atomic_write
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.codecs import CODECS

__all__ = [
    "FORMAT_VERSION",
    "Fit",
    "NamedFile",
    "SegmentEntry",
    "Tuned",
    "Version",
    "known_versions",
    "now",
    "publish",
    "read_current",
    "read_version",
    "remove_unused",
]

FORMAT_VERSION = 2
CURRENT = "CURRENT"
KEPT_VERSIONS = 2
TUNED_UP_TO = 2  # times the token vectors that an index was tuned with: past that its effort finds less


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of the index by its path below the index folder."""

    name: str
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One immutable segment, `segments/NAME/`, and which of its passages are deleted in this version."""

    name: str
    passages: int
    token_vectors: int
    files: Mapping[str, FileEntry]
    deleted: NamedFile | None = None
    deleted_passages: int = 0
    deleted_vectors: int = 0
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

    probes: int
    rerank: int
    recall: float
    k: int
    queries: int
    token_vectors: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """codec, bits, refine: how vectors are stored (codecs.py); bits of codec residual. trained_on: token vectors that the index
    had when its codebook was trained; 0 where the bundle brought it. fit: of the codebook. tuned: effort of a search that names
    none. name: given by the user; a named version is kept. created: seconds since 1970.
    """

    number: int
    bits: int
    dim: int
    schema: MetadataSchema
    bundle: str
    codec: str = "residual"
    refine: bool = False
    codebook: NamedFile | None = None
    segments: tuple[SegmentEntry, ...] = field(default=())
    trained_on: int = 0
    fit: Fit | None = None
    tuned: Tuned | None = None
    name: str = ""
    created: int = 0

    @property
    def passages(self) -> int:
        return sum(s.passages - s.deleted_passages for s in self.segments)

    @property
    def token_vectors(self) -> int:
        return sum(s.token_vectors - s.deleted_vectors for s in self.segments)

    @property
    def effort(self) -> Tuned | None:
        """What the index was tuned to, unless it has more than twice the token vectors by now."""
        if self.tuned is None or self.token_vectors > TUNED_UP_TO * self.tuned.token_vectors:
            return None
        return self.tuned

    def to_json(self) -> bytes:
        data = {
            "format_version": FORMAT_VERSION,
            "version": self.number,
            "name": self.name,
            "created": self.created,
            "codec": self.codec,
            "bits": self.bits,
            "refine": self.refine,
            "dim": self.dim,
            "schema": self.schema.to_json(),
            "bundle": self.bundle,
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
        return (json.dumps(data, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Version:
        """Raises: LocalIndexError on an unknown format version or anything that is not as `to_json` writes it."""
        try:
            data = json.loads(text)
            found = data["format_version"]
            if found != FORMAT_VERSION:
                raise LocalIndexError(f"{where}: format version {found!r} unknown, this release reads {FORMAT_VERSION}")
            return cls(
                number=_count(data["version"]),
                name=str(data["name"]),
                created=_count(data["created"]),
                codec=_known(data["codec"], CODECS),
                refine=data["refine"] is True,
                bits=_count(data["bits"]),
                dim=_count(data["dim"]),
                schema=MetadataSchema.from_json(data["schema"]),
                bundle=str(data["bundle"]),
                codebook=_named(data["codebook"]),
                segments=tuple(_segment(item) for item in data["segments"]),
                trained_on=_count(data["trained_on"]),
                fit=None if data["fit"] is None else Fit(float(data["fit"]["mean"]), float(data["fit"]["low"])),
                tuned=None if data["tuned"] is None else _tuned(data["tuned"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, MetadataError) as error:
            raise LocalIndexError(f"{where} is damaged ({type(error).__name__}: {error})") from None

    def files(self) -> Iterator[NamedFile]:
        """Every file that this version needs, its own and the bundle's apart."""
        if self.codebook is not None:
            yield self.codebook
        for segment in self.segments:
            for name, entry in segment.files.items():
                yield NamedFile(f"segments/{segment.name}/{name}", entry)
            if segment.deleted is not None:
                yield segment.deleted


def _named_json(file: NamedFile | None) -> dict[str, object] | None:
    return None if file is None else {"file": file.name, "sha256": file.entry.sha256, "bytes": file.entry.bytes}


def _named(data: Any) -> NamedFile | None:
    return None if data is None else NamedFile(str(data["file"]), _entry(data))


def _entry(data: Any) -> FileEntry:
    return FileEntry(str(data["sha256"]), _count(data["bytes"]))


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def _known(value: object, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{str(value)[:40]!r} is none of {', '.join(known)}")
    return str(value)


def _tuned(data: Any) -> Tuned:
    counts = {name: _count(data[name]) for name in ("probes", "rerank", "k", "queries")}
    return Tuned(recall=float(data["recall"]), token_vectors=_count(data.get("token_vectors", 0)), **counts)


def _segment(data: Any) -> SegmentEntry:
    return SegmentEntry(
        str(data["name"]),
        _count(data["passages"]),
        _count(data["token_vectors"]),
        {str(name): _entry(item) for name, item in data["files"].items()},
        _named(data["deleted"]),
        _count(data["deleted_passages"]),
        _count(data["deleted_vectors"]),
        float(data["fit"]),
    )


def now() -> int:
    """Seconds since 1970, or SOURCE_DATE_EPOCH where it is set, so that a build can be repeated byte for byte."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))


def read_current(root: Path) -> tuple[int, str]:
    """Number and sha256 of the version that counts.

    Raises: LocalIndexError where the folder is no index or CURRENT is damaged.
    """
    if not root.is_dir():
        raise LocalIndexError(f"no index at {root}: make one with `colbert-vespa feed ... --to {root}`")
    try:
        number, digest = (root / CURRENT).read_text(encoding="ascii").split()
        return int(number), digest
    except FileNotFoundError:
        raise LocalIndexError(f"{root} is no index (it has no {CURRENT} file)") from None
    except (OSError, ValueError):
        raise LocalIndexError(f"{root} is damaged: {CURRENT} cannot be read") from None


def read_version(root: Path, number: int, digest: str) -> Version:
    """Raises: LocalIndexError naming the version's file where it is missing, changed or of an unknown format."""
    path = root / "versions" / f"{number}.json"
    try:
        text = path.read_bytes()
    except OSError:
        raise LocalIndexError(f"{root} is damaged: versions/{number}.json is missing") from None
    if hashlib.sha256(text).hexdigest() != digest:
        raise LocalIndexError(f"{root} is damaged: versions/{number}.json was changed (its checksum differs)")
    return Version.from_json(text, str(path))


def publish(root: Path, version: Version) -> None:
    """Makes `version`, whose files are all durable, the one that counts. A crash leaves the old one or this one."""
    text = version.to_json()
    atomic_write(root / "versions" / f"{version.number}.json", text)
    atomic_write(root / CURRENT, f"{version.number} {hashlib.sha256(text).hexdigest()}\n".encode())


def known_versions(root: Path) -> list[Version]:
    """Every version whose file can be read, oldest first."""
    found = []
    for number in _numbers(root):
        with contextlib.suppress(OSError, LocalIndexError):
            found.append(Version.from_json((root / "versions" / f"{number}.json").read_bytes(), ""))
    return found


def remove_unused(root: Path, current: Version, keep: int = KEPT_VERSIONS) -> list[int]:
    """Removes all versions but the newest `keep`, those that have a name and the current one, and the files that none of
    those needs; the numbers of the versions removed.

    Readers that have mapped removed files keep them. What cannot be removed is left for the next time.
    """
    known = [version for version in known_versions(root) if version.number <= current.number]
    kept = {current.number, *(v.number for v in known if v.name), *[v.number for v in known][-keep:]}
    needed: set[str] = set()
    for version in known:
        if version.number in kept:
            needed.update(f"segments/{segment.name}" for segment in version.segments)
            needed.update(file.name for file in version.files())
    removed = [number for number in _numbers(root) if number not in kept]
    with contextlib.suppress(OSError):
        for number in removed:
            (root / "versions" / f"{number}.json").unlink(missing_ok=True)
        for folder in ("segments", "deletions", "codebooks"):
            for path in (root / folder).iterdir():
                if f"{folder}/{path.name}" in needed:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    return removed


def _numbers(root: Path) -> list[int]:
    return sorted(int(file.stem) for file in (root / "versions").glob("*.json") if file.stem.isdecimal())
