"""Candidates `exhaustive`: MaxSim over everything that the filter selects. Exact: for parity and small collections."""

from __future__ import annotations

from vespa_app.candidates.base import (
    BASE_PROFILE,
    MAXSIM,
    DocumentContext,
    Floats,
    QueryParts,
    StrategyRequest,
    tensor_hex,
)
from vespa_app.settings import AppSettings

__all__ = ["Exhaustive"]


class Exhaustive:
    name = "exhaustive"
    needs_codebook = False
    needs_text = False

    def fields(self, settings: AppSettings) -> str:
        return ""

    def profile(self, settings: AppSettings) -> str:
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
        first-phase {{
            expression: {MAXSIM}
        }}
    }}
"""

    def document_fields(self, vectors: Floats, context: DocumentContext) -> dict[str, object]:
        return {}

    def query(self, request: StrategyRequest) -> QueryParts:
        return QueryParts("true", {"input.query(qt)": tensor_hex(request.rows)}, self.name)
