"""next-plaid's ONNX folders, made here from tiny checkpoints as its exporter makes them."""

from __future__ import annotations

import json
import shutil
import string

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

from golden.loaders.make_checkpoints import FOLDER as GOLDEN
from golden.loaders.strings import STRINGS

from exporter import ExportOptions, export
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from exporter.quiet import quiet
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.errors import CheckpointError
from late_interaction.tokenizing import Tokenizing


def write_folder(folder, base: str, *, types: bool, normalised: bool = True, **settings):
    """`types`: a third input, whose embeddings the graph really adds. settings: over the exporter's."""
    import torch

    checkpoint = load_checkpoint(scan_checkpoint(GOLDEN / base))
    modules = list(checkpoint.model)
    denses = [module for module in modules if type(module).__name__ == "Dense"]

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.denses = modules[0].model, torch.nn.ModuleList(denses)

        def forward(self, input_ids, attention_mask, token_type_ids=None):
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
            for dense in self.denses:
                rows = dense({"token_embeddings": rows})["token_embeddings"]
            return torch.nn.functional.normalize(rows, p=2, dim=-1) if normalised else 3 * rows

    folder.mkdir()
    names = ["input_ids", "attention_mask", "token_type_ids"][: 3 if types else 2]
    example = torch.ones((2, 7), dtype=torch.int64)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            Graph().eval(), tuple(example * (name != "token_type_ids") for name in names), str(folder / "model.onnx"),
            input_names=names, output_names=["output"], opset_version=14, dynamo=False,
            dynamic_axes={name: {0: "batch_size", 1: "sequence_length"} for name in [*names, "output"]},
        )  # fmt: skip
    shutil.copy(GOLDEN / base / "tokenizer.json", folder)
    tokenizer = checkpoint.tokenizer
    usual = {
        "model_type": "ColBERT", "model_name": base, "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 14,
        "document_length": 24, "do_query_expansion": True, "attend_to_expansion_tokens": False, "embedding_dim": 8,
        "uses_token_type_ids": types, "mask_token_id": tokenizer.mask_token_id, "pad_token_id": tokenizer.pad_token_id,
        "skiplist_words": [*string.punctuation, "unheard-of"], "do_lower_case": False,
    }  # fmt: skip
    (folder / "onnx_config.json").write_text(json.dumps({k: v for k, v in (usual | settings).items() if v is not None}))
    return folder


CASES = {
    "bert": ("pylate-bert", {"types": True}),
    "bert-unexpanded": ("pylate-bert", {"types": True, "do_query_expansion": False, "query_prefix_id": None}),
    "bert-defaults": ("pylate-bert", {"types": True, "mask_token_id": None, "pad_token_id": None, "embedding_dim": 8}),
    "bert-raw-rows": ("pylate-bert", {"types": True, "normalised": False}),
    "modernbert": ("pylate-modernbert", {"types": False, "do_lower_case": True, "skiplist_words": []}),
    "xlmr": ("pylate-xlmr", {"types": False}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    found = {}

    def get(name):
        if name not in found:
            root = tmp_path_factory.mktemp(name)
            base, settings = CASES[name]
            folder = write_folder(root / "folder", base, **settings)
            report = export(folder, root / "bundle", ExportOptions(sample=STRINGS[:40]))
            found[name] = folder, Bundle.open(root / "bundle"), report
        return found[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_the_bundle_gives_the_rows_of_the_graph_as_it_was(made, name):
    _, bundle, report = made(name)
    assert report.ids_equal == 1
    assert report.fidelity["fp32"].worst >= 0.99999
    assert (bundle.manifest.layout, bundle.manifest.dim) == ("next-plaid", 8)
    assert report.texts >= 20
    for rows in Encoder(bundle, precision="fp32").encode_documents(["the capital of france", "x"]):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_next_plaid_for_every_hard_string(made, name):
    """peers.md 3.4, written down once more: trim, lower, tokenize in full, first max - 2 and the last, marker, pad."""
    from tokenizers import Tokenizer

    folder, bundle, _ = made(name)
    config = json.loads((folder / "onnx_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizing = Tokenizing(bundle)
    skip = {tokenizer.token_to_id(word) for word in config["skiplist_words"]}
    mask = tokenizer.token_to_id("[MASK]") or tokenizer.token_to_id("<mask>")
    for side, length, rows in (("query", 14, tokenizing.queries(STRINGS)), ("document", 24, tokenizing.documents(STRINGS))):
        for text, row in zip(STRINGS, rows, strict=True):
            ids = tokenizer.encode(text.strip().lower() if config["do_lower_case"] else text.strip()).ids
            if len(ids) >= length:
                ids = ids[: length - 2] + ids[-1:]
            ids = [ids[0], tokenizer.token_to_id(config[f"{side}_prefix"]), *ids[1:]]
            if side == "query" and config["do_query_expansion"]:
                ids += [mask] * (length - len(ids))
            assert row.ids.tolist() == ids, (side, text)
            assert row.attention.tolist() == [1] * len(ids), (side, text)
            assert row.keep.tolist() == [side == "query" or id_ not in skip for id_ in ids], (side, text)


def test_expansion_is_attended_to_whatever_the_settings_say(made):
    assert made("bert")[1].manifest.query.expansion.attend is True
    assert made("bert-unexpanded")[1].manifest.query.expansion is None


def test_weights_beside_the_graph_are_taken_instead(tmp_path):
    shutil.copytree(GOLDEN / "pylate-bert", tmp_path / "both")
    (tmp_path / "both" / "onnx_config.json").write_text("{}")
    export(tmp_path / "both", tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest.layout == "pylate"


def spoil_config(**changes):
    def spoil(folder):
        config = json.loads((folder / "onnx_config.json").read_text()) | changes
        (folder / "onnx_config.json").write_text(json.dumps(config))

    return spoil


def truncating(folder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(13)
    tokenizer.save(str(folder / "tokenizer.json"))


FAULTS = {
    "no graph": (lambda folder: (folder / "model.onnx").unlink(), "no model.onnx"),
    "damaged graph": (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx cannot be read"),
    "damaged tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
    "damaged settings": (lambda folder: (folder / "onnx_config.json").write_text("["), "onnx_config.json cannot be read"),
    "wrong dim": (spoil_config(embedding_dim=128), "says 128 dimensions, .* 8"),
    "unknown marker": (spoil_config(query_prefix="[Query]"), r"marker token '\[Query\]'"),
    "truncating tokenizer": (truncating, "truncates to 13 tokens"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_folders_are_refused_in_one_line(tmp_path, made, name):
    shutil.copytree(made("bert")[0], tmp_path / "folder")
    spoil, reason = FAULTS[name]
    spoil(tmp_path / "folder")
    with pytest.raises(CheckpointError, match=reason) as caught:
        export(tmp_path / "folder", tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()
