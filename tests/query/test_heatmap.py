"""The heat map: every word of both sides, nothing of a user's text as markup."""

import re

import numpy as np

from query.heatmap import heatmap_page
from query.types import Explanation, Hit, Match, SearchResult


def test_words_against_words_without_markup_of_the_text():
    text = "<script> & more"
    words = ((0, 8), (9, 10), (11, 15))
    table = np.array([[0.9, 0.1, -0.2], [0.0, 0.2, 0.7]], np.float32)
    matches = (Match("<b>", "<script>", 0, 8, 0.9), Match("more", "more", 11, 15, 0.7))
    hit = Hit(1, "d<1>", "d#0", 1.6, "a & b", text, {}, explanation=Explanation(text, matches, words, table))
    bare = Hit(2, "e", "e#0", 1.0, "", "", {})
    page = heatmap_page('"<q>"', SearchResult((hit, bare), "centroid", 7, 7, timings_ms={"vespa": 1.25}))
    assert "<script" not in page and "<q>" not in page and "<b>" not in page and "d<1>" not in page
    assert page.count("<td") == 6 and page.count("class=best") == 2 and page.count("<table>") == 1
    assert "characters 11-15" in page and "7 matched, 7 reranked; milliseconds: vespa 1.2" in page
    assert re.search(r"rgba\(200, 60, 0, 0\.90\)", page)
    assert "rgba(200, 60, 0, 0.00)" in page  # a negative similarity has no colour
