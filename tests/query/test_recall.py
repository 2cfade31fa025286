"""Recall by effort, and the least effort that reaches a goal."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from colbert_vespa.evaluation.recall import RecallGoal, measure_recall, parse_goal
from late_interaction.errors import UsageError
from query.types import Hit, SearchResult


class Fake:
    """Twenty passages; a search with `rerank` and `probes` has the right ones among the first `rerank * probes / 64`."""

    address = "fake"
    strategies = ("centroid", "bm25", "exhaustive")
    encoder = SimpleNamespace(encode_queries=lambda texts: [np.ones((1, 2), np.float32) for _ in texts])

    def search(self, query, k, *, candidates, probes, rerank):
        good = 20 if candidates == "exhaustive" else min(20, rerank * probes // 64)
        hits = [Hit(n, f"d{n}", f"d{n}#0", -float(n), "", "", {}) for n in range(good)]
        return SearchResult(tuple(hits[:k]), candidates, 20, rerank or 20)


def test_the_least_effort_that_reaches_the_goal():
    report = measure_recall(Fake(), ["a", "b"], RecallGoal(10, 0.9))
    assert [(e.rerank, e.probes, e.recall) for e in report.chosen] == [(10, 64, 1.0)]
    by = {(e.rerank, e.probes): e for e in report.curve}
    assert by[10, 32].recall == by[10, 32].candidates == 0.5
    assert by[20, 32].recall == 1.0
    assert {e.strategy for e in report.curve} == {"centroid"} and report.queries == 2


def test_a_goal_out_of_reach_has_no_effort():
    fake = Fake()
    fake.search = lambda query, k, *, candidates, probes, rerank: SearchResult(
        (Hit(1, "d", "right#0" if candidates == "exhaustive" else "wrong#0", 1.0, "", "", {}),), candidates, 1, 1
    )
    assert measure_recall(fake, ["a"], RecallGoal()).chosen == ()


def test_what_cannot_be_measured():
    fake = Fake()
    with pytest.raises(UsageError, match="needs queries"):
        measure_recall(fake, [], RecallGoal())
    fake.strategies = ("centroid",)
    with pytest.raises(UsageError, match="against candidates exhaustive, but fake has none"):
        measure_recall(fake, ["a"], RecallGoal())


@pytest.mark.parametrize(
    ("text", "goal"),
    [("recall@10=0.98", RecallGoal(10, 0.98)), ("recall@1=1", RecallGoal(1, 1.0)), ("recall@5=.5", RecallGoal(5, 0.5))],
)
def test_goals(text, goal):
    assert parse_goal(text) == goal


@pytest.mark.parametrize("text", ["0.98", "recall=0.9", "recall@10=0", "recall@0=0.9", "recall@10=1.5", "recall@10=98", ""])
def test_what_is_no_goal(text):
    with pytest.raises(UsageError, match="--goal must be like"):
        parse_goal(text)


def test_the_command(cli, sample_index, sample_collection):
    asked = ("evaluate", "--from", str(sample_index), "--collection", str(sample_collection), "--goal", "recall@5=0.9")
    report = json.loads(cli(*asked, "--queries", "2", "--json").stdout.splitlines()[-1])
    assert report["goal"] == {"k": 5, "recall": 0.9} and report["queries"] == 2
    assert all(effort["recall"] >= 0.9 for effort in report["chosen"]) and report["chosen"]
