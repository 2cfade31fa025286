"""Candidates `hybrid`: found by MaxSim's own candidates, words and a dense model, and ordered by fused scores.

MaxSim's own candidates are `centroid`, or `pooled` in an application without it. Only scores to which a query gives a
weight take part. Scores are fused over the whole cluster's candidates, in the global phase, and the result is the score of
a hit: by `rrf` the sum of weight / (60 + rank) in each order, by `sum` that of weight * (score - least) / (greatest -
least). A passage without a word of the query has no rank by words. The match features `max_sim`, `words` and
`dense_similarity` have the scores. Profile `fused` is for queries that give MaxSim no weight, and computes none.
"""

from __future__ import annotations

from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError
from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    MAXSIM,
    DocumentContext,
    QueryParts,
    Strategy,
    StrategyRequest,
    drop_limit,
    explained_profile,
    first_phase,
    second_phase,
)
from vespa_app.candidates.bm25 import WORDS
from vespa_app.candidates.dense import DENSE, DenseCandidates
from vespa_app.candidates.joined import JOINABLE, declarations, features, found_by, models_of, profile_name, scaled
from vespa_app.settings import AppSettings

__all__ = ["FUSED", "HybridCandidates"]

FUSED = "fused"
FOUND = "words_found"  # function: BM25, and without a match a value that normalize_linear ignores
NO_SCORE = "-1e300"
BY_SUM = "by_sum"  # query input
_SCORES = {"maxsim": MAXSIM, "bm25": WORDS, "dense": DENSE}


class HybridCandidates(Strategy):
    """The strategy `hybrid`."""

    name = "hybrid"
    about = "candidates of several kinds, their scores fused"
    phases = ("first", "second", "global")

    def fields(self, settings: AppSettings) -> str:
        """Return its fields."""
        return JOINABLE[_meaning(settings)].fields(settings) + DenseCandidates().fields(settings)

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profiles."""
        return "".join(_profile(settings, *kind) for kind in _kinds(settings))

    def explained(self, settings: AppSettings) -> str:
        """Return the variants that explain the scores."""
        return "".join(explained_profile(profile_name(*kind), _features(*kind)) for kind in _kinds(settings))

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return what the feeder adds to each document."""
        if context.settings is None:
            return {}
        dense = DenseCandidates().document_fields(vectors, context)
        return JOINABLE[_meaning(context.settings)].document_fields(vectors, context) | dense

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        weights = {name: weight for name, weight in request.weights.items() if weight > 0}
        if not weights:
            raise UsageError("candidates hybrid need a weight above 0")
        finders = [_meaning(request.settings) if name == "maxsim" else name for name in weights]
        where, parameters = found_by(request, finders)
        parameters["ranking.globalPhase.rerankCount"] = request.rerank
        profile = profile_name("hybrid" if "maxsim" in weights else FUSED, request.model if "dense" in weights else "")
        if profile.startswith(FUSED):
            del parameters["ranking.secondPhase.totalRerankCount"]
        else:
            parameters |= {f"input.query({_weight('maxsim')})": weights["maxsim"]}
        parameters[f"input.query({_weight('bm25')})"] = weights.get("bm25", 0.0)
        if "dense" in weights:
            parameters[f"input.query({_weight('dense')})"] = weights["dense"]
        if request.fusion == "sum":
            parameters[f"input.query({BY_SUM})"] = 1.0
        return QueryParts(where, parameters, profile)


def _kinds(settings: AppSettings) -> list[tuple[str, str]]:
    """Yield names and dense models of the profiles."""
    return [(name, model) for name in ("hybrid", FUSED) for model in models_of(settings)]


def _scores(name: str, model: str) -> list[str]:
    return [*(["maxsim"] if name == "hybrid" else []), "bm25", *(["dense"] if model else [])]


def _features(name: str, model: str) -> str:
    scores = _scores(name, model)
    return (f" {MAXSIM}" if "maxsim" in scores else "") + features(scores)


def _profile(settings: AppSettings, name: str, model: str) -> str:
    scores = _scores(name, model)
    finders = [_meaning(settings) if score == "maxsim" else score for score in scores]
    both = " + ".join(
        f"query({_weight(score)}) * {scaled(finder, settings, model)}" for score, finder in zip(scores, finders, strict=True)
    )
    inputs = "".join(f"            query({_weight(score)}) double: 1.0\n" for score in scores)
    inputs += f"            query({BY_SUM}) double: 0.0\n"
    phases = first_phase(settings, "hybrid", both) + (second_phase(settings, "hybrid") if name == "hybrid" else "")
    fusion = f"if (query({BY_SUM}) > 0, {_fused(scores, 'normalize_linear')}, {_fused(scores, 'reciprocal_rank')})"
    return f"""\
    rank-profile {profile_name(name, model)} inherits {BASE_PROFILE} {{
{declarations(settings, finders, model, inputs)}\
        function {FOUND}() {{
            expression: if ({WORDS} > 0, {WORDS}, {NO_SCORE})
        }}
{phases}        global-phase {{
{drop_limit(settings, "hybrid", "global")}            rerank-count: {settings.rerank}
            expression: {fusion}
        }}
        match-features: {CANDIDATE_SCORE}{_features(name, model)}
    }}
"""


def _fused(scores: list[str], normalizer: str) -> str:
    parts = []
    for score in scores:
        of = FOUND if score == "bm25" else _SCORES[score]
        part = f"query({_weight(score)}) * {normalizer}({of})"
        parts.append(f"if ({WORDS} > 0, {part}, 0)" if score == "bm25" else part)
    return " + ".join(parts)


def _weight(score: str) -> str:
    return f"{score}_weight"


def _meaning(settings: AppSettings) -> str:
    """Return the strategy that finds what MaxSim ranks."""
    return "centroid" if "centroid" in settings.candidates else "pooled"
