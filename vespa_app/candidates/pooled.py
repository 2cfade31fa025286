"""Candidates `pooled`: one vector per passage in an HNSW graph.

The vector is the normalised mean of the passage's token vectors or another encoding (late_interaction.one_vector). Vespa
compares a query with a field in the cells of the field, and truncates what is not a whole number there. So the query of an
int8 field is int8 too, and if lengths count, query(qp_unit) scales the product of cells back to that of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

from late_interaction.array_types import Matrix, Vector
from late_interaction.errors import SettingsError
from late_interaction.one_vector import ENCODINGS, MEAN, OneVector
from late_interaction.one_vector.mean import MeanVector
from vespa_app.candidates.base import (
    BASE_PROFILE,
    DocumentContext,
    QueryParts,
    Strategy,
    StrategyRequest,
    first_phase,
    float_cells,
    hnsw_lines,
    int8_cells,
    rerank_parameters,
    second_phase,
    vector_hex,
)
from vespa_app.settings import MEAN_VECTOR, AppSettings, OneVectorSettings

__all__ = [
    "ONE_VECTOR_CELLS",
    "PooledCandidates",
    "encoding_of",
    "hnsw_targets",
    "one_vector_bytes",
    "pooled_input_sizes",
    "pooled_inputs",
    "pooled_score",
    "pooled_type",
    "scaled_pooled",
]

FIELD = "pooled"
UNIT = "qp_unit"
ONE_VECTOR_CELLS: Mapping[str, int] = {"float": 4, "bfloat16": 2, "int8": 1}  # and their bytes
WIDER = 2  # times the passages to rerank that HNSW looks for by inner product, or it misses some (docs/performance)


class PooledCandidates(Strategy):
    """The strategy `pooled`."""

    name = "pooled"
    about = "candidates near the query in one vector per passage (HNSW); MaxSim over the best"
    own_fields = (FIELD,)

    def fields(self, settings: AppSettings) -> str:
        """Return the field of the pooled vector."""
        return f"""\
        field {FIELD} type {pooled_type(settings)} {{
            indexing: attribute | index
{hnsw_lines(settings.hnsw_links, settings.hnsw_explore, _metric(settings))}        }}
"""

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profile."""
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
        inputs {{
{pooled_inputs(settings)}        }}
{first_phase(settings, self.name, pooled_score(settings))}{second_phase(settings, self.name)}    }}
"""

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return the pooled vector of a document."""
        own = context.settings.one_vector if context.settings else MEAN_VECTOR
        encoding = encoding_of(own, vectors.shape[1], context.one_vector)
        return {FIELD: {"values": _stored(encoding.passage(vectors), encoding, own.cells)}}

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        settings = request.settings
        own, name = settings.one_vector, _input(settings)
        encoding = encoding_of(own, settings.dim, request.one_vector)
        vector = encoding.query(request.rows)
        parameters = rerank_parameters(request)
        if own.cells == "int8":
            cells, step = int8_cells(vector)
            parameters[f"input.query({name})"] = {"values": cells.tobytes().hex()}
            if not encoding.normalized:
                parameters[f"input.query({UNIT})"] = step * encoding.unit
        else:
            parameters[f"input.query({name})"] = {"values": vector_hex(vector)}
        targets = hnsw_targets(encoding, request.targets, request.rerank)
        return QueryParts(f"({{totalTargetHits:{targets}}}nearestNeighbor({FIELD}, {name}))", parameters, self.name)


def hnsw_targets(encoding: OneVector, targets: int, rerank: int) -> int:
    """Return how many vectors HNSW looks for: `targets`, and more if lengths count."""
    return targets if encoding.normalized else max(targets, WIDER * rerank)


def encoding_of(own: OneVectorSettings, dim: int, fitted: OneVector | None) -> OneVector:
    """Return the encoding that the settings name.

    Args:
        own: settings of the one vector.
        dim: dimensions of the token vectors.
        fitted: the bundle's fitted encoding, if any.

    Raises:
        SettingsError: if the settings need a fitted encoding that the bundle does not have.
    """
    if own.encoding == MEAN:
        return MeanVector(dim)
    if fitted is None or fitted.name != own.encoding or fitted.dim != own.dim:
        raise SettingsError(
            f"one_vector.encoding {own.encoding} of {own.dim} dimensions needs its parameters: use the bundle that was fitted "
            "with `colbert-vespa candidates`"
        )
    return fitted


def pooled_type(settings: AppSettings) -> str:
    """Return the tensor type of the field."""
    return f"tensor<{settings.one_vector.cells}>(x[{_dim(settings)}])"


def pooled_input_sizes(settings: AppSettings) -> dict[str, int]:
    """Return the dimensions of the query input, by name."""
    return {_input(settings): _dim(settings)}


def pooled_inputs(settings: AppSettings) -> str:
    """Return the input declarations of a profile that uses the score."""
    cells = "int8" if settings.one_vector.cells == "int8" else "float"
    lines = f"            query({_input(settings)}) tensor<{cells}>(x[{_dim(settings)}])\n"
    return lines + (f"            query({UNIT}) double: 1.0\n" if _has_unit(settings) else "")


def pooled_score(settings: AppSettings) -> str:
    """Return the expression of the score: Vespa's closeness, which is the inner product if lengths count."""
    closeness = f"closeness(field, {FIELD})"
    return f"query({UNIT}) * {closeness}" if _has_unit(settings) else closeness


def scaled_pooled(settings: AppSettings) -> str:
    """Return the score scaled to 0 to 1; if lengths count, it is a similarity per query row minus the mean of all passages."""
    score = pooled_score(settings)
    return score if _normalized(settings) else f"max(0, min(1, 0.5 + {score}))"


def one_vector_bytes(settings: OneVectorSettings, dim: int) -> int:
    """Return the bytes of a stored vector; `dim` is that of the token vectors."""
    return (settings.dim or dim) * ONE_VECTOR_CELLS[settings.cells]


def _dim(settings: AppSettings) -> int:
    return settings.one_vector.dim or settings.dim


def _input(settings: AppSettings) -> str:
    """Return the input's name. Inputs share one namespace in an application, so different types need different names."""
    own = settings.one_vector
    return "qp" if own == MEAN_VECTOR else f"qp_{_dim(settings)}_{'int8' if own.cells == 'int8' else 'float'}"


def _normalized(settings: AppSettings) -> bool:
    return ENCODINGS[settings.one_vector.encoding].normalized


def _has_unit(settings: AppSettings) -> bool:
    return settings.one_vector.cells == "int8" and not _normalized(settings)


def _metric(settings: AppSettings) -> str:
    if not _normalized(settings):
        return "dotproduct"
    return "angular" if settings.one_vector.cells == "int8" else "prenormalized-angular"


def _stored(vector: Vector, encoding: OneVector, cells: str) -> str:
    """Return a vector as the field's cells in hexadecimal."""
    if cells != "int8":
        return float_cells(vector, cells)
    if encoding.normalized:
        return int8_cells(vector)[0].tobytes().hex()
    return encoding.cells(vector).tobytes().hex()
