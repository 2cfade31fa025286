"""One hit a document."""

import dataclasses

import pytest

from late_interaction.documents import Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from query import Client
from query.grouping import grouped
from query.types import Hit, SearchResult

PASSAGES = 5  # of each document
QUERIES = ("parse command line options", "wait for a thread to finish")


@pytest.fixture(scope="module")
def parted(tmp_path_factory, stdlib_sample, minilm_bundle, minilm_encoder):
    """Every five documents of the sample as the passages of one."""
    path = tmp_path_factory.mktemp("parted") / "index"
    index = LocalIndex.create(path, bundle=minilm_bundle, schema=MetadataSchema({}))
    bare = [dataclasses.replace(d, id=f"d{n // PASSAGES}", metadata={}) for n, d in enumerate(stdlib_sample)]
    passages = [Passage.of(d, n % PASSAGES) for n, d in enumerate(bare)]
    vectors = minilm_encoder.encode_documents([passage.encoded_text for passage in passages])
    with index.writer() as writer:
        for passage, rows in zip(passages, vectors, strict=True):
            writer.put(passage, rows)
        writer.commit()
    return Client(str(path))


@pytest.mark.parametrize("candidates", ["centroid", "bm25", "hybrid", "exhaustive"])
def test_each_document_comes_once_with_its_best_passage(parted, candidates):
    for query in QUERIES:
        everything = parted.search(query, 400, candidates=candidates, rerank=500).hits
        best = {}
        for hit in everything:
            best.setdefault(hit.id, hit)
        hits = parted.search(query, 10, candidates=candidates, rerank=500, group=True).hits
        assert [(h.id, h.passage_id) for h in hits] == [(h.id, h.passage_id) for h in list(best.values())[:10]]
        assert [hit.rank for hit in hits] == list(range(1, 11))


def test_all_documents_come_where_fewer_are_there(parted):
    documents = len({hit.id for hit in parted.search("anything", 1000, candidates="exhaustive").hits})
    assert len(parted.search("anything", 1000, candidates="exhaustive", group=True).hits) == documents


def test_more_is_asked_for_until_there_are_enough_documents():
    asked = []

    def search(count):
        asked.append(count)
        hits = [Hit(n + 1, f"d{n // 100}", f"d{n // 100}#{n}", -n, "", "", {}) for n in range(count)]
        return SearchResult(tuple(hits), "exhaustive", None, count)

    assert [hit.id for hit in grouped(search, 5).hits] == ["d0", "d1", "d2", "d3", "d4"]
    assert asked == [10, 40, 160, 640]
