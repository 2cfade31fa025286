"""A cross-encoder's folder, and its scores of pairs."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from cross_encoders import expected, made_cross_encoder, write_graph
from dense_bundles import made_bundle

from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder, CrossEncoderFolder, CrossEncoderManifest, write_cross_encoder
from late_interaction.errors import BundleError

QUERY = "what is a tree"
PASSAGES = ["a tree", "words and more words, a long text " * 9, "", "Überraschung \ud800", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_cross_encoder(tmp_path_factory.mktemp("cross") / "folder")


@pytest.fixture
def copied(folder, tmp_path):
    return CrossEncoderFolder.open(shutil.copytree(folder.path, tmp_path / "folder"))


class Clock:
    """Seconds that pass when they are told to, and `each` at every look."""

    def __init__(self, each=0.0):
        self.now, self.each = 0.0, each

    def __call__(self):
        self.now += self.each
        return self.now


def test_a_score_for_each_pair_whatever_it_is_batched_with(folder):
    encoder = CrossEncoder(folder, threads=2)
    found = encoder.scores(QUERY, PASSAGES)
    wanted = [expected(folder, QUERY, passage.replace("\ud800", " ")) for passage in PASSAGES]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose([encoder.scores(QUERY, [passage])[0] for passage in PASSAGES], found, atol=1e-4)
    assert encoder.scores(QUERY, []) == []
    assert encoder.name == "made"


def test_only_the_passage_is_cut_off_and_of_a_query_what_exceeds_half(folder):
    encoder = CrossEncoder(folder)
    (short,) = encoder._pairs("a b", ["x " * 900])
    assert (len(short.ids), sum(short.type_ids)) == (64, 64 - 4)
    (both,) = encoder._pairs("a " * 900, ["x " * 900])
    assert (len(both.ids), sum(both.type_ids)) == (64, 32)
    (long,) = encoder._pairs("a " * 900, ["x"])
    assert (len(long.ids), sum(long.type_ids)) == (64, 2)


def test_a_prompt_stands_before_the_query(folder, tmp_path):
    prompted = made_cross_encoder(tmp_path / "prompted", query_prompt="query: ")
    assert CrossEncoder(prompted).scores("x", PASSAGES) == CrossEncoder(folder).scores("query: x", PASSAGES)


def test_the_activation_makes_scores_of_logits_without_losing_their_order(folder, tmp_path):
    manifest = dataclasses.replace(folder.manifest, activation="sigmoid")
    shutil.copytree(folder.path, tmp_path / "sigmoid")
    encoder = CrossEncoder(write_cross_encoder(tmp_path / "sigmoid", manifest))
    logits = encoder.logits(QUERY, PASSAGES)
    np.testing.assert_allclose(encoder.scores(QUERY, PASSAGES), [1 / (1 + math.exp(-x)) for x in logits], rtol=1e-12)


def test_past_the_deadline_there_are_no_scores(folder):
    encoder = CrossEncoder(folder, threads=1)
    assert encoder.scores(QUERY, PASSAGES, deadline=0.0, clock=Clock()) is None
    many = PASSAGES * 40  # several batches, of which the first ones are in time
    assert encoder.scores(QUERY, many, deadline=4.5, clock=Clock(each=1.0)) is None
    assert len(encoder.scores(QUERY, many, deadline=math.inf, clock=Clock(each=1.0))) == len(many)


def test_a_batch_that_would_not_be_done_in_time_is_not_begun_and_one_slow_batch_is_forgotten(folder):
    encoder = CrossEncoder(folder, threads=1)
    assert encoder.scores(QUERY, ["a tree"], clock=Clock(each=100.0))  # a token takes some ten seconds
    runs = []
    original = encoder._run
    encoder._run = lambda graph, pairs: runs.append(len(pairs)) or original(graph, pairs)
    assert encoder.scores(QUERY, ["a tree"], deadline=90.0, clock=Clock()) is None
    assert runs == []
    for _ in range(8):
        found = encoder.scores(QUERY, ["a tree"], deadline=90.0, clock=Clock())
    assert found and runs


def test_one_caller_at_a_time_and_who_waits_past_its_deadline_has_none(folder):
    encoder = CrossEncoder(folder)
    with encoder._turn:
        assert encoder.scores(QUERY, PASSAGES, deadline=0.01, clock=Clock()) is None
    assert encoder.scores(QUERY, PASSAGES, deadline=60.0, clock=Clock()) is not None


def test_scores_that_are_not_numbers(folder, monkeypatch):
    encoder = CrossEncoder(folder)
    monkeypatch.setattr(encoder, "_graph", encoder._graph)
    monkeypatch.setattr(type(encoder._graph), "run", lambda *_: np.full(8, np.nan, np.float32))
    with pytest.raises(BundleError, match="not finite"):
        encoder.scores(QUERY, PASSAGES)


def test_another_folder_that_took_this_ones_place(copied):
    encoder = CrossEncoder(copied)
    write_graph(copied.path / "model.onnx", 99)
    write_cross_encoder(copied.path, copied.manifest)
    with pytest.raises(BundleError, match="was replaced by another cross-encoder"):
        encoder.scores(QUERY, PASSAGES)


def test_a_precision_that_there_is_not(folder):
    with pytest.raises(BundleError, match=r"has no int8 model \(it has fp32\)"):
        CrossEncoder(folder, precision="int8")


def changed(folder, **keys):
    data = json.loads((folder.path / "manifest.json").read_text()) | keys
    (folder.path / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"kind": "bundle"}, "is not the manifest of a cross-encoder"),
        ({"activation": "softmax"}, "activation 'softmax' unknown; known: identity, sigmoid"),
        ({"models": {"int8": "model.onnx"}}, "models has no fp32"),
        ({"models": {"fp32": "other.onnx"}}, "'other.onnx' has no checksum"),
        ({"models": {"fp32": "../model.onnx"}}, "'../model.onnx' has no checksum"),
        ({"max_tokens": 1 << 20}, "max_tokens must be from 8 to 65536"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"labels": 3}, "labels"),
        ({"files": {"../x": {"sha256": "", "bytes": 0}}}, "has no checksum"),
    ],
)
def test_a_manifest_that_is_not_as_it_must_be(copied, keys, message):
    changed(copied, **keys)
    with pytest.raises(BundleError, match=message):
        CrossEncoderFolder.open(copied.path)


def test_a_file_that_was_changed_or_is_missing(copied):
    with (copied.path / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(BundleError, match=r"tokenizer\.json has changed since the export"):
        CrossEncoder(copied.path)
    (copied.path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json.* is missing; export the cross-encoder again"):
        CrossEncoder(copied.path)
    with pytest.raises(BundleError, match="does not exist"):
        CrossEncoder(copied.path / "none")


def test_neither_is_the_other(folder, tmp_path):
    with pytest.raises(BundleError, match=r"belongs to a cross-encoder, .*--rerank-with"):
        Bundle.open(folder.path)
    bundle = made_bundle(tmp_path / "bundle")
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "nowhere"):
        with pytest.raises(BundleError, match=f"{wrong}.*`colbert-vespa export --cross-encoder`"):
            CrossEncoderFolder.open(tmp_path / wrong)
    with pytest.raises(BundleError, match=r"is not the manifest of a cross-encoder; .*`colbert-vespa export --cross-encoder`"):
        CrossEncoder(bundle.path)


def test_the_manifest_is_as_it_was_written():
    """Folders are recognised by the checksum of it."""
    manifest = CrossEncoderManifest("made", 64, 0, models={"fp32": "model.onnx"})
    assert manifest.to_json().decode() == (
        '{\n "activation": "identity",\n "files": {},\n "format_version": 1,\n "kind": "cross-encoder",\n "max_tokens": 64,\n'
        ' "models": {\n  "fp32": "model.onnx"\n },\n "pad_id": 0,\n "query_prompt": "",\n "source": "made",\n'
        ' "token_types": true\n}\n'
    )
    assert CrossEncoderManifest.from_json(manifest.to_json().decode(), "x") == manifest
