"""Every layout: exported, tokenized by the rules it was trained with, vectors equal to torch's."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints

from exporter import ExportOptions, export
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from late_interaction.bundle import Bundle, Pooling
from late_interaction.encoder import Encoder
from late_interaction.errors import BundleError, CheckpointError, UsageError
from late_interaction.pooling import pool
from late_interaction.tokenizing import Tokenizing
from query import explain
from query.types import Hit

LAYOUTS = {
    "stanford": checkpoints.stanford,
    "stanford-attend": lambda folder: checkpoints.stanford(folder, attend=True),
    "pylate": checkpoints.pylate,
    "pylate-prompts": lambda folder: checkpoints.pylate(
        folder, settings={"prompts": {"query": "what ", "document": "the "}, "do_query_expansion": False}, lower_case=True
    ),
    "pylate-bytes": lambda folder: checkpoints.pylate(folder, family="bytes", settings={"skiplist_words": []}),
}

PLAIN = ExportOptions(sample=checkpoints.TEXTS * 8, dim=16, quantize=("int8", "int8-tensor", "fp16"), force=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """layout -> (checkpoint folder, bundle, report), each made when first asked for."""
    made = {}

    def get(name):
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            if name == "plain":
                checkpoint = checkpoints.plain(root / "checkpoint")
                report = export(checkpoint, root / "bundle", PLAIN)
            else:
                checkpoint = LAYOUTS[name](root / "checkpoint")
                report = export(checkpoint, root / "bundle", ExportOptions(sample=checkpoints.HARD_TEXTS))
            made[name] = checkpoint, Bundle.open(root / "bundle"), report
        return made[name]

    return get


@pytest.mark.parametrize("name", [*LAYOUTS, "plain"])
def test_vectors_equal_torch(exported, name):
    _, bundle, report = exported(name)
    assert report.fidelity["fp32"].worst >= 0.99999
    assert bundle.manifest.dim == 16
    assert json.loads((bundle.path / "report.json").read_text())["fidelity"]["fp32"]["worst"] >= 0.99999
    vectors = Encoder(bundle, precision="fp32").encode_documents(checkpoints.TEXTS)
    for rows in vectors:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["pylate", "pylate-bytes", "stanford"])
def test_vectors_equal_sentence_transformers_own_encoding(exported, name):
    checkpoint, bundle, _ = exported(name)
    model = load_checkpoint(scan_checkpoint(checkpoint)).model
    encoder = Encoder(bundle, precision="fp32")
    texts = [text for text in checkpoints.TEXTS if text.isascii()]
    for ours, theirs in (
        (encoder.encode_documents(texts), model.encode_document(texts, convert_to_numpy=True)),
        (encoder.encode_queries(texts), model.encode_query(texts, convert_to_numpy=True)),
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert (a * b).sum(axis=1).min() >= 0.99999


def reference_stanford(tokenizer, text, length, marker, *, query, attend):
    """peers.md 3.1, step by step."""
    encoded = tokenizer(text, truncation=True, max_length=length - 1, padding="max_length" if query else False)
    ids, attention = encoded["input_ids"], encoded["attention_mask"]
    ids = [ids[0], marker, *ids[1:]]
    attention = [1, 1, *attention[1:]]
    if query:
        ids = [tokenizer.mask_token_id if id_ == tokenizer.pad_token_id else id_ for id_ in ids]
        attention = [1] * len(ids) if attend else attention
        return ids, attention, [True] * len(ids)
    skip = {tokenizer.encode(mark, add_special_tokens=False)[0] for mark in string.punctuation}
    return ids, attention, [id_ not in skip and id_ != tokenizer.pad_token_id for id_ in ids]


@pytest.mark.parametrize("name", ["stanford", "stanford-attend"])
def test_stanford_ids_by_the_rules_of_colbert_ai(exported, name):
    checkpoint, bundle, _ = exported(name)
    tokenizer = load_checkpoint(scan_checkpoint(checkpoint)).tokenizer
    tokenizing = Tokenizing(bundle)
    attend = name == "stanford-attend"
    texts = [text for text in checkpoints.HARD_TEXTS if "[PAD]" not in text]
    for query, rows in ((True, tokenizing.queries(texts)), (False, tokenizing.documents(texts))):
        for text, row in zip(texts, rows, strict=True):
            length, marker = (16, "[unused0]") if query else (40, "[unused1]")
            marker = tokenizer.convert_tokens_to_ids(marker)
            ids, attention, keep = reference_stanford(tokenizer, text, length, marker, query=query, attend=attend)
            assert row.ids.tolist() == ids, text
            assert row.attention.tolist() == attention, text
            assert row.keep.tolist() == keep, text


@pytest.mark.parametrize("name", ["pylate", "pylate-prompts", "pylate-bytes"])
def test_pylate_ids_by_the_rules_of_pylate(exported, name):
    """peers.md 3.2: prompt, strip, lower-case, truncate to L - 1, marker by id, pad with [MASK]."""
    checkpoint, bundle, _ = exported(name)
    tokenizer = load_checkpoint(scan_checkpoint(checkpoint)).tokenizer
    settings = json.loads((checkpoint / "config_sentence_transformers.json").read_text())
    lower = json.loads((checkpoint / "sentence_bert_config.json").read_text())["do_lower_case"]
    skip = {tokenizer.convert_tokens_to_ids(word) for word in settings["skiplist_words"]}
    tokenizing = Tokenizing(bundle)
    for side, length, rows in (
        ("query", 16, tokenizing.queries(checkpoints.HARD_TEXTS)),
        ("document", 40, tokenizing.documents(checkpoints.HARD_TEXTS)),
    ):
        for text, row in zip(checkpoints.HARD_TEXTS, rows, strict=True):
            whole = (settings["prompts"].get(side, "") + text).strip()
            ids = tokenizer(whole.lower() if lower else whole, truncation=True, max_length=length - 1)["input_ids"]
            ids.insert(1, tokenizer.convert_tokens_to_ids(settings[f"{side}_prefix"]))
            attention, keep = [1] * len(ids), [id_ not in skip for id_ in ids]
            if side == "query":
                keep = [True] * len(ids)
                if settings["do_query_expansion"]:
                    more = length - len(ids)
                    ids, attention, keep = ids + [tokenizer.mask_token_id] * more, attention + [0] * more, keep + [True] * more
            assert row.ids.tolist() == ids, text
            assert row.attention.tolist() == attention, text
            assert row.keep.tolist() == keep, text


def test_truncation_keeps_the_separator_and_is_reported(exported):
    _, bundle, _ = exported("stanford")
    long, short = Tokenizing(bundle).documents(["word " * 400, "word"])
    assert len(long.ids) == 40
    assert long.ids[-1] == short.ids[-1]
    assert (long.truncated, short.truncated) == (True, False)


def test_offsets_point_into_the_text_as_given(exported):
    for name in ("stanford", "pylate", "pylate-prompts", "plain"):
        _, bundle, _ = exported(name)
        text = "  the quick Brown fox"
        rows = Tokenizing(bundle).documents([text])[0]
        words = "".join(text[start:end] for start, end in rows.offsets)
        assert words == "thequickBrownfox", name


def test_punctuation_rows_are_dropped_but_encoded(exported):
    _, bundle, _ = exported("stanford")
    plain, marked = Tokenizing(bundle).documents(["the capital of france", "the capital, of france?"])
    assert len(marked.ids) == len(plain.ids) + 2
    assert marked.keep.sum() == plain.keep.sum()


def test_a_batch_changes_nothing_in_fp32(exported):
    _, bundle, _ = exported("pylate")
    encoder = Encoder(bundle, precision="fp32")
    texts = list(checkpoints.TEXTS) * 5 + ["x", "word " * 60]
    for one, many in zip((encoder.encode_documents([text])[0] for text in texts), encoder.encode_documents(texts), strict=True):
        np.testing.assert_allclose(one, many, atol=2e-5)


def test_queries_do_not_depend_on_their_batch_mates(exported):
    _, bundle, _ = exported("plain")
    encoder = Encoder(bundle, precision="int8")
    together = encoder.encode_queries(["x", "what is the capital of france?"])
    np.testing.assert_array_equal(together[1], encoder.encode_queries(["what is the capital of france?"])[0])


@pytest.mark.parametrize("scheme", ["fp32", "int8", "fp16"])
def test_a_text_has_the_same_vectors_in_any_batch(exported, scheme):
    encoder = Encoder(exported("plain")[1], precision=scheme)
    texts = list(checkpoints.TEXTS) * 5 + ["x", "word " * 60]
    for one, many in zip((encoder.encode_documents([text])[0] for text in texts), encoder.encode_documents(texts), strict=True):
        assert (one * many).sum(axis=1).min() >= 0.9999


def test_the_report_has_every_graph_and_stands_in_the_bundle(exported):
    _, bundle, report = exported("plain")
    stored = json.loads((bundle.path / "report.json").read_text())
    assert set(stored["fidelity"]) == {"fp32", "int8", "int8-tensor", "fp16"}
    fp32 = report.fidelity["fp32"]
    assert report.ids_equal == 1.0
    assert fp32.top10 > 0.98  # ties may fall either way
    assert fp32.tau > 0.99
    assert report.torch.documents_per_s > 0
    assert all(found.bytes > 0 and found.speed.query_ms > 0 for found in report.fidelity.values())
    assert all(report.fidelity[scheme].mean > 0.98 for scheme in PLAIN.quantize)


def test_fewer_dimensions_are_the_first_ones_normalised_again(exported, tmp_path):
    checkpoint, whole, _ = exported("stanford")
    export(checkpoint, tmp_path / "small", ExportOptions(dim=6))
    small = Encoder(Bundle.open(tmp_path / "small"))
    assert small.dim == 6
    for a, b in zip(small.encode_documents(checkpoints.TEXTS), Encoder(whole).encode_documents(checkpoints.TEXTS), strict=True):
        cut = b[:, :6] / np.linalg.norm(b[:, :6], axis=1, keepdims=True)
        np.testing.assert_allclose(a, cut, atol=1e-5)
    with pytest.raises(CheckpointError, match="--dim 17 is more than the 16"):
        export(checkpoint, tmp_path / "large", ExportOptions(dim=17))


def test_weights_past_the_limit_go_into_a_second_file_that_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.graph.EXTERNAL_ABOVE", 10_000)
    checkpoint = checkpoints.stanford(tmp_path / "checkpoint")
    report = export(checkpoint, tmp_path / "bundle", ExportOptions(quantize=("int8", "fp16"), least_quantized=0))
    assert report.fidelity["fp32"].worst >= 0.99999
    data = tmp_path / "bundle" / "model.onnx.data"
    assert data.stat().st_size > 10_000
    Bundle.open(tmp_path / "bundle")
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="model.onnx.data has changed"):
        Bundle.open(tmp_path / "bundle")


def test_lengths_can_be_chosen_and_an_auto_query_grows(exported, tmp_path):
    checkpoint, _, _ = exported("stanford")
    export(checkpoint, tmp_path / "auto", ExportOptions(query_length="auto", document_length=20))
    tokenizing = Tokenizing(Bundle.open(tmp_path / "auto"))
    short, long, longest = tokenizing.queries(["what is", "the quick brown fox jumps over the lazy dog " * 2, "word " * 2000])
    assert len(short.ids) == 16
    assert len(long.ids) % 16 == 0
    assert not long.truncated
    assert len(longest.ids) == 512
    assert longest.truncated
    assert len(tokenizing.documents(["word " * 100])[0].ids) == 20
    with pytest.raises(UsageError, match="--query-length 600 is more than the 512"):
        export(checkpoint, tmp_path / "long", ExportOptions(query_length=600))


def test_a_bundle_pools_documents_and_not_queries(exported, tmp_path):
    checkpoint, whole, _ = exported("stanford")
    export(checkpoint, tmp_path / "pooled", ExportOptions(pooling=Pooling(2)))
    bundle = Bundle.open(tmp_path / "pooled")
    pooled, plain = Encoder(bundle), Encoder(whole)
    for a, b in zip(pooled.encode_documents(checkpoints.TEXTS), plain.encode_documents(checkpoints.TEXTS), strict=True):
        np.testing.assert_allclose(a, pool(b, bundle.manifest.pooling), atol=1e-4)
        assert len(a) <= len(b) // 2 + 1
    assert pooled.encode_queries(["what is"])[0].shape == (16, 16)
    unpooled = pooled.encode_documents(checkpoints.TEXTS, pooled=False)
    assert [len(rows) for rows in unpooled] == [len(rows) for rows in plain.encode_documents(checkpoints.TEXTS)]


def test_hits_of_a_pooled_bundle_can_be_explained(exported, tmp_path):
    checkpoint, _, _ = exported("stanford")
    export(checkpoint, tmp_path / "pooled", ExportOptions(pooling=Pooling(3, "sequential", 0)))
    hit = Hit(rank=1, id="a", passage_id="a#0", score=1.0, title="", text=checkpoints.TEXTS[1], metadata={}, stages={})
    (explanation,) = explain(Encoder(Bundle.open(tmp_path / "pooled")), "what is the capital", [hit])
    assert {match.query_word for match in explanation.matches} == {"what", "is", "the", "capital"}


def test_vespa_rules_drop_punctuation_and_their_difference_is_measured(exported, tmp_path):
    checkpoint, _, _ = exported("stanford-attend")
    report = export(checkpoint, tmp_path / "vespa", ExportOptions(rules="vespa"))
    bundle = Bundle.open(tmp_path / "vespa")
    assert bundle.manifest.rules == "vespa"
    assert report.ids_equal == 1.0  # of the trained rules
    assert report.vespa_rules.ids_equal < 1.0
    assert 0 < report.vespa_rules.top10 <= 1
    plain, marked = Tokenizing(bundle).documents(["the capital of france", "the capital, of france?"])
    assert marked.ids.tolist() == plain.ids.tolist()
    assert Tokenizing(bundle).queries(["what"])[0].attention.tolist().count(1) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": "mine"}, "--rules mine"),
        ({"dim": 0}, "--dim"),
        ({"query_length": 2}, "--query-length"),
        ({"document_length": "auto"}, "--document-length"),
        ({"pooling": Pooling(9)}, "factor must be 1 to 6"),
        ({"pooling": Pooling(2, "magic")}, "'magic' unknown"),
        ({"pooling": Pooling(2, protected=-1)}, "protected rows"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options)


def test_no_texts_give_no_vectors(exported):
    encoder = Encoder(exported("stanford")[1], precision="fp32")
    assert encoder.encode_documents([]) == []
    assert encoder.encode_queries([]) == []


def test_a_plain_encoder_gets_a_projection_without_expansion(exported):
    _, bundle, report = exported("plain")
    assert bundle.manifest.query.expansion is None
    assert bundle.manifest.query.marker_id is None
    assert set(report.fidelity) == {"fp32", *PLAIN.quantize}
    assert bundle.default_precision == "int8"


def test_tokenizer_is_written_without_truncation(exported):
    for name in ("stanford", "plain"):
        stored = json.loads((exported(name)[1].path / "tokenizer.json").read_text())
        assert stored["truncation"] is None
        assert stored["padding"] is None


def test_refusals_are_named_and_leave_nothing(tmp_path):
    pickled = checkpoints.stanford(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    unmarked = checkpoints.stanford(tmp_path / "unmarked", metadata={"query_token_id": "[nowhere]"})
    plain = checkpoints.plain(tmp_path / "plain")
    (tmp_path / "empty").mkdir()
    cases = [
        (pickled, {}, CheckpointError, "pickled weights"),
        (unmarked, {}, CheckpointError, r"'\[nowhere\]' is not in"),
        (plain, {}, CheckpointError, "--sample"),
        (plain, {"sample": ["x"], "dim": 64}, CheckpointError, "--dim 64"),
        (tmp_path / "empty", {}, CheckpointError, "is not a checkpoint"),
        (tmp_path / "absent", {}, CheckpointError, "does not exist"),
        ("some/model", {"local_files_only": True}, CheckpointError, "some/model"),
        (plain, {"quantize": ("int3",)}, UsageError, "int3"),
        (
            plain,
            {"sample": checkpoints.TEXTS * 8, "dim": 16, "quantize": ("int8",), "least_quantized": 1.01},
            CheckpointError,
            "int8 rows differ",
        ),
    ]
    for checkpoint, options, error, message in cases:
        with pytest.raises(error, match=message):
            export(checkpoint, tmp_path / "out" / "bundle", ExportOptions(**options))
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
