"""The tokenization of a bundle: the layout's own, with other lengths, or that of Vespa's colbert-embedder."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

from exporter.layouts.layout import Rules
from exporter.options import ExportOptions
from late_interaction.bundle import Expansion, Manifest, SideRules
from late_interaction.errors import CheckpointError, UsageError

__all__ = ["chosen_dim", "with_options"]

VESPA_QUERY_MARKER, VESPA_DOCUMENT_MARKER = 1, 2  # default of col-bert-embedder.def, if a bundle names none
AUTO_STEP = 32


def chosen_dim(options: ExportOptions, own: int, what: str) -> int:
    """Return the dimensions to keep of `own`.

    `what` is what has these dimensions, for error messages.

    Raises:
        CheckpointError: if more are requested.
    """
    if options.dim is not None and options.dim > own:
        raise CheckpointError(f"--dim {options.dim} is more than the {own} dimensions that the {what} has")
    return options.dim or own


def with_options(trained: Manifest, options: ExportOptions, tokenizer: Any) -> Manifest:
    """Return the manifest of the trained rules with the requested changes.

    Raises:
        UsageError: if a length exceeds what the model reads.
    """
    trained_rules = Rules(trained.query, trained.document, trained.strip, trained.lower_case)
    rules = _chosen_rules(trained_rules, options, tokenizer, trained.max_tokens)
    return replace(
        trained, rules=options.rules, pooling=options.pooling, query=rules.query, document=rules.document, strip=rules.strip,
        lower_case=rules.lower_case,
    )  # fmt: skip


def _chosen_rules(rules: Rules, options: ExportOptions, tokenizer: Any, max_tokens: int) -> Rules:
    query, document = rules.query, rules.document
    if options.query_length == "auto":
        step = min(query.expansion.length if query.expansion else AUTO_STEP, max_tokens)
        query = replace(_with_length(query, step), auto=True)
    elif options.query_length is not None:
        query = _with_length(query, _checked("query", int(options.query_length), max_tokens))
    if options.document_length is not None:
        document = _with_length(document, _checked("document", options.document_length, max_tokens))
    rules = replace(rules, query=query, document=document)
    return _vespa(rules, tokenizer) if options.rules == "vespa" else rules


def _with_length(side: SideRules, length: int) -> SideRules:
    return replace(side, length=length, expansion=side.expansion and replace(side.expansion, length=length))


def _checked(side: str, length: int, max_tokens: int) -> int:
    if length > max_tokens:
        raise UsageError(f"--{side}-length {length} is more than the {max_tokens} tokens that the model reads")
    return length


def _vespa(rules: Rules, tokenizer: Any) -> Rules:
    """Return the rules that ai.vespa.embedding.ColBertEmbedder supports.

    It always inserts a marker, has no prompt, drops punctuation before encoding, and does not attend to expansion.
    """
    punctuation = {
        int(id_) for character in string.punctuation for id_ in tokenizer.encode(character, add_special_tokens=False)
    }
    query, document = rules.query, rules.document
    expansion = query.expansion
    return Rules(
        query=SideRules(
            length=query.length,
            marker_id=VESPA_QUERY_MARKER if query.marker_id is None else query.marker_id,
            expansion=expansion and Expansion(query.length, expansion.token_id, attend=False),
        ),
        document=SideRules(
            length=document.length,
            marker_id=VESPA_DOCUMENT_MARKER if document.marker_id is None else document.marker_id,
            drop_ids=tuple(sorted(punctuation)),
        ),
    )
