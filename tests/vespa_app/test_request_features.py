"""What queries need by the layout of the index."""

import dataclasses

import pytest

from late_interaction.errors import MetadataError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.running import Description
from vespa_app.running.layouts import document_path
from vespa_app.running.request_features import layout_parameters, query_body
from vespa_app.settings import AppSettings

FIELDS = MetadataSchema({"owner": FieldType.STRING, "year": FieldType.LONG})
PLAIN = AppSettings(dim=16, query_rows=8, metadata=FIELDS, candidates=("bm25", "exhaustive"))
STREAMING = dataclasses.replace(PLAIN, mode="streaming", group_field="owner")


def ask(settings, where=None, text="words"):
    filter_ = parse_filter(where, FIELDS) if where else None
    return layout_parameters(Description(settings, "ab" * 32, None), text, filter_)


def test_a_plain_index_needs_nothing():
    assert ask(PLAIN) == {}


def test_vespa_encodes_the_query_with_the_embedder_of_the_bundle():
    settings = dataclasses.replace(PLAIN, encoding="embedder")
    assert ask(settings) == {"text": "words", "input.query(qt)": "embed(colbert_abababab, @text)"}
    with pytest.raises(UsageError, match="give the query as text"):
        ask(settings, text=None)


def test_a_streaming_query_reads_the_one_group_of_its_filter():
    for where in ({"owner": "ann"}, {"owner": {"$in": ["ann"]}}, {"owner": "ann", "year": {"$gt": 2000}}):
        assert ask(STREAMING, where) == {"streaming.groupname": "ann"}
    for where in (
        None,
        {"year": 1},
        {"owner": {"$in": ["ann", "bob"]}},
        {"$or": [{"owner": "ann"}, {"year": 1}]},
        {"$not": {"owner": "ann"}},
    ):
        with pytest.raises(UsageError, match="streams one group per query"):
            ask(STREAMING, where)


def test_paths_hold_ids_and_groups_of_any_kind():
    assert document_path(PLAIN, "a/b#0", {}) == "/document/v1/colbert/passage/docid/a%2Fb%230"
    assert document_path(STREAMING, "x#0", {"owner": "ann/é"}) == "/document/v1/colbert/passage/group/ann%2F%C3%A9/x%230"
    with pytest.raises(MetadataError, match="it determines the document's group"):
        document_path(STREAMING, "x#0", {})


def test_a_request_names_its_index_before_the_yql_is_read():
    """Two indexes of different dim beside each other: Vespa refused the query's tensor as of the other's type."""
    settings = dataclasses.replace(PLAIN, schema="passage_v2")
    body = query_body(settings, "true", "exhaustive", 3)
    assert body["model.restrict"] == "passage_v2"
    assert body["yql"] == "select * from passage_v2 where true"
