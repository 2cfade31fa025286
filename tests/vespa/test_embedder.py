"""Vespa's own ColBertEmbedder (Java) on a bundle with its rules: the same vectors as our encoder."""

import functools

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints

from exporter import ExportOptions, export
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from vespa_app.package import build_package
from vespa_app.running.layouts import embedder_of
from vespa_app.settings import AppSettings

pytestmark = pytest.mark.oracle

TEXTS = [
    text
    for text in checkpoints.HARD_TEXTS
    if text.strip() and not any(ord(letter) < 32 or ord(letter) > 0xFFFF for letter in text)
]


@pytest.mark.parametrize("layout", ["stanford", "pylate", "pylate-unexpanded"])
def test_vespas_embedder_equals_our_encoder_under_its_rules(vespa_oracle, tmp_path, monkeypatch, layout):
    # one model in every process: rounding differs with the model, and 1.1e-5 came of one that a process had drawn
    tokenizer = functools.partial(checkpoints.wordpiece_tokenizer, trained=False)
    monkeypatch.setattr(checkpoints, "wordpiece_tokenizer", tokenizer)
    if layout == "stanford":
        checkpoint = checkpoints.stanford(tmp_path / "checkpoint")
    else:
        settings = {"do_query_expansion": False, "prompts": {"query": "what "}} if layout.endswith("unexpanded") else None
        checkpoint = checkpoints.pylate(tmp_path / "checkpoint", settings=settings)
    report = export(checkpoint, tmp_path / "bundle", ExportOptions(rules="vespa"))
    assert report.fidelity["fp32"].worst >= 0.99999
    bundle = Bundle.open(tmp_path / "bundle")
    encoder = Encoder(bundle)
    settings = AppSettings(dim=16, query_rows=16, codec="float32", candidates=("exhaustive",))
    app = build_package(bundle, settings).write(tmp_path / "app")
    embedder = embedder_of(bundle.sha256, settings).id
    for side, destination, encode in (
        ("qt", "query(qt)", encoder.encode_queries),
        ("dt", "passage.embedded", encoder.encode_documents),
    ):
        for text, ours in zip(TEXTS, encode(TEXTS), strict=True):
            type_ = f"tensor<float>({side}{{}},x[16])"
            reply = vespa_oracle.ask("embed", app=str(app), embedder=embedder, destination=destination, text=text, type=type_)
            assert reply["ok"], reply
            blocks = reply["result"]["blocks"]
            theirs = np.array([blocks[str(row)] for row in range(len(blocks))], np.float32)
            assert theirs.shape == ours.shape, (destination, text)
            np.testing.assert_allclose(theirs, ours, atol=1e-5, err_msg=f"{destination} {text!r}")
