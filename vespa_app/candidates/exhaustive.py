"""Candidates `exhaustive`: MaxSim over everything that the filter selects. Exact: for parity and small collections."""

from __future__ import annotations

from vespa_app.candidates.base import (
    BASE_PROFILE,
    MAXSIM,
    QueryParts,
    Strategy,
    StrategyRequest,
    first_phase,
    tensor_hex,
)
from vespa_app.settings import AppSettings

__all__ = ["ExhaustiveCandidates"]


class ExhaustiveCandidates(Strategy):
    """The strategy `exhaustive`."""

    name = "exhaustive"
    about = "MaxSim over everything that the filter selects; exact"
    of_vectors = False
    phases = ("first",)

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profile."""
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
{first_phase(settings, self.name, MAXSIM)}    }}
"""

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        return QueryParts("true", {"input.query(qt)": tensor_hex(request.rows)}, self.name)
