"""What several strategies find together, with the scores of each on one scale from 0 to 1, so that any find may be reranked.

Candidates such as `bm25+dense` are ranked by MaxSim, with the profile `joined`; `hybrid` fuses the scores themselves. Both
have profiles for the search with each dense model, because a query carries the vector of only one: NAME_dense,
NAME_dense_MODEL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from late_interaction.errors import UsageError
from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    Parameter,
    QueryParts,
    Strategy,
    StrategyRequest,
    explained_profile,
    first_phase,
    rerank_parameters,
    second_phase,
)
from vespa_app.candidates.bm25 import WORDS, WORDS_FUNCTION, Bm25Candidates
from vespa_app.candidates.centroid import SCORE as CENTROID_SCORE
from vespa_app.candidates.centroid import WEIGHT_SCALE, CentroidCandidates
from vespa_app.candidates.dense import DENSE, DenseCandidates, dense_declarations, dense_field
from vespa_app.candidates.pooled import PooledCandidates, pooled_inputs, scaled_pooled
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import parts_of

__all__ = [
    "JOINABLE",
    "JoinedCandidates",
    "declarations",
    "features",
    "found_by",
    "joined_parts",
    "models_of",
    "profile_name",
    "scaled",
]

JOINABLE: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (CentroidCandidates(), PooledCandidates(), Bm25Candidates(), DenseCandidates())
}
HALF = 10  # the BM25 score that counts half of the maximum
_SCALED = {  # each from 0 to 1
    "centroid": f"{CENTROID_SCORE} * query(scale)",
    "bm25": f"{WORDS} / ({WORDS} + {HALF})",
}


@dataclass(frozen=True)
class JoinedCandidates(Strategy):
    """Candidates of several strategies. parts: of a query; none while the package is generated."""

    parts: tuple[str, ...] = ()
    name = "joined"
    about = "candidates of several kinds, as queries name them; MaxSim over the best"
    phases = ()

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profiles."""
        return "".join(self._profile(settings, model) for model in models_of(settings))

    def _profile(self, settings: AppSettings, model: str) -> str:
        finders = _finders(settings, model)
        inputs = "".join(f"            query({_flag(name)}) double: 0.0\n" for name in finders)
        score = " + ".join(f"query({_flag(name)}) * {scaled(name, settings, model)}" for name in finders)
        phases = first_phase(settings, self.name, score) + second_phase(settings, self.name)
        return f"""\
    rank-profile {profile_name(self.name, model)} inherits {BASE_PROFILE} {{
{declarations(settings, finders, model, inputs)}{phases}\
        match-features: {CANDIDATE_SCORE}{features(finders)}
    }}
"""

    def explained(self, settings: AppSettings) -> str:
        """Return the variants that explain the scores."""
        return "".join(
            explained_profile(profile_name(self.name, model), features(_finders(settings, model)))
            for model in models_of(settings)
        )

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        where, parameters = found_by(request, self.parts)
        parameters |= {f"input.query({_flag(name)})": 1.0 for name in self.parts}
        return QueryParts(where, parameters, profile_name(self.name, request.model if "dense" in self.parts else ""))


def joined_parts(settings: AppSettings) -> tuple[str, ...]:
    """Return the strategies of the settings that can be joined."""
    singles = dict.fromkeys(part for name in settings.candidates for part in parts_of(name))
    return tuple(name for name in JOINABLE if name in singles)


def models_of(settings: AppSettings) -> tuple[str, ...]:
    """Return the dense models that a profile may be for: '' for none, and each model."""
    return ("", *settings.dense)


def declarations(settings: AppSettings, finders: Sequence[str], model: str, more_inputs: str) -> str:
    """Return inputs and functions of a profile that joins those strategies."""
    inputs = more_inputs
    if "centroid" in finders:
        inputs += "            query(scale) double: 0.0\n"
    if "pooled" in finders:
        inputs += pooled_inputs(settings)
    words = WORDS_FUNCTION if "bm25" in finders else ""
    if model:
        return dense_declarations(settings, model, inputs) + words
    return f"        inputs {{\n{inputs}        }}\n" + words


def features(finders: Sequence[str]) -> str:
    """Return the match features of a profile that joins those strategies, each preceded by a space."""
    return "".join(f" {feature}" for name, feature in (("bm25", WORDS), ("dense", DENSE)) if name in finders)


def scaled(name: str, settings: AppSettings, model: str) -> str:
    """Return the score of a strategy, from 0 to 1."""
    if name == "pooled":
        return scaled_pooled(settings)
    if name != "dense":
        return _SCALED[name]
    return f"1 / (1 + exp(0 - {DENSE}))" if settings.dense[model].distance == "dotproduct" else f"(1 + {DENSE}) / 2"


def found_by(request: StrategyRequest, finders: Sequence[str]) -> tuple[str, dict[str, Parameter]]:
    """Return what a query with those strategies matches, and its parameters.

    Raises:
        UsageError: if a strategy cannot be joined.
    """
    for name in finders:
        if name not in JOINABLE:
            raise UsageError(f"candidates {name} cannot be combined with others; known: {', '.join(JOINABLE)}")
    parts = [JOINABLE[name].query(request) for name in finders]
    parameters = rerank_parameters(request)
    for part in parts:
        parameters |= part.parameters
    if "centroid" in finders:
        most = float(request.lists[1][:, 0].sum())
        parameters["input.query(scale)"] = 1 / (WEIGHT_SCALE * max(1e-3, most))
    return f"({' or '.join(part.yql_where for part in parts)})", parameters


def _finders(settings: AppSettings, model: str) -> tuple[str, ...]:
    return tuple(name for name in joined_parts(settings) if name != "dense" or model)


def _flag(name: str) -> str:
    return f"by_{name}"


def profile_name(name: str, model: str) -> str:
    """Return the profile of candidates `name` for a search with a dense model; '' for one without."""
    return f"{name}_{dense_field(model)}" if model else name
