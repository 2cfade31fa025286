"""Candidates `dense`: the nearest passages by a vector of a dense model of the bundle, one per passage, in an HNSW graph.

Each model has its own field and rank profile: `dense` for the model of that name, `dense_NAME` for others. The first score
is the cosine of query and passage, or their product (distance dotproduct), also computed for passages that another strategy
finds. Cells `int8` keep a vector's direction, each scaled to its own largest cell. With `bits`, HNSW compares bits with
bits, and the score compares the query's floats with bits that stand for 1 and -1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix, Vector
from late_interaction.errors import MetadataError, UsageError
from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    DocumentContext,
    Parameter,
    QueryParts,
    Strategy,
    StrategyRequest,
    explained_profile,
    first_phase,
    float_cells,
    hnsw_lines,
    int8_cells,
    rerank_parameters,
    second_phase,
    vector_hex,
)
from vespa_app.settings import AppSettings, DenseSettings

__all__ = [
    "CELLS",
    "DENSE",
    "DISTANCES",
    "DenseCandidates",
    "bytes_of",
    "check_dense",
    "decoded_dense",
    "dense_declarations",
    "dense_field",
    "dense_input",
    "dense_parameters",
    "dense_type",
    "encoded_dense",
    "input_sizes",
    "nearest_dense",
]

DENSE = "dense_similarity"  # function and match feature
DEFAULT_MODEL = "dense"
DISTANCES = ("prenormalized-angular", "angular", "dotproduct")
CELLS: Mapping[str, tuple[str, int]] = {  # Vespa's cells, and how many dimensions one holds
    "float": ("float", 1),
    "bfloat16": ("bfloat16", 1),
    "int8": ("int8", 1),
    "bits": ("int8", 8),
}
_BYTES = {"float": 4, "bfloat16": 2, "int8": 1}
_METRICS = {"int8": "angular", "bits": "hamming"}  # for cells that are not the model's own numbers
_LENGTH_TOLERANCE = 0.01


class DenseCandidates(Strategy):
    """The strategy `dense`."""

    name = "dense"
    about = "candidates near the query by a dense model (HNSW); MaxSim over the best"
    of_chunks = False

    def fields(self, settings: AppSettings) -> str:
        """Return a field per dense model."""
        return "".join(_field(model, own) for model, own in settings.dense.items())

    def profile(self, settings: AppSettings) -> str:
        """Return a rank profile per dense model."""
        return "".join(self._profile(settings, model) for model in settings.dense)

    def _profile(self, settings: AppSettings, model: str) -> str:
        return f"""\
    rank-profile {dense_field(model)} inherits {BASE_PROFILE} {{
{dense_declarations(settings, model)}{first_phase(settings, self.name, DENSE)}{second_phase(settings, self.name)}\
        match-features: {CANDIDATE_SCORE} {DENSE}
    }}
"""

    def explained(self, settings: AppSettings) -> str:
        """Return the variants that explain the scores."""
        return "".join(explained_profile(dense_field(model), f" {DENSE}") for model in settings.dense)

    def faults(self, settings: AppSettings) -> Iterator[str]:
        """Yield what is missing in the settings."""
        if not settings.dense:
            yield f"{self.name} needs a dense model: add a table [dense.NAME], for a bundle exported with --dense"

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return a document's vectors.

        Raises:
            MetadataError: if a vector is missing or does not fit the settings.
        """
        models = context.settings.dense if context.settings else {}
        return {
            dense_field(model): {"values": encoded_dense(_checked(context.dense, model, own), own)}
            for model, own in models.items()
        }

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        parameters = rerank_parameters(request) | dense_parameters(request)
        return QueryParts(nearest_dense(request), parameters, dense_field(request.model))


def dense_field(model: str) -> str:
    """Return the schema field of a model, which is also the name of its rank profile."""
    return DEFAULT_MODEL if model == DEFAULT_MODEL else f"{DEFAULT_MODEL}_{model}"


def dense_input(model: str) -> str:
    """Return the query input with a model's vector of floats."""
    return f"q_{dense_field(model)}"


def _cells_input(model: str) -> str:
    """Return the query input with a model's vector in the cells of its field, if these are not the model's own numbers.

    Vespa compares in the field's cells, where it would turn fractions into zeros.
    """
    return f"b_{dense_field(model)}"


def input_sizes(settings: AppSettings) -> dict[str, int]:
    """Return the sizes of the query inputs of dense models, by name."""
    floats = {dense_input(model): own.dim for model, own in settings.dense.items()}
    own_cells = {model: own for model, own in settings.dense.items() if own.cells in _METRICS}
    return floats | {_cells_input(model): own.dim // CELLS[own.cells][1] for model, own in own_cells.items()}


def dense_type(own: DenseSettings) -> str:
    """Return the tensor type of a model's field."""
    cells, packed = CELLS[own.cells]
    return f"tensor<{cells}>(x[{own.dim // packed}])"


def _field(model: str, own: DenseSettings) -> str:
    metric = _METRICS.get(own.cells, "dotproduct" if own.distance == "dotproduct" else "prenormalized-angular")
    return f"""\
        field {dense_field(model)} type {dense_type(own)} {{
            indexing: attribute | index
{hnsw_lines(own.links, own.explore, metric)}        }}
"""


def dense_declarations(settings: AppSettings, model: str, more_inputs: str = "") -> str:
    """Return the inputs of a rank profile that uses a model, and the function of its score."""
    own = settings.dense[model]
    cells = f"            query({_cells_input(model)}) {dense_type(own)}\n" if own.cells in _METRICS else ""
    return f"""\
        inputs {{
            query({dense_input(model)}) tensor<float>(x[{own.dim}])
{cells}{more_inputs}        }}
        function {DENSE}() {{
            expression: {_score(model, own)}
        }}
"""


def _score(model: str, own: DenseSettings) -> str:
    query, stored = f"query({dense_input(model)})", f"cell_cast(attribute({dense_field(model)}), float)"
    if own.cells == "bits":
        bits = f"unpack_bits(attribute({dense_field(model)}))"
        return f"sum({query} * (2 * {bits} - 1), x) / {own.dim**0.5!r}"
    product = f"sum({query} * {stored}, x)"
    return f"{product} / sqrt(sum({stored} * {stored}, x))" if own.cells == "int8" else product


def nearest_dense(request: StrategyRequest) -> str:
    """Return the nearest-neighbour clause."""
    own = request.settings.dense[request.model]
    name = (_cells_input if own.cells in _METRICS else dense_input)(request.model)
    return f"({{totalTargetHits:{request.targets}}}nearestNeighbor({dense_field(request.model)}, {name}))"


def dense_parameters(request: StrategyRequest) -> dict[str, Parameter]:
    """Return the parameters of a query with a dense vector.

    Raises:
        UsageError: if the query has no vector.
    """
    if request.dense is None or request.model not in request.settings.dense:
        raise UsageError("candidates dense need the query's vector of a dense model")
    own = request.settings.dense[request.model]
    vector = request.dense if own.distance == "dotproduct" else _unit(request.dense)
    parameters: dict[str, Parameter] = {f"input.query({dense_input(request.model)})": {"values": vector_hex(vector)}}
    if own.cells in _METRICS:
        parameters[f"input.query({_cells_input(request.model)})"] = {"values": encoded_dense(vector, own)}
    return parameters


def encoded_dense(vector: Vector, own: DenseSettings) -> str:
    """Return `[dim]` as the cells of its field, in hex."""
    row = np.asarray(vector, np.float32) if own.distance == "dotproduct" else _unit(vector)
    if own.cells == "bits":
        return np.packbits(row > 0).tobytes().hex()
    if own.cells == "int8":
        return int8_cells(row)[0].tobytes().hex()
    return float_cells(row, own.cells)


def decoded_dense(cells: object, own: DenseSettings) -> Vector:
    """Return `[dim]` from the content of a field: hex, or a list of numbers.

    Raises:
        ValueError: if it has another size.
        TypeError: if it is neither.
    """
    raw: NDArray[Any]
    if not isinstance(cells, str):
        raw = np.asarray(cells, np.float32 if own.cells in ("float", "bfloat16") else np.int8)
    elif own.cells == "bfloat16":
        raw = (np.frombuffer(bytes.fromhex(cells), ">u2").astype(np.uint32) << 16).view(np.float32)
    else:
        raw = np.frombuffer(bytes.fromhex(cells), ">f4" if own.cells == "float" else ">i1")
    if len(raw) * CELLS[own.cells][1] != own.dim:
        raise ValueError(f"a dense vector of {own.dim} dimensions has {len(raw)} cells")
    if own.cells == "bits":
        return _unit(2.0 * np.unpackbits(raw.view(np.uint8)).astype(np.float32) - 1.0)
    return _unit(raw.astype(np.float32)) if own.cells == "int8" else raw.astype(np.float32)


def bytes_of(own: DenseSettings) -> float:
    """Return the bytes of a stored vector."""
    cells, packed = CELLS[own.cells]
    return own.dim / packed * _BYTES[cells]


def check_dense(given: Mapping[str, Vector], settings: AppSettings) -> None:
    """Check the dense vectors of a passage.

    Raises:
        MetadataError: if a vector is missing or does not fit the settings.
    """
    for model, own in settings.dense.items():
        _checked(given, model, own)


def _checked(given: Mapping[str, Vector], model: str, own: DenseSettings) -> Vector:
    if model not in given:
        raise MetadataError(f"the document has no vector of dense model {model!r}, which the application stores")
    vector = np.asarray(given[model], np.float32)
    if vector.shape != (own.dim,) or not np.isfinite(vector).all():
        shape = list(vector.shape)
        raise MetadataError(f"the vector of dense model {model!r} must be {own.dim} finite numbers, got shape {shape}")
    length = float(np.linalg.norm(vector))
    if own.distance == "prenormalized-angular" and not abs(length - 1) <= _LENGTH_TOLERANCE:
        raise MetadataError(
            f"the vector of dense model {model!r} has length {length:.4g}, but dense.{model}.distance needs length "
            f"1; set it to angular or dotproduct"
        )
    if own.distance == "angular" and not length > 0:
        raise MetadataError(
            f"the vector of dense model {model!r} has length 0, so it has no angle; remove the document or its vector"
        )
    return vector


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length else vector, np.float32)
