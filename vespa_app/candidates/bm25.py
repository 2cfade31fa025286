"""Candidates `bm25`: any word of the query in title or text, ranked by BM25."""

from __future__ import annotations

from late_interaction.errors import UsageError
from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    QueryParts,
    Strategy,
    StrategyRequest,
    explained_profile,
    first_phase,
    rerank_parameters,
    second_phase,
)
from vespa_app.settings import AppSettings

__all__ = ["WORDS", "WORDS_FUNCTION", "Bm25Candidates", "words"]

WORDS = "words"  # function and match feature: BM25
WORDS_FUNCTION = f"""\
        function {WORDS}() {{
            expression: bm25(title) + bm25(text)
        }}
"""


def words(request: StrategyRequest) -> str:
    """Return a clause that matches the query text, which is sent as the parameter `text`, never as part of the YQL.

    `and !(false)` makes a text without words match nothing; by itself it would be an error.
    """
    return f'(({{grammar:"tokenize",targetHits:{request.targets},defaultIndex:"default"}}userInput(@text)) and !(false))'


class Bm25Candidates(Strategy):
    """The strategy `bm25`."""

    name = "bm25"
    about = "candidates that share words with the query; MaxSim over the best"
    of_vectors = False

    def profile(self, settings: AppSettings) -> str:
        """Return its rank profile."""
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
{WORDS_FUNCTION}{first_phase(settings, self.name, WORDS)}{second_phase(settings, self.name)}\
        match-features: {CANDIDATE_SCORE} {WORDS}
    }}
"""

    def explained(self, settings: AppSettings) -> str:
        """Return the variant that explains the scores."""
        return explained_profile(self.name, f" {WORDS}")

    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""
        if request.text is None:
            raise UsageError("candidates bm25 need a query text")
        return QueryParts(words(request), rerank_parameters(request) | {"text": request.text}, self.name)
