"""BM25 and hybrid candidates of a local index."""

import pytest

from late_interaction.documents import passage_text
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.plaid import open_index
from query import Client
from query.fusion import fused
from query.options import SearchOptions


@pytest.fixture(scope="module")
def retriever(sample_index):
    return Client(str(sample_index))


def test_words_find_and_maxsim_orders(retriever, sample_index, minilm_encoder):
    query = "parse command line options"
    result = retriever.search(query, 10, candidates="bm25")
    index = open_index(sample_index)
    Q = minilm_encoder.encode_queries([query])[0]
    assert result.hits
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    for hit in result.hits:
        assert hit.stages["bm25"] > 0
        assert hit.score == pytest.approx(maxsim(Q, index.vectors(hit.passage_id)), abs=1e-3)
        assert any(word in passage_text(hit.title, hit.text).lower() for word in ("pars", "command", "line", "option"))


def test_hybrid_is_the_sum_of_reciprocal_ranks(retriever):
    query = "wait for a thread to finish"
    result = retriever.search(query, 5, candidates="hybrid", rerank=50)
    by_words = [
        hit.passage_id
        for hit in sorted(retriever.search(query, 50, candidates="bm25", rerank=50).hits, key=lambda hit: -hit.stages["bm25"])
    ]
    assert result.candidates == "hybrid"
    assert 1 / 61 <= result.hits[0].score <= 2 / 61
    assert {hit.passage_id for hit in result.hits} & set(by_words[:5])
    assert fused({"maxsim": {"a": 3.0, "b": 9.0}, "bm25": {"c": 2.0, "a": 1.0}}, SearchOptions().fusion_weights) == {
        "b": 1 / 61, "a": 1 / 62 + 1 / 62, "c": 1 / 61,
    }  # fmt: skip


@pytest.mark.parametrize("candidates", ["bm25", "hybrid"])
def test_filters_hold(retriever, candidates):
    hits = retriever.search("delete a file", 20, candidates=candidates, where={"module": "pathlib"}).hits
    assert hits
    assert {hit.metadata["module"] for hit in hits} == {"pathlib"}
    assert retriever.search("delete a file", 5, candidates=candidates, where={"module": "none"}).hits == ()


def test_rows_alone_have_no_words(retriever, minilm_encoder):
    with pytest.raises(UsageError, match="hybrid .*: it needs the query as text"):
        retriever.search(minilm_encoder.encode_queries(["x"])[0], candidates="hybrid")
    assert retriever.search("zzzzqqq xyzzy", 5, candidates="bm25").hits == ()
