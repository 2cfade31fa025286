"""The vocabulary id of every row goes with its vector from the tokenizing to where a centroid is assigned to it."""

import dataclasses

import numpy as np
import pytest

from feeder import FeedOptions, Splitting, start_feed
from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.bundle import Pooling, write_manifest
from late_interaction.codebook import Codebook
from late_interaction.documents import Document, Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import open_index
from late_interaction.plaid.shards import Sharding
from late_interaction.plaid.writing.writer import IndexWriter
from late_interaction.tokenizing import Tokenizing
from vespa_app import default_settings
from vespa_app.candidates import STRATEGIES
from vespa_app.running import Application, Description

TEXTS = ["Wait for a thread to finish. " * 4, "Return the value.", "", "Sort, close: the (file); at once! " * 5]
DOCUMENTS = [Document(f"d{n}", f"title {n}", text) for n, text in enumerate(TEXTS)]


@pytest.fixture
def puts(monkeypatch):
    """(passage, vectors, ids) of every put of a local writer."""
    found, put = [], IndexWriter.put

    def recording(writer, passage, vectors, token_ids=None, dense=None):
        found.append((passage, vectors, token_ids))
        put(writer, passage, vectors, token_ids, dense)

    monkeypatch.setattr(IndexWriter, "put", recording)
    return found


@pytest.fixture
def assigned(monkeypatch):
    """(vectors, ids) of every assignment."""
    found, assign = [], Codebook.assign_near

    def recording(book, vectors, token_ids=None):
        found.append((np.array(vectors), token_ids))
        return assign(book, vectors, token_ids)

    monkeypatch.setattr(Codebook, "assign_near", recording)
    return found


def fed(bundle, root, **options):
    options = FeedOptions(
        to=str(root / "i"), bundle=bundle, journal=root / "j", splitting=Splitting("sentences", 16, 4), **options
    )  # fmt: skip
    with start_feed([DOCUMENTS], options) as run:
        return run.go()


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {"workers": 1}, {"cache": "cache"}, {"workers": 0, "sharding": Sharding(2)}],
    ids=["here", "worker", "cached", "shards"],
)
def test_a_feed_puts_the_id_of_each_row(tiny_bundle, tmp_path, puts, options):
    for _ in range(2 if "cache" in options else 1):
        puts.clear()
        where = tmp_path / str(len(list(tmp_path.iterdir())))
        where.mkdir()
        summary = fed(tiny_bundle, where, **options | ({"cache": tmp_path / "cache"} if "cache" in options else {}))
        tokenizing = Tokenizing(tiny_bundle)
        assert len(puts) == summary.passages > len(DOCUMENTS)
        for passage, vectors, token_ids in puts:
            [rows] = tokenizing.documents([passage.encoded_text])
            assert token_ids.dtype == np.int32
            assert token_ids.tolist() == rows.ids[rows.keep].tolist()
            assert len(token_ids) == len(vectors)
            assert len(set(token_ids.tolist())) > 3


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_that_pooling_has_merged_have_no_ids(tiny_bundle, tmp_path, puts, workers):
    (tmp_path / "b").mkdir()
    tiny_bundle.copy_to(tmp_path / "b")
    pooled = write_manifest(tmp_path / "b", dataclasses.replace(tiny_bundle.manifest, pooling=Pooling(2)))
    assert len(puts) == 0
    assert fed(pooled, tmp_path, workers=workers).passages == len(puts) > 0
    assert {token_ids is None for _, _, token_ids in puts} == {True}
    assert open_index(tmp_path / "i").passages == len(puts)


def encoded(id_, counts, first=None):
    """Passages of so many rows; `first`: of their ids, if they are known."""
    random = np.random.default_rng(len(id_) + sum(counts))
    document = Document(id_, "title", "text")
    vectors = [random.standard_normal((count, 16)).astype(np.float32) for count in counts]
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    ids = () if first is None else np.split(np.arange(first, first + sum(counts), dtype=np.int32), np.cumsum(counts)[:-1])
    passages = tuple(Passage.of(document, number) for number in range(len(counts)))
    return EncodedDocument(document, passages, tuple(vectors), "D", token_ids=tuple(ids))


@pytest.fixture
def put_into_vespa(vespa, codebook_bundle):
    def put(items, **changes):
        settings = dataclasses.replace(default_settings(codebook_bundle, MetadataSchema({})), **changes)
        target = VespaTarget(Application(vespa.url, Description(settings, codebook_bundle.sha256, None)), codebook_bundle)
        try:
            target.put(items)
            assert {done.document_id: done.failure for done in target.settled(wait=True)} == {
                i.document.id: None for i in items
            }
        finally:
            target.close()

    return put


def test_vespas_centroids_are_assigned_by_id(put_into_vespa, assigned):
    """Also beside a document whose ids are not known, as in a copy."""
    items = [encoded("a", [3, 2], 100), encoded("bb", [4]), encoded("ccc", [1, 1], 200)]
    put_into_vespa(items, candidates=("centroid",))
    [(vectors, token_ids)] = assigned
    assert np.array_equal(vectors, np.concatenate([rows for item in items for rows in item.vectors]))
    assert token_ids.tolist() == [*range(100, 105), *[-1] * 4, 200, 201]
    assigned.clear()
    put_into_vespa([encoded("bb", [4])], candidates=("centroid",))
    assert [token_ids for _, token_ids in assigned] == [None]


def test_a_strategy_gets_the_ids_of_each_document(put_into_vespa, monkeypatch):
    contexts, real = [], type(STRATEGIES["centroid"]).document_fields

    def recording(strategy, vectors, context):
        contexts.append((vectors, context))
        return real(strategy, vectors, context)

    monkeypatch.setattr(type(STRATEGIES["centroid"]), "document_fields", recording)
    items = [encoded("a", [3, 2], 100), encoded("bb", [4])]
    put_into_vespa(items, candidates=("centroid",))
    ids = [None if context.token_ids is None else context.token_ids.tolist() for _, context in contexts]
    assert ids == [[100, 101, 102], [103, 104], None]
    for vectors, context in contexts:
        alone = dataclasses.replace(context, codes=None)
        assert real(STRATEGIES["centroid"], vectors, alone) == real(STRATEGIES["centroid"], vectors, context)
