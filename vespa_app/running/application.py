"""A deployed application, as the feeder and the query side see it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from late_interaction.addresses import VespaUrl, vespa_url
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import find_bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import BundleError
from late_interaction.metadata import FieldType, Value
from late_interaction.thresholds import Thresholds
from vespa_app.candidates import STRATEGIES, DocumentContext
from vespa_app.candidates.base import declared_fields
from vespa_app.codecs import CODECS, VECTORS, Books
from vespa_app.package.field_presence import PRESENT, present_marks
from vespa_app.running.description import CODEBOOK, THRESHOLDS, Description, read_description
from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.layouts import chunked_blocks

Unit = tuple[Sequence[Passage], Sequence[Matrix]]  # a document's passages, and `[t, d]` of each

__all__ = ["Application", "Unit", "bundle_books", "chunked_fields", "document_fields", "sent_metadata"]


@dataclass(frozen=True)
class Application:
    """url: of the query port. description: what the application says about itself."""

    url: str
    description: Description

    @classmethod
    def read(cls, url: str | VespaUrl, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> Application:
        """url: `http(s)://host:port`, and `#NAME` for another index of the application than its first.

        Raises: VespaUnreachable, VespaRefused where no application of ours is deployed there, SettingsError, UsageError
        where it has no such index.
        """
        place = vespa_url(url) if isinstance(url, str) else url
        description = read_description(place.url, timeout=timeout, transport=transport)
        return cls(place.url, description.index(place.index or description.settings.schema))

    def choose_bundle(self, given: Bundle | None) -> Bundle:
        """`given`, or the application's own bundle where it is known on this machine.

        Raises: BundleError where it is another than the application was generated from, or none is known.
        """
        wanted = self.description.bundle_sha256
        bundle = given if given is not None else find_bundle(wanted)
        if bundle.sha256 != wanted:
            raise BundleError(
                f"{bundle.path} is not the bundle that the application at {self.url} was generated from "
                f"(checksum {bundle.sha256[:12]}, not {wanted[:12]}): name that one, or deploy this one's package"
            )
        return bundle

    @property
    def settings(self) -> AppSettings:
        return self.description.settings

    @property
    def bundle_sha256(self) -> str:
        return self.description.bundle_sha256

    @property
    def needs_codebook(self) -> bool:
        found = any(STRATEGIES[candidates].needs_codebook for candidates in self.settings.candidates)
        return found or CODECS[self.settings.codec].needs_codebook

    def document_fields(self, passage: Passage, vectors: Matrix, bundle: Bundle) -> dict[str, object]:
        """The fields of one passage for document/v1. vectors: `[t, d]` float32."""
        books = self.books(bundle)
        return document_fields(passage, vectors, self.settings, books.codebook, books.thresholds)

    def digest_basis(self, bundle: Bundle) -> str:
        """Names all that what is stored of a document depends on, besides its content. The bundle's checksum covers its
        codebooks."""
        settings = self.settings
        fields = {name: sorted(declared_fields(STRATEGIES[name], settings)) for name in sorted(settings.candidates)}
        model = settings.precision if settings.encoding == "embedder" else ""
        parts = [bundle.sha256, settings.layout, settings.encoding, model, settings.codec, settings.thresholds, fields]
        return json.dumps(parts)

    def units(self, documents: Sequence[Unit], bundle: Bundle) -> list[list[dict[str, object]]]:
        """The fields of what Vespa stores of each document: one of its documents for each passage, in layout `chunks` one for
        all. Codes are assigned to the rows of all at once, which takes a tenth of the time.

        Raises: MetadataError, SettingsError as document_fields; ValueError where vectors are no finite `[t, d]`.
        """
        chunked = self.settings.layout == "chunks"
        parts = [[unit] if chunked else [((p,), (v,)) for p, v in zip(*unit, strict=True)] for unit in documents]
        flat = [np.concatenate(vectors) for unit in parts for _, vectors in unit]
        books = self.books(bundle)
        known = iter(_assigned(books.codebook, flat))
        return [
            [chunked_fields(passages, vectors, self.settings, next(known), books.thresholds) for passages, vectors in unit]
            if chunked
            else [document_fields(p[0], v[0], self.settings, next(known), books.thresholds) for p, v in unit]
            for unit in parts
        ]

    def books(self, bundle: Bundle) -> Books:
        """What of the bundle's codebooks the application uses. Raises: BundleError where it lacks one."""
        found = bundle_books(bundle, codebook=self.needs_codebook, thresholds=self.settings.thresholds)
        if (self.needs_codebook and found.codebook is None) or (self.settings.thresholds and found.thresholds is None):
            raise BundleError(f"{bundle.path} has no codebook, and the application needs one: use the bundle it was made of")
        return found


def _assigned(book: Codebook | None, matrices: Sequence[Matrix]) -> list[Codebook | None]:
    if book is None or not matrices:
        return [None] * len(matrices)
    codes = np.split(book.assign_near(np.concatenate(matrices)), np.cumsum([len(rows) for rows in matrices])[:-1])
    return [_Assigned.of(book, own) for own in codes]


class _Assigned(Codebook):
    """A codebook that knows the codes of the one document that it will be asked for."""

    known: NDArray[np.int32]

    @classmethod
    def of(cls, book: Codebook, codes: NDArray[np.int32]) -> _Assigned:
        made = object.__new__(cls)  # the arrays were checked when the codebook was made
        made.__dict__.update({field.name: getattr(book, field.name) for field in dataclasses.fields(book)}, known=codes)
        return made

    def assign(self, vectors: Matrix) -> NDArray[np.int32]:
        return self.known

    def assign_near(self, vectors: Matrix) -> NDArray[np.int32]:
        return self.known


def bundle_books(bundle: Bundle, *, codebook: bool = True, thresholds: bool = True) -> Books:
    """The books that a bundle has, of those asked for.

    Raises: BundleError where one is damaged.
    """
    found: dict[str, Codebook | Thresholds] = {}
    for kind, wanted, load in ((CODEBOOK, codebook, _load_codebook), (THRESHOLDS, thresholds, _load_thresholds)):
        name = bundle.manifest.codebooks.get(kind)
        if wanted and name is not None:
            found[kind] = load(bundle.file(name), bundle.manifest.files[name].sha256)
    return Books(found.get(CODEBOOK), found.get(THRESHOLDS))  # type: ignore[arg-type]


# sha256 is part of the key: a codebook that was trained again is read again
@functools.lru_cache(maxsize=2)
def _load_codebook(file: Path, sha256: str) -> Codebook:
    return Codebook.load(file)


@functools.lru_cache(maxsize=2)
def _load_thresholds(file: Path, sha256: str) -> Thresholds:
    return Thresholds.load(file)


def document_fields(
    passage: Passage,
    vectors: Matrix,
    settings: AppSettings,
    codebook: Codebook | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, object]:
    """The fields of one passage for document/v1. vectors: `[t, d]` float32. In layout `chunks` it is the only chunk.

    Raises: MetadataError on metadata that does not fit the settings, SettingsError where a codebook is needed.
    """
    if settings.layout == "chunks":
        return chunked_fields([passage], [vectors], settings, codebook, thresholds)
    books = Books(codebook, thresholds)
    fields = _common_fields(passage, vectors, settings, books) | {"text": passage.text}
    return fields if settings.encoding == "embedder" else fields | CODECS[settings.codec].encode(vectors, books)


def chunked_fields(
    passages: Sequence[Passage],
    vectors: Sequence[Matrix],
    settings: AppSettings,
    codebook: Codebook | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, object]:
    """The fields of one document with all its passages, in layout `chunks`. vectors: `[t, d]` float32 of each passage; title
    and metadata are those of the first.

    Raises: MetadataError, SettingsError as document_fields.
    """
    books = Books(codebook, thresholds)
    fields = _common_fields(passages[0], np.concatenate(vectors), settings, books)
    fields["text"] = [passage.text for passage in passages]
    codec = CODECS[settings.codec]
    value = chunked_blocks([codec.encode(rows, books)[VECTORS] for rows in vectors])
    return fields if settings.encoding == "embedder" else fields | {VECTORS: value}


def _common_fields(passage: Passage, vectors: Matrix, settings: AppSettings, books: Books) -> dict[str, object]:
    metadata = settings.metadata.check(passage.metadata)
    fields: dict[str, object] = {
        "id": passage.id,
        "document_id": passage.document_id,
        "title": passage.title,
        **sent_metadata(metadata, settings),
        PRESENT: present_marks(metadata),
    }
    context = DocumentContext(books.codebook, books.thresholds, settings)
    for candidates in settings.candidates:
        fields.update(STRATEGIES[candidates].document_fields(vectors, context))
    return fields


def sent_metadata(metadata: Mapping[str, Value], settings: AppSettings) -> dict[str, object]:
    """Positions in degrees; all else as it is kept."""
    shown = settings.metadata.shown(metadata)
    types = settings.metadata.fields
    return {name: shown[name] if types[name] is FieldType.POSITION else value for name, value in metadata.items()}
