"""Words are kept with the passages: BM25 over an index is that of its living texts, and is not built when it is asked."""

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.bm25 import Bm25, word_counts
from late_interaction.documents import passage_text
from late_interaction.errors import LocalIndexError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.shards import ShardedIndex, Sharding
from late_interaction.plaid.store import segment as segment_module
from late_interaction.plaid.store import words as words_module
from query.bm25_candidates import WordScores

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 300)
VOCABULARY = [
    *"thread threads join joined lock locks locking file files".split(),
    "the",
    "ÄRGER",
    "naïve",
    "x",
    "1984",
    "日本語",
]
QUERIES = ["locking threads", "file FILES of the lock", "ärger", "日本語 1984", "nothing here", "", "the", "join " * 3]


def text_of(number, turn=0):
    random = np.random.default_rng([number, turn])
    return " ".join(random.choice(VOCABULARY, int(random.integers(0, 30))).tolist())


def put(index, numbers, turn=0):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", text=text_of(number, turn) or " ", n=number), VECTORS[number])
        writer.commit()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture
def index(tmp_path, bundle):
    return LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)


def same_as_over_all_texts(index, where=None):
    texts = {p.id: passage_text(p.title, p.text) for p in index.iter_passages()}
    model = Bm25(list(texts), list(texts.values()))
    allowed = None if where is None else index.selected(parse_filter(where, SCHEMA))
    for query in QUERIES:
        words, parsed = WordScores(index, query), None if where is None else parse_filter(where, SCHEMA)
        found = words.best(400, parsed)
        expected = model.search(query, len(texts), allowed)
        assert found == pytest.approx(dict(expected), rel=1e-4), query
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert list(words.best(7, parsed)) == list(found)[:7]
        assert words.of([*texts, "unknown"]) == words.best(400)


@pytest.mark.parametrize("small", [False, True])
def test_words_of_segments_deletions_and_merges(index, monkeypatch, small):
    if small:
        monkeypatch.setattr(words_module, "RUN_CHARACTERS", 700)
        monkeypatch.setattr(words_module, "BLOCK_POSTINGS", 100)
    put(index, range(150))
    same_as_over_all_texts(index)
    for turn in range(1, 12):  # more than the segments that are kept
        put(index, range(20 * turn, 20 * turn + 30), turn)
    with index.writer() as writer:
        for number in range(0, 250, 3):
            writer.delete_document(f"d{number}")
        writer.update_metadata("d1", {"n": 7000})
        writer.commit()
    same_as_over_all_texts(index)
    same_as_over_all_texts(index, {"n": {"$gte": 100}})
    with index.writer() as writer:
        writer.commit(compact=True)
        writer.add_fields(MetadataSchema({"lang": FieldType.STRING}))
    same_as_over_all_texts(index)
    index.verify()


def test_no_text_is_read_or_counted_when_words_are_asked_for(index, monkeypatch):
    """Formerly the first query after each commit read and indexed all texts."""
    put(index, range(60))
    monkeypatch.setattr(segment_module, "word_run", None)
    monkeypatch.setattr(LocalIndex, "iter_passages", None)
    opened = LocalIndex.open(index.path)
    assert WordScores(opened, "threads").best(5)
    put(index, range(60, 70))
    assert opened.refresh() and WordScores(opened, "threads").best(5)


def test_segments_of_an_earlier_release_are_counted_once(index, monkeypatch):
    monkeypatch.setattr(words_module.WordsWriter, "close", lambda self: {})
    put(index, range(60))
    monkeypatch.undo()
    same_as_over_all_texts(LocalIndex.open(index.path))
    put(index, range(50, 90), 1)
    same_as_over_all_texts(index)
    with index.writer() as writer:
        writer.commit(compact=True)
    monkeypatch.setattr(segment_module, "word_run", None)
    same_as_over_all_texts(LocalIndex.open(index.path))


def test_words_of_shards_have_the_weights_of_one_index(tmp_path, bundle):
    with ShardedIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, sharding=Sharding(3)) as index:
        same_as_over_all_texts(index)
        put(index, range(90))
        same_as_over_all_texts(index)
        same_as_over_all_texts(index, {"n": {"$lt": 40}})


def test_damaged_words_are_an_error_and_not_an_answer(index):
    put(index, range(60))
    for path in index.path.glob("segments/*/words_*.npy"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(LocalIndexError, match=path.name):
            LocalIndex.open(index.path)
        path.write_bytes(data)


@pytest.mark.parametrize("number", [60, -1, 1 << 30])
def test_words_that_name_other_passages_are_found_when_segments_are_joined(index, monkeypatch, number):
    monkeypatch.setattr("late_interaction.plaid.store.storage.IN_MEMORY_BYTES", 0)
    put(index, range(60))
    (path,) = index.path.glob("segments/*/words_postings.npy")
    whole = path.read_bytes()
    path.write_bytes(whole[:128] + number.to_bytes(4, "little", signed=True) + whole[132:])
    with LocalIndex.open(index.path).writer() as writer:
        writer.put(passage("new", text="a lock"), VECTORS[0])
        with pytest.raises(LocalIndexError, match=r"words_postings\.npy"):
            writer.commit(compact=True)


def test_words_are_cut_and_stemmed_as_bm25_does():
    texts = [text_of(number) for number in range(50)] + ["Don't stop: the state-of-the-art_x 3.14 İstanbul ǅ", ""]
    counted, vocabulary = word_counts(texts)
    tokens = Bm25(["a"], ["x"])._tokens(texts)
    names = {number: word for word, number in tokens.vocab.items()}
    for own, reference in zip(counted, tokens.ids, strict=True):
        counts = {}
        for number in reference:
            counts[names[number]] = counts.get(names[number], 0) + 1
        assert {vocabulary[number]: count for number, count in own.items()} == counts
