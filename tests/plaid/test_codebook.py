"""The residual codec: packing, error, training on little, and files that are not codebooks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plaid_tools import token_vectors, unit

from late_interaction import kmeans
from late_interaction.codebook import Codebook
from late_interaction.codebook_training import default_centroids, train_codebook
from late_interaction.errors import BundleError


def sample(seed=0, passages=200, dim=16):
    return np.concatenate(token_vectors(np.random.default_rng(seed), passages, dim))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.integers(1, 19), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_packing_round_trip(bits, dim, rows, seed):
    """What decode reads is what plain numpy packs, most significant bit first."""
    random = np.random.default_rng(seed)
    buckets = random.integers(0, 1 << bits, (rows, dim))
    cutoffs = np.tile(np.arange(1, 1 << bits, dtype=np.float32), (dim, 1))
    weights = np.tile(np.arange(1 << bits, dtype=np.float32) + 0.5, (dim, 1))
    centroid = unit(random.standard_normal((1, dim)))
    codebook = Codebook(centroid, cutoffs, weights, bits)
    vectors = (centroid + buckets + 0.5).astype(np.float32)
    codes, residuals = codebook.encode(vectors)
    planes = (buckets[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    assert np.array_equal(residuals, np.packbits(planes.reshape(rows, dim * bits).astype(np.uint8), axis=1))
    assert np.allclose(codebook.decode(codes, residuals), unit(vectors) if rows else vectors, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 20]))
def test_more_bits_mean_less_error_and_rows_are_unit(seed, dim):
    vectors = sample(seed, 150, dim)
    errors = []
    for bits in (1, 2, 4):
        codebook = train_codebook(vectors, bits=bits)
        codes, residuals = codebook.encode(vectors)
        assert codes.dtype == np.int32
        assert residuals.shape == (len(vectors), codebook.residual_bytes)
        decoded = codebook.decode(codes, residuals)
        assert np.allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
        errors.append(float(np.square(decoded - vectors).sum(axis=1).mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(1, 9),
    st.integers(1, 300),
    st.sampled_from([np.float16, np.float32]),
    st.integers(0, 2**32 - 1),
)
def test_distinct_rows_are_those_of_numpy(count, dim, values, dtype, seed):
    """With few values rows repeat, or differ in a late column alone."""
    rows = np.random.default_rng(seed).integers(-values, values, (count, dim)).astype(dtype) * dtype(0.5)
    found = kmeans._distinct(rows)
    assert found.dtype == dtype
    assert found.tobytes() == np.unique(rows, axis=0).tobytes()


def test_assign_takes_the_largest_dot_product():
    vectors = sample()
    codebook = train_codebook(vectors)
    assert np.array_equal(codebook.assign(vectors), (vectors @ codebook.centroids.T).argmax(axis=1))
    assert codebook.assign(vectors[:0]).shape == (0,)


def test_training_is_repeatable_and_depends_on_the_seed():
    vectors = sample()
    assert train_codebook(vectors, seed=1).sha256 == train_codebook(vectors, seed=1).sha256
    assert train_codebook(vectors, seed=1).sha256 != train_codebook(vectors, seed=2).sha256


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_a_handful_of_vectors_is_enough(rows):
    vectors = sample()[:rows]
    codebook = train_codebook(vectors)
    decoded = codebook.decode(*codebook.encode(vectors))
    assert (np.sum(decoded * vectors, axis=1) > 0.9).all()


def test_a_codebook_of_one_vector_still_encodes_others():
    """Buckets learnt from residuals that are all zero would code nothing that comes later."""
    vectors = sample()
    codebook = train_codebook(vectors[:1])
    decoded = codebook.decode(*codebook.encode(vectors))
    assert np.sum(decoded * vectors, axis=1).mean() > 0.9


def test_duplicates_and_zero_vectors_make_no_empty_centroids():
    vectors = np.repeat(sample()[:3], 100, axis=0)
    codebook = train_codebook(vectors, centroids=16)
    assert 1 <= len(codebook.centroids) <= 3
    assert np.allclose(codebook.decode(*codebook.encode(vectors)), vectors, atol=0.1)
    train_codebook(np.zeros((4, 8), np.float32))


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.zeros(4), np.full((2, 4), np.nan)])
def test_samples_that_cannot_be_trained_on(bad):
    with pytest.raises(ValueError, match="sample"):
        train_codebook(bad.astype(np.float32))


def test_number_of_centroids_grows_with_the_root_and_then_with_the_vectors():
    sizes = (0, 1, 10_000, 400_000, 5_000_000, 40_000_000, 10**10)
    assert [default_centroids(n) for n in sizes] == [16, 16, 1024, 8192, 65_536, 524_288, 1 << 20]


def test_save_and_load_keep_identity_and_are_repeatable(tmp_path):
    codebook = train_codebook(sample())
    codebook.save(tmp_path / "a.npz")
    Codebook.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert Codebook.load(tmp_path / "b.npz").sha256 == codebook.sha256
    assert train_codebook(sample(), bits=2).sha256 != codebook.sha256


def arrays(**changes):
    codebook = train_codebook(sample())
    made = {"centroids": codebook.centroids, "cutoffs": codebook.cutoffs, "weights": codebook.weights, "bits": np.int32(4)}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": None}, "weights"),
        ({"bits": np.int32(3)}, "bits"),
        ({"bits": np.float32(4)}, "bits"),
        ({"cutoffs": np.zeros((16, 3), np.float32)}, "cutoffs"),
        ({"centroids": np.zeros((4, 16), np.float32)}, "unit"),
        ({"centroids": np.zeros((0, 16), np.float32)}, "centroids"),
        ({"centroids": np.eye(16)}, "float32"),
        ({"weights": np.full((16, 16), np.inf, np.float32)}, "weights"),
        ({"cutoffs": np.tile(np.arange(15, 0, -1, dtype=np.float32), (16, 1))}, "ascend"),
        ({"weights": np.array([{"a": 1}], dtype=object)}, "array of numbers"),
    ],
)
def test_files_that_are_no_codebook_are_named(tmp_path, changes, named):
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    with pytest.raises(BundleError, match=f"bad.npz.*({named})"):
        Codebook.load(tmp_path / "bad.npz")


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "c.npz"
    train_codebook(sample()).save(path)
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"\0" * len(whole), b"\x93NUMPY" + whole):
        path.write_bytes(data)
        with pytest.raises(BundleError, match=r"c\.npz"):
            Codebook.load(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(BundleError, match="not a codebook, or is damaged"):
        Codebook.load(tmp_path / "one.npy")
    with pytest.raises(BundleError, match=r"none\.npz"):
        Codebook.load(tmp_path / "none.npz")


def test_codes_outside_the_codebook_are_refused():
    codebook = train_codebook(sample())
    _, residuals = codebook.encode(sample()[:1])
    for code in (-1, len(codebook.centroids)):
        with pytest.raises(ValueError, match="outside"):
            codebook.decode(np.array([code]), residuals)
    with pytest.raises(ValueError, match="residuals"):
        codebook.decode(np.array([0]), residuals[:, :-1])
    with pytest.raises(ValueError, match=r"\[n, 16\].*15"):
        codebook.encode(sample()[:, :-1])
