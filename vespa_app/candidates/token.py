"""Candidates `token`: the nearest token vectors of each query row, in an HNSW graph over all rows of all passages.

Codecs float32 and bfloat16 are searched by angle and binary by hamming distance, all in the field `vectors` itself.
residual has no distance, and its rows are searched by bits in the field `token_bits`. A passage's first score is the sum of
the similarities that its rows were found with; a query row that found nothing in it counts as much as MISSING.
"""

from __future__ import annotations

from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError
from late_interaction.thresholds import plain_thresholds
from vespa_app.candidates.base import (
    BASE_PROFILE,
    DocumentContext,
    Parameter,
    QueryParts,
    Strategy,
    StrategyRequest,
    first_phase,
    hnsw_lines,
    rerank_parameters,
    second_phase,
    vector_hex,
)
from vespa_app.codecs import CODECS, VECTORS
from vespa_app.codecs.base import blocks
from vespa_app.settings import AppSettings

__all__ = ["BITS_FIELD", "TokenCandidates"]

BITS_FIELD = "token_bits"
MISSING = 0.6  # closeness of a cosine of 1/3: below what an HNSW search of a hundred rows usually finds


class TokenCandidates(Strategy):
    """The strategy `token`."""

    name = "token"
    about = "candidates with token vectors near the query's rows (HNSW); MaxSim over the best"
    own_fields = (BITS_FIELD,)
    of_chunks = False  # HNSW over rows takes one mapped dimension

    def fields(self, settings: AppSettings) -> str:
        """Return the field of bits, for codecs without their own distance."""
        if CODECS[settings.codec].distance:
            return ""
        return f"""\
        field {BITS_FIELD} type tensor<int8>(dt{{}}, x[{settings.dim // 8}]) {{
            indexing: attribute | index
{_index(settings)}        }}
"""

    def vectors_lines(self, settings: AppSettings) -> str:
        """Return the lines of the HNSW graph in the field `vectors`."""
        return _index(settings) if CODECS[settings.codec].distance else ""

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profile."""
        cells = "float" if _floats(settings) else "int8"
        width = settings.dim if _floats(settings) else settings.dim // 8
        names = [_row_name(settings, row) for row in range(settings.query_rows)]
        inputs = "".join(f"            query({name}) tensor<{cells}>(x[{width}])\n" for name in names)
        found = " + ".join(f"max({_floor(settings)}, closeness(label, {name}))" for name in names)
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
        inputs {{
{inputs}        }}
{first_phase(settings, self.name, found)}{second_phase(settings, self.name)}    }}
"""

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return the bits of a document's rows, if the field needs them."""
        if context.settings is None or CODECS[context.settings.codec].distance:
            return {}
        packed = (context.thresholds or plain_thresholds(vectors.shape[1])).encode(vectors)
        return {BITS_FIELD: blocks(packed)}

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        settings = request.settings
        if len(request.rows) > settings.query_rows:
            raise UsageError(
                f"the query has {len(request.rows)} rows, but candidates {self.name!r} of the application take "
                f"{settings.query_rows}; choose other candidates, or raise setting query_rows"
            )
        parameters: dict[str, Parameter] = rerank_parameters(request)
        field = VECTORS if CODECS[settings.codec].distance else BITS_FIELD
        if _floats(settings):
            rows = [vector_hex(row) for row in request.rows]
        else:
            packed = (request.thresholds or plain_thresholds(settings.dim)).encode(request.rows)
            rows = [row.tobytes().hex() for row in packed]
        items = []
        for number, cells in enumerate(rows):
            name = _row_name(settings, number)
            parameters[f"input.query({name})"] = {"values": cells}
            items.append(f'({{totalTargetHits:{settings.token_hits},label:"{name}"}}nearestNeighbor({field}, {name}))')
        return QueryParts("(" + " or ".join(items) + ")", parameters, self.name)


def _floats(settings: AppSettings) -> bool:
    return CODECS[settings.codec].distance == "prenormalized-angular"


def _row_name(settings: AppSettings, row: int) -> str:
    """Return the name of a query row's input.

    Vespa types inputs over all schemas of an application, so floats and bits have different names.
    """
    return f"{'t' if _floats(settings) else 'b'}{row}"


def _floor(settings: AppSettings) -> float:
    """Return the least closeness, which is 1 / (1 + distance): of 1 - cosine, or of the number of bits that differ."""
    return MISSING if _floats(settings) else round(1 / (1 + settings.dim * 0.4), 6)


def _index(settings: AppSettings) -> str:
    return hnsw_lines(settings.hnsw_links, settings.hnsw_explore, CODECS[settings.codec].distance or "hamming")
