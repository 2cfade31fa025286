"""A deployed application, as the feeder and the query side see it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import find_bundle, register_bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import BundleError
from vespa_app.candidates import STRATEGIES, DocumentContext
from vespa_app.candidates.base import Centroids, Floats
from vespa_app.codecs import CODECS, VECTORS
from vespa_app.description import CODEBOOK, Description, read_description
from vespa_app.layouts import chunked_blocks
from vespa_app.presence import PRESENT, present_marks
from vespa_app.settings import AppSettings

__all__ = ["Application", "chunked_fields", "document_fields"]


@dataclass(frozen=True)
class Application:
    """url: of the query port. description: what the application says about itself."""

    url: str
    description: Description

    @classmethod
    def read(cls, url: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> Application:
        """url: `http(s)://host:port`, and `#NAME` for another index of the application than its first.

        Raises: VespaUnreachable, VespaRefused where no application of ours is deployed there, SettingsError, UsageError
        where it has no such index.
        """
        address, _, name = url.partition("#")
        description = read_description(address, timeout=timeout, transport=transport)
        return cls(address.rstrip("/"), description.index(name or description.settings.schema))

    def choose_bundle(self, given: Bundle | None) -> Bundle:
        """`given`, or the application's own bundle where it is known on this machine; it is registered for the next time.

        Raises: BundleError where it is another than the application was generated from, or none is known.
        """
        wanted = self.description.bundle_sha256
        bundle = given if given is not None else find_bundle(wanted)
        if bundle.sha256 != wanted:
            raise BundleError(
                f"{bundle.path} is not the bundle that the application at {self.url} was generated from "
                f"(checksum {bundle.sha256[:12]}, not {wanted[:12]}): name that one, or deploy this one's package"
            )
        register_bundle(bundle)
        return bundle

    @property
    def settings(self) -> AppSettings:
        return self.description.settings

    @property
    def bundle_sha256(self) -> str:
        return self.description.bundle_sha256

    @property
    def needs_codebook(self) -> bool:
        return any(STRATEGIES[candidates].needs_codebook for candidates in self.settings.candidates)

    def document_fields(self, passage: Passage, vectors: Floats, bundle: Bundle) -> dict[str, object]:
        """The fields of one passage for document/v1. vectors: `[t, d]` float32."""
        return document_fields(passage, vectors, self.settings, _codebook(bundle) if self.needs_codebook else None)


def _codebook(bundle: Bundle) -> Codebook:
    name = bundle.manifest.codebooks.get(CODEBOOK)
    if name is None:
        raise BundleError(f"{bundle.path} has no codebook, and the application needs one: use the bundle it was made of")
    return _load_codebook(bundle.file(name), bundle.manifest.files[name].sha256)


@functools.lru_cache(maxsize=2)
def _load_codebook(file: Path, sha256: str) -> Codebook:
    """sha256 is part of the key: a codebook that was trained again is read again."""
    return Codebook.load(file)


def document_fields(
    passage: Passage, vectors: Floats, settings: AppSettings, codebook: Centroids | None = None
) -> dict[str, object]:
    """The fields of one passage for document/v1. vectors: `[t, d]` float32. In layout `chunks` it is the only chunk.

    Raises: MetadataError on metadata that does not fit the settings, SettingsError where a codebook is needed.
    """
    if settings.layout == "chunks":
        return chunked_fields([passage], [vectors], settings, codebook)
    fields = _common_fields(passage, vectors, settings, codebook) | {"text": passage.text}
    return fields if settings.encoding == "embedder" else fields | {VECTORS: CODECS[settings.codec].encode(vectors)}


def chunked_fields(
    passages: Sequence[Passage], vectors: Sequence[Floats], settings: AppSettings, codebook: Centroids | None = None
) -> dict[str, object]:
    """The fields of one document with all its passages, in layout `chunks`. vectors: `[t, d]` float32 of each passage; title
    and metadata are those of the first.

    Raises: MetadataError, SettingsError as document_fields.
    """
    fields = _common_fields(passages[0], np.concatenate(vectors), settings, codebook)
    fields["text"] = [passage.text for passage in passages]
    codec = CODECS[settings.codec]
    value = chunked_blocks([codec.encode(rows) for rows in vectors])
    return fields if settings.encoding == "embedder" else fields | {VECTORS: value}


def _common_fields(passage: Passage, vectors: Floats, settings: AppSettings, codebook: Centroids | None) -> dict[str, object]:
    metadata = settings.metadata.check(passage.metadata)
    fields: dict[str, object] = {
        "id": passage.id,
        "document_id": passage.document_id,
        "title": passage.title,
        **metadata,
        PRESENT: present_marks(metadata),
    }
    context = DocumentContext(codebook)
    for candidates in settings.candidates:
        fields.update(STRATEGIES[candidates].document_fields(vectors, context))
    return fields
