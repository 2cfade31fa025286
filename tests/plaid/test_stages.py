"""The stages before reranking: what they may lose, and what they may cost."""

import math

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, finished, passage, queries_from, token_vectors, unit

import late_interaction.plaid.searching.search as search_module
from late_interaction.filters import parse_filter
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
    """Also where every centroid is on the other side of every query row, the second stage ranks."""
    random = np.random.default_rng(0)
    vectors = unit(np.abs(random.standard_normal((800, 6, DIM))) + 0.2)
    index = made(tmp_path, list(vectors))
    for _ in range(10):
        Q = sign * unit(np.abs(random.standard_normal((4, DIM))) + 0.2)
        wanted = np.array([centroid_interaction(index, Q, number) for number in range(800)])
        result = index.search(Q, 60, settings=SearchSettings(probes=0, rerank=60))
        error = len(Q) * 0.6 * 1.4 / 255  # half a step, and some for sixteen bits; similarities of a row span 1.4 at most
        for hit in result.hits:
            assert hit.approximate == pytest.approx(wanted[int(hit.passage.document_id[1:])], abs=error)
        assert wanted[found_numbers(result)].min() >= np.sort(wanted)[-60] - 2 * error


def test_rounding_keeps_the_order_within_every_column():
    random = np.random.default_rng(0)
    S = (random.standard_normal((500, 16)) * random.uniform(0, 3, 16) - random.uniform(0, 50, 16)).astype(np.float32)
    lows, highs = np.empty(16, np.float32), np.empty(16, np.float32)
    kernels.column_ranges(S, lows, highs)
    np.testing.assert_array_equal([lows, highs], [S.min(axis=0), S.max(axis=0)])
    scale = 255 / float((highs - lows).max())
    rounded = np.empty(S.shape, np.uint8)
    kernels.round_scores(S, lows, scale, rounded)
    assert (rounded.min(), rounded.max()) == (0, 255)
    assert np.abs(rounded / scale + lows - S).max() <= 0.51 / scale


@pytest.mark.parametrize("probes", [1, 4, 16, 17, 200, 499])
def test_top_centroids_are_the_largest(probes):
    S = np.random.default_rng(probes).standard_normal((500, 5)).astype(np.float32)
    best = candidates.top_centroids(S, probes)
    assert best.shape == (5, probes)
    np.testing.assert_array_equal(np.sort(best, axis=1), np.sort(np.argsort(-S, axis=0)[:probes].T, axis=1))


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


def test_candidates_are_those_of_the_probed_lists(index):
    """Each selected passage with a vector at a probed centroid once, and no other."""
    snapshot = index.snapshot
    S = (snapshot.codebook.centroids @ VECTORS[3].T).astype(np.float32)
    for where in (None, parse_filter({"n": {"$lt": 700}}, SCHEMA)):
        masks = snapshot.select(where)
        found = candidates._probed(snapshot, S, masks, 2)
        probed = np.unique(np.argsort(-S, axis=0)[:2])
        for part, mask, rows in zip(snapshot.living, masks, found, strict=True):
            offsets, codes = part.segment.offsets, part.segment.codes
            wanted = [p for p in np.flatnonzero(mask) if np.isin(codes[offsets[p] : offsets[p + 1]], probed).any()]
            assert rows.tolist() == wanted


def test_widening_happens_once_and_then_everything_is_taken(index, monkeypatch):
    calls = []
    real = candidates.top_centroids
    monkeypatch.setattr(candidates, "top_centroids", lambda S, probes: calls.append(probes) or real(S, probes))
    for k in (1, 30, 300, 500):
        calls.clear()
        result = index.search(VECTORS[0][:1], k, settings=SearchSettings(probes=1, rerank=1))
        assert len(result.hits) == k
        assert 1 <= len(calls) <= 2
        assert all(probes <= candidates.MOST_PROBES for probes in calls)


def test_a_selection_of_few_vectors_is_scored_outright(tmp_path):
    index = made(tmp_path, [rows[:1] for rows in VECTORS])
    where = parse_filter({"n": {"$lt": 30}}, SCHEMA)
    result = index.search(VECTORS[5], 10, where=where, settings=SearchSettings(probes=1, rerank=10))
    assert (result.candidates, result.reranked, result.widened) == (30, 30, False)
    assert found_numbers(result) == by_oracle(index, VECTORS[5], range(30))[0][:10]


def test_the_note_on_widening_is_true(index, monkeypatch):
    """It compares with what is reranked, not with k."""
    monkeypatch.setattr(search_module, "PROBE_ABOVE", 0)
    local = LocalSearch(index.path)

    def notes(rerank):
        return finished(local.search(EncodedQuery(Q, None), SearchOptions(3, rerank=rerank), math.inf)).notes

    Q = VECTORS[3][:1]
    assert index.search(Q, 3, settings=SearchSettings(rerank=400)).widened
    assert "fewer passages than are reranked" in notes(400)[0]
    assert not index.search(Q, 3, settings=SearchSettings(rerank=3)).widened
    assert notes(3) == ()
