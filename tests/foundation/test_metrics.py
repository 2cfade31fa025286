import math

from colbert_vespa.evaluation.metrics import ndcg_at_k, percentile, recall_at_k, reciprocal_rank_at_k
from late_interaction.bm25 import Bm25
from late_interaction.metrics import overlap_at_k

JUDGED = {"a": 2.0, "b": 1.0, "c": 0.0}


def test_ndcg_by_hand():
    ideal = 2 + 1 / math.log2(3)
    assert math.isclose(ndcg_at_k(["b", "x", "a"], JUDGED, 10), (1 + 2 / math.log2(4)) / ideal)
    assert ndcg_at_k(["a", "b"], JUDGED, 10) == 1.0
    assert ndcg_at_k(["a"], {}, 10) == 0.0


def test_reciprocal_rank_recall_and_overlap():
    assert reciprocal_rank_at_k(["x", "b"], JUDGED, 10) == 0.5
    assert reciprocal_rank_at_k(["x", "b"], JUDGED, 1) == 0.0
    assert recall_at_k(["x", "b"], JUDGED, 10) == 0.5
    assert overlap_at_k(["a", "x", "b"], ["b", "a", "y"], 2) == 0.5
    assert overlap_at_k([], [], 10) == 1.0


def test_percentile_is_nearest_rank():
    values = [5.0, 1.0, 2.0, 3.0, 4.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.95) == 5.0
    assert percentile([7.0], 0.5) == 7.0


def test_bm25_finds_stems_and_nothing_for_unknown_words():
    keyword = Bm25(["a", "b", "c"], ["parsing options", "threads and locks", "reading files"])
    assert keyword.search("parse an option", 10)[0][0] == "a"
    assert keyword.search("zebra", 10) == []
    assert keyword.search("the of", 10) == []
    assert Bm25(["a"], [""]).search("x", 5) == []
