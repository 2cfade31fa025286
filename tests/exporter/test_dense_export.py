"""Dense checkpoints of sentence-transformers, made here, as parts of bundles: every pooling, modules, prompts, dimensions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints
from dense_bundles import made_bundle

from colbert_vespa.cli.commands import main
from colbert_vespa.cli.exporting import dense_counts, dense_values
from colbert_vespa.cli.option_types import weights_of
from exporter import ExportOptions, export
from late_interaction.bundle import Bundle, DensePart
from late_interaction.dense import DenseEncoder
from late_interaction.errors import CheckpointError, UsageError

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
PROMPTS = {"query": "find the ", "document": "the text ", "passage": "unused "}
TEXTS = (*checkpoints.TEXTS, "word " * 90, "", "UPPER case")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_bundle(tmp_path_factory.mktemp("made") / "bundle")


def exported(made, tmp_path, checkpoint, **options):
    return export(made.path, tmp_path / "new", ExportOptions(dense={"dense": checkpoint}, **options))


def reference(checkpoint, side, *, normalize=True, dim=None):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu")
    encode = model.encode_query if side == "query" else model.encode_document
    return encode(list(TEXTS), batch_size=1, normalize_embeddings=normalize, truncate_dim=dim)


@pytest.mark.slow
def test_all_poolings_and_their_concatenation(made, tmp_path):
    names = {**{pooling: pooling for pooling in POOLINGS}, "two": ("cls", "mean")}
    folders = {name: checkpoints.dense(tmp_path / name, pooling=pooling) for name, pooling in names.items()}
    report = export(made.path, tmp_path / "new", ExportOptions(dense=folders))
    bundle = Bundle.open(tmp_path / "new")
    assert list(bundle.manifest.dense) == sorted(names)
    for name, folder in folders.items():
        assert report.dense[name].fidelity["fp32"].worst >= 0.9999
        assert report.dense[name].ids_equal == 1
        ours = DenseEncoder(bundle, name).encode_documents(TEXTS)
        np.testing.assert_allclose(ours, reference(folder, "document"), atol=2e-5, err_msg=name)
    assert bundle.manifest.dense["two"].dim == 2 * bundle.manifest.dense["cls"].dim


def test_modules_prompts_and_dimensions(made, tmp_path):
    """Dense, LayerNorm and Normalize after the pooling; cut before it is made of length one."""
    folder = checkpoints.dense(
        tmp_path / "m",
        modules=("Dense", "LayerNorm", "Normalize"),
        prompts=PROMPTS,
    )
    report = exported(made, tmp_path, folder, dense_dims={"dense": 8}, quantize=("int8",), least_quantized=0.97)
    bundle = Bundle.open(tmp_path / "new")
    part = bundle.manifest.dense["dense"]
    assert (part.dim, part.query_prompt, part.document_prompt) == (8, "find the ", "the text ")
    assert report.dense["dense"].modules == ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
    assert set(report.dense["dense"].fidelity) == {"fp32", "int8"}
    for side, encode in (("query", "encode_queries"), ("document", "encode_documents")):
        ours = getattr(DenseEncoder(bundle, precision="fp32"), encode)(TEXTS)
        np.testing.assert_allclose(ours, reference(folder, side, dim=8), atol=2e-5)
    assert json.loads((bundle.path / "report.json").read_text())["dense"]["dense"]["ids_equal"] == 1
    copied = {name: entry for name, entry in bundle.manifest.files.items() if not name.startswith(("dense/", "report"))}
    assert copied == {name: entry for name, entry in made.manifest.files.items() if name != "report.json"}


def test_vectors_that_are_compared_by_dot_product_keep_their_length(made, tmp_path):
    folder = checkpoints.dense(tmp_path / "m", similarity="dot")
    exported(made, tmp_path, folder)
    bundle = Bundle.open(tmp_path / "new")
    assert not bundle.manifest.dense["dense"].normalized
    ours = DenseEncoder(bundle).encode_documents(TEXTS)
    np.testing.assert_allclose(ours, reference(folder, "document", normalize=False), rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match="fp16"):
        export(made.path, tmp_path / "other", ExportOptions(dense={"dense": folder}, quantize=("fp16",)))


def config(folder, name, **changes):
    path = folder / name
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | changes if isinstance(data, dict) else data))


def modules(folder, change):
    path = folder / "modules.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: modules(f, lambda m: m.append(m[1] | {"idx": 2, "type": "sentence_transformers.models.WordWeights"})),
         r"module 2 is sentence_transformers\.models\.WordWeights, which cannot be exported; .*: Dense, Dropout"),
        (lambda f: modules(f, lambda m: m[0].update(type="custom_code.Transformer")), r"module 0 is custom_code\.Transformer"),
        (lambda f: config(f, "config.json", auto_map={"AutoModel": "own.Model"}), "own.Model"),
        (lambda f: config(f, "config_sentence_transformers.json", model_type="SparseEncoder"), "is a SparseEncoder"),
        (lambda f: config(f, "config_sentence_transformers.json", model_type="ColBERT"), "is a pylate checkpoint"),
        (lambda f: config(f, "config_sentence_transformers.json", similarity_fn_name="euclidean"), "vectors by euclidean"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "has pickled weights"),
        (lambda f: (config(f, "1_Pooling/config.json", include_prompt=False),
                    config(f, "config_sentence_transformers.json", prompts={"query": "q "})), "include_prompt false"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_and_leaves_nothing(made, tmp_path, change, message):
    folder = checkpoints.dense(tmp_path / "m")
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        exported(made, tmp_path, folder)
    assert not list(tmp_path.glob("*new*"))


def test_a_bundle_gets_dense_models_and_nothing_else(made, tmp_path):
    folder = checkpoints.dense(tmp_path / "m")
    exported(made, tmp_path, folder)
    with pytest.raises(UsageError, match="is already a bundle; .*--dense"):
        export(made.path, tmp_path / "other")
    with pytest.raises(UsageError, match="--rules"):
        export(made.path, tmp_path / "other", ExportOptions(dense={"x": folder}, rules="vespa"))
    with pytest.raises(UsageError, match="already has a dense model 'dense'"):
        export(tmp_path / "new", tmp_path / "other", ExportOptions(dense={"dense": folder}))
    with pytest.raises(CheckpointError, match="--dense-dim 99 is more than the 32 dimensions"):
        export(made.path, tmp_path / "other", ExportOptions(dense={"x": folder}, dense_dims={"x": 99}))
    export(tmp_path / "new", tmp_path / "both", ExportOptions(dense={"second": folder}, dense_dims={"second": 4}))
    with pytest.raises(UsageError, match="--dense x=ready-made .*--dense-dim x=N"):
        export(made.path, tmp_path / "other", ExportOptions(dense={"x": "ready-made"}))
    export(made.path, tmp_path / "ready", ExportOptions(dense={"x": "ready-made"}, dense_dims={"x": 7}))
    assert Bundle.open(tmp_path / "ready").manifest.dense == {"x": DensePart("ready-made", 7)}
    assert {name: part.dim for name, part in Bundle.open(tmp_path / "both").manifest.dense.items()} == {
        "dense": 32,
        "second": 4,
    }


def test_options_name_models():
    assert dense_values(["a/b", "x=c=d"], "--dense") == {"dense": "a/b", "x": "c=d"}
    assert dense_counts(["64", "x=8"], "--dense-dim") == {"dense": 64, "x": 8}
    with pytest.raises(UsageError, match="--dense is given twice for the dense model 'dense'"):
        dense_values(["a", "b"], "--dense")
    for wrong in ("0", "x=", "-1", "many", "x=1.5", "1000000", "X=3"):
        with pytest.raises(UsageError, match="--dense-dim must be N or NAME=N: .* six digits at most, .* small letters"):
            dense_counts([wrong], "--dense-dim")
    with pytest.raises(UsageError, match="--dense-dim names y"):
        ExportOptions(dense={"x": "m"}, dense_dims={"y": 3})
    with pytest.raises(UsageError, match="'e5_explained'"):
        ExportOptions(dense={"e5_explained": "m"})
    assert weights_of(["bm25=0.5", "dense=1"]) == {"bm25": 0.5, "dense": 1.0}
    with pytest.raises(UsageError, match="bm25"):
        weights_of(["bm25=0.5", "bm25=1"])


def test_adding_to_a_bundle_in_its_own_place_is_said(made, tmp_path, capsys):
    shutil.copytree(made.path, tmp_path / "own")
    place = str(tmp_path / "own")
    with pytest.raises(SystemExit) as ended:
        main(["export", place, "-o", place, "--dense", "x=ready-made", "--dense-dim", "x=7"])
    assert not ended.value.code
    assert "in its own place" in " ".join(capsys.readouterr().out.split())
    assert list(Bundle.open(tmp_path / "own").manifest.dense) == ["x"]
    with pytest.raises(SystemExit):
        main(["export", place, "-o", str(tmp_path / "b"), "--dense", "y=ready-made", "--dense-dim", "y=7"])
    assert "in its own place" not in capsys.readouterr().out
