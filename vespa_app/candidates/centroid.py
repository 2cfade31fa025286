"""Candidates `centroid`: PLAID's stages 1 to 3 inside Vespa's inverted index.

Each passage carries the ids of its token vectors' near centroids. A query row selects its M best centroids in one
weightedSet item. The item's score is the best matching weight, and totalWeight sums over the rows: this is centroid
interaction, in which a row without a match counts as much as a centroid farther down would, the 128th of large codebooks
(as XTR imputes missing similarities). Every list weighs at least one thousandth, so that M = 1 counts the rows that match.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from late_interaction.array_types import I64, Matrix
from late_interaction.errors import MissingDependency
from vespa_app.candidates.base import (
    BASE_PROFILE,
    DocumentContext,
    QueryParts,
    Strategy,
    StrategyRequest,
    codebook_of,
    first_phase,
    rerank_parameters,
    second_phase,
)
from vespa_app.settings import AppSettings

__all__ = ["SCORE", "CentroidCandidates", "list_weights"]

FIELD = "centroids"
SCORE = f"attributeMatch({FIELD}).totalWeight"
WEIGHT_SCALE = 1000  # weights are whole numbers


class CentroidCandidates(Strategy):
    """The strategy `centroid`."""

    name = "centroid"
    about = "candidates that share near centroids with the query's rows (PLAID); MaxSim over the best"
    own_fields = (FIELD,)
    needs_codebook = True

    def fields(self, settings: AppSettings) -> str:
        """Return the field of centroid ids."""
        return f"""\
        field {FIELD} type weightedset<int> {{
            indexing: attribute
            attribute: fast-search
            dictionary: hash
        }}
"""

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profile."""
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
{first_phase(settings, self.name, SCORE)}{second_phase(settings, self.name)}    }}
"""

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return the centroid ids of a document."""
        codes = context.codes
        if codes is None:
            codes = codebook_of(context.codebook).assign_near(vectors, context.token_ids)
        return {FIELD: {str(int(id_)): 1 for id_ in np.unique(codes)}}

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        ids, _, gains = request.lists
        parameters = rerank_parameters(request)
        sets = _loops().weighted_sets(ids, list_weights(gains))
        parameters |= {f"w{row}": text for row, text in enumerate(sets)}
        items = " or ".join([f"weightedSet({FIELD}, @w{row})" for row in range(len(ids))])
        return QueryParts(f"({items})", parameters, self.name)


def list_weights(gains: Matrix) -> I64:
    """Return the weights of lists from their gains `[q, M]` (Lookup.lists)."""
    return np.maximum(1, np.rint(WEIGHT_SCALE * gains).astype(np.int64))


@functools.cache
def _loops() -> Any:
    """Return the compiled loops, or numpy's if the extra `local` is not installed; numba takes half a second to import."""
    try:
        from vespa_app.candidates import weighted_sets
    except MissingDependency:
        from vespa_app.candidates import weighted_set_arrays

        return weighted_set_arrays
    return weighted_sets
