"""The local index against the exact oracle, and what it promises about k, ids, versions and errors."""

import math
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, passage, queries_from, token_vectors, unit

from late_interaction.bundle import Bundle
from late_interaction.codebook_training import train_codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, MetadataError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim, maxsim_many
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings, open_index
from late_interaction.plaid.shards import ShardedIndex

SCHEMA = MetadataSchema({"year": FieldType.LONG, "tags": FieldType.STRINGS})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


def filled(path, bundle, vectors, schema=SCHEMA, parts=1, **options):
    index = LocalIndex.create(path, bundle=bundle, schema=schema, **options)
    with index.writer() as writer:
        for part in range(parts):
            for i in range(part, len(vectors), parts):
                metadata = {"year": 2000 + i % 10} if "year" in schema.fields else {}
                writer.put(passage(f"d{i}", **metadata), vectors[i])
            writer.commit()
    return index


@pytest.fixture(scope="module")
def corpus():
    return token_vectors(np.random.default_rng(0), 900)


@pytest.fixture(scope="module")
def index(tmp_path_factory, bundle, corpus):
    return filled(tmp_path_factory.mktemp("index") / "i", bundle, corpus, parts=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bundle, corpus):
    """All in one commit, so that the codebook is trained on everything."""
    return filled(tmp_path_factory.mktemp("index") / "i", bundle, corpus)


def ids(result):
    return [hit.passage.document_id for hit in result.hits]


def by_oracle(index, Q, k, keep=lambda p: True):
    passages = [p for p in index.iter_passages() if keep(p)]
    vectors = [index.vectors(p.id) for p in passages]
    scores = maxsim_many(Q, np.concatenate(vectors), [len(v) for v in vectors])
    order = np.argsort(-scores, kind="stable")[:k]
    return [passages[i].document_id for i in order], scores[order]


def test_exact_search_equals_the_oracle_on_decoded_vectors(index, corpus):
    for Q in queries_from(np.random.default_rng(1), corpus, 10):
        result = index.search(Q, 20, exact=True)
        expected, scores = by_oracle(index, Q, 20)
        assert ids(result) == expected
        assert np.allclose([hit.score for hit in result.hits], scores, atol=1e-4)
        assert result.candidates == result.reranked == 900


@pytest.mark.parametrize("probes", [None, 8, 64])
def test_recall_of_a_search(whole, corpus, probes):
    """Against exact MaxSim of decoded vectors, and of the vectors as they were before compression."""
    lengths = [len(v) for v in corpus]
    flat = np.concatenate(corpus)
    decoded, original = [], []
    for Q in queries_from(np.random.default_rng(2), corpus, 40):
        expected = {f"d{i}" for i in np.argsort(-maxsim_many(Q, flat, lengths), kind="stable")[:10]}
        result = whole.search(Q, 10, settings=SearchSettings(probes=probes, rerank=128))
        assert 10 <= result.reranked <= 128
        found = set(ids(result))
        original.append(len(expected & found) / 10)
        decoded.append(len(set(ids(whole.search(Q, 10, exact=True))) & found) / 10)
    assert np.mean(decoded) >= 0.97
    assert np.mean(original) >= 0.92


def test_the_default_reranks_about_as_many_token_vectors_whatever_a_passage_has(whole, bundle, tmp_path):
    random = np.random.default_rng(4)
    long = filled(tmp_path / "long", bundle, [unit(random.standard_normal((200, DIM), np.float32)) for _ in range(400)])
    Q = unit(random.standard_normal((4, DIM), np.float32))
    assert 5 <= long.search(Q, 5).reranked <= 24_576 // 200
    assert 30 <= long.search(Q, 30).reranked <= 24_576 // 200
    assert whole.search(Q, 5).reranked == 900  # all of them: they have fewer vectors


def test_scores_are_those_of_score_vectors_and_maxsim(index, corpus):
    Q = queries_from(np.random.default_rng(3), corpus, 1)[0]
    hits = index.search(Q, 5).hits
    scores = index.score(Q, [hit.passage.id for hit in hits] + ["nowhere#0"])
    assert list(scores) == [hit.passage.id for hit in hits]
    for hit in hits:
        assert scores[hit.passage.id] == pytest.approx(hit.score, abs=1e-5)
        assert maxsim(Q, index.vectors(hit.passage.id)) == pytest.approx(hit.score, abs=1e-4)
        assert hit.approximate <= hit.score + 4


def test_decoded_vectors_are_close_to_the_originals(index, corpus):
    for i in (0, 1, 450, 899):
        assert (np.sum(index.vectors(f"d{i}#0") * corpus[i], axis=1) > 0.97).all()


def test_counts_and_sizes(index, corpus):
    assert (index.passages, index.documents, index.version) == (900, 900, 3)
    assert index.token_vectors == sum(map(len, corpus))
    assert DIM / 2 < index.bytes_per_token < DIM / 2 + 10


@pytest.mark.parametrize("probes", [None, 1])
@pytest.mark.parametrize("k", [1, 899, 900, 5000])
def test_k_hits_are_guaranteed(index, corpus, k, probes):
    """Also where the lists of the probed centroids hold fewer than k passages."""
    Q = queries_from(np.random.default_rng(4), corpus, 1, rows=1)[0]
    result = index.search(Q, k, settings=SearchSettings(probes=probes, rerank=1))
    assert len(result.hits) == len(set(ids(result))) == min(k, 900)
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)


def test_widening_is_said(bundle, tmp_path):
    """Two far-apart groups: the nearest list holds one group only, and k asks for more."""
    random = np.random.default_rng(0)
    poles = np.eye(DIM, dtype=np.float32)
    vectors = [unit(poles[[i % DIM]] + 0.02 * random.standard_normal((1, DIM))) for i in range(6000)]
    index = filled(tmp_path / "i", bundle, vectors)
    settings = SearchSettings(probes=1, rerank=1)
    assert not index.search(poles[:1], 3, settings=settings).widened
    result = index.search(poles[:1], 1000, settings=settings)
    assert result.widened
    assert len(result.hits) == 1000


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 100])
def test_queries_of_any_number_of_rows(index, corpus, rows):
    Q = unit(np.random.default_rng(rows).standard_normal((rows, DIM)))
    result = index.search(Q, 3)
    assert len(result.hits) == (3 if rows else 0)


def test_equal_scores_come_in_order_of_insertion(bundle, tmp_path):
    vectors = token_vectors(np.random.default_rng(0), 2)
    index = filled(tmp_path / "i", bundle, [vectors[0]] * 500)
    for settings in (None, SearchSettings(probes=64, rerank=40), SearchSettings(probes=2, rerank=40)):
        assert ids(index.search(vectors[0], 5, settings=settings)) == [f"d{i}" for i in range(5)]


def test_an_empty_index(bundle, tmp_path):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    assert (index.version, index.passages, index.documents, index.token_vectors) == (0, 0, 0, 0)
    assert index.bytes_per_token == 0
    assert index.codebook is None
    assert index.search(np.ones((2, DIM), np.float32), 5).hits == []
    assert index.search(np.ones((2, DIM), np.float32), 5, exact=True).hits == []
    assert list(index.iter_passages()) == []
    assert index.passage("x#0") is None
    assert index.score(np.ones((2, DIM), np.float32), ["x#0"]) == {}
    index.verify()
    with index.writer() as writer:
        assert writer.commit().version == 0


def test_one_passage(bundle, tmp_path):
    vectors = token_vectors(np.random.default_rng(0), 1)
    index = filled(tmp_path / "i", bundle, vectors)
    assert ids(index.search(vectors[0], 10)) == ["d0"]
    assert index.passage("d0#0") == passage("d0", year=2000)


def test_passages_without_rows_are_kept_but_never_found(bundle, tmp_path):
    """Also where the first commit has no vector at all, and so no codebook can be trained yet."""
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    nothing = np.empty((0, DIM), np.float32)
    Q = np.ones((1, DIM), np.float32)
    with index.writer() as writer:
        writer.put(passage("blank"), nothing)
        writer.commit()
        assert index.search(Q, 5).hits == []
        assert index.vectors("blank#0").shape == (0, DIM)
        assert index.score(Q, ["blank#0"]) == {"blank#0": -math.inf}
        for i, vectors in enumerate(token_vectors(np.random.default_rng(0), 300)):
            writer.put(passage(f"d{i}"), nothing if i == 7 else vectors)
        writer.commit()
    assert index.passages == 301
    for settings in (None, SearchSettings(probes=1, rerank=5), SearchSettings(probes=64, rerank=5)):
        result = index.search(Q, 400, settings=settings)
        assert len(result.hits) == 299
        assert not {"blank", "d7"} & set(ids(result))
    assert index.score(Q, ["d7#0"]) == {"d7#0": -math.inf}
    assert len(index.search(Q, 400, exact=True).hits) == 299


def test_a_passage_of_very_many_rows(bundle, tmp_path):
    random = np.random.default_rng(0)
    long = unit(random.standard_normal((20_000, DIM)))
    index = filled(tmp_path / "i", bundle, [*token_vectors(random, 5), long, *token_vectors(random, 5)])
    Q = unit(random.standard_normal((6, DIM)))
    result = index.search(Q, 20)
    expected, scores = by_oracle(index, Q, 20)
    assert ids(result) == expected
    assert np.allclose([hit.score for hit in result.hits], scores, atol=1e-4)


def test_texts_of_every_kind_come_back(bundle, tmp_path):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    odd = Passage("a#b#0", "a#b", "", "  naïve 日本語 🎉\n", {"tags": ["", "ü"], "year": -(2**62)})
    with index.writer() as writer:
        writer.put(odd, token_vectors(np.random.default_rng(0), 1)[0])
        writer.commit()
    assert LocalIndex.open(index.path).passage("a#b#0") == odd
    assert list(index.iter_passages()) == [odd]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits(bundle, tmp_path, corpus, bits):
    index = filled(tmp_path / "i", bundle, corpus[:50], bits=bits)
    assert index.codebook.bits == index.bits == bits
    Q = queries_from(np.random.default_rng(1), corpus[:50], 1)[0]
    assert ids(index.search(Q, 5)) == by_oracle(index, Q, 5)[0]


@pytest.mark.parametrize("codec", ["binary", "float32"])
def test_codecs_without_residuals_name_no_bits(bundle, tmp_path, corpus, codec):
    index = filled(tmp_path / "i", bundle, corpus[:20], codec=codec)
    assert index.bits is None
    assert LocalIndex.open(tmp_path / "i").bits is None


def test_the_bundles_codebook_is_taken_with_its_bits(tmp_path, corpus):
    codebook = train_codebook(np.concatenate(corpus), bits=2)
    index = filled(tmp_path / "i", fake_bundle(tmp_path / "b", codebook=codebook), corpus[:20])
    assert index.codebook.sha256 == codebook.sha256
    assert index.bits == 2


def test_bits_that_an_index_cannot_have_are_refused(tmp_path, bundle, corpus):
    """Those of the bundle's codebook were taken instead, silently."""
    two = fake_bundle(tmp_path / "b", codebook=train_codebook(np.concatenate(corpus[:20]), bits=2))
    with pytest.raises(UsageError, match="codebook has 2 bits, not 4; .*--bits 4"):
        LocalIndex.create(tmp_path / "i", bundle=two, schema=SCHEMA, bits=4)
    with pytest.raises(UsageError, match="bits .*not to binary"):
        LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec="binary", bits=1)
    assert not (tmp_path / "i").exists()


def test_builds_are_repeatable_byte_for_byte(monkeypatch, bundle, tmp_path, corpus):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    first, second = (filled(tmp_path / name, bundle, corpus[:60], parts=2) for name in "ab")
    for file in sorted(first.path.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (second.path / file.relative_to(first.path)).read_bytes(), file


def test_filters_select_before_ranking(index, corpus):
    Q = queries_from(np.random.default_rng(5), corpus, 1)[0]
    for where, keep in (
        ({"year": 2003}, lambda p: p.metadata["year"] == 2003),
        ({"year": {"$gte": 2002}}, lambda p: p.metadata["year"] >= 2002),
    ):
        result = index.search(Q, 10, where=parse_filter(where, SCHEMA))
        assert len(set(ids(result)) & set(by_oracle(index, Q, 10, keep)[0])) >= 8
        assert ids(index.search(Q, 10, where=parse_filter(where, SCHEMA), exact=True)) == by_oracle(index, Q, 10, keep)[0]
        assert len(result.hits) == 10
        assert all(keep(hit.passage) for hit in result.hits)


@pytest.mark.parametrize("exact", [False, True])
def test_an_empty_selection_gives_no_hits(index, corpus, exact):
    for where in ({"year": 1900}, {"tags": "x"}, {"year": {"$in": []}}):
        result = index.search(corpus[0], 10, where=parse_filter(where, SCHEMA), exact=exact)
        assert (result.hits, result.candidates, result.reranked) == ([], 0, 0)


def test_misuse_is_named(index, corpus, bundle, tmp_path):
    with pytest.raises(UsageError, match="shape"):
        index.search(corpus[0][:, :-1], 5)
    with pytest.raises(UsageError, match="finite"):
        index.search(np.full((1, DIM), np.nan, np.float32), 5)
    with pytest.raises(UsageError, match="k must"):
        index.search(corpus[0], 0)
    with pytest.raises(UsageError, match="probes"):
        SearchSettings(probes=0)
    with pytest.raises(UsageError, match="bits"):
        LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, bits=3)
    with pytest.raises(LocalIndexError, match="no passage 'x#0'"):
        index.vectors("x#0")


def test_puts_that_do_not_fit_leave_nothing(bundle, tmp_path, corpus):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    with index.writer() as writer:
        with pytest.raises(UsageError, match=r"'d#0'.*shape"):
            writer.put(passage("d"), corpus[0][:, :-1])
        with pytest.raises(UsageError, match="finite"):
            writer.put(passage("d"), np.full((1, DIM), np.inf, np.float32))
        with pytest.raises(MetadataError, match="colour"):
            writer.put(passage("d", colour="red"), corpus[0])
        with pytest.raises(UsageError, match="id"):
            writer.put(Passage("", "", "", "", {}), corpus[0])
        assert writer.commit().passages == 0


def test_create_refuses_a_folder_with_something_in_it(bundle, tmp_path):
    (tmp_path / "i").mkdir()
    LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    with pytest.raises(LocalIndexError, match="not an empty folder"):
        LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    (tmp_path / "f").write_text("")
    with pytest.raises(LocalIndexError, match="not an empty folder"):
        LocalIndex.create(tmp_path / "f", bundle=bundle, schema=SCHEMA)


def test_a_create_that_fails_leaves_nothing(bundle, tmp_path):
    broken = Bundle(tmp_path / "gone", bundle.manifest)
    with pytest.raises(LocalIndexError, match="nothing was written"):
        LocalIndex.create(tmp_path / "i", bundle=broken, schema=SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_the_index_holds_its_bundle(index, bundle):
    assert index.bundle.sha256 == bundle.sha256
    assert index.bundle.path == index.path / "bundle"


def test_no_index(tmp_path):
    with pytest.raises(LocalIndexError, match="no index at"):
        LocalIndex.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocalIndexError, match="empty .*CURRENT"):
        LocalIndex.open(tmp_path / "empty")
    (tmp_path / "file").touch()
    for opening in (LocalIndex.open, open_index, ShardedIndex.open):
        with pytest.raises(LocalIndexError, match=f"{tmp_path}/file is a file, not the folder of an index"):
            opening(tmp_path / "file")


def test_no_file_descriptors_are_left_open(bundle, tmp_path, corpus):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    before = len(list(descriptors.iterdir()))
    filled(tmp_path / "i", bundle, corpus[:30], parts=3)
    assert len(list(descriptors.iterdir())) <= before


def test_the_bundle_is_read_once_for_all_that_is_pinned(index, monkeypatch):
    opened = LocalIndex.open(index.path)
    read = []
    real = Bundle.open.__func__
    monkeypatch.setattr(
        Bundle, "open", classmethod(lambda cls, *args, **options: read.append(1) or real(cls, *args, **options))
    )
    assert opened.pinned().bundle is opened.pinned().bundle is opened.bundle
    assert len(read) == 1
