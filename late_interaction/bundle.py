"""The bundle: one folder that holds everything needed to turn text into token vectors, with a checksum for every file.

    BUNDLE/
      manifest.json            format version, model, rules of tokenization, sha256 of every other file
      model.onnx               inputs input_ids, attention_mask [batch, tokens]; output contextual [batch, tokens, dim],
                               L2-normalised in the graph
      model.onnx.data          only where the weights are more than 2 GB: model.onnx refers to it
      model.int8.onnx          optional: the same with quantized weights
      tokenizer.json           without truncation and padding of its own
      codebooks/NAME.npz       optional: centroids and residual buckets, trained on a sample of the user's documents
      dense/NAME/              optional: a dense model, one vector a text: model.onnx (output embedding [batch, dim]),
                               model.int8.onnx, tokenizer.json
      report.json              optional: what verification against torch measured

A bundle without a model, of vectors that are made elsewhere, has a manifest and perhaps codebooks, and no tokenizer.

Formats are validated before they are read: unknown version, missing or changed file, unsafe path are errors by name.
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
FASTEST_ON_CPU = ("int8", "int8-tensor", "fp32")
INPUT_IDS, ATTENTION_MASK, OUTPUT = "input_ids", "attention_mask", "contextual"
TYPE_IDS = "token_type_ids"  # a further input of cross-encoders whose encoder tells query and passage apart by it
CROSS_ENCODER = "cross-encoder"  # `kind` of the manifest of one (late_interaction/cross_encoder.py)
DENSE, DENSE_OUTPUT = "dense", "embedding"  # folder of the dense models and name of the default one; output of their graphs
MAX_DENSE_DIM = 1 << 16
_DENSE_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True)
class Expansion:
    """Query augmentation: pad to `length` rows with `token_id`; `attend`: whether the encoder sees those rows.

    replaces_pad: the pad token, where a text spells it out, becomes `token_id` too.
    """

    length: int
    token_id: int
    attend: bool
    replaces_pad: bool = False


@dataclass(frozen=True, slots=True)
class SideRules:
    """How one side (query or document) is tokenized.

    length: rows at most, marker and special tokens included. marker_id: inserted at position 1, None for none.
    prompt: text put before the user's. skip_ids: rows dropped from the output (they are still encoded).
    drop_ids: tokens that are not even encoded. auto: a longer text gets the next multiple of `length`, up to the model's
    own limit.
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
    """Document rows replaced by means: 1 of `factor` stays; the first `protected` rows are left alone."""

    factor: int
    method: str = "hierarchical"
    protected: int = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: str
    bytes: Count


@dataclass(frozen=True, slots=True)
class DensePart:
    """A dense model: one vector `[dim]` a text, pooled and, where `normalized`, of length one, both in its graph.

    models: precision to file, tokenizer: file; none of either where its vectors come ready-made with documents and queries.
    max_tokens: special tokens and prompt included. lower_case: of the text, before it is tokenized.
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
        return (*self.models.values(), *([self.tokenizer] if self.tokenizer else []))

    def fault(self) -> str:
        """What cannot be of it, or empty."""
        if not 1 <= self.dim <= MAX_DENSE_DIM:
            return f"dim must be from 1 to {MAX_DENSE_DIM}"
        if self.models and "fp32" not in self.models:
            return "models has no fp32"
        if bool(self.models) != bool(self.tokenizer):
            return "models and tokenizer must both be there, or neither"
        return "max_tokens must be at least 3" if self.models and self.max_tokens < 3 else ""


@dataclass(frozen=True, slots=True)
class MeasuredCandidates:
    """The cheapest candidates that reached a recall goal on a sample of the user's documents. strategy: `centroid` or `pooled`.
    encoding: of pooled. rerank, probes: the effort that found `recall` of the exact top 10, of the `goal`."""

    strategy: str
    rerank: Count
    recall: float
    goal: float
    encoding: str = ""
    probes: Count = 0

    def fault(self) -> str:
        """What cannot be of it, or empty."""
        if self.strategy not in MEASURED_STRATEGIES:
            return f"strategy {self.strategy[:40]!r} unknown; known: {', '.join(MEASURED_STRATEGIES)}"
        if self.rerank < 1 or not 0 < self.recall <= 1 or not 0 < self.goal <= 1:
            return "rerank must be at least 1, recall and goal above 0 and at most 1"
        return "" if bool(self.encoding) == (self.strategy == "pooled") else "encoding is of strategy pooled, which needs one"


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says. `models` maps a precision (fp32, int8) to a file, and is empty where vectors are made elsewhere;
    lengths are rows at most then. `codebooks` maps a name to a file, `dense` a name to a dense model. `rules`: whose
    tokenization this is, the one the checkpoint was trained with ("trained") or that of Vespa's colbert-embedder ("vespa").
    `candidates`: what was measured to find enough (`colbert-vespa candidates`).
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
        listed = {*self.models.values(), *self.codebooks.values(), *([TOKENIZER] if self.models else [])}
        return listed | {name for part in self.dense.values() for name in part.files}

    def to_json(self) -> bytes:
        data = dataclasses.asdict(self)
        for name in ("dense", "candidates"):  # bundles of before there were these keep their checksum
            if not data[name]:
                del data[name]
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Raises: BundleError naming the key that is missing, unknown or of a wrong type."""
        data = parse(text, BundleError, where, "export the bundle again", format_version=FORMAT_VERSION)
        if data.get("kind") == CROSS_ENCODER:
            raise BundleError(f"{where} is of a cross-encoder, which has no token vectors: give it with --rerank-with")
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
    """What the manifests of exported folders have in common. models: precision to file."""

    @property
    def models(self) -> Mapping[str, str]: ...
    @property
    def files(self) -> Mapping[str, FileEntry]: ...
    @property
    def listed(self) -> set[str]:
        """Files that it names, each of which must have a checksum."""
        ...

    def to_json(self) -> bytes: ...


M_co = TypeVar("M_co", bound=AnyManifest, covariant=True)
F = TypeVar("F", bound="ExportedFolder[Any]")


@dataclass(frozen=True, eq=False)
class ExportedFolder(ABC, Generic[M_co]):
    """An opened, verified folder that `export` wrote. Two are the same when their `sha256` is the same."""

    path: Path
    manifest: M_co
    noun: ClassVar[str] = "bundle"
    made_by: ClassVar[str] = "colbert-vespa export"

    @classmethod
    @abstractmethod
    def read_manifest(cls, text: str, where: str) -> Any:
        """Raises: BundleError."""

    @classmethod
    def open(cls: type[F], path: str | Path, *, verify: bool = True) -> F:
        """Reads the manifest and checks that every listed file is there and, with `verify`, unchanged.

        Raises: BundleError naming the file.
        """
        root = as_path(path, cls.noun)
        manifest_path = root / MANIFEST
        if not root.is_dir():
            raise BundleError(f"no folder {root}: give the folder that `{cls.made_by}` wrote")
        if not manifest_path.is_file():
            raise BundleError(f"{root} is not a {cls.noun} (it has no {MANIFEST}): make one with `{cls.made_by}`")
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
                raise BundleError(f"{root}: file {name} of the manifest is missing; export the {cls.noun} again")
            linked = not file.resolve().is_relative_to(root.resolve())  # as in snapshots of a hub: then its content decides
            if file.stat().st_size != entry.bytes or ((verify or linked) and sha256_file(file) != entry.sha256):
                raise BundleError(f"{root}: file {name} was changed since the export (checksum differs)")
        return cls(root, manifest)

    @functools.cached_property
    def sha256(self) -> str:
        """Identity of the folder: the checksum of its manifest, which has the checksums of everything else."""
        return hashlib.sha256(self.manifest.to_json()).hexdigest()

    def file(self, name: str) -> Path:
        return safe_join(self.path, name)

    def model_path(self, precision: str) -> Path:
        """Raises: BundleError where there is no graph of that precision."""
        name = self.manifest.models.get(precision)
        if name is None:
            known = ", ".join(self.manifest.models)
            raise BundleError(f"{self.path} has no {precision} model (it has {known}): export with --quantize {precision}")
        return self.file(name)

    def copy_to(self, target: Path) -> None:
        """Copies the listed files and the manifest, nothing else, into the existing folder `target`."""
        for name in self.manifest.files:
            copy_file(self.file(name), safe_join(target, name))
        atomic_write(target / MANIFEST, self.manifest.to_json())


@dataclass(frozen=True, eq=False)
class Bundle(ExportedFolder[Manifest]):
    """An opened, verified bundle. Two are the same bundle when their `sha256` is the same."""

    @classmethod
    def read_manifest(cls, text: str, where: str) -> Manifest:
        return Manifest.from_json(text, where)

    @property
    def encodes(self) -> bool:
        """Whether it has a model that makes vectors of texts."""
        return bool(self.manifest.models)

    def check_encodes(self) -> None:
        """Raises: BundleError where vectors are made elsewhere."""
        if not self.encodes:
            raise BundleError(f"bundle {self.path} has no model to encode texts with: give ready vectors instead")

    @property
    def document_rows(self) -> RowRules:
        """What ready rows of a passage have to be."""
        return self._row_rules(self.manifest.document)

    @property
    def query_rows(self) -> RowRules:
        """What ready rows of a query have to be."""
        return self._row_rules(self.manifest.query)

    def _row_rules(self, side: SideRules) -> RowRules:
        """A model's lengths are of texts: what it makes of anything else may be longer."""
        most = MAX_ROWS if self.encodes else side.length
        return RowRules(self.manifest.dim, most, self.manifest.normalized)

    def model_path(self, precision: str) -> Path:
        self.check_encodes()
        return super().model_path(precision)

    @property
    def default_precision(self) -> str:
        """Raises: BundleError where vectors are made elsewhere."""
        self.check_encodes()
        return next(name for name in FASTEST_ON_CPU if name in self.manifest.models)

    def comparable(self, other: Bundle) -> bool:
        """Whether scores with vectors of the two can be compared: they differ in nothing but how much of a document is read."""
        own = self.manifest.document
        document = dataclasses.replace(other.manifest.document, length=own.length, auto=own.auto)
        return self.manifest == dataclasses.replace(other.manifest, document=document)


def check_dense_name(name: str, error: type[ColbertVespaError], where: str = "") -> None:
    """Names of dense models become names of folders and of Vespa's fields. Raises: `error`."""
    if not _DENSE_NAME.fullmatch(name):
        raise error(
            f"{where and where + ': '}dense model {name[:40]!a} must be named by small letters, digits and _, a letter first, "
            "at most 31"
        )


def is_bundle_folder(folder: Path) -> bool:
    """Whether `folder` is a bundle, of any format version, and holds nothing else: one that may be replaced."""
    try:
        if (folder / MANIFEST).stat().st_size > MAX_MANIFEST_BYTES:
            return False
        data = json.loads((folder / MANIFEST).read_bytes())
        known = data["files"].keys() | {MANIFEST} if {"format_version", "models"} <= data.keys() else set()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return set(files_below(folder)) <= known


def write_manifest(root: Path, manifest: Manifest) -> Bundle:
    """As `write_files`, and opens the bundle."""
    write_files(root, manifest)
    return Bundle.open(root, verify=False)


def write_files(root: Path, manifest: Any) -> None:
    """Checksums every file below `root` into the manifest, and writes it. manifest: of any exported folder."""
    files = {
        file.relative_to(root).as_posix(): FileEntry(sha256_file(file), file.stat().st_size)
        for file in sorted(root.rglob("*"))
        if file.is_file() and file != root / MANIFEST
    }
    if (root / MANIFEST).is_symlink():
        remove_file(root / MANIFEST)  # the link: what it leads to belongs to another
    atomic_write(root / MANIFEST, dataclasses.replace(manifest, files=files).to_json())
