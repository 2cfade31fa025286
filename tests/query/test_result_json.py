"""Results as JSON hold no number that JSON does not have."""

import json
import math

import numpy as np
import pytest

from colbert_vespa.cli.console import Output
from query import Explanation, Hit, Match, SearchResult

NOT_JSON = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("odd", NOT_JSON)
def test_results(odd):
    explanation = Explanation("text", (Match("a", "b", 0, 1, odd),), ((0, 1),), np.array([[odd]], np.float32))
    hit = Hit(1, "a", "a#0", odd, "", "text", {"n": [odd, 1.5]}, "i", {"maxsim": odd}, (odd, 0.5), explanation)
    result = SearchResult((hit,), "centroid", None, 1, coverage=odd, timings_ms={"encode": odd})
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    found = data["hits"][0]
    assert (found["score"], found["stages"], found["rows"]) == (None, {"maxsim": None}, [None, 0.5])
    assert found["metadata"] == {"n": [None, 1.5]}
    assert found["explanation"]["matches"][0]["similarity"] is None
    assert data["coverage"] is None and data["timings_ms"] == {"encode": None}


@pytest.mark.parametrize("odd", NOT_JSON)
def test_every_command(odd, capsys):
    Output(json_output=True).result({"a": odd, "b": [1.5, (odd,)], "c": {"d": odd}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, [None]], "c": {"d": None}}
