"""What callers give, checked: rows of passages, rows of queries, counts."""

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
    """Raises: UsageError where `value` is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"{name} must be at least 1, and a whole number, got {value!r}")
    return int(value)


def chosen_bits(bits: int | None, codec: str, of_bundle: int | None) -> int:
    """Of a new index. of_bundle: those of the bundle's codebook, if it has one.

    Raises: UsageError where there cannot be so many, or the codec has none.
    """
    if bits is None:
        return of_bundle or max(BITS)
    if bits not in BITS:
        raise UsageError(f"bits must be 1, 2 or 4, got {bits!r}")
    if codec != "residual":
        raise UsageError(f"bits are of codec residual, codec {codec} has none: leave them out")
    if of_bundle not in (None, bits):
        raise UsageError(
            f"the bundle's codebook has {of_bundle} bits, not {bits}: leave bits out, or export with --bits {bits}"
        )
    return bits


def document_rows(passage_id: str, vectors: object, dim: int, codec: str) -> Matrix:
    """`vectors` as float32 `[t, dim]`: unit rows; for codec float32 any that are shorter than 1,000.

    Residuals and bits say where a row lies around its centroid or a threshold: they hold directions alone. A float32 row is
    scored as it is, but sixteen bits must hold it beside the others, and centroids see its direction alone.

    Raises: UsageError naming the passage and the row.
    """
    where = f"passage {passage_id!r}"
    rows = _float32(vectors, where)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise UsageError(f"{where}: vectors have shape {rows.shape}, the index takes [t, {dim}]")
    if not np.isfinite(rows).all():
        raise UsageError(f"{where}: vectors must be finite")
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    wrong = ~(lengths < LONGEST) if codec == "float32" else ~(np.abs(lengths - 1) <= TOLERANCE)
    if wrong.any():
        row = int(wrong.argmax())
        takes = f"rows shorter than {LONGEST}" if codec == "float32" else "rows of length 1: divide them by their length"
        raise UsageError(f"{where}: row {row} has length {lengths[row]:.4g}, codec {codec} takes {takes}")
    return rows


def checked_dense(passage_id: str, dense: Mapping[str, object] | None, forms: Mapping[str, DenseForm]) -> dict[str, Vector]:
    """The vectors of a passage by dense model, one `[dim]` for each of `forms`, float32.

    Raises: UsageError naming the passage and the model: one is missing or unknown, has another shape or length, or is not
    finite.
    """
    given, where = dense or {}, f"passage {passage_id!r}"
    for name in given:
        if name not in forms:
            has = f"its dense models are {', '.join(forms)}" if forms else "it has none"
            raise UsageError(f"{where}: the index has no dense model {name!r}: {has}")
    found = {}
    for name, form in forms.items():
        if (vector := given.get(name)) is None:
            raise UsageError(f"{where}: its vector of dense model {name!r} is missing, and the index has one for each passage")
        found[name] = _dense_vector(vector, form.dim, f"{where}: dense vector {name!r}")
        length = float(np.linalg.norm(found[name].astype(np.float64)))
        if not (abs(length - 1) <= TOLERANCE if form.normalized else length < LONGEST):
            takes = "of length 1" if form.normalized else f"shorter than {LONGEST}"
            raise UsageError(f"{where}: dense vector {name!r} has length {length:.4g}, the index takes vectors {takes}")
    return found


def dense_query(vector: object, name: str, forms: Mapping[str, DenseForm]) -> Vector:
    """`vector [dim]` of a query as float32.

    Raises: UsageError where there is no such model, or the vector is not finite or has another shape.
    """
    if name not in forms:
        has = f"its dense models are {', '.join(forms)}" if forms else "it has none"
        raise UsageError(f"the index has no dense model {name!r}: {has}")
    found = _dense_vector(vector, forms[name].dim, f"query vector of dense model {name!r}")
    if not (length := float(np.linalg.norm(found.astype(np.float64)))) <= LONGEST_QUERY:
        raise UsageError(f"query vector of dense model {name!r} has length {length:.4g}: scores would not fit 32 bits")
    return found


def _dense_vector(vector: object, dim: int, what: str) -> Vector:
    found = _float32(vector, what)
    if found.shape != (dim,) or not np.isfinite(found).all():
        raise UsageError(f"{what} must be {dim} finite numbers, got shape {list(found.shape)}")
    return np.ascontiguousarray(found)


def checked_token_ids(passage_id: str, token_ids: object, rows: int) -> TokenIds | None:
    """`token_ids` as int32 `[rows]`, -1 where an id is not known; None where they are not given.

    Raises: UsageError naming the passage.
    """
    if token_ids is None:
        return None
    where = f"passage {passage_id!r}"
    try:
        ids = np.asarray(token_ids)
    except ValueError:
        raise UsageError(f"{where}: token_ids must be whole numbers, one for each row") from None
    if ids.shape != (rows,):
        raise UsageError(f"{where}: token_ids have shape {ids.shape}, its vectors have {rows} rows")
    if ids.dtype.kind not in "iu" and rows:
        raise UsageError(f"{where}: token_ids must be whole numbers, not {ids.dtype}")
    if rows and not -1 <= ids.min() <= ids.max() <= np.iinfo(np.int32).max:
        raise UsageError(f"{where}: token_ids must be ids of the vocabulary, or -1 where one is not known")
    return ids.astype(np.int32, copy=False)


def _float32(values: object, where: str) -> Matrix:
    array = _numbers(values, where)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused then
        return np.asarray(array, np.float32)


def _numbers(values: object, where: str) -> NDArray[np.generic]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise UsageError(f"{where}: vectors must be rows of one length") from None
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{where}: vectors must be numbers, not {array.dtype}")
    return array


@dataclass(frozen=True)
class ScaledQuery:
    """`rows [q, d]`: those of a query times 2^-exponent, which is exact and makes the longest about 1: the order of hits does
    not depend on the query's scale then. `restored` brings scores back to that."""

    rows: Matrix
    exponent: int

    @classmethod
    def of(cls, Q: object, dim: int) -> ScaledQuery:
        """Raises: UsageError where Q is no finite matrix of that width."""
        given = _numbers(Q, "query")
        if given.ndim != 2 or given.shape[1] != dim:
            raise UsageError(f"query vectors have shape {given.shape}, the index takes [q, {dim}]")
        rows = given.astype(np.float64)
        if not (np.abs(rows) <= np.finfo(np.float32).max).all():
            raise UsageError("query vectors must be finite, in 32 bits")
        longest = float(np.linalg.norm(rows, axis=1).max(initial=0))
        exponent = round(math.log2(longest)) if longest else 0
        return cls(np.ascontiguousarray(np.ldexp(rows, -exponent), np.float32), exponent)

    def score(self, scaled: float) -> float:
        return math.ldexp(scaled, self.exponent)

    def restored(self, result: LocalResult) -> LocalResult:
        if not self.exponent:
            return result
        hits = [
            dataclasses.replace(hit, score=self.score(hit.score), approximate=self.score(hit.approximate))
            for hit in result.hits
        ]  # fmt: skip
        return dataclasses.replace(result, hits=hits)
