"""One vector a text, by the dense models of a bundle."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from dense_bundles import made_bundle, with_dense, write_graph

from late_interaction.bundle import Bundle, write_manifest
from late_interaction.dense import DenseEncoder, dense_encoders
from late_interaction.devices import CPU
from late_interaction.documents import Document
from late_interaction.errors import BundleError, UsageError

TEXTS = ["a tree", "words and more words, a long text " * 9, "", "Überraschung \ud800"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    return with_dense(made_bundle(folder / "tokens"), folder / "bundle", {"dense": 16, "small": 4}, ready={"given": 3})


def test_a_row_for_each_text_in_the_order_given_whatever_it_is_encoded_with(bundle):
    encoder = DenseEncoder(bundle, threads=2)
    rows = encoder.encode_documents(TEXTS)
    assert rows.shape == (4, 16)
    assert rows.dtype == np.float32
    for text, row in zip(TEXTS, rows, strict=True):
        np.testing.assert_allclose(encoder.encode_documents([text])[0], row, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.encode_documents([]).shape == (0, 16)


def test_a_query_is_encoded_with_its_prompt(bundle):
    encoder = DenseEncoder(bundle)
    np.testing.assert_allclose(encoder.encode_queries(["tree"]), encoder.encode_documents(["query: tree"]), atol=1e-6)


def test_a_long_text_is_cut_off_with_its_last_special_token(bundle):
    encoder = DenseEncoder(bundle)
    short, long = encoder.token_ids(["a", TEXTS[1] * 9], "")
    assert len(long) == 64
    assert long[-1] == short[-1]


def test_models_side_by_side(bundle):
    encoders = dense_encoders(bundle)
    assert {name: encoder.dim for name, encoder in encoders.items()} == {"dense": 16, "small": 4}


def test_a_model_without_a_graph_takes_ready_vectors_only(bundle):
    with pytest.raises(UsageError, match=r"'given' .* has no graph"):
        DenseEncoder(bundle, "given")
    with pytest.raises(UsageError, match=r"no dense model 'other'; it has: dense, given, small"):
        DenseEncoder(bundle, "other")
    with pytest.raises(BundleError, match=r"'dense' of .* has no int8 model \(it has fp32\)"):
        DenseEncoder(bundle, precision="int8")


def test_auto_is_the_processor(bundle):
    encoder = DenseEncoder(bundle, device="auto")
    assert (encoder.device, encoder.encode_documents(["x"]).shape) == (CPU, (1, encoder.dim))


def test_a_bundle_that_took_this_ones_place(bundle, tmp_path):
    other = Bundle.open(shutil.copytree(bundle.path, tmp_path / "bundle"))
    encoder = DenseEncoder(other, "small")
    write_graph(other.path / "dense" / "small" / "model.onnx", 9, 4, "embedding")
    write_manifest(other.path, other.manifest)
    with pytest.raises(BundleError, match="was replaced by another bundle"):
        encoder.encode_queries(["x"])


def test_a_graph_of_another_dim_than_the_manifest_says(bundle, tmp_path):
    other = Bundle.open(shutil.copytree(bundle.path, tmp_path / "bundle"))
    part = dataclasses.replace(other.manifest.dense["small"], dim=5)
    changed = write_manifest(other.path, dataclasses.replace(other.manifest, dense={"small": part}))
    with pytest.raises(BundleError, match=r"vectors of shape \[4\], .*\[5\]"):
        DenseEncoder(changed, "small").encode_queries(["x"])


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"Bad": [1]}, "dense model 'Bad'"),
        ({"a" * 32: [1]}, "aaaa'"),
        ({"x": "text"}, r"dense\.x must be numbers"),
        ({"x": [[[1]]]}, r"got shape \[1, 1, 1\]"),
        ({"x": []}, r"got shape \[0\]"),
        ([1, 2], "must map names"),
    ],
)
def test_ready_vectors_that_are_none(dense, message):
    with pytest.raises(UsageError, match=message):
        Document("a", dense=dense)


def test_ready_vectors_go_through_json():
    document = Document("a", text="x", dense={"x": [0.1, float("nan")], "y": np.eye(2)})
    again = Document(**document.to_json())
    for name in ("x", "y"):
        np.testing.assert_array_equal(again.dense[name], document.dense[name])
    assert "dense" not in Document("a").to_json()
