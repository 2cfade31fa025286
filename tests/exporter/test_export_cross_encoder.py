"""Cross-encoders out of checkpoints: scores and order are sentence-transformers'."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints
import sentence_transformers

from exporter import ExportOptions, export_cross_encoder
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder, CrossEncoderFolder
from late_interaction.errors import BundleError, CheckpointError, UsageError

GOLDEN = Path(__file__).parent.parent / "golden" / "cross_encoder"
SAMPLE = ExportOptions(sample=checkpoints.TEXTS)


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "folder"
    options = ExportOptions(sample=checkpoints.TEXTS, quantize=("int8",), least_quantized=0.9)
    return folder, export_cross_encoder(GOLDEN / "checkpoint", folder, options)


def test_scores_and_order_are_those_of_sentence_transformers(exported, golden):
    """Of one pair at a time, as their batches pad with other float noise."""
    encoder = CrossEncoder(exported[0], precision="fp32")
    for query, wanted in zip(golden["queries"], golden["scores"], strict=True):
        found = encoder.scores(query, golden["passages"])
        np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
        assert np.argsort(found).tolist() == np.argsort(wanted).tolist()


def test_int8_stays_near(exported, golden):
    encoder = CrossEncoder(exported[0])
    assert encoder.precision == "int8"
    found = [encoder.scores(query, golden["passages"]) for query in golden["queries"]]
    assert np.corrcoef(np.ravel(found), np.ravel(golden["scores"]))[0, 1] > 0.9


def test_what_is_measured_is_in_the_folder(exported):
    folder, report = exported
    manifest = CrossEncoderFolder.open(folder).manifest
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    assert "report.json" in manifest.files
    assert (manifest.source, manifest.activation, manifest.max_tokens, manifest.token_types) == (
        "checkpoint",
        "identity",
        64,
        True,
    )
    assert set(report.fidelity) == {"fp32", "int8"}
    assert report.fidelity["fp32"].worst < 1e-4 and report.fidelity["fp32"].order_equal == 1
    assert report.pairs == 8 * (5 + len(checkpoints.TEXTS))


def test_the_activation_is_the_checkpoints(tmp_path, golden):
    """Sigmoid, where it names none."""
    shutil.copytree(GOLDEN / "checkpoint", tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    del config["sentence_transformers"]
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    export_cross_encoder(tmp_path / "checkpoint", tmp_path / "folder", SAMPLE)
    encoder = CrossEncoder(tmp_path / "folder")
    model = sentence_transformers.CrossEncoder(str(tmp_path / "checkpoint"), device="cpu", local_files_only=True)
    query, passages = golden["queries"][0], golden["passages"]
    np.testing.assert_allclose(encoder.scores(query, passages), model.predict([[query, p] for p in passages]), atol=1e-5)


def test_without_token_types(tmp_path):
    checkpoints.cross_encoder(tmp_path / "checkpoint", family="bytes")
    report = export_cross_encoder(tmp_path / "checkpoint", tmp_path / "folder", SAMPLE)
    assert report.fidelity["fp32"].worst < 1e-3
    assert not CrossEncoderFolder.open(tmp_path / "folder").manifest.token_types


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BertModel"]}, r"is not a cross-encoder: config.json names BertModel"),
        ({"architectures": ["HF_ColBERT"]}, r"is a stanford checkpoint, not a cross-encoder"),
        ({"auto_map": {"AutoModel": "code.Model"}}, r"needs its own code \(code.Model\)"),
        ({"num_labels": 1, "num_hidden_layers": 3}, r"have no bert\.encoder\.layer\.2\..* random"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.ReLU"}}, r"activation torch.nn.ReLU cannot be exported"),
        ({"sentence_transformers": {"activation_fn": "os.system"}}, r"activation os.system cannot be exported"),
    ],
)  # fmt: skip
def test_what_is_refused_in_one_line(tmp_path, change, message):
    place = shutil.copytree(GOLDEN / "checkpoint", tmp_path / "checkpoint")
    config = json.loads((place / "config.json").read_text()) | change
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        export_cross_encoder(place, tmp_path / "folder", SAMPLE)
    assert not (tmp_path / "folder").exists()


def test_more_than_one_label(tmp_path):
    checkpoints.cross_encoder(tmp_path / "checkpoint", labels=3)
    with pytest.raises(CheckpointError, match="has 3 labels"):
        export_cross_encoder(tmp_path / "checkpoint", tmp_path / "folder", SAMPLE)


def test_pickled_weights_are_read_only_where_that_is_allowed(tmp_path):
    import torch
    from safetensors.torch import load_file

    place = shutil.copytree(GOLDEN / "checkpoint", tmp_path / "checkpoint")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickled weights"):
        export_cross_encoder(place, tmp_path / "folder", SAMPLE)
    report = export_cross_encoder(place, tmp_path / "folder", ExportOptions(sample=checkpoints.TEXTS, allow_pickle=True))
    assert report.fidelity["fp32"].worst < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(dim=8), "--dim .*--cross-encoder"),
        (ExportOptions(rules="vespa"), "--rules"),
        (ExportOptions(quantize=("fp16",)), "--quantize fp16 .*: int8, int8-tensor"),
        (ExportOptions(quantize=("int3",)), "--quantize int3"),
    ],
)
def test_options_without_a_meaning_here(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        export_cross_encoder(GOLDEN / "checkpoint", tmp_path / "folder", options)


def test_scores_past_the_tolerance_leave_nothing_unless_forced(tmp_path):
    strict = ExportOptions(sample=checkpoints.TEXTS, quantize=("int8",), least_quantized=1.0)
    with pytest.raises(CheckpointError, match=r"scores differ .*int8: correlation .*nothing was written; .*--force"):
        export_cross_encoder(GOLDEN / "checkpoint", tmp_path / "folder", strict)
    assert not (tmp_path / "folder").exists()


def test_on_the_command_line(tmp_path, cli):
    sample = tmp_path / "sample.jsonl"
    sample.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(checkpoints.TEXTS)))
    command = ("export", str(GOLDEN / "checkpoint"), "-o", str(tmp_path / "folder"), "--cross-encoder")
    answer = json.loads(cli(*command, "--sample", str(sample), "--json").stdout.splitlines()[-1])
    assert answer["cross_encoder"] == str(tmp_path / "folder")
    assert answer["fidelity"]["fp32"]["order_equal"] == 1
    with pytest.raises(BundleError, match="belongs to a cross-encoder"):
        Bundle.open(tmp_path / "folder")
    told = cli("export", str(GOLDEN / "checkpoint"), "-o", str(tmp_path / "bundle"), code=1).stderr
    assert "--cross-encoder" in " ".join(told.split())
