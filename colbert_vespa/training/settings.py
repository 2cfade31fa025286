"""Settings of a training run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from colbert_vespa.training.mining import MiningSettings
from late_interaction.devices import Device
from late_interaction.errors import UsageError

__all__ = ["OBJECTIVES", "PRECISIONS", "TrainingSettings"]

OBJECTIVES = ("contrastive", "cached-contrastive", "n-way", "kl", "margin-mse", "colbertv2")
PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "rocm")  # of torch
SCORED = ("kl", "margin-mse", "colbertv2")  # objectives that need a teacher's scores


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training run.

    Attributes:
        steps: Steps, at most; -1 for all of the epochs.
        chunk: Documents embedded at a time by `cached-contrastive`.
        query_length: Tokens of a query during training; the model keeps its own length.
        document_length: Tokens of a document during training; the model keeps its own length.
        negatives: Negatives of each query, mined if the data has fewer.
        scale: Factor of MaxSim before the softmax.
        frozen: Do not train the word embeddings, which are most of a small model.
        keep_start: Share of the start's weights in the result, which preserves what the model could do before (Wortsman et al.
            2022, arXiv 2109.01903).
        pool_factor: Train through token pooling by this factor.
        device: Device of torch: `auto`, `cpu`, `cuda` or `rocm`, with a number as in `cuda:1` for one of several.
        evaluate_every: Steps between evaluations; 0 for a tenth of the run.
        patience: Evaluations without a better nDCG before the run stops; 0 for no limit.
        remine: Mine again before each epoch.
    """

    objective: str = "contrastive"
    epochs: float = 1.0
    steps: int = -1
    batch_size: int = 32
    accumulate: int = 1
    chunk: int = 16
    learning_rate: float = 3e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    query_length: int = 32
    document_length: int = 128
    negatives: int = 1
    scale: float = 1.0
    temperature: float = 1.0
    distillation_weight: float = 1.0
    frozen: bool = True
    keep_start: float = 0.0
    pool_factor: int = 1
    precision: str = "fp32"
    evaluate_every: int = 0
    patience: int = 0
    seed: int = 12345
    mining: MiningSettings = field(default_factory=MiningSettings)
    remine: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is not valid.
        """
        for name, known in (("objective", OBJECTIVES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r} is unknown; known: {', '.join(known)}")
        if Device.of(self.device).name not in DEVICES:
            raise UsageError(f"device {self.device} does not train; known: {', '.join(DEVICES)}")
        least = {"epochs": 0.0, "learning_rate": 0.0, "scale": 0.0, "temperature": 0.0}
        for name, bound in least.items():
            if not bound < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be more than {bound:g}, got {getattr(self, name)}")
        at_least = {"batch_size": 1, "accumulate": 1, "chunk": 1, "query_length": 4, "document_length": 4, "negatives": 0,
                    "pool_factor": 1, "evaluate_every": 0, "patience": 0, "distillation_weight": 0}  # fmt: skip
        for name, smallest in at_least.items():
            if not smallest <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        for name in ("keep_start", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if self.objective in (*SCORED, "n-way") and self.negatives < 1:
            raise UsageError(f"objective {self.objective} compares a positive with negatives, so negatives must be at least 1")

    @property
    def needs_scores(self) -> bool:
        """Return whether the objective needs a teacher's scores."""
        return self.objective in SCORED

    def to_json(self) -> dict[str, object]:
        """Return the settings without the device, so that a run may be resumed on another one."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "device"}
