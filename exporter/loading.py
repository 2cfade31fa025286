"""Load checkpoints as torch modules through sentence-transformers 6 `MultiVectorEncoder`. Weights are safetensors only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Layout, Rules
from exporter.layouts.scanning import LAYOUTS
from exporter.quiet import quiet
from exporter.weights import check_custom_code, check_loaded, check_modules, safe_source, tensor_names
from late_interaction.errors import CheckpointError

__all__ = ["Checkpoint", "load_checkpoint", "load_tokenizer", "positions", "without_projection"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        folder: its folder.
        model: MultiVectorEncoder on the CPU.
        tokenizer: as in the loader that it was trained with.
        rules: how it tokenizes.
    """

    folder: CheckpointFolder
    model: Any
    tokenizer: Any
    rules: Rules

    @property
    def layout(self) -> str:
        """Return the name of its layout."""
        return self.folder.layout


def without_projection(folder: CheckpointFolder) -> CheckpointError:
    """Return the error about a plain encoder."""
    return CheckpointError(
        f"{folder.shown} is a plain encoder, not a ColBERT; to fit a projection to it, run colbert-vespa export "
        f"{folder.shown} -o BUNDLE --sample FILE (or --cross-encoder if it scores pairs)"
    )


def load_checkpoint(folder: CheckpointFolder, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> Checkpoint:
    """Load a checkpoint.

    Args:
        folder: the scanned folder.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: read tensors, and nothing else, from pickled weights.

    Raises:
        CheckpointError: if it is pickled, a plain encoder, needs its own code, or cannot be loaded as it was trained.
    """
    if folder.layout == "plain":
        raise without_projection(folder)
    layout = LAYOUTS[folder.layout]
    if layout.rules is None:
        raise CheckpointError(f"{folder.shown} is a {folder.layout} folder, whose graph torch cannot load")
    check_custom_code(folder, trust_remote_code)
    with safe_source(folder, allow_pickle=allow_pickle, changed=layout.changed(folder)) as source:
        check_modules(source, trust_remote_code)
        if layout.projection and layout.projection not in tensor_names(source.path):
            raise CheckpointError(f"{folder.shown} has no {layout.projection}, the projection of a {folder.layout} checkpoint")
        try:
            with quiet():
                model, tokenizer = _load(source, layout, trust_remote_code)
                rules = layout.rules(source, model, tokenizer)
                _limit(model[0])
                _settle_blind_rows(model[0].model, rules)
        except CheckpointError:
            raise
        except Exception as error:  # noqa: BLE001  loading runs four libraries, each with errors of its own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{folder.shown} cannot be loaded as a {folder.layout} checkpoint: {reason}") from None
    return Checkpoint(folder, model, tokenizer, rules)


def _load(folder: CheckpointFolder, layout: Layout, trust_remote_code: bool) -> tuple[Any, Any]:
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(
        str(folder.path), device="cpu", local_files_only=True, trust_remote_code=trust_remote_code,
        model_kwargs={"use_safetensors": True},
    ).eval()  # fmt: skip
    check_loaded(folder, model[0].model)
    # read again: sentence-transformers registers other loaders' markers as special tokens, which changes how texts that
    # spell them out are tokenized
    tokenizer = layout.tokenizer(folder, model, load_tokenizer(folder, trust_remote_code=trust_remote_code))
    _adapt(model[0].model, folder.shown)
    return model, tokenizer


def _adapt(backbone: Any, folder: Path) -> None:
    """Choose an XMOD adapter: XMOD selects by each text's language, but a graph has only the default language's.

    Raises:
        CheckpointError: if no default language is set.
    """
    if backbone.config.model_type != "xmod":
        return
    language = backbone.config.default_language
    if language is None:
        known = ", ".join(backbone.config.languages[:6])
        raise CheckpointError(
            f"{folder}: XMOD has one adapter per language, but config.json sets no default_language; set one of {known}, ..."
        )
    for layer in backbone.encoder.layer:
        if language not in layer.output.adapter_modules:
            raise CheckpointError(f"{folder}: XMOD has no adapter of its default language {language}")
        # the same sums as XmodOutput.lang_adapter, without the split by language, which a graph cannot do
        layer.output.lang_adapter = _one_adapter(layer.output, layer.output.adapter_modules[language])


def positions(config: Any) -> int:
    """Return the tokens that an encoder reads; RoBERTa's first positions belong to padding."""
    count = int(getattr(config, "max_position_embeddings", 0) or 512)
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "xmod"):
        count -= int(config.pad_token_id or 0) + 1
    return count


def _limit(transformer: Any) -> None:
    """Limit lengths to the encoder's last position.

    sentence-transformers reads past it, and fails, if a checkpoint's lengths say so.
    """
    limit = positions(transformer.model.config)
    if transformer.document_length is None or transformer.document_length > limit:
        transformer.document_length = min(limit, transformer.max_seq_length or limit)


def _settle_blind_rows(backbone: Any, rules: Rules) -> None:
    """Make expansion rows without attention, farther from the text than a layer's window, take the mean of all values.

    Such rows see no token. transformers 4, which these models were trained with, takes the mean, as eager attention still
    does; the fused attention of transformers 5 takes zero.
    """
    window, expansion = getattr(backbone.config, "local_attention", None), rules.query.expansion
    if window and expansion is not None and not expansion.attend and expansion.length - 2 > window // 2:
        backbone.set_attn_implementation("eager")


def _one_adapter(output: Any, adapter: Any) -> Any:
    def adapt(_languages: Any, rows: Any) -> Any:
        before = rows
        if output.adapter_layer_norm is not None:
            rows = output.adapter_layer_norm(rows)
        elif output.adapter_reuse_layer_norm:
            rows = output.LayerNorm(rows)
        return adapter(rows) + (rows if output.ln_before_adapter else before)

    return adapt


def load_tokenizer(folder: CheckpointFolder, *, trust_remote_code: bool) -> Any:
    """Load tokenizer.json unchanged: transformers 5 rebuilds the tokenizers of some families (XLM-R) without their normalizer.

    Raises:
        CheckpointError: if there is no fast tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    known = sorted(name for name in folder.files if re.fullmatch(r"(0_[^/]*/)?tokenizer\.json", name))
    place = folder.path / Path(min(known, key=len, default="")).parent
    kind = PreTrainedTokenizerFast if known else AutoTokenizer
    tokenizer = kind.from_pretrained(str(place), local_files_only=True, trust_remote_code=trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{folder.shown} has no fast tokenizer (tokenizer.json), which both Vespa and colbert-vespa need")
    return tokenizer
