"""A bundle without a model, for vectors that are made elsewhere: the form of its rows, and codebooks trained on samples."""

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
MAX_QUERY_ROWS = 1024  # limit of Vespa's settings


@dataclass(frozen=True, slots=True)
class ReadyOptions:
    """The options of a bundle without a model.

    Attributes:
        dim: numbers per row.
        rows: most rows of a passage.
        query_rows: most rows of a query.
        normalized: whether all rows have length 1; otherwise MaxSim sums dot products.
        source: name of the model that makes the vectors.
        bits: bits per dimension of the codebook's residuals; None for 4.
        centroids: number of centroids; None for what suits the sample.
    """

    dim: int
    rows: int = 2048
    query_rows: int = 64
    normalized: bool = True
    source: str = "ready vectors"
    bits: int | None = None
    centroids: int | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: if an option is out of range; the message names it.
        """
        limits = {"dim": (1, MAX_DIM), "rows": (4, MAX_ROWS), "query_rows": (3, MAX_QUERY_ROWS)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from {least} to {most:,}, got {getattr(self, name)}")
        if self.bits not in (None, 1, 2, 4):
            raise UsageError(f"bits must be 1, 2 or 4, got {self.bits}")


def make_ready_bundle(output: Path, options: ReadyOptions, sample: Iterable[Document] | None = None) -> Bundle:
    """Write the bundle to `output`, which appears only when it is complete.

    Args:
        output: the folder.
        options: the form of its rows.
        sample: documents with vectors, for the codebook.

    Raises:
        UsageError: if a codebook is requested without a sample, or with rows that are not normalised.
        CollectionError: if a document of the sample has no fitting vectors; the message names it.
    """
    if sample is None and (options.bits or options.centroids):
        raise UsageError(
            "bits and centroids apply to the codebook, which is trained on sample vectors; give some (--sample-vectors)"
        )
    if sample is not None and not options.normalized:
        raise UsageError("a codebook needs normalised rows; omit the sample vectors, or normalise all vectors")
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
