"""What a bundle holds for Vespa: a codebook, a smaller one for codec residual, thresholds of bits.

The smaller one exists if the codebook is too large for the constants of a package.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.codebook import CODEBOOK, SMALL_CODEBOOK, Codebook
from late_interaction.one_vector import OneVector, one_vector
from late_interaction.thresholds import Thresholds

__all__ = [
    "NO_CODEBOOKS",
    "THRESHOLDS",
    "Codebooks",
    "bundle_codebooks",
    "codebook_sha256",
]

THRESHOLDS = "binary"  # the bundle's thresholds of codec binary


@dataclass(frozen=True)
class Codebooks:
    """The codebooks of a bundle; None for each that it lacks or that is not requested.

    Attributes:
        codebook: for candidates.
        thresholds: for codec binary.
        small: for codec residual, if the codebook is too large.
    """

    codebook: Codebook | None = None
    thresholds: Thresholds | None = None
    small: Codebook | None = None
    one_vector: OneVector | None = None

    @property
    def residual(self) -> Codebook | None:
        """Return the codebook of codec residual: the small one if the bundle has it."""
        return self.small or self.codebook


NO_CODEBOOKS = Codebooks()


def bundle_codebooks(bundle: Bundle, *, codebook: bool = True, thresholds: bool = True, encoding: str = "") -> Codebooks:
    """Return the requested codebooks of a bundle.

    Raises:
        BundleError: if one is damaged.
    """
    books: dict[str, Codebook | Thresholds] = {}
    kinds = ((CODEBOOK, codebook, _load_codebook), (SMALL_CODEBOOK, codebook, _load_codebook))
    for kind, wanted, load in (*kinds, (THRESHOLDS, thresholds, _load_thresholds)):
        name = bundle.manifest.codebooks.get(kind)
        if wanted and name is not None:
            books[kind] = load(bundle.file(name), bundle.manifest.files[name].sha256)
    found = one_vector(bundle, encoding) if encoding else None
    return Codebooks(books.get(CODEBOOK), books.get(THRESHOLDS), books.get(SMALL_CODEBOOK), found)  # type: ignore[arg-type]


# sha256 is part of the key, so a retrained codebook is read again
@functools.lru_cache(maxsize=4)
def _load_codebook(file: Path, sha256: str) -> Codebook:
    return Codebook.load(file)


@functools.lru_cache(maxsize=2)
def _load_thresholds(file: Path, sha256: str) -> Thresholds:
    return Thresholds.load(file)


def codebook_sha256(bundle: Bundle) -> str | None:
    """Return the checksum of the codebook whose centroids are used."""
    file = bundle.manifest.codebooks.get(CODEBOOK)
    return bundle.manifest.files[file].sha256 if file else None
