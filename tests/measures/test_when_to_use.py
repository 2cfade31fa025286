"""The tables of docs/explanation/when-to-use.md, from a result that was measured before."""

from __future__ import annotations

import random

import pytest

from benchmarks import vespa_collections
from benchmarks.train import part_of
from benchmarks.when_to_use import MARKS, findings, table, write_page
from colbert_vespa.evaluation.collection import read_collection


def row(way, ndcg, size, *, fused=False, **p):
    return {
        "way": way, "single": not p, "fused": fused, "ndcg_at_10": ndcg, "map_at_100": ndcg - 0.1, "recall_at_100": 0.9 - ndcg,
        "p": p, "bytes_per_passage": size, "p50_ms": 2.25,
    }  # fmt: skip


RESULT = {
    "collection": "cranfield", "passages": 1398, "queries": 225, "tokens_per_passage": 193.4,
    "measured": "today", "load": 0.5,
    "cross_encoder_ratio": 41.7, "fitted": {"fitted": {"weights": {"bm25": 0.3, "dense": 0.7}, "fusion": "sum"}},
    "rows": [
        row("bm25", 0.385, 590), row("dense", 0.4, 388), row("maxsim", 0.397, 12237),
        row("dense -> maxsim", 0.3965, 12625, bm25=0.2, dense=0.5, maxsim=0.9),
        row("bm25+dense by rrf", 0.435, 978, fused=True, bm25=0.0001, dense=0.0002, maxsim=0.0034),
        row("fitted", 0.43, 13215, fused=True, bm25=0.001, dense=0.002, maxsim=0.0034),
    ],
}  # fmt: skip


def test_the_table_has_a_line_for_each_way_and_the_best_is_bold():
    lines = table(RESULT).splitlines()
    assert lines[0].startswith("cranfield, 1,398 passages of 193 token vectors, 225 queries (today")
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|")
    assert "| `bm25` | 0.385 | 0.285 | **0.515** |  |  |  | 590 | 2.2 |" in lines
    assert "p50 ms" in lines[2] and "p50 ms" not in table(RESULT | {"load": 100.0})
    assert "| `bm25+dense by rrf` | **0.435** | **0.335** | 0.465 | 0.000 | 0.000 | 0.003 | 978 | 2.2 |" in lines


def test_the_findings_are_those_of_the_goals():
    best, weights, kept, crossed = findings(RESULT)
    assert best == (
        "Best fusion: bm25+dense by rrf, nDCG@10 +0.050 to bm25 (p 0.0001); +0.035 to dense (p 0.0002); "
        "+0.038 to maxsim (p 0.0034)."
    )
    assert weights == "Weights fitted to all queries: sum, bm25 0.3, dense 0.7."
    assert "has 0.999 of the nDCG@10" in kept and "takes 42 times" in crossed
    assert len(findings(RESULT | {"fitted": None})) == 3


def test_a_page_keeps_what_is_outside_the_marks(tmp_path):
    page, plots = tmp_path / "docs" / "page.md", tmp_path / "images"
    page.parent.mkdir()
    plots.mkdir()
    (plots / "tradeoffs-cranfield.svg").write_text("<svg/>")
    page.write_text(f"before\n\n{MARKS[0]}\n\nold\n\n{MARKS[1]}\n\nafter\n")
    for _ in range(2):
        write_page(page, [RESULT, RESULT | {"collection": "scifact"}], plots, 300)
        text = page.read_text()
        assert text.startswith("before\n\n") and text.endswith(f"{MARKS[1]}\n\nafter\n")
        assert table(RESULT) in text and "old" not in text and text.count(MARKS[0]) == 1
        assert "when_to_use --queries 300" in text
        assert "(../images/tradeoffs-cranfield.svg)" in text and "tradeoffs-scifact" not in text


@pytest.mark.skipif(not (vespa_collections.DATA / "medquad").is_dir(), reason="the collection is not here")
def test_the_part_of_medquad_is_the_one_that_training_never_sees():
    documents, queries = vespa_collections._documents(vespa_collections.COLLECTIONS["medquad-test"])
    assert {part_of(document) for document in documents} == {"test"}
    there, qrels = {document.id for document in documents}, read_collection(vespa_collections.DATA / "medquad").qrels
    for query in random.Random(1).sample(queries, 20):
        assert there & set(qrels[query.id])
