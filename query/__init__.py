"""Questions answered: candidates, then late-interaction reranking, on Vespa or a local index."""

from query.explain import Explanation, Match, explain
from query.retriever import Question, Retriever, open_retriever
from query.types import Hit, SearchResult

__all__ = ["Explanation", "Hit", "Match", "Question", "Retriever", "SearchResult", "explain", "open_retriever"]
