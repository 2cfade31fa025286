"""An index of shards answers as one without: hits, scores, filters, histories; and its folder."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from filter_model import matches
from hypothesis import given, settings
from hypothesis import strategies as st
from plaid_tools import DENSE, DIM, check_dense, dense_of, fake_bundle, passage, queries_from, token_vectors, worker_pids

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError, MetadataError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings, Storage, open_index
from late_interaction.plaid.shards import ShardedIndex, Sharding, ShardSettings

SCHEMA = MetadataSchema({"n": FieldType.LONG, "word": FieldType.STRING, "tags": FieldType.STRINGS})
VECTORS = token_vectors(np.random.default_rng(0), 200)
# cells are multiples of 1/8, so that products and sums are exact in float32 whatever their order; and many scores are equal
GRID = [np.round(2 * rows) / 8 for rows in VECTORS]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    codebook = train_codebook(np.concatenate(VECTORS), bits=4, centroids=32)
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", codebook=codebook, dense=DENSE)


@pytest.fixture(scope="module")
def plain_bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


def made(root, bundle, count=3, field=None, storage=None):
    return ShardedIndex.create(
        root, bundle=bundle, schema=SCHEMA, sharding=Sharding(count, field), storage=storage,
        settings=ShardSettings(timeout=120, start=120),
    )  # fmt: skip


def numbered(number, word=None, turn=0):
    chosen = f"w{number % 5}" if word is None else word
    return passage(f"d{number}", text=f"text {turn}", n=number, word=chosen, tags=[f"t{number % 3}", "all"])


def test_a_system_that_does_not_say_which_cores_are_ours(tmp_path, bundle, monkeypatch):
    """macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with made(tmp_path / "i", bundle) as index:
        assert index.passages == 0


def fill(index, numbers, vectors=VECTORS):
    with index.writer() as writer:
        for number in numbers:
            writer.put(numbered(number), vectors[number % len(vectors)], dense=dense_of(index, number))
        return writer.commit()


def same_answers(result, expected, k):
    """Scores are equal to the bit; hits of one score are the same, but for the last score where k cuts equal ones."""
    scores = [hit.score for hit in expected.hits]
    assert [hit.score for hit in result.hits] == scores
    for score in set(scores):
        found = {hit.passage.id for hit in result.hits if hit.score == score}
        wanted = {hit.passage.id for hit in expected.hits if hit.score == score}
        assert found == wanted or (score == scores[-1] and len(scores) == k and len(found) == len(wanted))


@pytest.fixture(scope="module")
def pair(tmp_path_factory, bundle):
    """The same 200 passages, as they are, in one index and in three shards."""
    folder = tmp_path_factory.mktemp("pair")
    one = LocalIndex.create(folder / "one", bundle=bundle, schema=SCHEMA, codec="float32")
    many = made(folder / "many", bundle, storage=Storage("float32"))
    fill(one, range(200), GRID)
    fill(many, range(200), GRID)
    yield one, many
    many.close()


FILTERS = st.sampled_from(
    [None, {"word": "w1"}, {"n": {"$lt": 40}}, {"n": {"$gte": 1e9}}, {"$not": {"word": {"$in": ["w0", "w2"]}}},
     {"$or": [{"tags": "t1"}, {"n": 7}]}, {"word": {"$exists": False}}, {"$and": [{"tags": "all"}, {"n": {"$lte": 99.0}}]}]
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.integers(0, 199), st.integers(1, 8), st.integers(1, 250), FILTERS,
    st.none() | st.lists(st.integers(0, 220), max_size=60),
)  # fmt: skip
def test_answers_of_shards_are_those_of_one_index(pair, number, rows, k, where, chosen):
    one, many = pair
    Q = GRID[number][np.arange(rows) % len(GRID[number])]
    options = {
        "where": parse_filter(where, SCHEMA) if where else None,
        "ids": None if chosen is None else [f"d{n}" for n in chosen],
        "exact": True,
    }
    found, expected = many.search(Q, k, **options), one.search(Q, k, **options)
    same_answers(found, expected, k)
    assert (found.coverage, found.missing, found.candidates) == (1.0, (), expected.candidates)


@pytest.mark.parametrize(
    "form, count",
    [(Storage("float32"), 1), (Storage("residual"), 3), (Storage("binary"), 2), (Storage("residual", refine=True), 2)],
)
def test_every_codec_with_a_codebook_that_shards_share(tmp_path, bundle, form, count):
    one = LocalIndex.create(tmp_path / "one", bundle=bundle, schema=SCHEMA, codec=form.codec, refine=form.refine)
    fill(one, range(120))
    with made(tmp_path / "many", bundle, count, storage=form) as many:
        fill(many, range(120))
        for Q in queries_from(np.random.default_rng(1), VECTORS[:120], 10):
            found, expected = many.search(Q, 10, exact=True).hits, one.search(Q, 10, exact=True).hits
            scores = {hit.passage.id: hit.score for hit in one.search(Q, 120, exact=True).hits}
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
            assert [hit.score for hit in found] == pytest.approx([scores[hit.passage.id] for hit in found], abs=1e-5)


def test_shards_that_train_a_codebook_rank_by_their_decoded_vectors(tmp_path, plain_bundle):
    with made(tmp_path / "i", plain_bundle, 2) as index:
        fill(index, range(150))
        Q = queries_from(np.random.default_rng(2), VECTORS[:150], 1)[0]
        found = index.search(Q, 150, exact=True).hits
        truth = {f"d{n}#0": maxsim(Q, index.vectors(f"d{n}#0")) for n in range(150)}
        assert [hit.score for hit in found] == pytest.approx(sorted(truth.values(), reverse=True), abs=1e-4)
        assert {hit.passage.id: pytest.approx(hit.score, abs=1e-4) for hit in found} == truth


def test_without_exact_k_is_guaranteed_and_settings_reach_the_shards(pair):
    _, many = pair
    for settings_ in (None, SearchSettings(probes=1, rerank=5)):
        found = many.search(GRID[3], 60, settings=settings_)
        assert len(found.hits) == 60 and len({hit.passage.id for hit in found.hits}) == 60
        assert found.reranked >= 60


@pytest.mark.parametrize("where", [None, {"word": "w1"}, {"n": {"$lt": 2}}, {"word": "none"}])
def test_dense_answers_of_shards_are_those_of_one_index(pair, where):
    one, many = pair
    numbers = {f"d{n}#0": n for n in range(200) if where is None or matches(where, numbered(n).metadata)}
    parsed = parse_filter(where, SCHEMA) if where else None
    check_dense(one, numbers, parsed)
    check_dense(many, numbers, parsed)
    asked = dense_of(one, 500)["other"]
    chosen = [f"d{n}" for n in range(0, 300, 7)]
    expected = one.dense_search("other", asked, 50, where=parsed, ids=chosen)
    assert many.dense_search("other", asked, 50, where=parsed, ids=chosen) == expected
    with pytest.raises(UsageError, match="no dense model 'nothing': its dense models are dense, other"):
        many.dense_search("nothing", asked, 5)


def test_a_batch_has_the_answers_of_single_searches(pair):
    _, many = pair
    queries = [GRID[3], GRID[5][:1], GRID[9]]
    single = [many.search(Q, 7, exact=True) for Q in queries]
    assert [r.hits for r in many.search_many(queries, 7, exact=True)] == [r.hits for r in single]
    assert many.search_many([], 7) == []


def test_scores_by_passage_id(pair):
    one, many = pair
    ids = ["d5#0", "d6#0", "nowhere", "d7#0"]
    assert many.score(GRID[4], ids) == one.score(GRID[4], ids)
    assert list(many.score(GRID[4], ids)) == ["d5#0", "d6#0", "d7#0"]


def test_counts_passages_and_masks(pair):
    one, many = pair
    assert (many.passages, many.token_vectors, many.dim) == (one.passages, one.token_vectors, DIM)
    assert {p.id: p for p in many.iter_passages()} == {p.id: p for p in one.iter_passages()}
    assert many.passage("d8#0") == one.passage("d8#0") and many.passage("nowhere") is None
    assert np.array_equal(many.vectors("d8#0"), GRID[8])
    where = parse_filter({"word": "w1"}, SCHEMA)
    chosen = [p.id for p, wanted in zip(many.iter_passages(), many.selected(where), strict=True) if wanted]
    assert sorted(chosen) == sorted(f"d{n}#0" for n in range(1, 200, 5))
    with pytest.raises(LocalIndexError, match="no passage 'nowhere'"):
        many.vectors("nowhere")


def test_an_empty_index_an_empty_selection_and_a_query_without_rows(tmp_path, bundle):
    with made(tmp_path / "i", bundle) as index:
        assert index.search(VECTORS[0], 5).hits == []
        fill(index, [1])  # of three shards, two stay empty
        assert [hit.passage.id for hit in index.search(VECTORS[0], 5).hits] == ["d1#0"]
        assert index.search(VECTORS[0], 5, where=parse_filter({"n": 2}, SCHEMA)).hits == []
        assert index.search(VECTORS[0], 5, ids=[]).hits == []
        assert index.search(np.empty((0, DIM), np.float32), 5).hits == []
        assert index.search(VECTORS[0], 5, where=parse_filter({"n": 2}, SCHEMA)).coverage == 1.0


@pytest.mark.parametrize("Q, k", [(VECTORS[0], 0), (VECTORS[0][:, :3], 5), (np.full((1, DIM), np.nan), 5)])
def test_wrong_queries_are_refused_before_any_shard_is_asked(tmp_path, bundle, Q, k):
    index = made(tmp_path / "i", bundle)
    with pytest.raises(UsageError):
        index.search(Q, k)
    assert worker_pids(index) == {}


def test_a_closed_index_does_not_start_workers_again(tmp_path, bundle):
    index = made(tmp_path / "i", bundle)
    index.close()
    with pytest.raises(UsageError, match="closed"):
        index.search(VECTORS[0], 3)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 63), st.sampled_from(["", "a", "b", "c", "d"])),
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 63), st.sampled_from(["", "a", "b", "c", "d"])),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("delete passage"), st.integers(0, 9)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("resume")),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(st.sampled_from([None, "word"]), STEPS)
def test_histories_of_shards(tmp_path_factory, bundle, field, steps):
    """Against a dictionary: upserts that move between shards, deletions, resumed and dropped writers."""
    index = made(tmp_path_factory.mktemp("h") / "i", bundle, 3, field)
    committed, model = {}, {}
    writer = index.writer()
    for turn, (name, *args) in enumerate(steps):
        if name == "put":
            new = numbered(args[0], args[2], turn)
            writer.put(new, VECTORS[args[1]], dense=dense_of(index, args[0]))
            model[new.id] = new
        elif name == "delete":
            assert writer.delete_document(f"d{args[0]}") == int(model.pop(f"d{args[0]}#0", None) is not None)
        elif name == "delete passage":
            assert writer.delete_passage(f"d{args[0]}#0") == int(model.pop(f"d{args[0]}#0", None) is not None)
        elif name in ("commit", "compact"):
            summary = writer.commit(compact=name == "compact")
            committed = dict(model)
            assert summary.passages == len(model)
        else:
            writer.flush()
            writer.__exit__(None, None, None)
            writer = index.writer(resume=name == "resume")
            if name == "reopen":
                if model != committed:
                    with pytest.raises(LocalIndexError, match=f"{index.path} has uncommitted changes"):
                        writer.commit()
                writer.discard()
            model = model if name == "resume" else dict(committed)
            assert set(writer.pending) <= set(model)
        assert {p.id: p for p in index.iter_passages()} == committed
    writer.commit()
    writer.__exit__(None, None, None)
    assert {p.id: p for p in index.iter_passages()} == model
    for number in (int(id_[1:-2]) for id_ in model):
        stored = index.dense_vectors([f"d{number}#0"])[f"d{number}#0"]
        np.testing.assert_allclose(stored["dense"], dense_of(index, number)["dense"], atol=0.006)
    index.verify()


def test_a_changed_key_moves_a_passage_to_another_shard(tmp_path, bundle):
    index = made(tmp_path / "i", bundle, 8, "word")
    where = {word: index.sharding.of_passage(numbered(1, word), SCHEMA) for word in map(str, range(20))}
    first, second = next((a, b) for a in where for b in where if where[a] != where[b])
    for word in (first, second, second, first):
        with index.writer() as writer:
            writer.put(numbered(1, word), VECTORS[1], dense=dense_of(index, 1))
            writer.commit()
        homes = [shard for shard, reader in index.readers().items() if reader.passages]
        assert homes == [where[word]] and index.passages == 1
    with index.writer() as writer:  # there and back within one commit
        writer.put(numbered(1, second), VECTORS[1], dense=dense_of(index, 1))
        writer.put(numbered(1, first), VECTORS[1], dense=dense_of(index, 1))
        writer.commit()
        assert index.passages == 1
        assert writer.delete_document("d1") == 1
        writer.commit()
    assert index.passages == 0


def test_values_without_a_key_and_numbers_have_a_shard():
    by_number, by_word = Sharding(4, "n"), Sharding(4, "word")
    assert len({by_number.of_passage(numbered(n), SCHEMA) for n in range(50)}) == 4
    nothing = dataclasses.replace(numbered(1), metadata={})
    assert by_word.of_passage(nothing, SCHEMA) == by_word.of_passage(
        dataclasses.replace(nothing, metadata={"word": None}), SCHEMA
    )
    with pytest.raises(MetadataError):
        by_number.of_passage(dataclasses.replace(nothing, metadata={"n": "text"}), SCHEMA)


def test_where_an_id_is_does_not_change_between_releases():
    """Golden: of another hash, every shard's documents would be in the wrong place."""
    assert [Sharding(8).of_document(id_) for id_ in ("a", "b", "ü", "doc#1")] == [0, 4, 5, 4]
    assert [Sharding(8, "word").of_passage(numbered(1, word), SCHEMA) for word in ("", "x", "ü")] == [3, 5, 2]


def test_a_refused_passage_leaves_every_shard_as_it_was(tmp_path, bundle):
    index = made(tmp_path / "i", bundle, 2, "word")
    fill(index, [1])
    with index.writer() as writer:
        with pytest.raises(UsageError):
            writer.put(numbered(1, "elsewhere"), VECTORS[0][:, :3], dense=dense_of(index, 1))
        writer.commit()
    assert [p.metadata["word"] for p in index.iter_passages()] == ["w1"]


# the folder


def test_it_is_opened_by_its_path_and_its_bundle_is_on_disk_once(tmp_path, bundle):
    made(tmp_path / "i", bundle, 2)
    opened = open_index(tmp_path / "i")
    assert opened.sharding == Sharding(2)
    assert opened.bundle.sha256 == bundle.sha256
    assert (tmp_path / "i/shard-0/bundle/model.onnx").samefile(tmp_path / "i/shard-1/bundle/model.onnx")
    assert isinstance(open_index(tmp_path / "i/shard-1"), LocalIndex)
    opened.verify()


def test_the_description_is_as_documented(tmp_path, bundle):
    made(tmp_path / "a", bundle, 2)
    made(tmp_path / "b", bundle, 3, "word")
    by_id, by_word = (json.loads((tmp_path / name / "SHARDS.json").read_text()) for name in "ab")
    assert by_id == {
        "format_version": 2, "count": 2, "key": "id",
        "sha256": "2ffae94cc9b1dd089ed5fccc29895ae95d2f19cb25c598812fdde08aa6d376ea",
    }  # fmt: skip
    assert {name: by_word[name] for name in ("count", "key", "field")} == {"count": 3, "key": "metadata", "field": "word"}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace('"count": 2', '"count": 3'), "checksum"),
        (lambda text: text.replace('"key": "id"', '"key": "di"'), "checksum"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 9'), "format version 9"),
        (lambda text: text[:-9], "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: "{}", "format version None .* reads 2"),
    ],
)
def test_a_damaged_description_is_one_line(tmp_path, bundle, change, message):
    made(tmp_path / "i", bundle, 2)
    file = tmp_path / "i/SHARDS.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(LocalIndexError, match=message) as error:
        open_index(tmp_path / "i")
    assert str(tmp_path / "i") in str(error.value) and "\n" not in str(error.value)


def test_every_flipped_bit_of_the_description_is_found(tmp_path, bundle):
    made(tmp_path / "i", bundle, 2)
    file = tmp_path / "i/SHARDS.json"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            sharding = open_index(tmp_path / "i").sharding
        except LocalIndexError:
            continue
        assert sharding == Sharding(2)  # blanks between the words


@pytest.mark.parametrize("wanted", [0, -1, 65, True, 2.0])
def test_counts_that_are_refused(wanted):
    with pytest.raises(UsageError, match="1 to 64 shards"):
        Sharding(wanted)


def test_a_key_that_is_no_field_and_a_place_that_is_taken_are_refused(tmp_path, bundle):
    with pytest.raises(UsageError, match="n, word, tags"):
        made(tmp_path / "i", bundle, 2, "colour")
    made(tmp_path / "i", bundle, 2)
    with pytest.raises(LocalIndexError, match="not an empty folder"):
        made(tmp_path / "i", bundle, 2)


def test_a_flipped_byte_in_any_shard_is_found_by_verify(tmp_path, bundle):
    index = made(tmp_path / "i", bundle, 2)
    fill(index, range(20))
    files = [f for f in (tmp_path / "i").rglob("*") if f.is_file() and f.stat().st_size and f.parent.name != "pending"]
    files = [f for f in files if f.name not in ("0.json", "SHARDS.json")]  # a version that no longer counts; tested above
    assert {f.relative_to(tmp_path / "i").parts[0] for f in files} == {"shard-0", "shard-1"}
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(LocalIndexError):
            ShardedIndex.open(tmp_path / "i").verify()
        file.write_bytes(content)
    ShardedIndex.open(tmp_path / "i").verify()


def test_shards_that_changed_places_are_found_by_verify(tmp_path, bundle):
    fill(made(tmp_path / "i", bundle, 2), range(20))
    shutil.move(tmp_path / "i/shard-0", tmp_path / "i/was-0")
    shutil.move(tmp_path / "i/shard-1", tmp_path / "i/shard-0")
    shutil.move(tmp_path / "i/was-0", tmp_path / "i/shard-1")
    with pytest.raises(LocalIndexError, match="shard-0"):
        ShardedIndex.open(tmp_path / "i").verify()


def test_a_shard_of_another_index_is_refused(tmp_path, bundle):
    made(tmp_path / "a", bundle, 2)
    made(tmp_path / "b", bundle, 2, storage=Storage("binary"))
    shutil.rmtree(tmp_path / "a/shard-1")
    shutil.move(tmp_path / "b/shard-1", tmp_path / "a/shard-1")
    with pytest.raises(LocalIndexError, match="shard-1 .* shard-0"):
        ShardedIndex.open(tmp_path / "a")


def test_a_missing_shard_folder_is_missing_from_answers_and_stops_writers(tmp_path, bundle):
    fill(made(tmp_path / "i", bundle, 4), range(100))
    shutil.move(tmp_path / "i/shard-2", tmp_path / "elsewhere")
    with ShardedIndex.open(tmp_path / "i", ShardSettings(timeout=120, start=120)) as index:
        found = index.search(VECTORS[0], 100)
        assert len(found.hits) == index.passages < 100
        assert found.coverage == pytest.approx(0.75)  # how many it held is not known: as many as the others
        assert len(found.missing) == 1 and found.missing[0].endswith("i is damaged: shard-2 is missing")
        with pytest.raises(LocalIndexError, match="shard-2"):
            index.writer()
        with pytest.raises(LocalIndexError, match="shard-2"):
            index.verify()
        shutil.move(tmp_path / "elsewhere", tmp_path / "i/shard-2")
        assert index.refresh()
        found = index.search(VECTORS[0], 100)
        assert (len(found.hits), found.coverage, found.missing) == (100, 1.0, ())
        index.writer().__exit__(None, None, None)


def test_no_shard_at_all_is_an_error(tmp_path, bundle):
    made(tmp_path / "i", bundle, 2)
    for shard in range(2):
        shutil.rmtree(tmp_path / f"i/shard-{shard}")
    with pytest.raises(LocalIndexError, match="i is damaged: shard-0 is missing"):
        ShardedIndex.open(tmp_path / "i")


def test_an_index_that_is_gone_is_named_and_not_a_shard_of_it(tmp_path, bundle):
    index = made(tmp_path / "i", bundle, 2)
    shutil.rmtree(tmp_path / "i")
    for opening in (index.refresh, lambda: ShardedIndex.open(tmp_path / "i")):
        with pytest.raises(LocalIndexError, match=f"no index at {tmp_path}/i;"):
            opening()


def test_the_grid_is_exact():
    """What the equality tests rest on: sums over the grid do not round."""
    flat = np.concatenate(GRID)
    exact = flat.astype(np.float64) @ flat.astype(np.float64).T
    assert np.array_equal((flat @ flat.T).astype(np.float64), exact)
