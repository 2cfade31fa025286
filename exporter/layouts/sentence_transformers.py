"""sentence-transformers' own layout: config_sentence_transformers.json of model type MultiVectorEncoder."""

from __future__ import annotations

from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Layout, Rules, mask_id
from late_interaction.bundle import Expansion, SideRules
from late_interaction.errors import CheckpointError

__all__ = ["SENTENCE_TRANSFORMERS", "rules_of_model"]

CONFIG = "config_sentence_transformers.json"


def _tokenizer(_folder: CheckpointFolder, model: Any, tokenizer: Any) -> Any:
    """Return the tokenizer; only the model's own lower-cases by its own setting."""
    return model.tokenizer if getattr(model[0], "do_lower_case", False) else tokenizer


def rules_of_model(folder: CheckpointFolder, model: Any, tokenizer: Any) -> Rules:
    """Return the rules of the loaded modules (sentence_transformers.multi_vector_encoder). Its tokenizer lower-cases."""
    transformer = model[0]
    limit = int(model.max_seq_length or 512)
    chosen = transformer.query_expansion
    expansion = None
    query_length = int(transformer.query_length or limit)
    if chosen is not None:
        token = chosen["token"]
        id_ = tokenizer.convert_tokens_to_ids(token) if token is not None else mask_id(tokenizer)
        expansion = Expansion(int(chosen["length"]), int(id_), bool(chosen["attend"]))
        if chosen["strategy"] == "fixed":
            query_length = expansion.length
    mask = next((module for module in model if type(module).__name__ == "MultiVectorMask"), None)
    if mask is not None and mask.keep_only_token_ids:
        raise CheckpointError(
            f"{folder.shown} keeps only the rows of certain tokens (keep_only_token_ids), like image models, which "
            f"cannot be exported"
        )
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


# an inserted marker differs from one in the text by how the text after it begins
_PROBES = ("", "a", " a", "  a b", "the", "The", "\ta", "\u0301a", "\u6771", "1", ",", "[MASK]", "<mask>", "\u00a0a", "a" * 40)


def _split_prompt(prompt: str, tokenizer: Any) -> tuple[int | None, str]:
    """Return (marker id, prompt without it) if inserting the marker's id equals tokenizing it as text, else (None, prompt).

    The prompt must begin with a registered token.
    """
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


SENTENCE_TRANSFORMERS = Layout(
    (CONFIG,),
    lambda folder: folder.read(CONFIG).get("model_type") == "MultiVectorEncoder",
    rules_of_model,
    tokenizer=_tokenizer,
)
