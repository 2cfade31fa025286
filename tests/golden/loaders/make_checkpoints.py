"""Writes tests/golden/loaders/checkpoints: tiny checkpoints with random weights, in each layout and tokenizer family, in the
files that their trainers write. They are made once and committed, since random weights depend on the torch version:

    cd tests && ../.venv/bin/python -m golden.loaders.make_checkpoints [NAME...]
"""

from __future__ import annotations

import json
import shutil
import string
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoints import TEXTS

__all__ = ["CHECKPOINTS", "FOLDER"]

FOLDER = Path(__file__).resolve().parent / "checkpoints"
HIDDEN, DIM, POSITIONS, VOCABULARY = 16, 8, 260, 400
QUERY, DOCUMENT = 14, 24
MARKERS = ("[Q] ", "[D] ")


@dataclass(frozen=True)
class Recipe:
    """layout: who trained it. backbone: bert, distilbert, roberta, xlm-roberta or modernbert. tokens: added to the vocabulary.
    settings: over the layout's own. shapes: of the Dense modules, as (out, activation, residual). window: of ModernBERT's
    local attention."""

    layout: str
    backbone: str = "bert"
    tokens: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    lower_case: bool = False
    shapes: tuple[tuple[int, str, bool], ...] = ((DIM, "torch.nn.modules.linear.Identity", False),)
    cased: bool = False
    window: int = 32


GELU, IDENTITY = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
PROMPTS = {"query": "search_query: ", "document": "search_document: "}
FIXED = {"strategy": "fixed", "attend": False, "length": QUERY}

CHECKPOINTS: dict[str, Recipe] = {
    "stanford-bert": Recipe("stanford"),
    "stanford-bare": Recipe("stanford", settings={"absent": True}),
    "stanford-attend": Recipe("stanford", settings={"attend_to_mask_tokens": True}),
    "stanford-punctuation": Recipe("stanford", settings={"mask_punctuation": False}),
    "stanford-distilbert": Recipe("stanford", "distilbert"),
    "stanford-xlmr": Recipe("stanford", "xlm-roberta"),
    "stanford-xlmr-markers": Recipe(
        "stanford", "xlm-roberta", ("[QueryMarker]", "[DocumentMarker]"),
        {"query_token_id": "[QueryMarker]", "doc_token_id": "[DocumentMarker]", "attend_to_mask_tokens": True},
    ),
    "pylate-bert": Recipe("pylate", tokens=MARKERS, shapes=((12, GELU, True), (DIM, IDENTITY, False))),
    "pylate-bert-three": Recipe(
        "pylate", tokens=MARKERS, shapes=((24, IDENTITY, True), (24, GELU, True), (DIM, IDENTITY, True))
    ),
    "pylate-bert-attend": Recipe("pylate", tokens=MARKERS, settings={"attend_to_expansion_tokens": True}),
    "pylate-bert-unexpanded": Recipe("pylate", tokens=MARKERS, settings={"do_query_expansion": False}),
    "pylate-bert-unmarked": Recipe("pylate", settings={"query_prefix": "", "document_prefix": ""}),
    "pylate-bert-unknown-words": Recipe(
        "pylate", tokens=MARKERS, settings={"skiplist_words": [".", "late", "unheard-of", "東東", "[SEP]"]}
    ),
    "pylate-bert-unused": Recipe("pylate", settings={"query_prefix": "[unused0]", "document_prefix": "[unused1]"}),
    "pylate-bert-cased": Recipe("pylate", tokens=MARKERS, lower_case=True, cased=True),
    "pylate-distilbert": Recipe("pylate", "distilbert", MARKERS),
    "pylate-roberta": Recipe("pylate", "roberta", MARKERS),
    "pylate-xlmr": Recipe("pylate", "xlm-roberta", MARKERS),
    "pylate-modernbert": Recipe("pylate", "modernbert", MARKERS),
    # expansion rows that have no token in their window: transformers 4 and 5 differ on what they attend to
    "pylate-modernbert-window": Recipe("pylate", "modernbert", MARKERS, window=8),
    "pylate-modernbert-prompts": Recipe(
        "pylate", "modernbert", MARKERS, {"prompts": PROMPTS, "do_query_expansion": False, "skiplist_words": []}
    ),
    "pylate-modernbert-lower": Recipe(
        "pylate", "modernbert", MARKERS, {"prompts": PROMPTS}, lower_case=True,
        shapes=((24, IDENTITY, True), (DIM, GELU, False)),
    ),
    "native-bert": Recipe("native", tokens=("[Q]", "[D]"), settings={"query_expansion": FIXED}),
    "native-bert-min": Recipe(
        "native", tokens=MARKERS,
        settings={"query_expansion": {"strategy": "min", "attend": True, "length": 8}, "query_length": QUERY},
    ),
    "native-bert-plain": Recipe("native", settings={"prompts": {}, "query_length": QUERY}),
    "native-bert-text-prompts": Recipe(
        "native", settings={"prompts": PROMPTS, "query_expansion": FIXED, "skiplist_tasks": ["query", "document"]}
    ),
    "native-modernbert": Recipe("native", "modernbert", MARKERS, {"query_expansion": FIXED}),
    "native-modernbert-lower": Recipe(
        "native", "modernbert", ("[Q]", "[D]"),
        {"query_expansion": {"strategy": "min", "attend": False, "length": 8}, "query_length": QUERY}, lower_case=True,
    ),
    "native-xlmr": Recipe("native", "xlm-roberta", MARKERS, {"query_expansion": FIXED | {"attend": True}}),
    "native-xlmr-first": Recipe("native", "xlm-roberta-first", ("[Q]", "[D]"), {"query_expansion": FIXED}),
}  # fmt: skip


# -- tokenizers --

BERT_SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
ROBERTA_SPECIAL = {
    "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>",
    "bos_token": "<s>", "eos_token": "</s>",
}  # fmt: skip


def _wordpiece(folder: Path, cased: bool) -> tuple[Any, dict[str, Any]]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = [*string.punctuation, *string.ascii_lowercase, *string.digits, "é", "ё", "ש", "م", "天", "気", "\u0301"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # a trained vocabulary holds what it saw; bert-base's has every letter also as a continuation, and [unused*] as plain words
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    vocabulary += [piece for piece in (f"##{letter}" for letter in alphabet[32:]) if piece not in vocabulary]
    plain = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    plain.normalizer, plain.pre_tokenizer, plain.decoder = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder
    plain.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ids = [(name, plain.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    return plain, {
        **BERT_SPECIAL, "tokenizer_class": "BertTokenizer", "do_lower_case": not cased, "strip_accents": None,
        "tokenize_chinese_chars": True, "model_max_length": 512,
    }  # fmt: skip


def _modernbert(_folder: Path, _cased: bool) -> tuple[Any, dict[str, Any]]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True, special=True)])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    return tokenizer, {
        **BERT_SPECIAL, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192,
        "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip


def _roberta(folder: Path, _cased: bool) -> tuple[Any, dict[str, Any]]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    ends = ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {"<mask>": tokenizer.token_to_id("<mask>")}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges = "".join(f"{pair if isinstance(pair, str) else ' '.join(pair)}\n" for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    return tokenizer, {
        **ROBERTA_SPECIAL, "tokenizer_class": "RobertaTokenizer", "model_max_length": 512, "add_prefix_space": False,
    }  # fmt: skip


def _sentencepiece(scheme: str) -> Callable[[Path, bool], tuple[Any, dict[str, Any]]]:
    def make(_folder: Path, _cased: bool) -> tuple[Any, dict[str, Any]]:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
            if scheme == "always"
            else [pre_tokenizers.Metaspace(prepend_scheme=scheme)]
        )
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False,
            initial_alphabet=[*string.punctuation, *string.ascii_letters, *string.digits, "▁", "天", "é"],
        )  # fmt: skip
        tokenizer.train_from_iterator([*TEXTS, " ".join(string.punctuation), string.ascii_letters, string.digits], trainer)
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        ids = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
        )
        kind = "XLMRobertaTokenizer" if scheme == "always" else "PreTrainedTokenizerFast"
        return tokenizer, {**ROBERTA_SPECIAL, "tokenizer_class": kind, "model_max_length": 512}

    return make


TOKENIZERS: dict[str, Callable[[Path, bool], tuple[Any, dict[str, Any]]]] = {
    "bert": _wordpiece,
    "distilbert": _wordpiece,
    "roberta": _roberta,
    "xlm-roberta": _sentencepiece("always"),
    "xlm-roberta-first": _sentencepiece("first"),
    "modernbert": _modernbert,
}


# -- encoders --


def _config(backbone: str, tokenizer: Any, names: dict[str, Any], window: int) -> dict[str, Any]:
    """config.json as published checkpoints of the family have it."""
    size = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": tokenizer.token_to_id(names["pad_token"])}
    usual = {
        "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": POSITIONS, "initializer_range": 0.3, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "type_vocab_size": 2,
    }  # fmt: skip
    if backbone == "bert":
        return {"model_type": "bert", "architectures": ["BertModel"], **usual, **size}
    if backbone == "distilbert":
        return {
            "model_type": "distilbert", "architectures": ["DistilBertModel"], "dim": HIDDEN, "hidden_dim": 32, "n_heads": 2,
            "n_layers": 2, "max_position_embeddings": POSITIONS, "initializer_range": 0.3, "activation": "gelu", "dropout": 0.1,
            "attention_dropout": 0.1, **size,
        }  # fmt: skip
    ends = {f"{key}_id": tokenizer.token_to_id(names[key]) for key in ("bos_token", "eos_token") if key in names}
    if backbone == "modernbert":
        return {
            "model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_size": HIDDEN, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 512, "initializer_range": 0.3,
            "global_attn_every_n_layers": 2, "local_attention": window, "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0, "hidden_activation": "gelu",
            "norm_eps": 1e-5, "cls_token_id": tokenizer.token_to_id("[CLS]"),
            "sep_token_id": tokenizer.token_to_id("[SEP]"), "bos_token_id": tokenizer.token_to_id("[CLS]"),
            "eos_token_id": tokenizer.token_to_id("[SEP]"), **size,
        }  # fmt: skip
    kind, architecture = ("roberta", "RobertaModel") if backbone == "roberta" else ("xlm-roberta", "XLMRobertaModel")
    return {"model_type": kind, "architectures": [architecture], **usual, **size, **ends, "type_vocab_size": 1}


def _encoder(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Tensors of a model of that configuration. Every weight is random, biases and norms too, so that each one counts."""
    import torch
    from transformers import AutoConfig, AutoModel

    arguments = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(config["model_type"], **arguments))
    tensors = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name.startswith("pooler"):
            continue
        noise = torch.randn(tensor.shape)
        tensors[name] = _short(1 + 0.2 * noise if "orm.weight" in name else 0.3 * noise)
    return tensors


def _short(tensor: Any) -> Any:
    """Float32 values that bfloat16 has too: half of their bytes are zero, and git packs those."""
    return tensor.bfloat16().float().contiguous()


# -- layouts --


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def make(name: str, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    recipe, seed = CHECKPOINTS[name], zlib.crc32(name.encode())
    folder.mkdir(parents=True)
    tokenizer, names = TOKENIZERS[recipe.backbone](folder, recipe.cased)
    if recipe.backbone == "distilbert":  # whose model takes no token types
        names["tokenizer_class"] = "DistilBertTokenizer"
    tokenizer.add_tokens(list(recipe.tokens))
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", names)
    _write_json(folder / "special_tokens_map.json", {key: value for key, value in names.items() if key.endswith("_token")})
    config = _config(recipe.backbone, tokenizer, names, recipe.window)
    tensors = _encoder(config, seed)
    torch.manual_seed(seed + 1)
    if recipe.layout == "stanford":
        prefix = {"xlm-roberta": "roberta", "distilbert": "distilbert"}.get(recipe.backbone, "bert")
        tensors = {f"{prefix}.{key}": value for key, value in tensors.items()} | {
            "linear.weight": _short(torch.randn(DIM, HIDDEN))
        }
        config["architectures"] = ["HF_ColBERT"]
        if not recipe.settings.get("absent"):
            usual = {
                "query_maxlen": QUERY, "doc_maxlen": DOCUMENT, "dim": DIM, "mask_punctuation": True, "similarity": "cosine",
                "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "attend_to_mask_tokens": False,
            }  # fmt: skip
            _write_json(folder / "artifact.metadata", usual | recipe.settings)
    _write_json(folder / "config.json", config)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    if recipe.layout == "pylate":
        _pylate(folder, recipe)
    elif recipe.layout == "native":
        _native(folder, recipe)


def _dense_tensors(shapes: tuple[tuple[int, str, bool], ...]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(config, tensors) of each Dense module."""
    import torch

    found, inside = [], HIDDEN
    for outside, activation, residual in shapes:
        tensors = {"linear.weight": _short(torch.randn(outside, inside))}
        if residual and inside != outside:
            tensors["residual.weight"] = _short(torch.randn(outside, inside))
        config = {"in_features": inside, "out_features": outside, "bias": False, "activation_function": activation}
        found.append((config | {"use_residual": residual}, tensors))
        inside = outside
    return found


def _pylate(folder: Path, recipe: Recipe) -> None:
    from safetensors.torch import save_file

    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (config, tensors) in enumerate(_dense_tensors(recipe.shapes), start=1):
        dense = folder / f"{number}_Dense"
        dense.mkdir()
        _write_json(dense / "config.json", config)
        save_file(tensors, str(dense / "model.safetensors"))
        modules.append({"idx": number, "name": str(number), "path": dense.name, "type": "pylate.models.Dense.Dense"})
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": DOCUMENT - 1, "do_lower_case": recipe.lower_case})
    usual = {
        "__version__": {"sentence_transformers": "5.3.0", "pytorch": "2.11.0", "pylate": "1.6.0"}, "model_type": "ColBERT",
        "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim", "query_prefix": MARKERS[0],
        "document_prefix": MARKERS[1], "query_length": QUERY, "document_length": DOCUMENT, "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation), "do_query_expansion": True,
    }  # fmt: skip
    _write_json(folder / "config_sentence_transformers.json", usual | recipe.settings)


def _native(folder: Path, recipe: Recipe) -> None:
    """The encoder that is in `folder` is loaded and saved again by sentence-transformers with its modules around it."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    settings = dict(recipe.settings)
    prompts = settings.pop("prompts", None)
    tasks = settings.pop("skiplist_tasks", None)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        shutil.move(folder, base)
        transformer = Transformer(str(base), document_length=DOCUMENT, do_lower_case=recipe.lower_case, **settings)
        denses = [
            Dense(config["in_features"], config["out_features"], bias=False, activation_function=torch.nn.Identity(),
                  init_weight=tensors["linear.weight"], module_input_name="token_embeddings")
            for config, tensors in _dense_tensors(recipe.shapes)
        ]  # fmt: skip
        mask = MultiVectorMask(skiplist_words=list(string.punctuation), skiplist_tasks=tasks)
        model = MultiVectorEncoder(
            modules=[transformer, *denses, mask, Normalize(module_input_name="token_embeddings")], device="cpu",
            prompts={"query": MARKERS[0], "document": MARKERS[1]} if prompts is None else prompts,
        )  # fmt: skip
        model.save(str(folder), create_model_card=False)


if __name__ == "__main__":
    for case in sys.argv[1:] or CHECKPOINTS:
        shutil.rmtree(FOLDER / case, ignore_errors=True)
        make(case, FOLDER / case)
        print(case)
