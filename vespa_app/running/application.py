"""A deployed application, as the feeder and the query side see it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from late_interaction.addresses import VespaUrl, vespa_url
from late_interaction.array_types import I32, TokenVectors, Vector
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import find_bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import BundleError
from late_interaction.token_ids import joined_rows
from vespa_app.candidates import STRATEGIES, needed_encoding, strategies_of
from vespa_app.candidates.base import declared_fields
from vespa_app.codecs import CODECS, Codebooks, bundle_codebooks
from vespa_app.running.description import Description, read_description
from vespa_app.running.documents import document_fields
from vespa_app.settings import AppSettings
from vespa_app.settings.sections import section_json

Unit = tuple[Sequence[Passage], Sequence[TokenVectors]]  # a document's passages, and the rows of each

__all__ = ["Application", "Unit"]


@dataclass(frozen=True)
class Application:
    """A deployed application.

    Attributes:
        url: URL of the query port.
        description: what the application reports about itself.
    """

    url: str
    description: Description

    @classmethod
    def read(cls, url: str | VespaUrl, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> Application:
        """Read the description of a deployed application.

        Args:
            url: `http(s)://host:port`, and `#NAME` for an index of the application other than its first.
            timeout: seconds.
            transport: for tests.

        Raises:
            VespaUnreachable: if nothing answers.
            VespaRefused: if no application of ours is deployed there.
            SettingsError: if its description cannot be read.
            UsageError: if it has no such index.
        """
        place = vespa_url(url) if isinstance(url, str) else url
        description = read_description(place.url, timeout=timeout, transport=transport)
        return cls(place.url, description.index(place.index or description.settings.schema))

    def choose_bundle(self, given: Bundle | None) -> Bundle:
        """Return `given`, or the application's own bundle if it is known on this machine.

        Raises:
            BundleError: if it is not the one the application was generated from, or none is known.
        """
        wanted = self.description.bundle_sha256
        bundle = given if given is not None else find_bundle(wanted)
        if bundle.sha256 != wanted:
            raise BundleError(
                f"{bundle.path} is not the bundle that the application at {self.url} was generated from "
                f"(checksum {bundle.sha256[:12]}, not {wanted[:12]}); give that bundle, or deploy the package of this one"
            )
        return bundle

    @property
    def settings(self) -> AppSettings:
        """Return the settings of the index."""
        return self.description.settings

    @property
    def bundle_sha256(self) -> str:
        """Return the checksum of the index's bundle."""
        return self.description.bundle_sha256

    @property
    def needs_codebook(self) -> bool:
        """Tell whether codec or candidates need the codebook."""
        return self._has_lists or CODECS[self.settings.codec].needs_codebook

    @property
    def _has_lists(self) -> bool:
        return any(strategy.needs_codebook for strategy in strategies_of(self.settings))

    def digest_basis(self, bundle: Bundle) -> str:
        """Return what stored documents depend on besides their content. The bundle's checksum covers its codebooks."""
        settings = self.settings
        names = sorted(strategy.name for strategy in strategies_of(settings) if strategy.name in STRATEGIES)
        fields = {name: sorted(declared_fields(STRATEGIES[name], settings)) for name in names}
        model = settings.precision if settings.encoding == "embedder" else ""
        parts = [bundle.sha256, settings.layout, settings.encoding, model, settings.codec, settings.thresholds, fields]
        dense = {model: [own.dim, own.cells, own.distance] for model, own in settings.dense.items()}
        one = section_json(settings.one_vector)
        return json.dumps([*parts, *([dense] if dense else []), *([one] if one else [])])

    def units(
        self, documents: Sequence[Unit], bundle: Bundle, dense: Sequence[Sequence[Mapping[str, Vector]]] = ()
    ) -> list[list[dict[str, object]]]:
        """Return the fields of Vespa's documents: one per passage, or in layout `chunks` one per document.

        Codes are assigned to the rows of all documents at once, which takes a tenth of the time.

        Args:
            documents: passages and rows of each document.
            bundle: the bundle.
            dense: for each passage of each document, its vector by name of each dense model; empty if the application has
                none.

        Raises:
            MetadataError: as in `document_fields`.
            SettingsError: as in `document_fields`.
            ValueError: if vectors are not a finite `[t, d]`.
        """
        chunked = self.settings.layout == "chunks"
        parts = [[unit] if chunked else [((p,), (rows,)) for p, rows in zip(*unit, strict=True)] for unit in documents]
        books = self.books(bundle)
        joined = [joined_rows(rows) for unit in parts for _, rows in unit]
        codes = _codes(books.codebook if self._has_lists else None, joined)
        residual = books.residual if CODECS[self.settings.codec].needs_codebook else None
        residual_codes = codes if residual is books.codebook and self._has_lists else _codes(residual, joined)
        vectors = [own for of_document in dense for own in of_document] if self.settings.dense else [{}] * len(joined)
        known = iter(zip(codes, (ids for _, ids in joined), residual_codes, vectors, strict=True))
        return [
            [document_fields(found, [v for v, _ in rows], self.settings, books, *next(known)) for found, rows in unit]
            for unit in parts
        ]

    def books(self, bundle: Bundle) -> Codebooks:
        """Return the codebooks of the bundle that the application uses.

        Raises:
            BundleError: if the bundle lacks one.
        """
        settings = self.settings
        books = bundle_codebooks(
            bundle, codebook=self.needs_codebook, thresholds=settings.thresholds, encoding=needed_encoding(settings)
        )
        if (self.needs_codebook and books.codebook is None) or (settings.thresholds and books.thresholds is None):
            raise BundleError(
                f"{bundle.path} has no codebook, but the application needs one; use the bundle it was generated from"
            )
        return books


def _codes(codebook: Codebook | None, parts: Sequence[TokenVectors]) -> Sequence[I32 | None]:
    """Return the codes of the rows of each part; None if there is no codebook."""
    if codebook is None or not parts:
        return [None] * len(parts)
    ends = np.cumsum([len(vectors) for vectors, _ in parts])[:-1]
    return np.split(codebook.assign_near(*joined_rows(parts)), ends)
