"""Tiny checkpoints in every layout, made here: random weights, a vocabulary trained on a few sentences."""

from __future__ import annotations

import json
import string
from pathlib import Path

TEXTS = (
    "late interaction keeps one vector per token and scores by the sum of best matches",
    "what is the capital of france? paris is the capital of france.",
    "the quick brown fox jumps over the lazy dog, and then; it sleeps! (really)",
    "naïve café überraschung 東京 の 天気 は 晴れ",
    "wait for a thread to finish, then join it [and] lock {the} mutex",
)

HARD_TEXTS = (
    "", " ", "\t\n", ".", "?!,;", "a", "late interaction", "  leading and trailing  ", "UPPER case", "word " * 400,
    "x" * 3000, "東京の天気は晴れ", "emoji 🙂🙃 and 👩‍👩‍👧", "cafe\u0301 e\u0301", "שלום עולם", "مرحبا", "a\u0000b\u0007c",
    "[MASK]", "[PAD] [CLS] [SEP]", "[unused0] query", "[Q] what", "[D] text", "tab\tnew\nline", "a-b_c/d\\e", "1,234.56",
    "\u200bzero\u200bwidth", "e.g. this, that.", "ÀÉÎÕÜ", "\ufeffbom", "what is the capital of france?",
)  # fmt: skip


SPECIAL_TOKENS = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip


def wordpiece_tokenizer(extra: tuple[str, ...] = (), *, trained: bool = True):
    """A trained vocabulary differs from process to process, as equally frequent pairs are merged in any order; without, it is
    letters and whole words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *extra]
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=list(string.punctuation), show_progress=False
    )
    if trained:
        tokenizer.train_from_iterator(TEXTS, trainer)
    else:
        normal = map(tokenizer.normalizer.normalize_str, TEXTS)
        words = sorted({word for text in normal for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)})
        letters = sorted({*string.punctuation, *"".join(words)})
        pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
        tokenizer.model = models.WordPiece({piece: id_ for id_, piece in enumerate(pieces)}, unk_token="[UNK]")
        tokenizer.add_special_tokens(special)
    ids = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def byte_level_tokenizer(extra: tuple[str, ...] = ()):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in extra])
    ids = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(ids.items()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def bert(vocabulary: int, seed: int = 0):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def modernbert(tokenizer, seed: int = 0):
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(seed)
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id, cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id, bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
        initializer_range=0.2, attn_implementation="eager",
    )  # fmt: skip
    return ModernBertModel(config).eval()


def stanford(folder: Path, *, dim: int = 16, metadata: dict | None = None, attend: bool = False) -> Path:
    """colbert-ai: bert.* and linear.weight in one file, settings in artifact.metadata (None: {}, "absent": no file)."""
    import torch
    from safetensors.torch import save_file

    tokenizer = wordpiece_tokenizer()
    model = bert(len(tokenizer))
    tensors = {f"bert.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    tensors["linear.weight"] = torch.randn(dim, 32)
    folder.mkdir(parents=True)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    tokenizer.save_pretrained(str(folder))
    settings = {"query_maxlen": 16, "doc_maxlen": 40, "mask_punctuation": True, "attend_to_mask_tokens": attend, "dim": dim}
    if metadata is not None:
        settings |= metadata
    (folder / "artifact.metadata").write_text(json.dumps(settings))
    return folder


def pylate(folder: Path, *, settings: dict | None = None, lower_case: bool = False, family: str = "wordpiece") -> Path:
    """PyLate: Transformer, then two Dense modules, the first with an activation and a residual."""
    import torch
    from safetensors.torch import save_file

    markers = ("[Q] ", "[D] ")
    if family == "wordpiece":
        tokenizer = wordpiece_tokenizer()
        tokenizer.add_tokens(list(markers))
        model = bert(len(tokenizer))
    else:
        tokenizer = byte_level_tokenizer(markers)
        model = modernbert(tokenizer)
    folder.mkdir(parents=True)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(2)
    shapes = ((32, 24, "torch.nn.modules.activation.GELU", True), (24, 16, "torch.nn.modules.linear.Identity", False))
    for number, (inside, outside, activation, residual) in enumerate(shapes, start=1):
        dense = folder / f"{number}_Dense"
        dense.mkdir()
        config = {"in_features": inside, "out_features": outside, "bias": False, "activation_function": activation}
        (dense / "config.json").write_text(json.dumps(config | {"use_residual": residual}))
        tensors = {"linear.weight": torch.randn(outside, inside)}
        if residual and inside != outside:
            tensors["residual.weight"] = torch.randn(outside, inside)
        save_file(tensors, str(dense / "model.safetensors"))
    kinds = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense", "pylate.models.Dense.Dense"]
    paths = ["", "1_Dense", "2_Dense"]
    modules = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(zip(paths, kinds))]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 511, "do_lower_case": lower_case}))
    config = {
        "model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 16, "document_length": 40,
        "attend_to_expansion_tokens": False, "do_query_expansion": True, "skiplist_words": list(string.punctuation),
        "similarity_fn_name": "MaxSim", "prompts": {},
    }  # fmt: skip
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config | (settings or {})))
    return folder


def plain(folder: Path) -> Path:
    """A bare encoder."""
    tokenizer = wordpiece_tokenizer()
    folder.mkdir(parents=True)
    bert(len(tokenizer)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def dense(
    folder: Path,
    *,
    pooling: str | tuple[str, ...] = "mean",
    modules: tuple[str, ...] = (),
    prompts: dict | None = None,
    similarity: str | None = None,
) -> Path:
    """A SentenceTransformer of 32 dimensions that reads 64 tokens."""
    import tempfile

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling, Transformer

    torch.manual_seed(3)
    with tempfile.TemporaryDirectory() as scratch:
        encoder = plain(Path(scratch) / "plain")
        further = {"Dense": lambda: Dense(32, 32), "LayerNorm": lambda: LayerNorm(32), "Normalize": Normalize}
        made = [Transformer(str(encoder), max_seq_length=64), Pooling(32, pooling), *(further[name]() for name in modules)]
        model = SentenceTransformer(modules=made, device="cpu", prompts=prompts, similarity_fn_name=similarity)
        model.save(str(folder), create_model_card=False)
    return folder


def cross_encoder(folder: Path, *, labels: int = 1, positions: int = 512, family: str = "wordpiece") -> Path:
    """A sequence-classification BERT with an identity as activation; of family "bytes" a RoBERTa, which has no token types."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(3)
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "initializer_range": 0.3,
        "num_labels": labels,
    }  # fmt: skip
    if family == "wordpiece":
        tokenizer = wordpiece_tokenizer(trained=False)
        model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=positions, **sizes))
    else:
        tokenizer = byte_level_tokenizer()
        config = RobertaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=positions + 1, type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id, **sizes,
        )  # fmt: skip
        model = RobertaForSequenceClassification(config)
    folder.mkdir(parents=True)
    model.eval().save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if family == "wordpiece" else [])]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_input_names": inputs}, indent=1))
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder
