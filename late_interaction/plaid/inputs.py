"""Check the caller's input: rows of passages, rows of queries, counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix, TokenIds, Vector
from late_interaction.errors import UsageError
from late_interaction.plaid.types import DenseForm, LocalResult
from late_interaction.ready_rows import LONGEST, TOLERANCE

__all__ = [
    "ScaledQuery", "checked_count", "checked_dense", "checked_token_ids", "chosen_bits", "dense_query", "document_rows",
]  # fmt: skip

LONGEST_QUERY = 1e30
BITS = (1, 2, 4)


def checked_count(name: str, value: object) -> int:
    """Return `value` as an int.

    Raises:
        UsageError: if it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def chosen_bits(bits: int | None, codec: str, of_bundle: int | None) -> int:
    """Return the bits of a new index.

    Args:
        bits: the bits asked for; None for the default.
        codec: its codec.
        of_bundle: the bits of the bundle's codebook; None if it has none.

    Raises:
        UsageError: if these bits are not possible, or the codec has none.
    """
    if bits is None:
        return of_bundle or max(BITS)
    if bits not in BITS:
        raise UsageError(f"bits must be 1, 2 or 4, got {bits!r}")
    if codec != "residual":
        raise UsageError(f"bits apply only to codec residual, not to {codec}; omit them")
    if of_bundle not in (None, bits):
        raise UsageError(f"the bundle's codebook has {of_bundle} bits, not {bits}; omit bits, or export with --bits {bits}")
    return bits


def document_rows(passage_id: str, vectors: object, dim: int, codec: str) -> Matrix:
    """Return `vectors` as float32 `[t, dim]`: unit rows; for codec float32, rows shorter than 1,000.

    Residuals and bits store a row relative to its centroid or a threshold, so they keep only directions. A float32 row is
    scored as it is, but must fit sixteen bits beside the others, and centroids use only its direction.

    Raises:
        UsageError: if a row does not fit; the message names the passage and the row.
    """
    where = f"passage {passage_id!r}"
    rows = _float32(vectors, where)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise UsageError(f"{where}: vectors must have shape [t, {dim}] for this index, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise UsageError(f"{where}: vectors must be finite")
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    wrong = ~(lengths < LONGEST) if codec == "float32" else ~(np.abs(lengths - 1) <= TOLERANCE)
    if wrong.any():
        row = int(wrong.argmax())
        takes = f"rows shorter than {LONGEST}" if codec == "float32" else "rows of length 1 (divide each by its length)"
        raise UsageError(f"{where}: row {row} has length {lengths[row]:.4g}, but codec {codec} needs {takes}")
    return rows


def checked_dense(passage_id: str, dense: Mapping[str, object] | None, forms: Mapping[str, DenseForm]) -> dict[str, Vector]:
    """Return the vectors of a passage by dense model, one `[dim]` for each of `forms`, float32.

    Raises:
        UsageError: if a vector is missing, unknown, not finite, or has the wrong shape or length; the message names passage
            and model.
    """
    given, where = dense or {}, f"passage {passage_id!r}"
    for name in given:
        if name not in forms:
            has = f"its dense models are {', '.join(forms)}" if forms else "it has none"
            raise UsageError(f"{where}: the index has no dense model {name!r}: {has}")
    found = {}
    for name, form in forms.items():
        if (vector := given.get(name)) is None:
            raise UsageError(
                f"{where}: the vector of dense model {name!r} is missing, but the index needs one for each passage"
            )
        found[name] = _dense_vector(vector, form.dim, f"{where}: dense vector {name!r}")
        length = float(np.linalg.norm(found[name].astype(np.float64)))
        if not (abs(length - 1) <= TOLERANCE if form.normalized else length < LONGEST):
            takes = "of length 1" if form.normalized else f"shorter than {LONGEST}"
            raise UsageError(f"{where}: dense vector {name!r} has length {length:.4g}, but the index needs vectors {takes}")
    return found


def dense_query(vector: object, name: str, forms: Mapping[str, DenseForm]) -> Vector:
    """Return a query's `vector [dim]` as float32.

    Raises:
        UsageError: if there is no such model, or the vector is not finite or has another shape.
    """
    if name not in forms:
        has = f"its dense models are {', '.join(forms)}" if forms else "it has none"
        raise UsageError(f"the index has no dense model {name!r}: {has}")
    found = _dense_vector(vector, forms[name].dim, f"query vector of dense model {name!r}")
    if not (length := float(np.linalg.norm(found.astype(np.float64)))) <= LONGEST_QUERY:
        raise UsageError(
            f"query vector of dense model {name!r} has length {length:.4g}, which is too long: scores would not fit 32 bits"
        )
    return found


def _dense_vector(vector: object, dim: int, what: str) -> Vector:
    found = _float32(vector, what)
    if found.shape != (dim,) or not np.isfinite(found).all():
        raise UsageError(f"{what} must be {dim} finite numbers, got shape {list(found.shape)}")
    return np.ascontiguousarray(found)


def checked_token_ids(passage_id: str, token_ids: object, rows: int) -> TokenIds | None:
    """Return `token_ids` as int32 `[rows]`, -1 for unknown ids; None if they are not given.

    Raises:
        UsageError: if they do not fit; the message names the passage.
    """
    if token_ids is None:
        return None
    where = f"passage {passage_id!r}"
    try:
        ids = np.asarray(token_ids)
    except ValueError:
        raise UsageError(f"{where}: token_ids must be whole numbers, one for each row") from None
    if ids.shape != (rows,):
        raise UsageError(f"{where}: token_ids have shape {ids.shape}, but its vectors have {rows} rows")
    if ids.dtype.kind not in "iu" and rows:
        raise UsageError(f"{where}: token_ids must be whole numbers, not {ids.dtype}")
    if rows and not -1 <= ids.min() <= ids.max() <= np.iinfo(np.int32).max:
        raise UsageError(f"{where}: token_ids must be vocabulary ids, or -1 for an unknown one")
    return ids.astype(np.int32, copy=False)


def _float32(values: object, where: str) -> Matrix:
    array = _numbers(values, where)
    with np.errstate(over="ignore"):  # values that are too large become infinite and are rejected
        return np.asarray(array, np.float32)


def _numbers(values: object, where: str) -> NDArray[np.generic]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise UsageError(f"{where}: vectors must be rows of equal length") from None
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{where}: vectors must be numbers, not {array.dtype}")
    return array


@dataclass(frozen=True)
class ScaledQuery:
    """Query rows scaled by a power of two, so that the order of hits does not depend on the query's scale.

    Attributes:
        rows: `[q, d]`, the rows times 2^-exponent, which is exact and makes the longest about 1.
        exponent: see `rows`; `restored` scales scores back.
    """

    rows: Matrix
    exponent: int

    @classmethod
    def of(cls, Q: object, dim: int) -> ScaledQuery:
        """Scale the rows of `Q`.

        Raises:
            UsageError: if Q is not a finite matrix of that width.
        """
        given = _numbers(Q, "query")
        if given.ndim != 2 or given.shape[1] != dim:
            raise UsageError(f"query vectors must have shape [q, {dim}] for this index, got {given.shape}")
        rows = given.astype(np.float64)
        if not (np.abs(rows) <= np.finfo(np.float32).max).all():
            raise UsageError("query vectors must be finite, in 32 bits")
        longest = float(np.linalg.norm(rows, axis=1).max(initial=0))
        exponent = round(math.log2(longest)) if longest else 0
        return cls(np.ascontiguousarray(np.ldexp(rows, -exponent), np.float32), exponent)

    def score(self, scaled: float) -> float:
        """Return a score in the scale of the original query."""
        return math.ldexp(scaled, self.exponent)

    def restored(self, result: LocalResult) -> LocalResult:
        """Return the result with scores in the scale of the original query."""
        if not self.exponent:
            return result
        hits = [
            dataclasses.replace(hit, score=self.score(hit.score), approximate=self.score(hit.approximate))
            for hit in result.hits
        ]  # fmt: skip
        return dataclasses.replace(result, hits=hits)
