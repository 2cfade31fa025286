"""What a layout has to say, and how its tokens are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from late_interaction.bundle import SideRules
from late_interaction.errors import CheckpointError

__all__ = ["Layout", "Rules", "marker_id", "mask_id"]


@dataclass(frozen=True)
class Rules:
    """The part of a manifest that a layout decides."""

    query: SideRules
    document: SideRules
    strip: bool = False
    lower_case: bool = False


@dataclass(frozen=True)
class Layout:
    """settings: JSON files that it has. rules: of the folder, its loaded MultiVectorEncoder and the tokenizer; None where torch
    does not load it. tokenizer: the one it was trained with, of the same three, the tokenizer as it is in the folder. changed:
    settings that sentence-transformers must find otherwise, by file. projection: a tensor that its weights must have.
    """

    settings: tuple[str, ...]
    recognises: Callable[[CheckpointFolder], bool]
    rules: Callable[[CheckpointFolder, Any, Any], Rules] | None = None
    tokenizer: Callable[[CheckpointFolder, Any, Any], Any] = lambda _folder, _model, tokenizer: tokenizer
    changed: Callable[[CheckpointFolder], Mapping[str, dict[str, Any]]] = lambda _folder: {}
    projection: str | None = None


def marker_id(tokenizer: Any, token: str, *, unknown: int | None = None) -> int:
    """`unknown` stands for a token that is not in the vocabulary. Raises: CheckpointError where that is None."""
    for name in (token, token.rstrip()):
        id_ = tokenizer.convert_tokens_to_ids(name)
        if id_ is not None and id_ != tokenizer.unk_token_id:
            return int(id_)
    if unknown is not None:
        return int(unknown)
    raise CheckpointError(f"marker token {token!r} is not in the checkpoint's vocabulary: was the tokenizer saved with it?")


def mask_id(tokenizer: Any) -> int:
    id_ = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
    if id_ is None:
        raise CheckpointError("the tokenizer has neither a mask nor an end token, and queries are expanded with one")
    return int(id_)
