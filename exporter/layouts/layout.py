"""The interface of a layout, and how it finds tokens."""

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
    """A checkpoint layout.

    Attributes:
        settings: JSON files that it has.
        recognises: tells whether a folder has this layout.
        rules: returns the rules from the folder, its loaded MultiVectorEncoder and the tokenizer; None if torch does not
            load it.
        tokenizer: returns the tokenizer it was trained with, from the same three; the tokenizer is that of the folder.
        changed: settings that must be changed for sentence-transformers, by file.
        projection: a tensor that its weights must have.
    """

    settings: tuple[str, ...]
    recognises: Callable[[CheckpointFolder], bool]
    rules: Callable[[CheckpointFolder, Any, Any], Rules] | None = None
    tokenizer: Callable[[CheckpointFolder, Any, Any], Any] = lambda _folder, _model, tokenizer: tokenizer
    changed: Callable[[CheckpointFolder], Mapping[str, dict[str, Any]]] = lambda _folder: {}
    projection: str | None = None


def marker_id(tokenizer: Any, token: str, *, unknown: int | None = None) -> int:
    """Return the id of a marker token.

    `unknown` replaces a token that is not in the vocabulary.

    Raises:
        CheckpointError: if it is not in the vocabulary and `unknown` is None.
    """
    for name in (token, token.rstrip()):
        id_ = tokenizer.convert_tokens_to_ids(name)
        if id_ is not None and id_ != tokenizer.unk_token_id:
            return int(id_)
    if unknown is not None:
        return int(unknown)
    raise CheckpointError(
        f"marker token {token!r} is not in the checkpoint's vocabulary; save the tokenizer that it was trained with beside it"
    )


def mask_id(tokenizer: Any) -> int:
    """Return the id of the mask token, or the end token if there is none.

    Raises:
        CheckpointError: if there is neither.
    """
    id_ = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
    if id_ is None:
        raise CheckpointError("the tokenizer has neither a mask nor an end token, but query expansion needs one")
    return int(id_)
