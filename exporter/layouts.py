"""Checkpoint layouts: what each says about tokenization, read by the rules of the loader it was trained with.

One function per layout, one line per layout in the table. Sources: colbert-ai 0.2.22 (Stanford), PyLate 1.6, and
sentence-transformers 6. Where sentence-transformers loads another's layout differently (markers as text, no strip), the
layout's own rule stands.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.bundle import Expansion, SideRules
from late_interaction.errors import CheckpointError

__all__ = ["LAYOUTS", "Rules", "detect_layout", "pylate_prefixes", "read_json"]


@dataclass(frozen=True)
class Rules:
    """The part of a manifest that a layout decides."""

    query: SideRules
    document: SideRules
    strip: bool = False
    lower_case: bool = False


def read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file. Raises: CheckpointError where it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return data


def detect_layout(folder: Path) -> str:
    """stanford, pylate, sentence-transformers, next-plaid or plain. Raises: CheckpointError where it is no checkpoint."""
    weights = any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    if (folder / "onnx_config.json").is_file() and not weights:  # its graph may have lost an activation that weights still have
        return "next-plaid"
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has neither config.json nor modules.json")
    kind = read_json(folder / "config_sentence_transformers.json").get("model_type")
    if kind == "ColBERT":
        return "pylate"
    if kind == "MultiVectorEncoder":
        return "sentence-transformers"
    architectures = read_json(folder / "config.json").get("architectures") or []
    if "HF_ColBERT" in architectures or (folder / "artifact.metadata").is_file():
        return "stanford"
    return "plain"


def _stanford(folder: Path, _model: Any, tokenizer: Any) -> Rules:
    """colbert/modeling/tokenization: [CLS] marker text [SEP], queries padded with [MASK] to query_maxlen."""
    settings = read_json(folder / "artifact.metadata")
    settings = settings.get("config", settings)  # colbert-ai saves its settings bare or under this key
    query_length = int(settings.get("query_maxlen") or 32)
    skip = {int(tokenizer.pad_token_id)}  # rows are told from padding by their id, so a "[PAD]" in a text is dropped as well
    if settings.get("mask_punctuation", True):
        encoded = (tokenizer.encode(character, add_special_tokens=False) for character in string.punctuation)
        skip |= {int(ids[0]) for ids in encoded if ids}
    attend = bool(settings.get("attend_to_mask_tokens", False))
    expansion = Expansion(query_length, _mask_id(tokenizer), attend, replaces_pad=True)

    def marker(key: str, default: str) -> int:
        # a vocabulary without [unused0] (XLM-R) gives the unknown token's id, and colbert-ai trains with that
        token = settings.get(key) or default
        return _marker_id(tokenizer, token, unknown=tokenizer.unk_token_id if token == default else None)

    return Rules(
        query=SideRules(length=query_length, marker_id=marker("query_token_id", "[unused0]"), expansion=expansion),
        document=SideRules(
            length=int(settings.get("doc_maxlen") or 220), marker_id=marker("doc_token_id", "[unused1]"),
            skip_ids=tuple(sorted(skip)),
        ),
    )  # fmt: skip


def pylate_prefixes(folder: Path) -> list[str]:
    """Its markers as text, without the empty ones, which mean none."""
    settings = read_json(folder / "config_sentence_transformers.json")
    prefixes = (settings.get("query_prefix"), "[Q] "), (settings.get("document_prefix"), "[D] ")
    return [found for given, default in prefixes if (found := default if given is None else given)]


def _pylate(folder: Path, _model: Any, tokenizer: Any) -> Rules:
    """pylate/models/colbert.py: prefixes by id, text stripped, unknown skip words fall on the unknown token."""
    settings = read_json(folder / "config_sentence_transformers.json")
    transformer = read_json(folder / "sentence_bert_config.json")
    prompts = settings.get("prompts") or {}
    query_length = int(settings.get("query_length") or 32)
    words = settings.get("skiplist_words")
    skip = {tokenizer.convert_tokens_to_ids(word) for word in (string.punctuation if words is None else words)} - {None}
    expansion = None
    if settings.get("do_query_expansion", True) is not False:
        attend = bool(settings.get("attend_to_expansion_tokens", False))
        expansion = Expansion(query_length, _mask_id(tokenizer), attend)

    def marker(key: str, default: str) -> int | None:
        prefix = settings.get(key)
        prefix = default if prefix is None else prefix
        return _marker_id(tokenizer, prefix) if prefix else None

    return Rules(
        query=SideRules(
            length=query_length, marker_id=marker("query_prefix", "[Q] "), prompt=prompts.get("query") or "",
            expansion=expansion,
        ),
        document=SideRules(
            length=int(settings.get("document_length") or 180), marker_id=marker("document_prefix", "[D] "),
            prompt=prompts.get("document") or "", skip_ids=tuple(sorted(skip)),
        ),
        strip=True,
        lower_case=bool(transformer.get("do_lower_case", False)),
    )  # fmt: skip


def _sentence_transformers(folder: Path, model: Any, tokenizer: Any) -> Rules:
    """sentence_transformers.multi_vector_encoder: what the loaded modules say. Its tokenizer does the lower-casing."""
    transformer = model[0]
    limit = int(model.max_seq_length or 512)
    chosen = transformer.query_expansion
    expansion = None
    query_length = int(transformer.query_length or limit)
    if chosen is not None:
        token = chosen["token"]
        id_ = tokenizer.convert_tokens_to_ids(token) if token is not None else _mask_id(tokenizer)
        expansion = Expansion(int(chosen["length"]), int(id_), bool(chosen["attend"]))
        if chosen["strategy"] == "fixed":
            query_length = expansion.length
    mask = next((module for module in model if type(module).__name__ == "MultiVectorMask"), None)
    if mask is not None and mask.keep_only_token_ids:
        raise CheckpointError(f"{folder} keeps only the rows of certain tokens (keep_only_token_ids), as models of images do")
    ids = [] if mask is None else [(word, tokenizer.convert_tokens_to_ids(word)) for word in mask.skiplist_words]
    known = {
        int(id_) for word, id_ in ids if id_ is not None and (id_ != tokenizer.unk_token_id or word == tokenizer.unk_token)
    }
    tasks = () if mask is None else mask.skiplist_tasks
    skip = tuple(sorted(known))
    query_marker, query_prompt = _split_prompt(model.prompts.get("query") or "", tokenizer)
    document_marker, document_prompt = _split_prompt(model.prompts.get("document") or "", tokenizer)
    return Rules(
        query=SideRules(
            length=query_length, marker_id=query_marker, prompt=query_prompt, expansion=expansion,
            skip_ids=skip if "query" in tasks else (),
        ),
        document=SideRules(
            length=int(transformer.document_length or limit), marker_id=document_marker, prompt=document_prompt,
            skip_ids=skip if "document" in tasks else (),
        ),
    )  # fmt: skip


# what tells an inserted marker from one that is part of the text: how the text after it begins
_PROBES = ("", "a", " a", "  a b", "the", "The", "\ta", "\u0301a", "\u6771", "1", ",", "[MASK]", "<mask>", "\u00a0a", "a" * 40)


def _split_prompt(prompt: str, tokenizer: Any) -> tuple[int | None, str]:
    """(marker id, prompt without it) where a prompt begins with a registered token, and inserting that token's id at position 1
    is the same as the text; else (None, prompt)."""
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    for token in (token for token in added if prompt.startswith(token)):
        marker, rest = int(tokenizer.convert_tokens_to_ids(token)), prompt[len(token) :]
        for probe in _PROBES:
            inserted = tokenizer(rest + probe)["input_ids"]
            inserted.insert(1, marker)
            if inserted != tokenizer(prompt + probe)["input_ids"]:
                return None, prompt
        return marker, rest
    return None, prompt


def _marker_id(tokenizer: Any, token: str, *, unknown: int | None = None) -> int:
    """`unknown` stands for a token that is not in the vocabulary. Raises: CheckpointError where that is None."""
    for name in (token, token.rstrip()):
        id_ = tokenizer.convert_tokens_to_ids(name)
        if id_ is not None and id_ != tokenizer.unk_token_id:
            return int(id_)
    if unknown is not None:
        return int(unknown)
    raise CheckpointError(f"marker token {token!r} is not in the checkpoint's vocabulary: was the tokenizer saved with it?")


def _mask_id(tokenizer: Any) -> int:
    id_ = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
    if id_ is None:
        raise CheckpointError("the tokenizer has neither a mask nor an end token, and queries are expanded with one")
    return int(id_)


LAYOUTS: dict[str, Callable[[Path, Any, Any], Rules]] = {
    "stanford": _stanford,
    "pylate": _pylate,
    "sentence-transformers": _sentence_transformers,
}
