"""What is exported and what is refused, with the reason: published models in miniature, faulty folders, pickles."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

from golden.loaders.make_checkpoints import FOLDER as GOLDEN

from exporter import ExportOptions, export
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.errors import CheckpointError

HIDDEN = 16
QUICK = ExportOptions(sample=("what is late interaction",))  # instead of the docstrings that export would verify on


def edit(folder: Path, name: str, **changes) -> None:
    """Keys of a JSON file; None takes a key out."""
    data = json.loads((folder / name).read_text(encoding="utf-8")) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in data.items() if value is not None}), encoding="utf-8")


def copy(base: str, folder: Path) -> Path:
    shutil.copytree(GOLDEN / base, folder)
    return folder


def replace_encoder(folder: Path, model_type: str, prefix: str = "", **settings) -> None:
    """Random weights of another architecture; `prefix`: of their names, beside the projection of a Stanford checkpoint."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModel

    old = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=old["vocab_size"], hidden_size=HIDDEN, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=260, pad_token_id=old["pad_token_id"], **settings,
    )  # fmt: skip
    tensors = {f"{prefix}{name}": tensor.contiguous() for name, tensor in AutoModel.from_config(config).state_dict().items()}
    if prefix:
        tensors["linear.weight"] = load_file(str(folder / "model.safetensors"))["linear.weight"]
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    written = config.to_dict() | {"architectures": ["HF_ColBERT"] if prefix else [type(AutoModel.from_config(config)).__name__]}
    (folder / "config.json").write_text(json.dumps(written, default=str), encoding="utf-8")


PYLATE = "config_sentence_transformers.json"


def colbert_v2(folder):
    edit(copy("stanford-bert", folder), "artifact.metadata", query_maxlen=32, doc_maxlen=180, nbits=1, interaction="colbert")


def answerai_small(folder):
    edit(copy("stanford-bert", folder), "artifact.metadata", query_maxlen=32, doc_maxlen=512)


def jina_v2(folder):
    edit(copy("stanford-xlmr-markers", folder), "artifact.metadata", query_maxlen=32, doc_maxlen=8192)
    edit(folder, "config.json", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"})
    (folder / "own.py").write_text(
        "from transformers import XLMRobertaConfig, XLMRobertaModel\n\n\n"
        "class OwnConfig(XLMRobertaConfig):\n    pass\n\n\nclass OwnModel(XLMRobertaModel):\n    config_class = OwnConfig\n"
    )


def colbert_xm(folder, language="en_XX"):
    copy("stanford-xlmr", folder)
    replace_encoder(folder, "xmod", "roberta.", languages=["de_DE", "en_XX"], default_language=language, pre_norm=False)


def colbert_xm_without_language(folder):
    colbert_xm(folder, None)


def gte_modern(folder):
    edit(copy("pylate-modernbert", folder), PYLATE, query_length=32, document_length=300)


def reason_modern(folder):
    edit(copy("pylate-modernbert", folder), PYLATE, query_length=128, document_length=8192, skiplist_words=[])


def late_on(folder):
    edit(copy("pylate-modernbert", folder), PYLATE, query_length=32, document_length=300, do_query_expansion=False)


def colbert_zero(folder):
    edit(copy("pylate-modernbert-prompts", folder), PYLATE, query_length=39, document_length=519)


def late_on_code(folder):
    edit(copy("pylate-modernbert", folder), PYLATE, query_length=256, document_length=2048, skiplist_words=[])


def mxbai_edge(folder):
    edit(copy("pylate-bert-three", folder), "sentence_bert_config.json", do_lower_case=True)


def mxbai_edge_as_published(folder):
    """2_Dense is square, so its residual has no weights, and nothing but config.json can say whether it is there."""
    mxbai_edge(folder)
    edit(folder, "2_Dense/config.json", use_residual=False)


def mxbai_edge_contradicted(folder):
    mxbai_edge(folder)
    edit(folder, "1_Dense/config.json", use_residual=False)


def lfm2(folder):
    copy("pylate-modernbert", folder)
    replace_encoder(
        folder, "lfm2", num_key_value_heads=1, layer_types=["conv", "full_attention"], conv_L_cache=3, block_ff_dim=32,
        block_multiple_of=8, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    edit(folder, "tokenizer_config.json", mask_token=None, bos_token="[CLS]", eos_token="[SEP]")
    edit(folder, "special_tokens_map.json", mask_token=None)


def muvera_nano(folder):
    edit(copy("pylate-bert", folder), PYLATE, document_length=300)


def muvera_femto(folder):
    copy("pylate-bert", folder)
    edit(folder, "config.json", model_type="bert_hash", auto_map={"AutoModel": "modeling_bert_hash.BertHashModel"})


def roberta(folder):
    copy("pylate-roberta", folder)


def distilbert(folder):
    copy("pylate-distilbert", folder)


EXPORTED = {
    "colbert-ir/colbertv2.0": (colbert_v2, "stanford", 32, 180, True),
    "answerdotai/answerai-colbert-small-v1": (answerai_small, "stanford", 32, 512, True),
    "antoinelouis/colbert-xm": (colbert_xm, "stanford", 14, 24, True),
    "lightonai/GTE-ModernColBERT-v1": (gte_modern, "pylate", 32, 300, True),
    "lightonai/Reason-ModernColBERT": (reason_modern, "pylate", 128, 8192, True),
    "lightonai/LateOn": (late_on, "pylate", 32, 300, False),
    "lightonai/ColBERT-Zero": (colbert_zero, "pylate", 39, 519, False),
    "lightonai/LateOn-Code": (late_on_code, "pylate", 256, 2048, True),
    "mixedbread-ai/mxbai-edge-colbert-v0 (repaired)": (mxbai_edge, "pylate", 14, 24, True),
    "mixedbread-ai/mxbai-edge-colbert-v0 (as published)": (mxbai_edge_as_published, "pylate", 14, 24, True),
    "LiquidAI/LFM2-ColBERT-350M": (lfm2, "pylate", 14, 24, True),
    "NeuML/colbert-muvera-nano": (muvera_nano, "pylate", 14, 300, True),
    "a RoBERTa": (roberta, "pylate", 14, 24, True),
    "a DistilBERT": (distilbert, "pylate", 14, 24, True),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_published_models_in_miniature_are_exported(tmp_path, name):
    """peers.md 3.7: export verifies rows against torch to a cosine of .9999 and writes nothing otherwise."""
    make, layout, query, document, expanded = EXPORTED[name]
    make(tmp_path / "checkpoint")
    report = export(tmp_path / "checkpoint", tmp_path / "bundle", QUICK)
    assert report.fidelity["fp32"].worst >= 0.9999
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.layout, manifest.query.length, manifest.document.length) == (layout, query, document)
    assert (manifest.query.expansion is not None) == expanded
    assert manifest.query.marker_id is not None


REFUSED = {
    "jinaai/jina-colbert-v2": (jina_v2, r"needs its own code \(own.OwnConfig\).*--trust-remote-code"),
    "NeuML/colbert-muvera-femto": (muvera_femto, "needs its own code .*BertHashModel"),
    "antoinelouis/colbert-xm without a language": (colbert_xm_without_language, "default_language.* de_DE, en_XX"),
    "mixedbread-ai/mxbai-edge-colbert-v0, contradicted": (mxbai_edge_contradicted, "1_Dense: .* residual projection"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_published_models_in_miniature_are_refused_with_the_reason(tmp_path, name):
    make, reason = REFUSED[name]
    make(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=reason) as caught:
        export(tmp_path / "checkpoint", tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_own_code_runs_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    jina_v2(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "bundle", ExportOptions(trust_remote_code=True))
    expansion = Bundle.open(tmp_path / "bundle").manifest.query.expansion
    assert (expansion.attend, expansion.length) == (True, 32)


def pickled(folder: Path) -> list[Path]:
    """Turns every safetensors file into what torch.save writes."""
    import torch
    from safetensors.torch import load_file

    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        torch.save(load_file(str(path)), str(path.with_name("pytorch_model.bin")))
        path.unlink()
        found.append(path.with_name("pytorch_model.bin"))
    return found


@pytest.mark.parametrize("base", ["stanford-bert", "pylate-bert"])
def test_pickled_weights_are_read_only_with_the_flag_and_give_the_same_bundle(tmp_path, base):
    pickled(copy(base, tmp_path / "pickled"))
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin has pickled weights.*--allow-pickle"):
        export(tmp_path / "pickled", tmp_path / "bundle")
    before = sorted(path.name for path in (tmp_path / "pickled").rglob("*"))
    export(tmp_path / "pickled", tmp_path / "bundle", ExportOptions(allow_pickle=True))
    export(GOLDEN / base, tmp_path / "reference")
    assert sorted(path.name for path in (tmp_path / "pickled").rglob("*")) == before
    mine, reference = (Bundle.open(tmp_path / name).manifest.files["model.onnx"] for name in ("bundle", "reference"))
    assert mine == reference


def test_one_pickled_module_among_safetensors_is_refused(tmp_path):
    folder = copy("pylate-bert", tmp_path / "checkpoint")
    shutil.move(pickled(copy("pylate-bert", tmp_path / "other") / "1_Dense")[0], folder / "1_Dense" / "pytorch_model.bin")
    (folder / "1_Dense" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1_Dense/pytorch_model.bin has pickled weights"):
        load_checkpoint(scan_checkpoint(folder))


class Harmful:
    ran = False

    def __reduce__(self):
        return (setattr, (Harmful, "ran", True))


def test_a_pickle_that_would_run_code_does_not_even_with_the_flag(tmp_path):
    import torch

    folder = copy("stanford-bert", tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    torch.save({"linear.weight": Harmful()}, str(folder / "pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="holds more than tensors") as caught:
        load_checkpoint(scan_checkpoint(folder), allow_pickle=True)
    assert "\n" not in str(caught.value)
    assert not Harmful.ran


def without_projection(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(folder / "model.safetensors"))
    del tensors["linear.weight"]
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def renamed_weights(folder):
    from safetensors.torch import load_file, save_file

    tensors = {name.replace("attention", "attend"): t for name, t in load_file(str(folder / "model.safetensors")).items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


FAULTS = {
    "no projection": ("stanford-bert", without_projection, "no linear.weight"),
    "weights of other names": ("stanford-bert", renamed_weights, r"no encoder.layer.0.attention.*would be random"),
    "weights of other names, PyLate": ("pylate-bert", renamed_weights, "would be random"),
    "damaged weights": ("stanford-bert", lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "is damaged"),
    "no weights": ("stanford-bert", lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "damaged metadata": ("stanford-bert", lambda f: (f / "artifact.metadata").write_text("{"), "metadata cannot be read"),
    "damaged modules": ("pylate-bert", lambda f: (f / "modules.json").write_text("["), "modules.json cannot be read"),
    "foreign activation": (
        "pylate-bert", lambda f: edit(f, "1_Dense/config.json", activation_function="os.abort"), "os.abort is not one of",
    ),
    "a marker that is not there": (
        "pylate-bert", lambda f: edit(f, PYLATE, query_prefix="[Query] "), r"marker token '\[Query\] ' is not in",
    ),
    "an explicit Stanford marker that is not there": (
        "stanford-xlmr", lambda f: edit(f, "artifact.metadata", query_token_id="[Q]"), r"marker token '\[Q\]' is not in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_folders_are_refused_in_one_line(tmp_path, name):
    base, spoil, reason = FAULTS[name]
    spoil(copy(base, tmp_path / "checkpoint"))
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(scan_checkpoint(tmp_path / "checkpoint"))
    assert "\n" not in str(caught.value)


def test_metadata_below_a_config_key_and_without_the_architecture_is_stanford_all_the_same(tmp_path):
    folder = copy("stanford-bert", tmp_path / "checkpoint")
    edit(folder, "config.json", architectures=["BertModel"])
    settings = json.loads((folder / "artifact.metadata").read_text())
    (folder / "artifact.metadata").write_text(json.dumps({"config": settings, "version": "colbert-v0.4"}))
    export(folder, tmp_path / "bundle")
    export(GOLDEN / "stanford-bert", tmp_path / "reference")
    texts = ["what is late interaction?", string.punctuation]
    mine, reference = (Encoder(Bundle.open(tmp_path / name), precision="fp32") for name in ("bundle", "reference"))
    for a, b in zip(mine.encode_queries(texts), reference.encode_queries(texts), strict=True):
        assert a.shape == b.shape == (14, 8)
        assert (a * b).sum(axis=1).min() >= 0.99999
