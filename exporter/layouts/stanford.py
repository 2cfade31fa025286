"""colbert-ai's layout: an HF_ColBERT with artifact.metadata."""

from __future__ import annotations

import string
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Layout, Rules, marker_id, mask_id
from late_interaction.bundle import Expansion, SideRules

__all__ = ["STANFORD"]

CONFIG, METADATA, ARCHITECTURE = "config.json", "artifact.metadata", "HF_ColBERT"


def _architectures(folder: CheckpointFolder) -> list[str]:
    return folder.read(CONFIG).get("architectures") or []


def _changed(folder: CheckpointFolder) -> dict[str, dict[str, Any]]:
    """Set the architecture by which sentence-transformers recognises a Stanford checkpoint.

    Without it, sentence-transformers adds a random projection.
    """
    return {} if ARCHITECTURE in _architectures(folder) else {CONFIG: folder.read(CONFIG) | {"architectures": [ARCHITECTURE]}}


def _rules(folder: CheckpointFolder, _model: Any, tokenizer: Any) -> Rules:
    """Rules of colbert/modeling/tokenization: [CLS] marker text [SEP], queries padded with [MASK] to query_maxlen."""
    settings = folder.read(METADATA)
    settings = settings.get("config", settings)  # colbert-ai saves its settings at the top level or under this key
    query_length = int(settings.get("query_maxlen") or 32)
    skip = {int(tokenizer.pad_token_id)}  # padding is recognised by its id, so a "[PAD]" in a text is dropped as well
    if settings.get("mask_punctuation", True):
        encoded = (tokenizer.encode(character, add_special_tokens=False) for character in string.punctuation)
        skip |= {int(ids[0]) for ids in encoded if ids}
    attend = bool(settings.get("attend_to_mask_tokens", False))
    expansion = Expansion(query_length, mask_id(tokenizer), attend, replaces_pad=True)

    def marker(key: str, default: str) -> int:
        # a vocabulary without [unused0] (XLM-R) returns the unknown token's id, which colbert-ai trains with
        token = settings.get(key) or default
        return marker_id(tokenizer, token, unknown=tokenizer.unk_token_id if token == default else None)

    return Rules(
        query=SideRules(length=query_length, marker_id=marker("query_token_id", "[unused0]"), expansion=expansion),
        document=SideRules(
            length=int(settings.get("doc_maxlen") or 220), marker_id=marker("doc_token_id", "[unused1]"),
            skip_ids=tuple(sorted(skip)),
        ),
    )  # fmt: skip


STANFORD = Layout(
    (CONFIG, METADATA), lambda folder: ARCHITECTURE in _architectures(folder) or METADATA in folder.files, _rules,
    changed=_changed, projection="linear.weight",
)  # fmt: skip
