"""Questions answered: candidates, then late-interaction reranking, on Vespa or a local index."""

from query.explain import Explanation, Match, explain
from query.retriever import Question, Retriever, open_retriever
from query.several import SeveralResult, search_several
from query.types import Hit, SearchResult

__all__ = [
    "Explanation",
    "Hit",
    "Match",
    "Question",
    "Retriever",
    "SearchResult",
    "SeveralResult",
    "explain",
    "open_retriever",
    "search_several",
]
