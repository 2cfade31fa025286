"""Several queries of a local index are searched side by side."""

import threading
import time

import numpy as np
import pytest
from plaid_tools import fake_bundle, finished, passage, queries_from, token_vectors

from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from query import local
from query.local import LocalSearch
from query.options import SearchOptions
from query.types import EncodedQuery

VECTORS = token_vectors(np.random.default_rng(0), 60)


@pytest.fixture
def search(tmp_path):
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))
    with index.writer() as writer:
        for number, rows in enumerate(VECTORS):
            writer.put(passage(f"d{number}", text=f"thread {number}"), rows)
        writer.commit()
    return LocalSearch(tmp_path / "i")


@pytest.mark.parametrize("candidates", ["centroid", "bm25", "hybrid", "exhaustive"])
def test_queries_are_searched_side_by_side(search, monkeypatch, candidates):
    """Formerly one after the other, with one core at work."""
    questions = [EncodedQuery(Q, "thread") for Q in queries_from(np.random.default_rng(1), VECTORS, 4)]
    options, later = SearchOptions(5, candidates=candidates), time.monotonic() + 60
    alone = [finished(search.search(question, options, later)).hits for question in questions]
    both, real = threading.Barrier(2), LocalSearch._search

    def one(self, *arguments):
        both.wait(30)  # nobody comes here alone
        return real(self, *arguments)

    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setattr(LocalSearch, "_search", one)
    assert [result.hits for result in finished(search.search_many(questions, options, later))] == alone


def test_an_error_of_one_query_is_that_of_all(search):
    questions = [EncodedQuery(VECTORS[0], ""), EncodedQuery(VECTORS[0][:, :3], "")]
    with pytest.raises(UsageError, match="query vectors must have shape"):
        finished(search.search_many(questions, SearchOptions(5), time.monotonic() + 60))
    assert finished(search.search_many([], SearchOptions(5), time.monotonic() + 60)) == []
