import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from late_interaction.errors import SettingsError
from vespa_app.codecs import CODECS

FINITE = st.floats(-1, 1, width=32, allow_subnormal=False)
MATRICES = hn.arrays(np.float32, st.tuples(st.integers(0, 5), st.sampled_from([8, 16])), elements=FINITE)


@given(MATRICES)
def test_float32_keeps_every_bit(D):
    codec = CODECS["float32"]
    assert np.array_equal(codec.decode(codec.encode(D)).reshape(D.shape), D)


@given(MATRICES)
def test_bfloat16_is_the_nearest(D):
    codec = CODECS["bfloat16"]
    stored = codec.decode(codec.encode(D)).reshape(D.shape)
    below = (D.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((D.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    assert np.array_equal(np.abs(stored - D), np.minimum(np.abs(below - D), np.abs(above - D)))
    assert np.array_equal(codec.decode(codec.encode(stored)).reshape(D.shape), stored)


def test_bfloat16_rounds_ties_to_even():
    codec = CODECS["bfloat16"]
    ties = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)[None, :]
    assert codec.encode(ties) == {"blocks": {"0": "3f803f82"}}


def test_binary_sets_a_bit_for_what_is_above_zero():
    codec = CODECS["binary"]
    D = np.array([[1, -1, 0, 0.5, -0.5, 2, -2, 1e-9]], np.float32)
    assert codec.encode(D) == {"blocks": {"0": "95"}}
    assert np.allclose(codec.decode(codec.encode(D)) * np.sqrt(8), [[1, -1, -1, 1, -1, 1, -1, 1]])


@given(MATRICES.filter(len))
def test_binary_decodes_to_unit_rows(D):
    codec = CODECS["binary"]
    assert np.allclose(np.linalg.norm(codec.decode(codec.encode(D)), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_rows_keep_their_order_past_nine(codec):
    D = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    value = codec.encode(D)
    shuffled = {"blocks": dict(sorted(value["blocks"].items()))}
    assert np.array_equal(codec.decode(shuffled), codec.decode(value))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_document_v1_answers_are_read(codec):
    """Vespa gives numbers back, in the short or the long form."""
    D = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    stored = codec.decode(codec.encode(D))
    rows = np.packbits(D > 0, axis=1).view(np.int8) if codec.name == "binary" else stored
    short = {"type": codec.field_type(8), "blocks": {str(i): [float(x) for x in row] for i, row in enumerate(rows)}}
    long = {"blocks": [{"address": {"dt": str(i)}, "values": [float(x) for x in row]} for i, row in enumerate(rows)]}
    assert np.array_equal(codec.decode(short), stored)
    assert np.array_equal(codec.decode(long), stored)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_is_no_tensor_is_refused(codec):
    with pytest.raises(SettingsError, match="no tensor"):
        codec.decode({"type": "tensor", "values": [1, 2]})
    for bad in (np.zeros(8, np.float32), np.full((1, 8), np.nan, np.float32)):
        with pytest.raises(ValueError, match="finite"):
            codec.encode(bad)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_bytes_are_those_of_the_cells_and_a_label(codec):
    cells = codec.encode(np.ones((1, 128), np.float32))["blocks"]["0"]
    assert codec.bytes_per_token(128) == len(cells) // 2 + 4


def test_binary_needs_whole_bytes():
    with pytest.raises(SettingsError, match="packs 8 dimensions"):
        CODECS["binary"].check_dim(12)
