"""Rows of any scale, and what is no row or no count."""

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, passage, token_vectors, unit

from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex

VECTORS = token_vectors(np.random.default_rng(0), 300)
FORMS = [{}, {"bits": 2, "refine": True}, {"codec": "binary"}, {"codec": "float32"}]


def made(root, **form):
    index = LocalIndex.create(root / "i", bundle=fake_bundle(root / "b"), schema=MetadataSchema({}), **form)
    with index.writer() as writer:
        for number, vectors in enumerate(VECTORS):
            writer.put(passage(f"d{number}"), vectors)
        writer.commit()
    return index


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_order_of_hits_does_not_depend_on_the_scale_of_a_query(tmp_path, form):
    index = made(tmp_path, **form)
    Q = VECTORS[20]
    for exact in (False, True):
        plain = index.search(Q, 20, exact=exact).hits
        for scale in (1e-30, 1e-9, 1e15, 1e25):
            scaled = Q.astype(np.float64) * scale
            hits = index.search(scaled, 20, exact=exact).hits
            assert [hit.passage.id for hit in hits] == [hit.passage.id for hit in plain]
            assert [hit.score for hit in hits] == pytest.approx([hit.score * scale for hit in plain], rel=1e-4)
            assert [hit.approximate for hit in hits] == pytest.approx([hit.approximate * scale for hit in plain], rel=1e-3)
            scores = index.score(scaled, ["d20#0", "d3#0"])
            assert scores["d20#0"] == pytest.approx(index.score(Q, ["d20#0"])["d20#0"] * scale, rel=1e-4)
    assert index.search(4 * Q, 3).hits[0].score == 4 * index.search(Q, 3).hits[0].score
    assert len(index.search(np.zeros((2, DIM)), 3).hits) == 3


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_rows_that_are_not_of_length_one_are_refused_by_name(tmp_path, form):
    index = made(tmp_path, **form)
    with index.writer() as writer:
        for factor in (1e25, 3, 1.02, 0.98, 1e-25, 0):
            rows = VECTORS[5].copy()
            rows[-1] *= np.float32(factor)
            with pytest.raises(UsageError, match=rf"passage 'new#0': row {len(rows) - 1} has length .*length 1"):
                writer.put(passage("new"), rows)
        writer.put(passage("new"), VECTORS[5] * np.float32(1.005))
        assert writer.commit().passages == len(VECTORS) + 1


def test_codec_float32_takes_rows_of_other_lengths_and_scores_them_as_they_are(tmp_path):
    index = made(tmp_path, codec="float32")
    with index.writer() as writer:
        for factor in (1e25, 1000):
            with pytest.raises(UsageError, match="row 0 has length .*shorter than 1000"):
                writer.put(passage("new"), VECTORS[5] * np.float32(factor))
        writer.put(passage("long"), VECTORS[50] * np.float32(900))
        writer.put(passage("zero"), np.zeros((1, DIM)))
        writer.commit()
    hit = index.search(VECTORS[50], 1).hits[0]
    assert hit.passage.id == "long#0"
    assert hit.score == pytest.approx(maxsim(VECTORS[50], VECTORS[50] * np.float32(900)), rel=1e-5)
    assert index.score(VECTORS[50], ["zero#0"]) == {"zero#0": 0}


def test_what_is_no_vector_is_refused(tmp_path):
    index = made(tmp_path)
    wrong = [[["a"] * DIM], np.ones((2, DIM), complex), [[1.0], [1.0, 2.0]], [[1e300] * DIM], [[np.nan] * DIM], None]
    with index.writer() as writer:
        for vectors in wrong:
            with pytest.raises(UsageError, match="vectors"):
                writer.put(passage("new"), vectors)
        rows = unit(np.ones((1, DIM)))
        for kind in (np.float16, np.float64):
            writer.put(passage("new"), rows.astype(kind)[:, ::-1])
    for vectors in wrong:
        with pytest.raises(UsageError, match="vectors"):
            index.search(vectors, 3)
        with pytest.raises(UsageError, match="vectors"):
            index.search_many([VECTORS[0], vectors], 3)
        with pytest.raises(UsageError, match="vectors"):
            index.score(vectors, ["d1#0"])
        with pytest.raises(UsageError, match="vectors"):
            index.tune([vectors], recall=0.9)
    assert index.search(VECTORS[3].tolist(), 1).hits[0].passage.id == "d3#0"


def test_counts_are_whole_numbers(tmp_path):
    index = made(tmp_path)
    for k in (2.5, "3", True, None, 0, -1):
        with pytest.raises(UsageError, match="k must be a whole number of at least 1"):
            index.search(VECTORS[0], k)
        with pytest.raises(UsageError, match="k must be a whole number of at least 1"):
            index.search_many([VECTORS[0]], k)
    for threads in (-1, 0, 1.5, "2"):
        with pytest.raises(UsageError, match="threads must be a whole number of at least 1"):
            index.search_many([VECTORS[0]], 3, threads=threads)
    assert len(index.search(VECTORS[0], np.int64(3)).hits) == 3
    assert len(index.search_many([VECTORS[0]], 3, threads=1)[0].hits) == 3
