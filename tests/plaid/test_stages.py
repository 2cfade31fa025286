"""The stages before reranking: what they may lose, and what they may cost."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plaid_tools import DIM, fake_bundle, finished, passage, queries_from, token_vectors, totals_of, unit

from late_interaction import lookup, lookup_arrays, lookup_kernels
from late_interaction.codebook_training import train_codebook
from late_interaction.filters import parse_filter
from late_interaction.lookup import scaled_rows
from late_interaction.maxsim import maxsim_many
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.searching import candidates, kernels
from query.local import LocalSearch
from query.options import SearchOptions
from query.types import EncodedQuery

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 1200)


def made(path, vectors, deleted=(), parts=1, **options):
    index = LocalIndex.create(path / "i", bundle=fake_bundle(path / "b"), schema=SCHEMA, **options)
    with index.writer() as writer:
        for part in range(parts):
            for number in range(part, len(vectors), parts):
                writer.put(passage(f"d{number}", n=number), vectors[number])
            writer.commit()
        for number in deleted:
            writer.delete_document(f"d{number}")
        writer.commit()
    return index


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """In three segments, every eleventh passage deleted."""
    return made(tmp_path_factory.mktemp("stages"), VECTORS, deleted=range(0, 1200, 11), parts=3)


def found_numbers(result):
    return [int(hit.passage.document_id[1:]) for hit in result.hits]


def centroid_interaction(index, Q, number):
    """What the second stage rounds to eight bits, in float32."""
    part, row = index.snapshot.find(f"d{number}#0")
    offsets, codes = part.segment.offsets, part.segment.codes
    return float((Q @ index.codebook.centroids[codes[offsets[row] : offsets[row + 1]]].T).max(axis=1).sum())


@pytest.mark.parametrize("sign", [1, -1])
def test_negative_similarities_are_told_apart(tmp_path, sign):
    """Also where every centroid is on the other side of every query row, the first stages rank."""
    random = np.random.default_rng(0)
    vectors = unit(np.abs(random.standard_normal((800, 6, DIM))) + 0.2)
    index = made(tmp_path, list(vectors))
    for _ in range(10):
        Q = sign * unit(np.abs(random.standard_normal((4, DIM))) + 0.2)
        wanted = np.array([centroid_interaction(index, Q, number) for number in range(800)])
        result = index.search(Q, 60, settings=SearchSettings(probes=64, rerank=60))
        error = len(Q) * 0.6 * 2 / 255  # half a step, and some for sixteen bits; similarities of a row span 2 at most
        for hit in result.hits:
            assert hit.approximate == pytest.approx(wanted[int(hit.passage.document_id[1:])], abs=error)
        assert wanted[found_numbers(result)].min() >= np.sort(wanted)[-60] - 2 * error


def test_lookups_are_the_nearest_and_the_table_has_their_similarities():
    """Of a codebook in groups, in the compiled loops and in numpy."""
    random = np.random.default_rng(0)
    book = train_codebook(unit(random.standard_normal((30_000, DIM))).astype(np.float32), centroids=3000)
    assert book.groups is not None and len(book.groups.heads) > 10
    Q = unit(random.standard_normal((20, DIM))).astype(np.float32)
    S = Q @ book.centroids.T
    looked = book.lookup.look(Q, 16)
    best = np.argsort(-S, axis=1)[:, :16]
    assert np.mean([len(set(a) & set(b)) / 16 for a, b in zip(best.tolist(), looked.lists.tolist(), strict=True)]) > 0.7
    np.testing.assert_allclose(looked.similarities, np.take_along_axis(S, looked.lists, axis=1), atol=2e-3)
    assert (np.diff(looked.similarities, axis=1) <= 0).all()
    ids, similarities = book.lookup.nearest(Q, 16)
    np.testing.assert_array_equal(ids, looked.lists)
    np.testing.assert_array_equal(similarities, looked.similarities)
    assert (looked.table[0] == 0).all()
    places = looked.lists + looked.shifts[looked.group_of[looked.lists]]
    floors = looked.similarities * looked.scale - looked.table[places, np.arange(20)[:, None]]
    assert (floors.max(axis=1) - floors.min(axis=1)).max() <= 1.1  # each row from one floor on, in whole steps
    assert floors.mean(axis=1).sum() / looked.scale == pytest.approx(looked.floor, abs=10 / looked.scale)
    queries, _ = scaled_rows(Q)
    near = np.tile(np.arange(5, dtype=np.int32), (20, 1))
    answers = []
    for loops in (lookup_kernels, lookup_arrays):
        found, values = np.full((20, 16), -1, np.int32), np.zeros((20, 16), np.int32)
        loops.nearest_of_groups(book.cells, book.groups.starts, near, queries, found, values)
        answers.append((found, values))
    np.testing.assert_array_equal(answers[0][1], answers[1][1])
    assert (answers[0][0] == answers[1][0]).mean() > 0.99  # but for equal products


def test_gains_are_over_a_centroid_farther_down(monkeypatch):
    """The 128th best of large codebooks; of small ones the last list."""
    random = np.random.default_rng(0)
    book = train_codebook(unit(random.standard_normal((30_000, DIM))).astype(np.float32), centroids=3000, iterations=1)
    Q = unit(random.standard_normal((20, DIM))).astype(np.float32)
    _, similarities, gains = book.lookup.lists(Q, 8)
    np.testing.assert_array_equal(gains, similarities - similarities[:, -1:])
    monkeypatch.setattr(lookup, "FLOOR_SHARE", 60)  # the 50th of 3,000
    ids, similarities, gains = book.lookup.lists(Q, 8)
    looked = book.lookup.look(Q, 8)
    every = book.lookup.nearest(Q, 50)
    np.testing.assert_array_equal(ids, every[0][:, :8])
    np.testing.assert_array_equal(gains, every[1][:, :8] - every[1][:, 49:])
    for ours, other in ((looked.lists, ids), (looked.similarities, similarities), (looked.gains, gains)):
        np.testing.assert_array_equal(ours, other)
    np.testing.assert_array_equal(book.lookup.lists(Q, 64)[2][:, -1], np.zeros(20))


def test_many_rows_without_compiled_loops():
    """They are taken group by group, as codes of vectors are."""
    random = np.random.default_rng(0)
    cells = random.integers(-127, 128, (900, DIM)).astype(np.int8)
    starts = np.array([0, 3, 3, 400, 700, 900])
    queries, _ = scaled_rows(random.standard_normal((500, DIM)))
    near = np.argsort(random.random((500, 5)), axis=1)[:, :3].astype(np.int32)
    for count in (1, 7, 300):
        answers = []
        for loops in (lookup_kernels, lookup_arrays):
            ids, values = np.full((500, count), -1, np.int32), np.zeros((500, count), np.int32)
            loops.nearest_of_groups(cells, starts, near, queries, ids, values)
            answers.append((ids, values))
        np.testing.assert_array_equal(answers[0][1], answers[1][1])
        np.testing.assert_array_equal(answers[0][0] < 0, answers[1][0] < 0)
        assert (answers[0][0] == answers[1][0]).mean() > 0.99


def test_more_lists_than_a_rows_groups_have():
    random = np.random.default_rng(0)
    book = train_codebook(unit(random.standard_normal((30_000, DIM))).astype(np.float32), centroids=3000)
    Q = unit(random.standard_normal((3, DIM))).astype(np.float32)
    for count in (1, 256, book.size):
        ids, _ = book.lookup.nearest(Q, count)
        assert all(len(set(row)) == count and min(row) >= 0 for row in ids.tolist())
        assert (book.lookup.look(Q, count).lists >= 0).all()


def by_oracle(index, Q, rows):
    """Numbers of `rows`, best first, and their scores by exact MaxSim over the index's vectors."""
    vectors = [index.vectors(f"d{number}#0") for number in rows]
    scores = maxsim_many(Q, np.concatenate(vectors), [len(v) for v in vectors])
    order = np.argsort(-scores, kind="stable")
    return [rows[i] for i in order], scores[order]


def test_probing_respects_filters_and_deletions_in_every_segment(index):
    """With one probe and few reranked, what comes is alive, selected, found once, and scored as the oracle does."""
    where = parse_filter({"n": {"$gte": 300}}, SCHEMA)
    alive = {n for n in range(1200) if n % 11}
    settings = SearchSettings(probes=1, rerank=12)
    shares = []
    for Q in queries_from(np.random.default_rng(1), VECTORS, 30):
        for filter_, allowed in ((None, alive), (where, {n for n in alive if n >= 300})):
            result = index.search(Q, 10, where=filter_, settings=settings)
            found = found_numbers(result)
            assert len(set(found)) == len(found) == 10
            assert set(found) <= allowed
            assert 12 <= result.candidates < len(allowed) / 2
            order, scores = by_oracle(index, Q, sorted(allowed))
            known = dict(zip(order, scores.tolist(), strict=True))
            assert [hit.score for hit in result.hits] == pytest.approx([known[n] for n in found], abs=1e-4)
            shares.append(len(set(found) & set(order[:10])) / 10)
    assert np.mean(shares) > 0.5


def test_candidates_are_those_of_the_lists_by_what_they_share(index):
    """Each selected passage with a vector at one of the lists once, and no other; a row counts its best list over its last."""
    snapshot = index.snapshot
    lists, similarities = snapshot.codebook.lookup.nearest(VECTORS[3], 3)
    gains = similarities - similarities[:, -1:]
    for where in (None, parse_filter({"n": {"$lt": 700}}, SCHEMA)):
        masks = snapshot.select(where)
        found = candidates.gathered(snapshot, lists, gains, masks, int(sum(map(np.count_nonzero, masks))))
        expected = {}
        for part, mask in zip(snapshot.living, masks, strict=True):
            offsets, codes = part.segment.offsets, part.segment.codes
            for row in np.flatnonzero(mask).tolist():
                shared = np.isin(lists, codes[offsets[row] : offsets[row + 1]])
                if shared.any():
                    expected[part.base + row] = np.where(shared, gains, 0).max(axis=1).sum()
        assert totals_of(found) == pytest.approx(
            {place: total * candidates.STEPS for place, total in expected.items()}, abs=len(lists)
        )


@given(
    st.dictionaries(st.integers(0, 5_000), st.integers(0, 1 << 30), min_size=1, max_size=300),
    st.integers(1, 320),
    st.sampled_from([1, 1000, 1 << 31]),
)
def test_the_best_candidates_are_those_of_the_best_classes(total_of, keep, classes):
    """As many as asked, ascending; none of a lower class than one that is left out, and of the last class the lowest places."""
    places, totals = np.array(list(total_of.items())).T
    totals = totals % classes  # few totals: many equal ones
    found = candidates.Gathered(places, totals, 5_001).best(keep)
    assert len(found) == min(keep, len(places))
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) <= set(places.tolist())
    width = 1 << max(0, int(totals.max()).bit_length() - 12)
    of = dict(zip(places.tolist(), (totals // width).tolist(), strict=True))
    left = sorted(set(places.tolist()) - set(found.tolist()))
    least = min(of[place] for place in found.tolist())
    assert all(of[place] <= least for place in left)
    last = [place for place in found.tolist() if of[place] == least]
    assert all(place > max(last) for place in left if of[place] == least)


def test_candidates_of_blocks_of_rows_add_up(index, monkeypatch):
    snapshot = index.snapshot
    lists, similarities = snapshot.codebook.lookup.nearest(np.concatenate(VECTORS[:4]), 5)
    arguments = (snapshot, lists, similarities - similarities[:, -1:], snapshot.select(None), 1200)
    whole = totals_of(candidates.gathered(*arguments))
    for most in (1, 200):
        monkeypatch.setattr(candidates, "MOST_PAIRS", most)
        parts = totals_of(candidates.gathered(*arguments))
        assert parts == whole


def test_products_of_lookups_are_exact():
    """By bytes where the processor has VNNI, in full and part blocks, and no place beyond is written."""
    random = np.random.default_rng(0)
    for rows, dim in ((1, 128), (7, 128), (8, 128), (9, 128), (37, 96), (64, 32), (20, 48), (20, 7)):
        for low, high in ((-128, 128), (-128, -127), (127, 128)):
            cells = random.integers(low, high, (rows, dim)).astype(np.int8)
            for query in (
                random.integers(-32_767, 32_768, dim) // 12,
                np.full(dim, 181),
                np.full(dim, -182),
                np.arange(dim) - 9,
            ):
                queries, out = query.astype(np.int16)[None], (np.full((1, rows), -1, np.int32), np.zeros((1, rows), np.int32))
                lookup_kernels.nearest_of_groups(cells, np.array([0, rows]), np.zeros((1, 1), np.int32), queries, *out)
                assert sorted(out[0][0].tolist()) == list(range(rows))
                np.testing.assert_array_equal(out[1][0], (cells.astype(np.int64) @ query)[out[0][0]])
                assert (np.diff(out[1][0]) <= 0).all()


def test_lookups_read_cells_in_any_order_of_memory():
    """A bundle may keep its heads column by column, and bytes of such rows cannot be taken in blocks."""
    random = np.random.default_rng(0)
    cells = np.asfortranarray(random.integers(-127, 128, (20, 32)).astype(np.int8))
    Q = random.standard_normal((3, 32)).astype(np.float32)
    queries, _ = scaled_rows(Q)
    ids, values = np.full((3, 20), -1, np.int32), np.zeros((3, 20), np.int32)
    lookup_kernels.nearest_of_groups(cells, np.array([0, 20]), np.zeros((3, 1), np.int32), queries, ids, values)
    products = queries.astype(np.int64) @ cells.T
    np.testing.assert_array_equal(values, np.take_along_axis(products, ids, axis=1))
    ids, similarities = lookup.Lookup(cells, 1.0, None).nearest(Q, 0)
    assert ids.shape == similarities.shape == (3, 0)


@pytest.mark.parametrize("rows", [10, 300])
def test_of_equal_products_the_lower_number_comes_first(rows):
    """In the compiled loops and in numpy, one row at a time or group by group, in whatever order groups are named."""
    random = np.random.default_rng(0)
    cells = random.integers(-1, 2, (60, DIM)).astype(np.int8)
    cells[30:] = cells[:30]
    starts = np.array([0, 3, 3, 20, 41, 60])
    queries, _ = scaled_rows(random.standard_normal((rows, DIM)))
    near = np.argsort(random.random((rows, 5)), axis=1).astype(np.int32)
    expected = np.argsort(-(queries.astype(np.int64) @ cells.T), axis=1, kind="stable")
    for loops in (lookup_kernels, lookup_arrays):
        for count in (1, 17, 60):
            ids, values = np.full((rows, count), -1, np.int32), np.zeros((rows, count), np.int32)
            loops.nearest_of_groups(cells, starts, near, queries, ids, values)
            np.testing.assert_array_equal(ids, expected[:, :count])


def test_no_more_passages_are_gathered_than_counted():
    """Also from lists that were damaged after the index was opened: there is room for those that are counted."""
    passages, wild = np.arange(50, dtype=np.int32), [-(1 << 62), -3, 0, 7, 50, 1 << 62, (1 << 63) - 1]
    for start in wild:
        for stop in wild:
            arrays = (np.array([start, stop]), passages)
            lists, counts, places = np.zeros((1, 1), np.int32), np.zeros(1, np.int64), np.zeros(50, np.int64)
            kernels.count_postings(lists, *arrays, counts)
            selected = np.ones(50, np.uint8)
            found = kernels.gather(lists, np.ones((1, 1), np.int64), *arrays, selected, 0, places, places.copy(), 0)
            assert found == counts[0] == len(passages[max(0, start) : max(0, stop)])


def test_widening_ends_and_then_everything_is_taken(index):
    for k in (1, 30, 300, 500):
        result = index.search(VECTORS[0][:1], k, settings=SearchSettings(probes=1, rerank=1))
        assert len(result.hits) == k
        assert result.candidates >= k


def test_a_selection_of_few_vectors_is_scored_outright(tmp_path):
    index = made(tmp_path, [rows[:1] for rows in VECTORS])
    where = parse_filter({"n": {"$lt": 30}}, SCHEMA)
    result = index.search(VECTORS[5], 10, where=where, settings=SearchSettings(probes=1, rerank=10))
    assert (result.candidates, result.reranked, result.widened) == (30, 30, False)
    assert found_numbers(result) == by_oracle(index, VECTORS[5], range(30))[0][:10]


def test_the_note_on_widening_is_true(index):
    """It compares with what is reranked, not with k."""
    local = LocalSearch(index.path)

    def notes(rerank):
        return finished(local.search(EncodedQuery(Q, None), SearchOptions(3, rerank=rerank, probes=1), math.inf)).notes

    Q = VECTORS[3][:1]
    assert index.search(Q, 3, settings=SearchSettings(probes=1, rerank=400)).widened
    assert "fewer passages than are to be reranked" in notes(400)[0]
    assert not index.search(Q, 3, settings=SearchSettings(probes=1, rerank=3)).widened
    assert notes(3) == ()
