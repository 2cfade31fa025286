"""A passage as one vector, for candidates `pooled`: one encoding per file, one line per encoding in the table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.errors import BundleError
from late_interaction.one_vector.base import FitReport, OneVector
from late_interaction.one_vector.lemur import Lemur
from late_interaction.one_vector.mean import MeanVector

__all__ = ["ENCODINGS", "MEAN", "FitReport", "OneVector", "chosen_encoding", "one_vector"]

MEAN = MeanVector.name
ENCODINGS: Mapping[str, type[OneVector]] = {encoding.name: encoding for encoding in (MeanVector, Lemur)}


def chosen_encoding(bundle: Bundle) -> str:
    """Return the encoding that the bundle's measurements chose, else one that is fitted; empty if there is neither."""
    measured = bundle.manifest.candidates
    if measured is not None and measured.encoding:
        return measured.encoding
    return next((name for name, kind in ENCODINGS.items() if kind.fitted and name in bundle.manifest.codebooks), "")


def one_vector(bundle: Bundle, name: str) -> OneVector:
    """Return an encoding of the bundle's token vectors.

    Raises:
        BundleError: if the encoding is unknown, or its parameters are missing, damaged or of another bundle.
    """
    kind, dim = ENCODINGS.get(name), bundle.manifest.dim
    if kind is None:
        raise BundleError(f"encoding {name!r} of {bundle.path} is unknown; known: {', '.join(ENCODINGS)}")
    if not kind.fitted:
        return MeanVector(dim)
    file = bundle.manifest.codebooks.get(name)
    if file is None:
        raise BundleError(f"{bundle.path} has no parameters of encoding {name}: fit them with `colbert-vespa candidates`")
    found = _loaded(kind, bundle.file(file), bundle.manifest.files[file].sha256)
    if found.rows_dim != dim:
        raise BundleError(f"{bundle.path} is damaged: {file} is of {found.rows_dim} dimensions, the token vectors have {dim}")
    return found


@functools.lru_cache(maxsize=4)
def _loaded(kind: type[OneVector], path: Path, sha256: str) -> OneVector:
    """Load an encoding; `sha256` is that of the file, so that a changed file is read again."""
    return kind.load(path)
