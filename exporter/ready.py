"""A bundle without a model, for vectors that are made elsewhere: what its rows are, and codebooks trained on some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exporter.codebooks import DEFAULT_BITS, add_codebook_of
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle, Manifest, SideRules, is_bundle_folder, write_manifest
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import replace_folder
from late_interaction.ready_rows import MAX_ROWS

__all__ = ["ReadyOptions", "make_ready_bundle"]

MAX_DIM = 4096
MAX_QUERY_ROWS = 1024  # that Vespa's settings take


@dataclass(frozen=True, slots=True)
class ReadyOptions:
    """dim: numbers of a row. rows, query_rows: of a passage and of a query at most. normalized: whether all have length 1; of
    others MaxSim is the sum of dot products. source: a name of the model that makes them. bits, centroids: of the codebook;
    None for 4, and for what suits the sample."""

    dim: int
    rows: int = 2048
    query_rows: int = 64
    normalized: bool = True
    source: str = "ready vectors"
    bits: int | None = None
    centroids: int | None = None

    def __post_init__(self) -> None:
        """Raises: UsageError naming what is out of range."""
        limits = {"dim": (1, MAX_DIM), "rows": (4, MAX_ROWS), "query_rows": (3, MAX_QUERY_ROWS)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from {least} to {most:,}, got {getattr(self, name)}")
        if self.bits not in (None, 1, 2, 4):
            raise UsageError(f"bits must be 1, 2 or 4, got {self.bits}")


def make_ready_bundle(output: Path, options: ReadyOptions, sample: Iterable[Document] | None = None) -> Bundle:
    """Writes the bundle to `output`, which appears only when it is complete. sample: documents with vectors, for the codebook.

    Raises: UsageError where there is no sample to train on, or its rows are not normalised; CollectionError naming a document
    of the sample without fitting vectors.
    """
    if sample is None and (options.bits or options.centroids):
        raise UsageError("bits and centroids are of the codebook, which sample vectors train: give some (--sample-vectors)")
    if sample is not None and not options.normalized:
        raise UsageError("a codebook is of normalised rows: leave out sample vectors, or normalise all vectors")
    manifest = Manifest(
        options.source, "ready", options.dim, SideRules(options.query_rows), SideRules(options.rows), pad_id=0,
        max_tokens=options.rows, normalized=options.normalized,
    )  # fmt: skip
    with replace_folder(output, owned=is_bundle_folder) as staging:
        bundle = write_manifest(staging, manifest)
        if sample is not None:
            rows = (own for document in sample for own in _rows(document, bundle))
            add_codebook_of(bundle, rows, bits=options.bits or DEFAULT_BITS, centroids=options.centroids)
    return Bundle.open(output)


def _rows(document: Document, bundle: Bundle) -> list[Matrix]:
    if not document.vectors:
        raise CollectionError(f"document {document.id!r} of the sample has no vectors")
    try:
        return [bundle.document_rows.checked(rows) for rows in document.vectors]
    except UsageError as error:
        raise CollectionError(f"document {document.id!r} of the sample: {error}") from None
