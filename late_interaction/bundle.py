"""The bundle: one folder that holds everything needed to turn text into token vectors, with a checksum for every file.

    BUNDLE/
      manifest.json            format version, model, rules of tokenization, sha256 of every other file
      model.onnx               inputs input_ids, attention_mask [batch, tokens]; output contextual [batch, tokens, dim],
                               L2-normalised in the graph
      model.onnx.data          only if the weights exceed 2 GB: model.onnx refers to it
      model.int8.onnx          optional: the same with quantized weights
      tokenizer.json           without truncation and padding of its own
      codebooks/NAME.npz       optional: centroids and residual buckets, trained on a sample of the user's documents
      dense/NAME/              optional: a dense model, one vector per text: model.onnx (output embedding [batch, dim]),
                               model.int8.onnx, tokenizer.json
      report.json              optional: results of the verification against torch

A bundle for vectors that are made elsewhere has no model and no tokenizer, only a manifest and perhaps codebooks.

Bundles are validated before they are read: an unknown version, a missing or changed file and an unsafe path each raise an
error that names it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from late_interaction.addresses import as_path
from late_interaction.errors import BundleError, ColbertVespaError
from late_interaction.files import atomic_write, copy_file, files_below, remove_file, safe_join, sha256_file
from late_interaction.ready_rows import MAX_ROWS, RowRules
from late_interaction.structured import Count, parse, read

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "MEASURED_K",
    "Bundle",
    "DensePart",
    "Expansion",
    "ExportedFolder",
    "FileEntry",
    "Manifest",
    "MeasuredCandidates",
    "Pooling",
    "SideRules",
    "check_dense_name",
    "write_files",
    "write_manifest",
]

FORMAT_VERSION = 1
MANIFEST, REPORT, TOKENIZER = "manifest.json", "report.json", "tokenizer.json"
MAX_MANIFEST_BYTES = 16 << 20
RULES = ("trained", "vespa")
MEASURED_STRATEGIES = ("centroid", "pooled")
MEASURED_K = 10  # of the exact best, where a measurement does not say how many
FASTEST_ON_CPU = ("int8", "int8-tensor", "fp32")
INPUT_IDS, ATTENTION_MASK, OUTPUT = "input_ids", "attention_mask", "contextual"
TYPE_IDS = "token_type_ids"  # an extra input of cross-encoders that mark which tokens are the query's and which the passage's
CROSS_ENCODER = "cross-encoder"  # `kind` in a cross-encoder's manifest (late_interaction/cross_encoder.py)
DENSE, DENSE_OUTPUT = "dense", "embedding"  # folder of the dense models, name of the default one, output of their graphs
MAX_DENSE_DIM = 1 << 16
_DENSE_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True)
class Expansion:
    """Query augmentation: pad the query to `length` rows.

    Attributes:
        length: number of rows after padding.
        token_id: the token that fills the added rows.
        attend: whether the encoder attends to the added rows.
        replaces_pad: whether a pad token that a text spells out also becomes `token_id`.
    """

    length: int
    token_id: int
    attend: bool
    replaces_pad: bool = False


@dataclass(frozen=True, slots=True)
class SideRules:
    """How one side (query or document) is tokenized.

    Attributes:
        length: most rows, marker and special tokens included.
        marker_id: token inserted at position 1; None for no marker.
        prompt: text put before the user's.
        skip_ids: rows dropped from the output (they are still encoded).
        drop_ids: tokens that are dropped before encoding.
        expansion: query augmentation; None for none.
        auto: a longer text gets the next multiple of `length`, up to the model's own limit.
    """

    length: int
    marker_id: int | None = None
    prompt: str = ""
    skip_ids: tuple[int, ...] = ()
    drop_ids: tuple[int, ...] = ()
    expansion: Expansion | None = None
    auto: bool = False


@dataclass(frozen=True, slots=True)
class Pooling:
    """How document rows are replaced by means.

    Attributes:
        factor: 1 of `factor` rows stays.
        method: how rows are grouped.
        protected: how many rows at the start are left alone.
    """

    factor: int
    method: str = "hierarchical"
    protected: int = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Checksum and size of a file in the manifest."""

    sha256: str
    bytes: Count


@dataclass(frozen=True, slots=True)
class DensePart:
    """A dense model: one pooled vector `[dim]` per text.

    Attributes:
        source: the checkpoint that it was exported from.
        dim: dimensions of its vectors.
        max_tokens: most tokens, special tokens and prompt included.
        pad_id: the padding token.
        query_prompt: text put before a query.
        document_prompt: text put before a document.
        lower_case: whether the text is lower-cased before it is tokenized.
        normalized: whether the graph scales vectors to length one.
        models: file by precision; empty if vectors are supplied with documents and queries.
        tokenizer: its file; empty if vectors are supplied.
    """

    source: str
    dim: Count
    max_tokens: Count = 0
    pad_id: Count = 0
    query_prompt: str = ""
    document_prompt: str = ""
    lower_case: bool = False
    normalized: bool = True
    models: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Return the paths of its graphs and its tokenizer."""
        return (*self.models.values(), *([self.tokenizer] if self.tokenizer else []))

    def fault(self) -> str:
        """Return what is wrong with it, or an empty text."""
        if not 1 <= self.dim <= MAX_DENSE_DIM:
            return f"dim must be from 1 to {MAX_DENSE_DIM}"
        if self.models and "fp32" not in self.models:
            return "models has no fp32"
        if bool(self.models) != bool(self.tokenizer):
            return "models and tokenizer must both be there, or neither"
        return "max_tokens must be at least 3" if self.models and self.max_tokens < 3 else ""


@dataclass(frozen=True, slots=True)
class MeasuredCandidates:
    """The cheapest candidates that reached a recall goal on a sample of the user's documents.

    Attributes:
        strategy: `centroid` or `pooled`.
        rerank: the effort that found `recall`.
        recall: share of the exact top k that was found.
        goal: the recall that was requested.
        encoding: encoding of pooled.
        probes: the effort that found `recall`.
        k: how many of the exact best count.
    """

    strategy: str
    rerank: Count
    recall: float
    goal: float
    encoding: str = ""
    probes: Count = 0
    k: Count = MEASURED_K

    def fault(self) -> str:
        """Return what is wrong with the record, or an empty text."""
        if self.strategy not in MEASURED_STRATEGIES:
            return f"strategy {self.strategy[:40]!r} unknown; known: {', '.join(MEASURED_STRATEGIES)}"
        if self.rerank < 1 or self.k < 1 or not 0 < self.recall <= 1 or not 0 < self.goal <= 1:
            return "rerank and k must be at least 1, recall and goal above 0 and at most 1"
        return "" if bool(self.encoding) == (self.strategy == "pooled") else "encoding is of strategy pooled, which needs one"


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    Attributes:
        source: the checkpoint that the bundle was exported from.
        layout: layout of that checkpoint.
        dim: dimensions of a token vector.
        query: how queries are tokenized.
        document: how documents are tokenized.
        pad_id: the padding token.
        max_tokens: the model's own limit; the most rows if vectors are made elsewhere.
        strip: whether the text is stripped before it is tokenized.
        lower_case: whether the text is lower-cased before it is tokenized.
        normalized: whether rows have length one.
        similarity: how two rows are compared.
        rules: "trained" for the tokenization that the checkpoint was trained with, "vespa" for that of Vespa's
            colbert-embedder.
        pooling: how document rows are pooled; None for no pooling.
        models: file by precision (fp32, int8); empty if vectors are made elsewhere.
        codebooks: file by name.
        dense: dense model by name.
        files: checksum and size of every other file.
        format_version: version of the format.
    """

    source: str
    layout: str
    dim: int
    query: SideRules
    document: SideRules
    pad_id: int
    max_tokens: int
    strip: bool = False
    lower_case: bool = False
    normalized: bool = True
    similarity: str = "maxsim"
    rules: str = "trained"
    pooling: Pooling | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    codebooks: Mapping[str, str] = field(default_factory=dict)
    dense: Mapping[str, DensePart] = field(default_factory=dict)
    candidates: MeasuredCandidates | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def listed(self) -> set[str]:
        """Return the files that it names."""
        listed = {*self.models.values(), *self.codebooks.values(), *([TOKENIZER] if self.models else [])}
        return listed | {name for part in self.dense.values() for name in part.files}

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json."""
        data = dataclasses.asdict(self)
        for name in ("dense", "candidates"):  # bundles of before there were these keep their checksum
            if not data[name]:
                del data[name]
        if self.candidates and self.candidates.k == MEASURED_K:
            del data["candidates"]["k"]
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse and check manifest.json.

        Raises:
            BundleError: if a key is missing, unknown or of a wrong type; the message names it.
        """
        data = parse(text, BundleError, where, "export the bundle again", format_version=FORMAT_VERSION)
        if data.get("kind") == CROSS_ENCODER:
            raise BundleError(f"{where} belongs to a cross-encoder, which has no token vectors; use it with --rerank-with")
        manifest = read(cls, data, BundleError, where)
        if manifest.dim < 1 or manifest.max_tokens < 4 or manifest.query.length < 3 or manifest.document.length < 3:
            raise BundleError(f"{where}: dim, max_tokens and lengths must be positive, and lengths at least 3")
        if "fp32" not in manifest.models and (manifest.models or TOKENIZER in manifest.files):
            raise BundleError(f"{where}: models has no fp32")
        if manifest.rules not in RULES:
            raise BundleError(f"{where}: rules {manifest.rules!r} unknown; known: {', '.join(RULES)}")
        if manifest.candidates and (fault := manifest.candidates.fault()):
            raise BundleError(f"{where}: candidates: {fault}")
        for name, part in manifest.dense.items():
            check_dense_name(name, BundleError, where)
            if fault := part.fault():
                raise BundleError(f"{where}: dense.{name}: {fault}")
        return manifest


class AnyManifest(Protocol):
    """What the manifests of all exported folders share."""

    @property
    def models(self) -> Mapping[str, str]:
        """Return the model file for each precision."""

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Return checksum and size of each file."""

    @property
    def listed(self) -> set[str]:
        """Return the files that it names, each of which must have a checksum."""
        ...

    def to_json(self) -> bytes: ...


M_co = TypeVar("M_co", bound=AnyManifest, covariant=True)
F = TypeVar("F", bound="ExportedFolder[Any]")


@dataclass(frozen=True, eq=False)
class ExportedFolder(ABC, Generic[M_co]):
    """An opened, verified folder that `export` wrote. Two are equal if their `sha256` is."""

    path: Path
    manifest: M_co
    noun: ClassVar[str] = "bundle"
    made_by: ClassVar[str] = "colbert-vespa export"

    @classmethod
    @abstractmethod
    def read_manifest(cls, text: str, where: str) -> Any:
        """Parse the manifest.

        Raises:
            BundleError: if it is not valid.
        """

    @classmethod
    def open(cls: type[F], path: str | Path, *, verify: bool = True) -> F:
        """Read the manifest and check that every listed file exists and, with `verify`, is unchanged.

        Args:
            path: the folder.
            verify: whether to compare the checksum of every file.

        Raises:
            BundleError: if the folder is not valid; the message names the file.
        """
        root = as_path(path, cls.noun)
        manifest_path = root / MANIFEST
        if not root.is_dir():
            raise BundleError(f"folder {root} does not exist; give the folder that `{cls.made_by}` wrote")
        if not manifest_path.is_file():
            raise BundleError(f"{root} is not a {cls.noun} (it has no {MANIFEST}); create one with `{cls.made_by}`")
        if manifest_path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{manifest_path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
        try:
            text = manifest_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{manifest_path} cannot be read: {error}") from None
        manifest = cls.read_manifest(text, str(manifest_path))
        if unlisted := sorted(manifest.listed - set(manifest.files)):
            raise BundleError(f"{manifest_path}: {unlisted[0]!r} has no checksum in files")
        for name, entry in manifest.files.items():
            try:
                file = safe_join(root, name)
            except ValueError:
                raise BundleError(f"{manifest_path}: unsafe path {name!r} in files") from None
            if not file.is_file():
                raise BundleError(f"{root}: file {name}, listed in the manifest, is missing; export the {cls.noun} again")
            linked = not file.resolve().is_relative_to(root.resolve())  # as in snapshots of a hub; then its content decides
            if file.stat().st_size != entry.bytes or ((verify or linked) and sha256_file(file) != entry.sha256):
                raise BundleError(f"{root}: file {name} has changed since the export (its checksum differs)")
        return cls(root, manifest)

    @functools.cached_property
    def sha256(self) -> str:
        """Return the identity of the folder: the checksum of its manifest, which has the checksums of all other files."""
        return hashlib.sha256(self.manifest.to_json()).hexdigest()

    def file(self, name: str) -> Path:
        """Return the path of a listed file."""
        return safe_join(self.path, name)

    def model_path(self, precision: str) -> Path:
        """Return the path of the graph of that precision.

        Raises:
            BundleError: if the folder has no graph of that precision.
        """
        name = self.manifest.models.get(precision)
        if name is None:
            known = ", ".join(self.manifest.models)
            raise BundleError(f"{self.path} has no {precision} model (it has {known}); export with --quantize {precision}")
        return self.file(name)

    def copy_to(self, target: Path) -> None:
        """Copy the listed files and the manifest, and nothing else, into the existing folder `target`."""
        for name in self.manifest.files:
            copy_file(self.file(name), safe_join(target, name))
        atomic_write(target / MANIFEST, self.manifest.to_json())


@dataclass(frozen=True, eq=False)
class Bundle(ExportedFolder[Manifest]):
    """An opened, verified bundle. Two are equal if their `sha256` is.

    Attributes:
        path: the folder.
        manifest: the content of manifest.json.
    """

    @classmethod
    def read_manifest(cls, text: str, where: str) -> Manifest:
        """Parse the manifest."""
        return Manifest.from_json(text, where)

    @property
    def encodes(self) -> bool:
        """Tell whether the bundle has a model that turns text into vectors."""
        return bool(self.manifest.models)

    def check_encodes(self) -> None:
        """Check that the bundle has a model.

        Raises:
            BundleError: if it has none because vectors are made elsewhere.
        """
        if not self.encodes:
            raise BundleError(f"bundle {self.path} has no model to encode text; supply ready-made vectors instead")

    @property
    def document_rows(self) -> RowRules:
        """Return what a passage's ready-made rows must satisfy."""
        return self._row_rules(self.manifest.document)

    @property
    def query_rows(self) -> RowRules:
        """Return what a query's ready-made rows must satisfy."""
        return self._row_rules(self.manifest.query)

    def _row_rules(self, side: SideRules) -> RowRules:
        """Return the rules of rows. A model limits rows of texts; other rows may be longer."""
        most = MAX_ROWS if self.encodes else side.length
        return RowRules(self.manifest.dim, most, self.manifest.normalized)

    def model_path(self, precision: str) -> Path:
        """Return the path of the graph of that precision."""
        self.check_encodes()
        return super().model_path(precision)

    @property
    def default_precision(self) -> str:
        """Return the precision that is used if none is given.

        Raises:
            BundleError: if the bundle has no model because vectors are made elsewhere.
        """
        self.check_encodes()
        return next(name for name in FASTEST_ON_CPU if name in self.manifest.models)

    def comparable(self, other: Bundle) -> bool:
        """Tell whether scores with vectors of the two bundles can be compared.

        They can if the bundles differ only in how much of a document is read.

        Args:
            other: the other bundle.
        """
        own = self.manifest.document
        document = dataclasses.replace(other.manifest.document, length=own.length, auto=own.auto)
        return self.manifest == dataclasses.replace(other.manifest, document=document)


def check_dense_name(name: str, error: type[ColbertVespaError], where: str = "") -> None:
    """Check the name of a dense model, which becomes a folder name and a field name in Vespa.

    Args:
        name: the name.
        where: where it comes from, for the message.
        error: the error to raise if the name is not valid.
    """
    if not _DENSE_NAME.fullmatch(name):
        raise error(
            f"{where and where + ': '}dense model {name[:40]!a} : a name has at most 31 lower-case letters, digits "
            f"and _, and starts with a letter"
        )


def is_bundle_folder(folder: Path) -> bool:
    """Tell whether `folder` holds a bundle, of any format version, and nothing else, so that it may be replaced."""
    try:
        if (folder / MANIFEST).stat().st_size > MAX_MANIFEST_BYTES:
            return False
        data = json.loads((folder / MANIFEST).read_bytes())
        known = data["files"].keys() | {MANIFEST} if {"format_version", "models"} <= data.keys() else set()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return set(files_below(folder)) <= known


def write_manifest(root: Path, manifest: Manifest) -> Bundle:
    """Write the manifest like `write_files`, then open the bundle."""
    write_files(root, manifest)
    return Bundle.open(root, verify=False)


def write_files(root: Path, manifest: Any) -> None:
    """Add the checksum of every file below `root` to the manifest, and write it.

    Args:
        root: an exported folder.
        manifest: its manifest, of any kind.
    """
    files = {
        file.relative_to(root).as_posix(): FileEntry(sha256_file(file), file.stat().st_size)
        for file in sorted(root.rglob("*"))
        if file.is_file() and file != root / MANIFEST
    }
    if (root / MANIFEST).is_symlink():
        remove_file(root / MANIFEST)  # the link itself; its target belongs to someone else
    atomic_write(root / MANIFEST, dataclasses.replace(manifest, files=files).to_json())
