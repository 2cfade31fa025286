"""Encodings of a passage as one vector: what is fitted finds what MaxSim finds, and a file of it that is damaged is refused."""

import numpy as np
import pytest
from vespa_bundles import small_bundle, small_lemur, with_lemur

from late_interaction.arrays import load_arrays, save_arrays
from late_interaction.bundle import Bundle, MeasuredCandidates
from late_interaction.errors import BundleError
from late_interaction.maxsim import maxsim_many
from late_interaction.one_vector import ENCODINGS, chosen_encoding, one_vector
from late_interaction.one_vector.lemur import NAMES, Lemur, best_products
from late_interaction.one_vector.mean import MeanVector
from late_interaction.one_vector.network import _Weights

DIM, PASSAGES = 16, 400
TOPICS = np.random.default_rng(1).standard_normal((60, DIM)).astype(np.float32)


def passages(count=PASSAGES, seed=0):
    """Unit rows `[t, DIM]` near some of the topics."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        own = TOPICS[random.choice(len(TOPICS), 4, replace=False)]
        rows = own[random.integers(0, 4, random.integers(4, 20))] + 0.4 * random.standard_normal((1, DIM))
        rows = rows + 0.3 * random.standard_normal(rows.shape)
        found.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return found


@pytest.fixture(scope="module")
def lemur():
    return Lemur.fit(passages(), dim=64, seed=3)


def recall(encoding, stored, among):
    """Share of the exact top 5 that stand among the first by the one vector; queries are rows of other passages."""
    vectors, lengths, whole = encoding.passages(stored), [len(rows) for rows in stored], np.concatenate(stored)
    found = []
    for Q in passages(40, seed=9):
        exact = np.argsort(-maxsim_many(Q[:6], whole, lengths))[:5]
        best = np.argsort(-(vectors @ encoding.query(Q[:6])))[:among]
        found.append(len(set(exact.tolist()) & set(best.tolist())) / 5)
    return float(np.mean(found))


def test_lemur_finds_more_than_the_mean_of_passages_that_it_was_not_fitted_to(lemur):
    stored = passages(seed=5)
    mean, fitted = recall(MeanVector(DIM), stored, 20), recall(lemur, stored, 20)
    assert fitted > 0.85 and fitted > mean + 0.05, (fitted, mean)


def test_the_product_is_maxsim_for_each_row_less_its_mean(lemur):
    stored, Q = passages(seed=6), passages(1, seed=7)[0][:8]
    exact = maxsim_many(Q, np.concatenate(stored), [len(rows) for rows in stored]) / 8
    close = lemur.passages(stored) @ lemur.query(Q)
    assert np.corrcoef(exact, close)[0, 1] > 0.9
    assert np.std(close) == pytest.approx(np.std(exact), rel=0.4)
    assert abs(np.mean(close)) < 0.1


def test_a_passage_alone_is_as_among_others(lemur):
    stored = [*passages(5, seed=8), np.zeros((0, DIM), np.float32)]
    together = lemur.passages(stored)
    for rows, vector in zip(stored, together, strict=True):
        np.testing.assert_allclose(lemur.passage(rows), vector, atol=1e-5)
    assert not together[-1].any()
    np.testing.assert_allclose(together[0], lemur.solution @ (lemur.rows @ stored[0].T).max(axis=1) - lemur.centre, atol=1e-5)


def test_blocks_make_no_difference(monkeypatch):
    stored, rows = passages(30, seed=8), passages(1, seed=2)[0]
    whole = best_products(stored, rows)
    monkeypatch.setattr("late_interaction.one_vector.lemur.BLOCK_BYTES", 4 * len(rows) * 25)
    np.testing.assert_allclose(best_products(stored, rows), whole, atol=1e-6)


def test_distances_are_those_of_scores_over_the_fitted_rows(lemur):
    """So that passages near each other are found by the same queries, which an HNSW graph counts on."""
    vectors = lemur.passages(passages(40, seed=11))
    scores = np.stack([lemur.query(row[None]) for row in lemur.rows]) @ vectors.T
    apart = np.linalg.norm(vectors[1:] - vectors[:-1], axis=1)
    by_score = np.sqrt(np.mean((scores[:, 1:] - scores[:, :-1]) ** 2, axis=0))
    np.testing.assert_allclose(apart, by_score, rtol=0.02)


def test_cells_of_one_byte_hold_nearly_all_numbers(lemur):
    cells = lemur.passages(passages()) / lemur.unit
    assert np.mean(np.abs(cells) > 127) < 0.002 and np.abs(cells).max() > 100


def test_the_same_seed_fits_the_same(lemur):
    again = Lemur.fit(passages(), dim=64, seed=3)
    np.testing.assert_allclose(again.passages(passages(3)), lemur.passages(passages(3)), atol=1e-3)


def test_gradients_are_those_of_the_squared_error():
    random = np.random.default_rng(0)
    weights = _Weights(5, 7, 4, random)
    rows, wanted = random.standard_normal((6, 5)), random.standard_normal((6, 4))
    weights._values = [np.asarray(value, np.float64) + 0.1 * random.standard_normal(value.shape) for value in weights._values]

    def loss():
        features = weights.network.features(rows)
        return float(((features @ weights._values[4] + weights._values[5] - wanted) ** 2).mean())

    for value, slope in zip(weights._values, weights._slopes(rows, wanted), strict=True):
        for place in [tuple(random.integers(0, value.shape)) for _ in range(4)]:
            kept = value[place]
            value[place] = kept + 1e-5
            above = loss()
            value[place] = kept - 1e-5
            below = loss()
            value[place] = kept
            assert slope[place] == pytest.approx((above - below) / 2e-5, rel=1e-3, abs=1e-5)


def with_a_row_of(value):
    return [*passages(100), np.full((1, DIM), value, np.float32)]


UNFIT = [
    [], passages(8), [np.zeros((3, DIM), np.float32)] * 100, [np.zeros((0, DIM), np.float32)] * 100,
    with_a_row_of(np.nan), with_a_row_of(np.inf), with_a_row_of(1e30), [np.float32(1e-18) * rows for rows in passages(100)],
]  # fmt: skip


@pytest.mark.parametrize("few", UNFIT)
def test_a_sample_that_is_too_small_or_all_alike_or_not_finite_is_refused(few):
    with pytest.raises(BundleError):
        Lemur.fit(few, dim=64)


EDGES = {
    "token vectors of one dimension": ([np.sign(rows[:, :1]) for rows in passages(60)], 8),
    "one dimension": (passages(60), 1),
    "one token a passage": ([rows[:1] for rows in passages(200)], 16),
    "passages without": ([*passages(60), *[np.zeros((0, DIM), np.float32)] * 5], 16),
    "two kinds of passages": ([np.eye(DIM, dtype=np.float32)[:3], np.eye(DIM, dtype=np.float32)[4:7]] * 40, 16),
    "as few as may be": ([rows[:2] for rows in passages(16)], 16),
    "long vectors": ([1000 * rows for rows in passages(60)], 16),
    "short vectors": ([np.float32(1e-6) * rows for rows in passages(60)], 16),
}


@pytest.mark.parametrize("edge", EDGES)
def test_a_sample_at_the_edge_is_fitted_to_finite_numbers(edge, tmp_path):
    sample, dim = EDGES[edge]
    found = Lemur.fit(sample, dim=dim)
    found.save(tmp_path / "lemur.npz")
    found = Lemur.load(tmp_path / "lemur.npz")
    vectors = found.passages(sample)
    assert vectors.shape == (len(sample), dim) and np.isfinite(vectors).all() and np.abs(found.cells(vectors)).max() >= 120
    assert np.isfinite(found.query(sample[0])).all() and not found.query(sample[0][:0]).any()
    assert not vectors[[place for place, rows in enumerate(sample) if not len(rows)]].any()


@pytest.mark.parametrize("dim", [0, 5000])
def test_dimensions_out_of_range_are_refused(dim):
    with pytest.raises(BundleError, match="from 1 to 4096"):
        Lemur.fit(passages(20), dim=dim)


def test_a_file_holds_all_of_it(lemur, tmp_path):
    lemur.save(tmp_path / "lemur.npz")
    read = Lemur.load(tmp_path / "lemur.npz")
    assert read.sha256 == lemur.sha256 and read.unit == lemur.unit
    np.testing.assert_array_equal(read.passages(passages(4)), lemur.passages(passages(4)))
    first = (tmp_path / "lemur.npz").read_bytes()
    read.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == first


FAULTS = {
    "weights": lambda array: array[:, 1:], "bias": lambda array: array * np.nan, "gain": lambda array: array.astype(np.float64),
    "shift": lambda array: array[None], "turn": lambda array: array[1:],
    "rows": lambda array: array[:0], "solution": lambda array: array[:, :-1],
    "centre": lambda array: array[:-1], "unit": lambda array: np.float64(0),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused(tmp_path, name):
    file = tmp_path / "lemur.npz"
    small_lemur().save(file)
    arrays = dict(zip(NAMES, load_arrays(file, "file", NAMES, 1 << 20), strict=True))
    save_arrays(file, **arrays | {name: FAULTS[name](arrays[name])})
    with pytest.raises(BundleError, match=r"lemur\.npz"):
        Lemur.load(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(BundleError):
        Lemur.load(file)


def test_a_bundle_has_the_encoding_that_was_fitted_or_chosen(tmp_path):
    plain = small_bundle(tmp_path / "b")
    before = plain.sha256
    assert chosen_encoding(plain) == "" and one_vector(plain, "mean").dim == 16
    with pytest.raises(BundleError, match="lemur"):
        one_vector(plain, "lemur")
    with pytest.raises(BundleError, match="other"):
        one_vector(plain, "other")
    fitted = with_lemur(plain)
    assert chosen_encoding(fitted) == "lemur" and one_vector(fitted, "lemur").dim == 8
    assert fitted.sha256 != before and fitted.manifest.candidates is None
    measured = MeasuredCandidates("pooled", 500, 0.985, 0.98, "mean")
    mean = with_lemur(fitted, measured=measured)
    assert chosen_encoding(Bundle.open(mean.path)) == "mean" and mean.manifest.candidates == measured


def test_a_bundle_without_keeps_its_checksum(tmp_path):
    manifest = small_bundle(tmp_path / "b").manifest
    assert b'"candidates"' not in manifest.to_json()


BAD = [
    ("other", 500, 0.9, 0.9, ""), ("pooled", 500, 0.9, 0.9, ""), ("centroid", 500, 0.9, 0.9, "mean"),
    ("centroid", 0, 0.9, 0.9, ""), ("centroid", 5, 1.5, 0.9, ""), ("centroid", 5, 0.5, float("nan"), ""),
    ("centroid", 5, 0.9, 0.9, "", 4, 0),
]  # fmt: skip


@pytest.mark.parametrize("values", BAD)
def test_measured_candidates_that_cannot_be(values):
    assert MeasuredCandidates(*values).fault()


def test_names_of_the_table():
    assert all(kind.name == name for name, kind in ENCODINGS.items())
    with pytest.raises(BundleError):
        MeanVector.load("x")
