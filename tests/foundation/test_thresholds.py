import numpy as np
import pytest

from late_interaction.errors import BundleError
from late_interaction.maxsim import maxsim
from late_interaction.thresholds import Thresholds, plain_thresholds, recall_of, train_thresholds


def passages(shift: float, count: int = 150, dim: int = 32) -> list[np.ndarray]:
    """Unit rows round a few topics; `shift` moves all of them off centre, as a projection that was not centred does."""
    random = np.random.default_rng(0)
    topics = random.standard_normal((12, dim))
    direction = np.sign(random.standard_normal(dim)) * shift
    made = []
    for number in range(count):
        rows = topics[number % 12] + random.standard_normal((20, dim)) + direction
        made.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return made


def test_thresholds_are_kept_where_vectors_lie_off_centre():
    sample = passages(4.0)
    trained = train_thresholds(sample)
    assert trained is not None
    assert recall_of(trained, sample) > recall_of(plain_thresholds(32), sample) + 0.1


def test_zero_stays_where_it_measures_as_well():
    assert train_thresholds(passages(0.0)) is None
    assert train_thresholds(passages(4.0)[:5]) is None, "too few to judge by"


def test_the_score_is_that_of_the_formula():
    """sum over rows of  max 2 (q * spread).b + q.(cuts - spread)."""
    rows = passages(1.0, 1)[0]
    thresholds = Thresholds(np.median(rows, axis=0), np.abs(rows).mean(axis=0))
    Q = passages(1.0, 2)[1][:4]
    bits = np.unpackbits(thresholds.encode(rows), axis=1).astype(np.float32)
    score = (2 * (Q * thresholds.spread) @ bits.T).max(axis=1) + Q @ (thresholds.cuts - thresholds.spread)
    assert score.sum() == pytest.approx(maxsim(Q, thresholds.decode(thresholds.encode(rows))), abs=1e-4)


def test_without_thresholds_a_row_is_signs_of_length_one():
    rows = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    plain = plain_thresholds(16)
    assert np.array_equal(plain.decode(plain.encode(rows)) * 4, np.sign(rows))


def test_files_round_trip_and_damage_is_named(tmp_path):
    thresholds = Thresholds(np.arange(8, dtype=np.float32), np.ones(8, np.float32))
    thresholds.save(tmp_path / "a.npz")
    read = Thresholds.load(tmp_path / "a.npz")
    assert read.sha256 == thresholds.sha256
    thresholds.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    np.savez(tmp_path / "other.npz", cuts=np.ones(8, np.float32))
    for name in ("torn", "other", "none"):
        with pytest.raises(BundleError, match=f"{name}.npz"):
            Thresholds.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("cuts, spread, fault", [
    (np.zeros(4), np.ones(4, np.float32), "cuts"),
    (np.zeros(4, np.float32), np.ones(3, np.float32), "spread"),
    (np.zeros(4, np.float32), np.zeros(4, np.float32), "above 0"),
    (np.full(4, np.nan, np.float32), np.ones(4, np.float32), "cuts"),
])  # fmt: skip
def test_arrays_that_do_not_fit(cuts, spread, fault):
    with pytest.raises(ValueError, match=fault):
        Thresholds(cuts, spread)
