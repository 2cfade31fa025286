"""Objectives by name, each one line of a table: sentence-transformers' losses, and the mix that ColBERTv2 was trained with."""

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

__all__ = ["ColBERTv2Loss", "NWayLoss", "make_loss"]


class ColBERTv2Loss(nn.Module):
    """KL divergence from the teacher over a query's own documents, plus cross-entropy of its positive against all documents of
    the batch but its own negatives (colbert-ai's `use_ib_negatives`; Santhanam et al. 2022, arXiv 2112.01488).

    b: queries of the batch, n: documents of each, positive first.
    """

    def __init__(self, model: Any, *, temperature: float, scale: float, weight: float, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.temperature, self.scale, self.weight, self.chunk = temperature, scale, weight, chunk

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """labels: `[b, n]`, the teacher's scores."""
        columns = [dict(features) for features in sentence_features]
        query = self.model(columns[0], task="query")
        documents, masks = stack_padded_token_embeddings(
            *embed_columns_padded(self.model, columns[1:], self.chunk, task_default="document")
        )
        scores = colbert_scores(  # [b, b * n]
            query["token_embeddings"], documents, queries_mask=query["attention_mask"].bool(), documents_mask=masks
        )
        b, n = labels.shape
        places = torch.arange(b, device=scores.device)
        own = scores.view(b, b, n)[places, places]  # [b, n]
        student = functional.log_softmax(own / self.temperature, dim=-1)
        teacher = functional.log_softmax(labels / self.temperature, dim=-1)
        distilled = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        left_out = torch.zeros(b, b, n, dtype=torch.bool, device=scores.device)
        left_out[places, places, 1:] = True
        rivals = (scores * self.scale).masked_fill(left_out.view(b, b * n), float("-inf"))
        contrastive = functional.cross_entropy(rivals, places * n)
        loss: Tensor = self.weight * self.temperature**2 * distilled + contrastive
        return loss


class NWayLoss(nn.Module):
    """Cross-entropy of the positive against the query's own negatives alone, without those of the batch."""

    def __init__(self, model: Any, *, scale: float, chunk: int) -> None:
        super().__init__()
        self.model, self.scale, self.chunk = model, scale, chunk

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        columns = [dict(features) for features in sentence_features]
        query = self.model(columns[0], task="query")
        documents, masks = stack_padded_token_embeddings(
            *embed_columns_padded(self.model, columns[1:], self.chunk, task_default="document")
        )
        scores = colbert_kd_scores(  # [b, n]
            query["token_embeddings"], documents, queries_mask=query["attention_mask"].bool(), documents_mask=masks
        )
        return functional.cross_entropy(scores * self.scale, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


Make = Callable[[Any, TrainingSettings], nn.Module]
_LOSSES: dict[str, Make] = {
    "contrastive": lambda model, s: losses.MultiVectorMultipleNegativesRankingLoss(model, scale=s.scale),
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
    """`model`: MultiVectorEncoder."""
    return _LOSSES[settings.objective](model, settings)
