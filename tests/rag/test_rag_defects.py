"""RAGatouille's defects, by their numbers in the list that docs/reference/ragatouille.md repeats: none of them is here."""

from __future__ import annotations

import time

import numpy as np
import pytest

from colbert_vespa import RAGPretrainedModel
from colbert_vespa.rag.checkpoints import bundle_of
from colbert_vespa.rag.checks import checked_name
from colbert_vespa.rag.memory import EncodedDocuments
from late_interaction.encoder import Encoder
from late_interaction.errors import ArgumentError, CollectionError, LocalIndexError, UsageError
from late_interaction.maxsim import maxsim
from query import Client

WORDS = ("capital of france", "quick brown fox", "wait for a thread", "lock the mutex", "one vector per token")
TEXTS = [f"The {words} once. The {words} twice. The {words} a third time, and then it sleeps." for words in WORDS]
IDS = [f"d{n}" for n in range(len(TEXTS))]
SHORT = {"max_document_length": 24}  # several passages each


def contents(results):
    return {(hit["document_id"], hit["passage_id"]): hit["content"] for hit in results}


def test_defect_03_after_a_deletion_passages_have_their_own_texts_and_ids(rag):
    path = rag.index(TEXTS, IDS, index_name="i", **SHORT)
    before = contents(rag.search("the fox sleeps", k=100))
    assert len(before) == 2 * len(TEXTS)
    for gone in ("d1", "d0"):
        rag.delete_from_index([gone])
        before = {key: text for key, text in before.items() if key[0] != gone}
        assert contents(rag.search("the fox sleeps", k=100)) == before
    assert contents(RAGPretrainedModel.from_index(path).search("the fox sleeps", k=100)) == before


def test_defect_04_the_next_search_sees_what_was_added_and_deleted(rag):
    rag.index(TEXTS[:2], IDS[:2], index_name="i")
    assert {hit["document_id"] for hit in rag.search("lock the mutex")} == {"d0", "d1"}
    rag.add_to_index([TEXTS[3]], ["d3"])
    assert {hit["document_id"] for hit in rag.search("lock the mutex")} == {"d0", "d1", "d3"}
    rag.delete_from_index("d3")
    assert {hit["document_id"] for hit in rag.search("lock the mutex")} == {"d0", "d1"}


def test_defect_05_an_index_that_is_not_loaded_can_be_added_to(rag, tiny_bundle, tmp_path):
    path = rag.index(TEXTS[:1], IDS[:1], index_name="i")
    RAGPretrainedModel.from_pretrained(tiny_bundle.path).add_to_index([TEXTS[1]], ["d1"], index_name="i")
    RAGPretrainedModel.from_index(path).add_to_index([TEXTS[2]], ["d2"])
    assert {hit["document_id"] for hit in RAGPretrainedModel.from_index(path).search("fox")} == {"d0", "d1", "d2"}
    assert [folder.name for folder in (tmp_path / ".ragatouille/colbert/indexes").iterdir()] == ["i"]


def test_defect_06_an_index_without_a_name_is_the_one_that_was_named_last(rag, tiny_bundle):
    assert rag.index(TEXTS[:1]).endswith(f"/{tiny_bundle.path.name}_new_index")
    assert rag.index(TEXTS[:1], index_name="mine").endswith("/mine")
    assert rag.index(TEXTS[:2], IDS[:2]).endswith("/mine")
    assert {hit["document_id"] for hit in rag.search("fox")} == {"d0", "d1"}


def test_defect_07_another_index_is_searched_with_its_own_texts_and_ids(rag):
    rag.index(TEXTS[:2], ["a0", "a1"], index_name="a")
    rag.index(TEXTS[2:], ["b2", "b3", "b4"], index_name="b")
    for name, ids, texts in (
        ("a", {"a0", "a1"}, TEXTS[:2]),
        ("b", {"b2", "b3", "b4"}, TEXTS[2:]),
        ("a", {"a0", "a1"}, TEXTS[:2]),
    ):
        found = rag.search("the mutex", index_name=name)
        assert {hit["document_id"] for hit in found} == ids
        assert {hit["content"] for hit in found} == set(texts)


@pytest.mark.parametrize("force_fast", [False, True])
def test_defect_08_there_are_k_results_where_there_are_k_passages(rag, force_fast):
    rag.index([f"{TEXTS[n % 5]} number {n}" for n in range(120)], index_name="i")
    assert len(rag.search("one vector", k=110, force_fast=force_fast)) == 110
    assert len(rag.search("one vector", k=9_999, force_fast=force_fast)) == 120


def test_defect_09_doc_ids_hold_for_every_query_of_a_list(rag):
    rag.index(TEXTS, IDS, index_name="i", **SHORT)
    for found in rag.search(["fox", "mutex", "thread"], doc_ids=["d2", "d4", "nobody"]):
        assert {hit["document_id"] for hit in found} == {"d2", "d4"}
    assert rag.search("fox", doc_ids=["nobody"]) == []
    assert rag.search("fox", doc_ids=[]) == []


def test_defect_10_metadata_can_be_filtered(rag):
    rag.index(TEXTS, IDS, [{"year": 2020 + n, "lang": "en" if n % 2 else "fr"} for n in range(5)], index_name="i")
    found = rag.search("fox", where={"year": {"$gte": 2021}, "lang": "en"})
    assert {hit["document_id"] for hit in found} == {"d1", "d3"}
    assert all(hit["document_metadata"]["lang"] == "en" for hit in found)


def test_defect_11_encoded_documents_keep_their_metadata_for_every_query(rag):
    rag.encode(TEXTS[:2])
    rag.encode(TEXTS[2:4], document_metadatas=[{"n": 2}, {"n": 3}])
    rag.encode(TEXTS[4:])
    for found in rag.search_encoded_docs(["fox", "mutex"], k=100):
        assert [hit["rank"] for hit in found] == [1, 2, 3, 4, 5]
        known = {hit["result_index"]: hit.get("document_metadata") for hit in found}
        assert known == {0: None, 1: None, 2: {"n": 2}, 3: {"n": 3}, 4: None}
        assert all(hit["content"] == TEXTS[hit["result_index"]] for hit in found)


def test_defect_12_ranks_begin_at_one_everywhere_or_at_zero_everywhere(rag):
    rag.index(TEXTS, index_name="i")
    rag.encode(TEXTS)
    for first, zero in ((1, False), (0, True)):
        searched = rag.search("fox", zero_index_ranks=zero)
        reranked = rag.rerank("fox", TEXTS, zero_index_ranks=zero)
        encoded = rag.search_encoded_docs("fox", zero_index_ranks=zero)
        for found in (searched, reranked, encoded):
            assert [hit["rank"] for hit in found] == list(range(first, first + 5))


def test_defect_12b_scores_do_not_depend_on_other_queries_of_the_batch(rag):
    rag.index(TEXTS, IDS, index_name="i")
    rag.encode(TEXTS)
    batch = ["fox", "what is the capital of france and who waits for a thread to finish there " * 4, "lock"]
    assert rag.search(batch) == [rag.search(query) for query in batch]
    assert rag.rerank(batch, TEXTS) == [rag.rerank(query, TEXTS) for query in batch]
    assert rag.search_encoded_docs(batch) == [rag.search_encoded_docs(query) for query in batch]


def test_defect_12b_force_fast_acts_at_every_call(rag, monkeypatch):
    rag.index(TEXTS, index_name="i")
    efforts = []
    real = Client.search_many
    monkeypatch.setattr(Client, "search_many", lambda self, *args, **named: efforts.append(named) or real(self, *args, **named))
    for fast in (False, True, False, True):
        rag.search("fox", k=3, force_fast=fast)
    assert [(named["probes"], named["rerank"]) for named in efforts] == [(None, None), (1, 3), (None, None), (1, 3)]


def test_defect_13_no_padding_is_scored(rag, tiny_bundle):
    """A short document beside a long one has the score that it has alone, and negative similarities count."""
    long = " ".join(TEXTS * 4)
    rag.encode(["fox", long])
    beside = {hit["content"]: hit["score"] for hit in rag.search_encoded_docs("mutex")}
    encoder = Encoder(tiny_bundle)
    exact = maxsim(encoder.encode_queries(["mutex"])[0], encoder.encode_documents(["fox"])[0])
    assert beside["fox"] == pytest.approx(exact, abs=1e-5)
    assert rag.rerank("mutex", ["fox", long], k=2)[-1]["score"] == pytest.approx(min(beside.values()), abs=1e-5)
    kept = EncodedDocuments(2)
    kept.add(["away", "far"], [np.array([[-1, 0]], np.float32), np.array([[-0.6, -0.8]] * 3, np.float32)], [None, None])
    assert kept.best(np.array([[1, 0]], np.float32), 5) == [(1, pytest.approx(-0.6)), (0, -1.0)]


def test_defect_14_nothing_sleeps(rag, monkeypatch):
    def refuse(seconds):
        raise AssertionError(f"slept {seconds} seconds")

    rag.index(TEXTS[:1], index_name="i")
    monkeypatch.setattr(time, "sleep", refuse)
    rag.index(TEXTS[:1], index_name="i", overwrite_index=True)
    rag.encode(TEXTS[:1])
    rag.clear_encoded_docs()


def test_defect_19_langchain_keeps_ids_and_scores_and_leaves_documents_alone(rag):
    pytest.importorskip("colbert_vespa.langchain")
    from langchain_core.documents import Document

    rag.index(TEXTS, IDS, [{"n": n} for n in range(5)], index_name="i")
    best = rag.search("fox", k=1)[0]
    found = rag.as_langchain_retriever(k=1).invoke("fox")[0]
    assert found.page_content == best["content"]
    assert found.metadata["n"] == best["document_metadata"]["n"]
    assert (found.id, found.metadata["score"]) == (best["document_id"], best["score"])
    assert found.metadata["passage_id"] == f"{best['document_id']}#{best['passage_id']}"
    given = [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    kept = rag.as_langchain_document_compressor(k=2).compress_documents(given, "fox")
    assert len(kept) == 2
    assert given == [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]


def test_a_mistyped_index_name_is_an_error_once_and_not_remembered(rag):
    rag.index(TEXTS[:2], IDS[:2], index_name="i")
    calls = [
        lambda: rag.search("lock the mutex", index_name="typo"),
        lambda: rag.add_to_index([TEXTS[2]], ["d2"], index_name="typo"),
        lambda: rag.delete_from_index("d0", index_name="typo"),
        lambda: rag.versions("typo"),
        lambda: rag.as_langchain_retriever(index_name="typo"),
    ]
    for call in calls:
        with pytest.raises(LocalIndexError, match="no index 'typo'"):
            call()
        assert {hit["document_id"] for hit in rag.search("lock the mutex")} == {"d0", "d1"}
    rag.index(TEXTS[2:3], IDS[2:3], index_name="j")
    assert len(rag.search("lock the mutex", index_name="i")) == 2
    assert len(rag.search("lock the mutex")) == 2  # the last that was named


@pytest.mark.parametrize("name", ["", " ", None, 5])
def test_a_checkpoint_without_a_name_is_not_the_current_folder(name):
    with pytest.raises(UsageError, match="checkpoint: "):
        bundle_of(name, print)


def test_a_name_of_an_index_is_text():
    with pytest.raises(ArgumentError, match="index_name 5 is not valid"):
        checked_name(5)


def test_an_index_is_not_made_of_no_text(rag):
    with pytest.raises(CollectionError, match="1 documents were read, but none has text"):
        rag.index([" "], index_name="blank")
    with pytest.raises(LocalIndexError, match="blank"):
        rag.search("x", index_name="blank")
