"""PyLate's layout: config_sentence_transformers.json of model type ColBERT."""

from __future__ import annotations

import string
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Layout, Rules, marker_id, mask_id
from late_interaction.bundle import Expansion, SideRules

__all__ = ["PYLATE"]

CONFIG, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
PREFIXES = {"query_prefix": "[Q] ", "document_prefix": "[D] "}


def _prefix(folder: CheckpointFolder, key: str) -> str:
    """Return a marker as text; "" means none."""
    given = folder.read(CONFIG).get(key)
    return str(PREFIXES[key] if given is None else given)


def _tokenizer(folder: CheckpointFolder, _model: Any, tokenizer: Any) -> Any:
    """Return the tokenizer with its markers as tokens, as PyLate adds them at each start; a saved checkpoint has most."""
    vocabulary = tokenizer.get_vocab()
    tokenizer.add_tokens([prefix for key in PREFIXES if (prefix := _prefix(folder, key)) in vocabulary])
    return tokenizer


def _rules(folder: CheckpointFolder, _model: Any, tokenizer: Any) -> Rules:
    """Rules of pylate/models/colbert.py: prefixes by id, text stripped, unknown skip words map to the unknown token."""
    settings = folder.read(CONFIG)
    prompts = settings.get("prompts") or {}
    query_length = int(settings.get("query_length") or 32)
    words = settings.get("skiplist_words")
    skip = {tokenizer.convert_tokens_to_ids(word) for word in (string.punctuation if words is None else words)} - {None}
    expansion = None
    if settings.get("do_query_expansion", True) is not False:
        attend = bool(settings.get("attend_to_expansion_tokens", False))
        expansion = Expansion(query_length, mask_id(tokenizer), attend)

    def marker(key: str) -> int | None:
        prefix = _prefix(folder, key)
        return marker_id(tokenizer, prefix) if prefix else None

    return Rules(
        query=SideRules(
            length=query_length, marker_id=marker("query_prefix"), prompt=prompts.get("query") or "", expansion=expansion
        ),
        document=SideRules(
            length=int(settings.get("document_length") or 180), marker_id=marker("document_prefix"),
            prompt=prompts.get("document") or "", skip_ids=tuple(sorted(skip)),
        ),
        strip=True,
        lower_case=bool(folder.read(TRANSFORMER).get("do_lower_case", False)),
    )  # fmt: skip


PYLATE = Layout(
    (CONFIG, TRANSFORMER), lambda folder: folder.read(CONFIG).get("model_type") == "ColBERT", _rules, tokenizer=_tokenizer
)
