import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import SettingsError
from late_interaction.thresholds import Thresholds
from vespa_app.codecs import CODECS, NO_CODEBOOKS, VECTORS, Codebooks
from vespa_app.package import check_settings
from vespa_app.package.constants import tensor_file
from vespa_app.settings import AppSettings

FINITE = st.floats(-1, 1, width=32, allow_subnormal=False)
MATRICES = hn.arrays(np.float32, st.tuples(st.integers(0, 5), st.sampled_from([8, 16])), elements=FINITE)
BYTE_CODECS = ("float32", "bfloat16", "binary")


def rows(count, dim, seed=0):
    found = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def books(dim, bits=4):
    return Codebooks(train_codebook(rows(2000, dim, 9), bits=bits, centroids=16))


def through(codec, D, books=NO_CODEBOOKS):
    return codec.decode(codec.encode(D, books), books).reshape(D.shape)


@given(MATRICES)
def test_float32_keeps_every_bit(D):
    assert np.array_equal(through(CODECS["float32"], D), D)


@given(MATRICES)
def test_bfloat16_is_the_nearest(D):
    codec = CODECS["bfloat16"]
    stored = through(codec, D)
    below = (D.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((D.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    assert np.array_equal(np.abs(stored - D), np.minimum(np.abs(below - D), np.abs(above - D)))
    assert np.array_equal(through(codec, stored), stored)


def test_bfloat16_rounds_ties_to_even():
    ties = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)[None, :]
    assert CODECS["bfloat16"].encode(ties) == {VECTORS: {"blocks": {"0": "3f803f82"}}}


def test_binary_sets_a_bit_for_what_is_above_zero():
    codec = CODECS["binary"]
    D = np.array([[1, -1, 0, 0.5, -0.5, 2, -2, 1e-9]], np.float32)
    assert codec.encode(D) == {VECTORS: {"blocks": {"0": "95"}}}
    assert np.allclose(through(codec, D) * np.sqrt(8), [[1, -1, -1, 1, -1, 1, -1, 1]])


def test_binary_sets_a_bit_for_what_is_above_the_threshold():
    cuts = Thresholds(np.full(8, 0.4, np.float32), np.full(8, 0.5, np.float32))
    D = np.array([[1, -1, 0, 0.5, -0.5, 2, -2, 0.3]], np.float32)
    assert CODECS["binary"].encode(D, Codebooks(thresholds=cuts)) == {VECTORS: {"blocks": {"0": "94"}}}
    assert np.allclose(
        through(CODECS["binary"], D, Codebooks(thresholds=cuts)), [[0.9, -0.1, -0.1, 0.9, -0.1, 0.9, -0.1, -0.1]]
    )


@given(MATRICES.filter(len))
def test_binary_decodes_to_unit_rows(D):
    assert np.allclose(np.linalg.norm(through(CODECS["binary"], D), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_residual_decodes_to_what_the_local_engine_decodes_to(bits):
    book = books(16, bits)
    D = rows(12, 16)
    assert np.array_equal(through(CODECS["residual"], D, book), book.codebook.decode(*book.codebook.encode(D)))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_residual_polynomial_gives_the_weight_of_every_bucket(bits):
    """The rank expression's functions, evaluated in numpy with the constants that the package carries."""
    book = books(16, bits)
    codec, settings = CODECS["residual"], AppSettings(dim=16, query_rows=8, codec="residual", residual_bits=bits)
    values = codec.constant_values(settings, book)
    assert set(values) == set(codec.constants(settings))
    D = rows(40, 16)
    codes, packed = book.codebook.encode(D)
    buckets = np.unpackbits(packed, axis=1).reshape(40, 16, bits)
    names = {f"plane_{bit}": buckets[:, :, bits - 1 - bit].astype(np.float32) for bit in range(bits)}
    names["base"] = values["centroid_vectors"][codes]
    text = codec.functions(settings)["residual_raw"]
    text = text.replace("sum(attribute(codes) * constant(centroid_vectors), c)", "base")
    raw = eval(text, {"constant": values.__getitem__, **names, **{name: name for name in values}})
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.allclose(unit, book.codebook.decode(codes, packed), atol=1e-6)


def test_residual_needs_the_codebook_that_the_settings_name():
    codec = CODECS["residual"]
    with pytest.raises(SettingsError, match="needs a codebook"):
        codec.encode(rows(1, 16))
    settings = AppSettings(dim=16, query_rows=8, codec="residual", residual_bits=2)
    assert [*codec.codebook_faults(settings, books(16))] == [("residual_bits", "is 2, but the bundle's codebook has 4")]
    settings = AppSettings(dim=16, query_rows=8, codec="binary", thresholds=True)
    ((name, what),) = CODECS["binary"].codebook_faults(settings, NO_CODEBOOKS)
    assert name == "thresholds" and what.startswith("is true, but the bundle has no thresholds")


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_rows_keep_their_order_past_nine(codec):
    book, D = books(8), rows(12, 8)
    values = codec.encode(D, book)
    shuffled = {**values, VECTORS: {"blocks": dict(sorted(values[VECTORS]["blocks"].items()))}}
    assert np.array_equal(codec.decode(shuffled, book), codec.decode(values, book))


@pytest.mark.parametrize("name", BYTE_CODECS)
def test_document_v1_answers_are_read(name):
    """Vespa gives numbers back, in the short or the long form."""
    codec, D = CODECS[name], rows(3, 8, 1)
    stored = through(codec, D)
    numbers = np.packbits(D > 0, axis=1).view(np.int8) if name == "binary" else stored
    settings = AppSettings(dim=8, query_rows=8, codec=name)
    short = {"type": codec.field_type(settings), "blocks": {str(i): [float(x) for x in row] for i, row in enumerate(numbers)}}
    long = {"blocks": [{"address": {"dt": str(i)}, "values": [float(x) for x in row]} for i, row in enumerate(numbers)]}
    assert np.array_equal(codec.decode({VECTORS: short}), stored)
    assert np.array_equal(codec.decode({VECTORS: long}), stored)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_is_no_tensor_is_refused(codec):
    with pytest.raises(SettingsError, match="not a tensor"):
        codec.decode({VECTORS: {"type": "tensor", "values": [1, 2]}}, books(8))
    for bad in (np.zeros(8, np.float32), np.full((1, 8), np.nan, np.float32)):
        with pytest.raises(ValueError, match="finite"):
            codec.encode(bad, books(8))


@pytest.mark.parametrize("name", BYTE_CODECS)
def test_bytes_are_those_of_the_cells_and_a_label(name):
    cells = CODECS[name].encode(np.ones((1, 128), np.float32))[VECTORS]["blocks"]["0"]
    assert CODECS[name].bytes_per_token(128) == len(cells) // 2 + 4


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_residual_bytes_are_planes_and_a_centroid_with_their_labels(bits):
    cells = CODECS["residual"].encode(rows(1, 128), books(128, bits))[VECTORS]["blocks"]["0"]
    assert CODECS["residual"].bytes_per_token(128, bits) == (len(cells) // 2 + 4) + (1 + 2 * 4)


@pytest.mark.parametrize("name", ["binary", "residual"])
def test_bits_need_whole_bytes(name):
    with pytest.raises(SettingsError, match="packs 8 dimensions"):
        check_settings(AppSettings(dim=12, query_rows=8, codec=name))


def test_constant_files_are_in_vespas_binary_format():
    head = b"\x07\x01" + b"\x01\x01c" + b"\x01\x01x\x02" + b"\x02"
    cells = np.array([[1, 2], [3, 4]], np.float32)
    one, two = (label + row.astype(">f4").tobytes() for label, row in zip((b"\x010", b"\x011"), cells))
    assert tensor_file("tensor<float>(c{}, x[2])", cells) == head + one + two
    long = np.zeros(200, np.float32)
    assert tensor_file("tensor<float>(x[200])", long) == b"\x07\x01\x00\x01\x01x" + b"\x80\x00\x00\xc8" + bytes(800)
    with pytest.raises(ValueError, match="cannot be made"):
        tensor_file("tensor<float>(x[3])", cells[0])
