"""RAGatouille's methods on a real node, beside an index on this machine."""

from __future__ import annotations

import pytest

from colbert_vespa import RAGPretrainedModel

pytestmark = pytest.mark.live

TEXTS = [
    "The harbour lies behind two stone piers. Its lighthouse was built by Ada Corwin.",
    "The bakery opens at five. Its rye bread rises for two days.",
    "The town clock is wound by hand every Monday.",
]
IDS = ["rag harbour", "rag bakery", 'rag "clock"']
WHERE = {"module": "of the rag test"}


@pytest.fixture(scope="module")
def remote(world):
    made = RAGPretrainedModel.from_pretrained(world.bundle.path, address=world.url)
    made.index(TEXTS[:2], IDS[:2], [WHERE, WHERE])
    yield made
    made.delete_from_index(IDS)
    made.close()


def test_answers_are_those_of_a_local_index(world, remote, tmp_path):
    remote.add_to_index(TEXTS[2:], IDS[2:], [WHERE])
    local = RAGPretrainedModel.from_pretrained(world.bundle.path, index_root=str(tmp_path))
    local.index(TEXTS, IDS, [WHERE] * 3, index_name="i")
    queries = ["who built the lighthouse", "when does the bakery open", "how is the clock wound"]
    for query, here, there in zip(queries, local.search(queries, k=3), remote.search(queries, k=3, where=WHERE), strict=True):
        assert [hit["document_id"] for hit in here] == [hit["document_id"] for hit in there], query
        for mine, theirs in zip(here, there, strict=True):
            assert theirs["score"] == pytest.approx(mine["score"], abs=0.2)  # residuals of three texts
            assert mine | {"score": 0} == theirs | {"score": 0}


def test_doc_ids_force_fast_and_explanations(remote):
    found = remote.search("bread", k=5, doc_ids=IDS)
    assert {hit["document_id"] for hit in found} <= set(IDS)
    assert found[0]["document_id"] == "rag bakery"
    assert remote.search("bread", doc_ids=["nobody"]) == remote.search("bread", doc_ids=[]) == []
    best = remote.search("rye bread", k=1, where=WHERE, force_fast=True, explain=True)[0]
    assert [match["passage_word"] for match in best["explanation"]["matches"]] == ["rye", "bread"]


def test_what_is_deleted_is_gone_from_the_next_search(world, remote):
    remote.index(TEXTS[:1], ["rag gone"], [WHERE])
    opened = RAGPretrainedModel.from_index(world.url)
    assert "rag gone" in {hit["document_id"] for hit in opened.search("lighthouse", where=WHERE)}
    remote.delete_from_index("rag gone")
    assert "rag gone" not in {hit["document_id"] for hit in opened.search("lighthouse", where=WHERE)}
    opened.close()
