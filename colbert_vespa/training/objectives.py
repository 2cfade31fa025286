"""Objectives, one line of a table each: sentence-transformers' losses, and the combination used for ColBERTv2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns_padded
from sentence_transformers.multi_vector_encoder import losses
from sentence_transformers.multi_vector_encoder.scoring import colbert_kd_scores, colbert_scores
from sentence_transformers.util import stack_padded_token_embeddings
from torch import Tensor, nn
from torch.nn import functional

from colbert_vespa.training.settings import TrainingSettings

__all__ = ["ColBERTv2Loss", "InBatchLoss", "NWayLoss", "make_loss"]


class InBatchLoss(nn.Module):
    """Cross-entropy of each positive against the documents of the other queries.

    With negatives, the cross-entropy of each positive against the negatives of its own query is added; the two are not mixed
    (colbert-ai's `use_ib_negatives`).

    Here and below, b: queries of the batch, n: documents of each query, positive first.
    """

    def __init__(self, model: Any, *, scale: float, chunk: int) -> None:
        super().__init__()
        self.model, self.scale, self.chunk = model, scale, chunk

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        scores = self.scale * _all_scores(self.model, sentence_features, self.chunk)
        own_scores = _own(scores)
        loss = _in_batch(scores)
        return loss if own_scores.shape[1] == 1 else loss + _first_wins(own_scores)


class ColBERTv2Loss(nn.Module):
    """KL divergence from the teacher over the query's own documents, plus in-batch cross-entropy.

    The latter compares the query's positive with the documents of the other queries (Santhanam et al. 2022, arXiv 2112.01488).
    """

    def __init__(self, model: Any, *, temperature: float, scale: float, weight: float, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.temperature, self.scale, self.weight, self.chunk = temperature, scale, weight, chunk

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of a batch; `labels` are the teacher's scores, `[b, n]`."""
        scores = _all_scores(self.model, sentence_features, self.chunk)
        student = functional.log_softmax(_own(scores) / self.temperature, dim=-1)
        teacher = functional.log_softmax(labels / self.temperature, dim=-1)
        distilled = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * distilled + _in_batch(scores * self.scale)


class NWayLoss(nn.Module):
    """Cross-entropy of the positive against the query's own negatives alone, without those of the batch."""

    def __init__(self, model: Any, *, scale: float, chunk: int) -> None:
        super().__init__()
        self.model, self.scale, self.chunk = model, scale, chunk

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        query, documents, masks = _embedded(self.model, sentence_features, self.chunk)
        scores = colbert_kd_scores(  # [b, n]
            query["token_embeddings"], documents, queries_mask=query["attention_mask"].bool(), documents_mask=masks
        )
        return _first_wins(scores * self.scale)


def _embedded(model: Any, sentence_features: Iterable[dict[str, Tensor]], chunk: int) -> tuple[Any, Tensor, Tensor]:
    """Embed a batch: return the features of queries, and rows and mask of documents."""
    columns = [dict(features) for features in sentence_features]
    query = model(columns[0], task="query")
    documents, masks = stack_padded_token_embeddings(*embed_columns_padded(model, columns[1:], chunk, task_default="document"))
    return query, documents, masks


def _all_scores(model: Any, sentence_features: Iterable[dict[str, Tensor]], chunk: int) -> Tensor:
    """Return scores `[b, b, n]` of each query with the documents of each query."""
    query, documents, masks = _embedded(model, sentence_features, chunk)
    scores: Tensor = colbert_scores(
        query["token_embeddings"], documents, queries_mask=query["attention_mask"].bool(), documents_mask=masks
    )
    return scores.view(len(scores), len(scores), -1)


def _own(scores: Tensor) -> Tensor:
    """Return the scores `[b, n]` of each query's own documents, from `[b, b, n]`."""
    places = torch.arange(len(scores), device=scores.device)
    return scores[places, places]


def _first_wins(scores: Tensor) -> Tensor:
    """Return the cross-entropy of `scores [b, n]` with the first document as target."""
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


def _in_batch(scores: Tensor) -> Tensor:
    """Return the in-batch cross-entropy of `scores [b, b, n]` without a query's own negatives."""
    b, _, n = scores.shape
    places = torch.arange(b, device=scores.device)
    left_out = torch.zeros_like(scores, dtype=torch.bool)
    left_out[places, places, 1:] = True
    return functional.cross_entropy(scores.masked_fill(left_out, float("-inf")).view(b, b * n), places * n)


Make = Callable[[Any, TrainingSettings], nn.Module]
_LOSSES: dict[str, Make] = {
    "contrastive": lambda model, s: InBatchLoss(model, scale=s.scale, chunk=s.chunk),
    "cached-contrastive": lambda model, s: losses.CachedMultiVectorMultipleNegativesRankingLoss(
        model, scale=s.scale, mini_batch_size=s.chunk
    ),
    "n-way": lambda model, s: NWayLoss(model, scale=s.scale, chunk=s.chunk),
    "kl": lambda model, s: losses.MultiVectorDistillKLDivLoss(model, temperature=s.temperature),
    "margin-mse": lambda model, _: losses.MultiVectorMarginMSELoss(model),
    "colbertv2": lambda model, s: ColBERTv2Loss(
        model, temperature=s.temperature, scale=s.scale, weight=s.distillation_weight, chunk=s.chunk
    ),
}


def make_loss(model: Any, settings: TrainingSettings) -> nn.Module:
    """Make the loss of an objective for a MultiVectorEncoder."""
    return _LOSSES[settings.objective](model, settings)
