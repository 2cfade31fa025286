"""Coverage, hits and timings out of Vespa's answers."""

from __future__ import annotations

import pytest

from late_interaction.errors import IncompleteAnswer
from late_interaction.metadata import FieldType, MetadataSchema
from query.types import SearchResult
from query.vespa_answer import coverage_of, hits_of, timings_of

SCHEMA = MetadataSchema({"year": FieldType.LONG})


@pytest.mark.parametrize(
    ("coverage", "expected", "share", "why"),
    [
        ({"coverage": 100, "documents": 400, "full": True}, None, 1.0, ()),
        ({"coverage": 100, "documents": 400, "full": True}, 400, 1.0, ()),
        ({"coverage": 100, "documents": 255, "full": True}, 400, 0.6375,
         ("255 documents were searched, at least 400 were expected",)),
        ({"coverage": 50, "documents": 200, "degraded": {"timeout": True, "match-phase": False}}, None, 0.5,
         ("some nodes ran out of time",)),
        ({"coverage": 50, "documents": 200}, None, 0.5, ("some nodes did not answer",)),
        ({"coverage": 100, "documents": 4, "degraded": {"match-phase": True}}, None, 1.0, ("matching was limited",)),
        ({}, 5, 1.0, ()),
    ],
)  # fmt: skip
def test_coverage(coverage, expected, share, why):
    found = coverage_of({"coverage": coverage}, expected)
    assert (found.share, found.degraded) == (pytest.approx(share), why)


def test_errors_beside_hits_degrade_an_answer():
    found = coverage_of({"coverage": {"coverage": 100}, "errors": [{"code": 12, "message": "node 3 timed out"}]}, None)
    assert found.degraded == ("error of Vespa: node 3 timed out",)


def test_an_answer_that_is_not_whole_is_an_error_on_demand():
    whole = SearchResult((), "centroid", 0, 0)
    assert whole.check_full() is whole
    part = SearchResult((), "centroid", 0, 0, coverage=0.5, degraded=("some nodes ran out of time",))
    with pytest.raises(IncompleteAnswer, match=r"covers 50.0% of the documents \(some nodes ran out of time\)"):
        part.check_full()


def hit(index, features):
    fields = {"document_id": "d", "id": "d#0", "title": "T", "text": ["a", "b"], "year": 7, "present": ["year"]}
    return {"relevance": 0.5, "fields": {**fields, "sddocname": index, "matchfeatures": features}}


def test_hits_of_several_indexes():
    root = {"children": [hit("one", {"firstPhase": 2.0}), hit("two", {"firstPhase": 1.0, "max_sim": 9.0, "words": 3.0})]}
    first, second = hits_of(root, {"one": SCHEMA, "two": MetadataSchema({})}, 11)
    assert (first.rank, first.index, dict(first.metadata), first.text) == (11, "one", {"year": 7}, "a\nb")
    assert dict(first.stages) == {"candidates": 2.0, "maxsim": 0.5}
    assert (second.rank, second.index, dict(second.metadata)) == (12, "two", {})
    assert dict(second.stages) == {"candidates": 1.0, "maxsim": 9.0, "bm25": 3.0}


def test_rows_of_a_passage_and_of_the_best_chunk():
    plain = {"best_similarities": {"type": "tensor(qt{})", "cells": {"1": 0.25, "0": 0.5, "10": 0.125}}}
    assert hits_of({"children": [hit("one", plain)]}, {"one": SCHEMA}, 1)[0].rows == (0.5, 0.25, 0.125)
    cells = [
        {"address": {"chunk": chunk, "qt": str(row)}, "value": value}
        for chunk, values in (("0", (0.1, 0.1)), ("1", (0.5, 0.4)))
        for row, value in enumerate(values)
    ]
    assert hits_of({"children": [hit("one", {"best_similarities": {"cells": cells}})]}, {"one": SCHEMA}, 1)[0].rows == (
        0.5,
        0.4,
    )


def test_vespas_own_timing():
    assert timings_of({"timing": {"querytime": 0.002, "summaryfetchtime": 0.001, "searchtime": 0.004}}) == {
        "vespa_query": 2.0, "vespa_summaries": 1.0, "vespa_search": 4.0,
    }  # fmt: skip
    assert timings_of({}) == {}


def test_the_phases_of_ranking_take_as_long_as_the_slowest_thread_of_the_slowest_node():
    def node(*threads: dict[str, float]) -> dict[str, object]:
        profiles = [[{"tag": tag, "total_time_ms": ms, "roots": []} for tag, ms in thread.items()] for thread in threads]
        query = {"tag": "query_execution", "threads": [{"traces": traces} for traces in profiles]}
        return {"children": [{"message": [{"traces": [{"tag": "query_setup", "total_time_ms": 99.0}, query]}]}]}

    nodes = [
        node({"match_profiling": 1.0, "first_phase_profiling": 2.0}, {"match_profiling": 3.0, "second_phase_profiling": 4.0}),
        node({"match_profiling": 2.0, "second_phase_profiling": 5.5}),
    ]
    body = {"trace": {"children": [{"message": "content search to dispatch"}, *nodes]}}
    assert timings_of(body) == {"vespa_matching": 3.0, "vespa_first_phase": 2.0, "vespa_second_phase": 5.5}
