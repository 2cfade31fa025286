"""Make a ColBERT from a plain encoder with a projection fitted by PCA to token rows of a sample.

Untrained [MASK] expansion and markers hurt (docs/performance/notes.md), so the result has neither. The projection keeps
inner products as well as `dim` dimensions can: PCA without centring, since MaxSim compares raw rows.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.checkpoint_folder import CheckpointFolder
from exporter.loading import load_tokenizer, without_projection
from exporter.quiet import quiet
from exporter.weights import check_custom_code, check_loaded, require_safetensors, safe_source
from late_interaction.errors import CheckpointError

__all__ = ["make_plain_checkpoint"]

PCA_TEXTS = 256
PCA_SEED = 0
QUERY_LENGTH, DOCUMENT_LENGTH = 64, 300
BATCH = 16


def make_plain_checkpoint(
    encoder: CheckpointFolder, output: Path, sample: Sequence[str], *, dim: int = 128, allow_pickle: bool = False
) -> None:
    """Write a sentence-transformers 6 checkpoint: the encoder, a Dense of `dim`, mask and normalisation.

    Deterministic: the same encoder and sample give the same weights up to the platform's float noise.

    Raises:
        CheckpointError: if the encoder cannot be loaded or the sample is too small for `dim`.
    """
    texts = [text for text in sample if text.strip()]
    if not texts:
        raise without_projection(encoder)
    if allow_pickle and encoder.pickled():
        with safe_source(encoder, allow_pickle=True) as view:
            make_plain_checkpoint(view, output, texts, dim=dim)
        return
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    require_safetensors(encoder)
    check_custom_code(encoder, trust_remote_code=False)
    try:
        with quiet():
            tokenizer = load_tokenizer(encoder, trust_remote_code=False)
            transformer = Transformer(
                str(encoder.path), query_length=QUERY_LENGTH, document_length=DOCUMENT_LENGTH, max_seq_length=512
            )
            check_loaded(encoder, transformer.model)
            transformer.tokenizer.backend_tokenizer.normalizer = tokenizer.backend_tokenizer.normalizer
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  loading runs libraries with errors of their own
        raise CheckpointError(f"{encoder.shown} cannot be loaded as an encoder: {error}") from None
    rows = _token_rows(transformer, texts)
    projection = _principal_axes(rows, dim)
    dense = Dense(
        in_features=rows.shape[1], out_features=dim, bias=False, activation_function=torch.nn.Identity(),
        init_weight=torch.from_numpy(projection), module_input_name="token_embeddings",
    )  # fmt: skip
    with quiet():
        model = MultiVectorEncoder(
            modules=[
                transformer,
                dense,
                MultiVectorMask(skiplist_words=list(string.punctuation)),
                Normalize(module_input_name="token_embeddings"),
            ],
            device="cpu",
        )
        model.save(str(output), create_model_card=False)


def _token_rows(transformer: Any, texts: Sequence[str]) -> np.ndarray:
    """Return rows `[n, hidden]` of all tokens of a seeded part of the sample."""
    import torch

    chosen = random.Random(PCA_SEED).sample(list(texts), min(PCA_TEXTS, len(texts)))
    chosen.sort(key=len)
    rows = []
    for first in range(0, len(chosen), BATCH):
        features = transformer.preprocess(chosen[first : first + BATCH], task="document")
        with torch.inference_mode():
            output = transformer(dict(features))
        kept = output["attention_mask"].bool()
        rows.append(output["token_embeddings"][kept].numpy())
    return np.concatenate(rows)


def _principal_axes(rows: np.ndarray, dim: int) -> np.ndarray:
    """Return `[dim, hidden]` orthonormal axes of the most energy, with fixed signs.

    Raises:
        CheckpointError: if there are too few rows, or the encoder is narrower than `dim`.
    """
    hidden = rows.shape[1]
    if dim > hidden or len(rows) < dim:
        raise CheckpointError(
            f"--dim {dim} needs at least {dim} encoder dimensions (it has {hidden}) and token rows (the sample has {len(rows)})"
        )
    unit = rows.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    values, vectors = np.linalg.eigh(unit.T @ unit)
    axes = vectors[:, np.argsort(values)[::-1][:dim]].T
    signs = np.sign(axes[np.arange(dim), np.abs(axes).argmax(axis=1)])
    return np.ascontiguousarray(axes * signs[:, None], np.float32)
