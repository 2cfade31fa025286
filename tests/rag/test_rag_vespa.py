"""The same methods on a Vespa application; tests/live/test_rag_live.py asks a real one."""

from __future__ import annotations

import json

import pytest

from colbert_vespa import RAGPretrainedModel
from late_interaction.bundle_cache import register_bundle
from late_interaction.errors import ArgumentError, BundleError, MetadataError, UsageError
from late_interaction.metadata import MetadataSchema
from vespa_app import default_settings
from vespa_app.running import Description

LONG = " ".join(f"Sentence number {n} is about the fox and the dog." for n in range(20))


@pytest.fixture
def application(vespa, tiny_bundle):
    settings = default_settings(tiny_bundle, MetadataSchema.from_json({"year": "long"}), candidates=("exhaustive",))
    description = Description(settings, tiny_bundle.sha256, None)
    vespa.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}
    register_bundle(tiny_bundle)
    return vespa


@pytest.fixture(params=["from_pretrained", "from_index"])
def remote(request, application, tiny_bundle):
    if request.param == "from_index":
        made = RAGPretrainedModel.from_index(application.url)
    else:
        made = RAGPretrainedModel.from_pretrained(tiny_bundle.path, address=application.url)
    yield made
    made.close()


def stored(vespa):
    return {id_: document["fields"] for id_, document in vespa.documents.items() if id_ != "current"}


def test_documents_are_put_added_and_deleted(remote, application):
    assert remote.index([LONG, "short"], ["a", "b"], [{"year": 1999}, None], max_document_length=40) == application.url
    first = stored(application)
    texts = [first[f"a#{n}"]["text"] for n in range(len(first) - 1)]
    assert len(texts) > 4
    assert all(text.startswith("Sentence") and text in LONG for text in texts)
    assert (first["a#0"]["year"], first["a#0"]["document_id"], first["b#0"]["text"]) == (1999, "a", "short")
    remote.add_to_index(["third"], ["c"])
    assert stored(application)["c#0"]["text"] == "third"
    remote.delete_from_index("b")
    remote.delete_from_index(["c", "nobody"])
    assert {id_.partition("#")[0] for id_ in stored(application)} == {"a"}


def test_an_application_is_not_emptied(remote, application):
    remote.index(["one"], ["a"])
    remote.index(["two"], ["b"], overwrite_index=True)
    assert set(stored(application)) == {"a#0", "b#0"}
    remote.index(["three"], ["c"], overwrite_index="reuse")
    assert set(stored(application)) == {"a#0", "b#0"}
    with pytest.raises(ArgumentError, match="exists"):
        remote.index(["three"], ["c"], overwrite_index=False)
    with pytest.raises(MetadataError, match="color"):
        remote.add_to_index(["four"], ["d"], [{"color": "red"}])


def test_results_have_the_same_keys(remote, application):
    fields = {"id": "a#3", "document_id": "a", "text": "a passage", "title": "", "year": 1999, "present": ["year"]}
    hit = {"relevance": 7.5, "fields": fields | {"sddocname": "passage", "matchfeatures": {}}}
    application.search_answer = {"root": {"fields": {"totalCount": 1}, "coverage": {"coverage": 100}, "children": [hit]}}
    found = remote.search("fox", k=3, doc_ids=["a", 'say "so"'], where={"year": 1999}, zero_index_ranks=True)
    assert found == [
        {
            "content": "a passage", "score": 7.5, "rank": 0, "document_id": "a", "passage_id": 3,
            "document_metadata": {"year": 1999},
        }
    ]  # fmt: skip
    body = application.search_bodies[-1]
    assert body["hits"] == 3
    assert r'document_id in ("a", "say \"so\"")' in body["yql"]
    assert "year" in body["yql"]
    remote.search("fox", doc_ids=[])
    assert application.search_bodies[-1]["yql"].endswith("and false")


def test_what_vespa_has_not(remote, application, tiny32_bundle):
    with pytest.raises(UsageError, match="only local indexes have versions"):
        remote.versions()
    with pytest.raises(UsageError, match="only local indexes have versions"):
        RAGPretrainedModel.from_index(application.url, version=1)
    with pytest.raises(UsageError, match="no index 'other'"):
        remote.search("fox", index_name="other")
    with pytest.raises(BundleError, match="is not the bundle"):
        RAGPretrainedModel.from_pretrained(tiny32_bundle.path, address=application.url).search("fox")
