import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from late_interaction.documents import Passage
from late_interaction.errors import MetadataError, SettingsError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.application import document_fields
from vespa_app.candidates import STRATEGIES, DocumentContext, StrategyRequest
from vespa_app.settings import AppSettings

SETTINGS = AppSettings(dim=4, query_rows=8, candidates=tuple(STRATEGIES), probes=2)
CENTROIDS = np.eye(4, dtype=np.float32)
BOOK = SimpleNamespace(centroids=CENTROIDS, assign=lambda rows: (rows @ CENTROIDS.T).argmax(axis=1))
Q = np.array([[0.9, 0.3, 0.1, 0.0], [0.0, 0.2, 0.5, 0.8]], np.float32)


def ask(name, **change):
    return STRATEGIES[name].query(
        dataclasses.replace(StrategyRequest(rows=Q, text="two words", rerank=50, settings=SETTINGS, codebook=BOOK), **change)
    )


def test_centroid_asks_for_the_best_of_each_row_above_the_last_of_them():
    parts = ask("centroid")
    assert parts.yql_where == "(weightedSet(centroids, @w0) or weightedSet(centroids, @w1))"
    assert parts.parameters["w0"] == "{0:600,1:0}"
    assert parts.parameters["w1"] == "{2:0,3:300}"
    assert parts.parameters["ranking.secondPhase.totalRerankCount"] == 50
    assert parts.profile == "centroid"


def test_centroid_probes_at_most_all_centroids():
    settings = dataclasses.replace(SETTINGS, probes=99)
    assert ask("centroid", settings=settings).parameters["w0"] == "{0:900,1:300,2:100,3:0}"


def test_documents_carry_each_centroid_once():
    fields = STRATEGIES["centroid"].document_fields(np.eye(4, dtype=np.float32)[[3, 0, 3]], DocumentContext(BOOK))
    assert fields == {"centroids": {"0": 1, "3": 1}}


def test_centroid_without_a_codebook():
    for call in (
        lambda: ask("centroid", codebook=None),
        lambda: STRATEGIES["centroid"].document_fields(CENTROIDS, DocumentContext()),
    ):
        with pytest.raises(SettingsError, match="need a codebook"):
            call()


def test_pooled_is_the_direction_of_the_mean():
    value = STRATEGIES["pooled"].document_fields(np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32), DocumentContext())
    pooled = np.frombuffer(bytes.fromhex(value["pooled"]["values"]), ">f4")
    assert np.allclose(pooled, [0.5**0.5, 0.5**0.5, 0, 0])
    nothing = STRATEGIES["pooled"].document_fields(np.zeros((0, 4), np.float32), DocumentContext())
    assert np.frombuffer(bytes.fromhex(nothing["pooled"]["values"]), ">f4").tolist() == [1, 0, 0, 0]


def test_pooled_asks_for_no_fewer_than_are_reranked():
    assert "totalTargetHits:400" in ask("pooled").yql_where
    assert "totalTargetHits:1000" in ask("pooled", rerank=1000).yql_where


def test_the_query_text_is_a_parameter_and_never_yql():
    text = '") or true or ("'
    parts = ask("bm25", text=text)
    assert text not in parts.yql_where
    assert parts.parameters["text"] == text
    with pytest.raises(UsageError, match="need a query text"):
        ask("bm25", text=None)


def test_query_rows_travel_bit_for_bit():
    for name in STRATEGIES:
        sent = ask(name).parameters["input.query(qt)"]
        rows = np.stack([np.frombuffer(bytes.fromhex(sent[str(row)]), ">f4") for row in range(len(Q))])
        assert np.array_equal(rows, Q)


def test_document_fields_have_all_that_the_schema_has():
    settings = dataclasses.replace(
        SETTINGS, metadata=MetadataSchema({"kind": FieldType.STRING, "tags": FieldType.STRINGS, "year": FieldType.LONG})
    )
    passage = Passage("a#0", "a", "Title", "Text", {"kind": "", "tags": ["x", ""], "year": None})
    fields = document_fields(passage, CENTROIDS, settings, BOOK)
    assert fields["present"] == ["kind", "kind=", "tags", "tags="]
    assert "year" not in fields
    assert set(fields) == {
        "id", "document_id", "title", "text", "kind", "tags", "present", "vectors", "centroids", "pooled",
    }  # fmt: skip
    with pytest.raises(MetadataError, match="not in the index"):
        document_fields(Passage("a#0", "a", "", "x", {"other": 1}), CENTROIDS, settings, BOOK)
