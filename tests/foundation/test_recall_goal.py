"""The least effort that reaches a recall, for a search of which only answers and costs are known."""

import pytest

from late_interaction.errors import UsageError
from late_interaction.recall_goal import CostedAnswer, least_effort

TRUTH = [["a", "b"], ["c", "d", "e"]]


def climbing(answers, ladders, recall):
    """answers: effort -> the ids of both queries and their cost. Also which efforts were tried."""
    asked = []

    def ask(effort):
        asked.append(effort)
        first, second, cost = answers[effort]
        return [CostedAnswer(list(first), cost), CostedAnswer(list(second), cost)]

    return least_effort(ladders, ask, TRUTH, recall), asked


def test_each_ladder_is_climbed_until_it_reaches_the_goal_or_costs_too_much():
    answers = {
        "1a": ("a", "c", 10.0), "1b": ("ba", "cd", 30.0), "1c": ("ab", "edc", 60.0),
        "2a": ("xa", "dc", 20.0), "2b": ("ab", "cxd", 25.0), "2c": ("ab", "cde", 50.0), "2d": ("ab", "cde", 70.0),
        "3a": ("ab", "cde", 50.0),
    }  # fmt: skip
    found, asked = climbing(answers, [["1a", "1b", "1c"], ["2a", "2b", "2c", "2d"], ["3a"]], 0.9)
    assert asked == ["1a", "1b", "1c", "2a", "2b", "2c", "3a"]  # not 2d, behind the goal; 3a costs as much as the best
    assert (found.best.effort, found.best.recall, found.best.cost) == ("2c", 1.0, 50.0)
    assert [measured.recall for measured in found.tried][:2] == [pytest.approx(5 / 12), pytest.approx(5 / 6)]
    assert climbing(answers, [["1a", "1b", "1c"]], 5 / 6)[0].best.effort == "1b"  # reached exactly


def test_the_whole_curve_does_not_change_the_choice():
    answers = {
        "1a": ("ab", "c", 10.0), "1b": ("ab", "cde", 30.0), "1c": ("ab", "cde", 40.0),
        "2a": ("ab", "cde", 25.0), "2b": ("ab", "cde", 25.0), "2c": ("ab", "cde", 90.0),
        "3a": ("ab", "cde", 28.0), "3b": ("", "", 29.0),
    }  # fmt: skip
    tried = []

    def ask(effort):
        tried.append(effort)
        first, second, cost = answers[effort]
        return [CostedAnswer(list(first), cost), CostedAnswer(list(second), cost)]

    ladders = [["1a", "1b", "1c"], ["2a", "2b", "2c"], ["3a", "3b"]]
    found = least_effort(ladders, ask, TRUTH, 0.9, whole=True)
    assert tried == ["1a", "1b", "1c", "2a", "2b", "3a", "3b"]  # 2b does no more than 2a
    assert found.best.effort == climbing(answers, ladders, 0.9)[0].best.effort == "2a"


def test_a_ladder_ends_where_more_effort_does_nothing_more():
    answers = {number: ("a", "c", min(number, 3)) for number in range(1, 9)}
    found, asked = climbing(answers, [list(range(1, 9))], 0.99)
    assert found.best is None and asked == [1, 2, 3, 4]
    assert [measured.effort for measured in found.tried] == asked


def test_only_the_share_of_the_truth_counts():
    found, _ = climbing({1: ("abxyz", "vwxcde", 1.0)}, [[1]], 0.1)
    assert found.tried[0].recall == pytest.approx(0.5)  # what comes behind as many as are right is not found


@pytest.mark.parametrize("recall", [0, -1, 1.01, float("nan")])
def test_no_such_share(recall):
    with pytest.raises(UsageError, match="recall must be"):
        climbing({}, [], recall)


def test_no_query():
    with pytest.raises(UsageError, match="no query"):
        least_effort([[1]], lambda effort: [], [], 0.5)
