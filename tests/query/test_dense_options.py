"""What a search may be asked of dense models, weights and fusion, before any index is."""

import numpy as np
import pytest

from late_interaction.errors import UsageError
from query import QueryVectors
from query.backend import choose_strategy, dense_model, dense_of_query, encode_query, unfit_for, with_dense
from query.options import SearchOptions

ROWS = np.eye(2, 4, dtype=np.float32)
VECTOR = np.arange(3, dtype=np.float32)


class Counting:
    def __init__(self):
        self.asked = []

    def encode_queries(self, texts):
        self.asked += texts
        return np.stack([VECTOR] * len(texts))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"candidates": "bm25+bm25"}, "different strategies"),
        ({"candidates": "bm25+"}, "different strategies"),
        ({"candidates": "bm25+hybrid"}, "hybrid cannot be combined"),
        ({"candidates": "exhaustive+bm25"}, "exhaustive cannot be combined"),
        ({"candidates": "auto+bm25"}, "auto cannot be combined"),
        ({"fusion": "max"}, "fusion 'max' .*known: rrf, sum"),
        ({"fusion": 1}, "fusion 1"),
        ({"dense": ""}, "dense must be the name"),
        ({"dense": 3}, "dense must be the name"),
        ({"weights": {}}, "weights must name at least one"),
        ({"weights": {"bm25": 0.0, "dense": 0}}, "weights must name at least one"),
        ({"weights": {"words": 1.0}}, "maxsim, bm25, dense, got 'words'"),
        ({"weights": {"dense": -0.5}}, "weight dense must be a number"),
        ({"weights": {"dense": 1.7e308, "bm25": 1.7e308}}, "from 0 to 1,000,000, got 1.7e"),
        ({"weights": {"dense": 10**400}}, "from 0 to 1,000,000, got 1000"),
    ],
)
def test_what_is_wrong_is_named(wrong, why):
    with pytest.raises(UsageError, match=why):
        SearchOptions(**wrong)


def test_weights_without_a_name_leave_it_out():
    assert SearchOptions().fusion_weights == {"maxsim": 1.0, "bm25": 1.0}
    assert SearchOptions(weights={"dense": 2, "bm25": 0.5}).fusion_weights == {"bm25": 0.5, "dense": 2.0}
    assert SearchOptions(weights={"maxsim": 0.0, "bm25": 1.0}).fusion_weights == {"bm25": 1.0}
    own = {"dense": 1.0, "bm25": 0.5}
    settled = SearchOptions(candidates="hybrid").with_defaults(own, "sum")
    assert (settled.weights, settled.fusion, settled.needs_dense) == (own, "sum", True)
    given = SearchOptions(weights={"bm25": 1.0}, fusion="rrf")
    assert given.with_defaults(own, "sum") == given
    early = SearchOptions(candidates="hybrid").for_first_stage().with_defaults(own, None)
    assert early.first_stage and early.weights == own


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"candidates": "dense"}, True),
        ({"candidates": "bm25+dense"}, True),
        ({"candidates": "hybrid", "weights": {"dense": 1.0}}, True),
        ({"candidates": "hybrid", "weights": {"dense": 0.0, "bm25": 1.0}}, False),
        ({"candidates": "hybrid"}, False),
        ({"candidates": "bm25", "weights": {"dense": 1.0}}, False),
        ({}, False),
    ],
)
def test_a_dense_vector_is_made_only_where_it_is_asked(asked, needs):
    assert SearchOptions(**asked).needs_dense == needs


def test_the_dense_model_is_the_named_the_only_or_the_one_called_dense():
    assert dense_model(None, ["e5"], "here") == "e5"
    assert dense_model(None, ["e5", "dense"], "here") == "dense"
    assert dense_model("e5", ["e5", "dense"], "here") == "e5"
    for asked, known, why in [
        ("e5", ["dense"], "'e5' is unknown at here; it has: dense"),
        (None, ["e5", "bge"], "several dense models.*: e5, bge"),
        (None, [], "here has no dense model"),
        ("dense", [], "here has no dense model"),
    ]:
        with pytest.raises(UsageError, match=why):
            dense_model(asked, known, "here")


def test_auto_asks_what_the_first_strategy_needs():
    models = {"e5": 3}
    assert dense_of_query(SearchOptions(), ("dense", "bm25"), models, "here") == models
    assert dense_of_query(SearchOptions(), ("bm25+dense",), models, "here") == models
    assert dense_of_query(SearchOptions(), ("centroid", "dense"), models, "here") == {}
    with pytest.raises(UsageError, match="no dense model"):
        dense_of_query(SearchOptions(candidates="dense"), ("centroid",), {}, "here")
    with pytest.raises(UsageError, match="'bge'"):
        dense_of_query(SearchOptions(candidates="bm25", dense="bge"), ("bm25",), models, "here")


def test_joined_candidates_are_made_of_what_the_index_has():
    known = ("centroid", "bm25+dense", "hybrid")
    assert choose_strategy("centroid+dense", known, "here", {}) == ("centroid+dense", "")
    assert choose_strategy("dense", known, "here", {}) == ("dense", "")
    with pytest.raises(UsageError, match="'pooled' .* at here; known: centroid, bm25\\+dense, hybrid"):
        choose_strategy("bm25+pooled", known, "here", {})
    with pytest.raises(UsageError, match="dense .*: no vector"):
        choose_strategy("bm25+dense", known, "here", {"dense": "no vector"})
    chosen, why = choose_strategy("auto", known[1:], "here", {"bm25": "no text"})
    assert (chosen, "(bm25+dense: no text)" in why) == ("hybrid", True)


def test_a_query_has_what_its_search_needs():
    model = Counting()

    def encoder(name):
        assert name == "e5"
        return model

    text = encode_query(QueryVectors(ROWS, text="words"), 4, lambda: pytest.fail("rows are there"))
    assert with_dense(text, {}, encoder) is text and not model.asked
    assert np.array_equal(with_dense(text, {"e5": 3}, encoder).dense["e5"], VECTOR)
    assert model.asked == ["words"]
    ready = encode_query(QueryVectors(ROWS, {"e5": [2, 1, 0]}, "words"), 4, lambda: pytest.fail("rows are there"))
    assert with_dense(ready, {"e5": 3}, encoder).dense["e5"].tolist() == [2, 1, 0]
    assert model.asked == ["words"]
    rows = with_dense(encode_query(ROWS, 4, lambda: pytest.fail("rows are there")), {"e5": 3}, encoder)
    assert rows.dense == {}
    asked = SearchOptions(candidates="hybrid", weights={"dense": 1.0})
    assert set(unfit_for(rows, asked, "e5")) == {"bm25", "dense", "hybrid"}
    assert unfit_for(with_dense(ready, {"e5": 3}, encoder), asked, "e5") == {}
    assert "QueryVectors" in unfit_for(rows, asked, "e5")["dense"]
    assert set(unfit_for(rows, SearchOptions(weights={"maxsim": 1.0}), "e5")) == {"bm25", "dense"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (QueryVectors(ROWS, {"e5": [1.0, 2.0]}), "must be 3 finite numbers, .*got shape \\[2\\]"),
        (QueryVectors(ROWS, {"e5": [[1.0, 2.0, 3.0]]}), "must be 3 finite numbers"),
        (QueryVectors(ROWS, {"e5": [1.0, np.nan, 3.0]}), "must be 3 finite numbers"),
        (QueryVectors(ROWS, [1.0]), "given by name"),
        (QueryVectors(ROWS, {"e5": [0.0, 0.0, 0.0]}), "must be 3 finite numbers, not all 0"),
        (QueryVectors(ROWS, {"e5": "x"}), "dense model 'e5' must be numbers, got str"),
        (QueryVectors("rows"), "rows of numbers"),
        (QueryVectors(ROWS[:, :3]), "shape \\[q, 4\\]"),
        (QueryVectors(ROWS, text=3), "must be text"),
    ],
)
def test_ready_vectors_are_checked(wrong, why):
    with pytest.raises(UsageError, match=why):
        with_dense(encode_query(wrong, 4, lambda: pytest.fail("rows are there")), {"e5": 3}, lambda name: Counting())
