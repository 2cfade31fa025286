"""Candidates `bm25`: any word of the query in title or text, ranked by BM25."""

from __future__ import annotations

from late_interaction.errors import UsageError
from vespa_app.candidates.base import (
    BASE_PROFILE,
    QueryParts,
    Strategy,
    StrategyRequest,
    first_phase,
    rerank_parameters,
    second_phase,
)
from vespa_app.settings import AppSettings

__all__ = ["BM25_SCORE", "Bm25Candidates", "words"]

BM25_SCORE = "bm25(title) + bm25(text)"


def words(request: StrategyRequest) -> str:
    """Matches the query text, which travels as the parameter `text`: it is never part of the YQL.

    `and !(false)` makes a text without words match nothing; alone it would be an error.
    """
    return f'(({{grammar:"tokenize",targetHits:{request.targets},defaultIndex:"default"}}userInput(@text)) and !(false))'


class Bm25Candidates(Strategy):
    name = "bm25"
    about = "candidates that share words with the query; MaxSim over the best"
    needs_text = True
    of_vectors = False

    def profile(self, settings: AppSettings) -> str:
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
{first_phase(settings, self.name, BM25_SCORE)}{second_phase(settings, self.name)}    }}
"""

    def query(self, request: StrategyRequest) -> QueryParts:
        if request.text is None:
            raise UsageError("candidates bm25 need a query text")
        return QueryParts(words(request), rerank_parameters(request) | {"text": request.text}, self.name)
