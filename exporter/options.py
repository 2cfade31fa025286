"""What an export can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from late_interaction.bundle import RULES, Pooling, check_dense_name
from late_interaction.codebook import BITS, MAX_CENTROIDS
from late_interaction.devices import AUTO, Device, check_device
from late_interaction.errors import UsageError
from late_interaction.pooling import check_pooling

__all__ = ["READY_MADE", "ExportOptions"]

MOST_DOCUMENTS = 1e15
READY_MADE = "ready-made"  # in place of a dense checkpoint: its vectors come with documents and queries


@dataclass(frozen=True)
class ExportOptions:
    """quantize: schemes of `quantization.QUANTIZERS`, a graph each. sample: document texts, needed to fit a projection to a
    plain encoder, and used for verification. dim: dimensions kept (the first of a trained checkpoint, as Matryoshka training
    orders them; 128 for a plain encoder), None for all. rules: "trained", or "vespa" for the tokenization of Vespa's
    colbert-embedder. dense: dense models that the bundle gets, checkpoints by name; dense_dims: dimensions kept of them.
    query_length, document_length: rows at most, None as the checkpoint says; query length "auto" grows
    with the query. pooling: of document rows. bits, centroids: of the codebook, which a sample trains; None for 4 bits and for
    as many centroids as suit `documents` of the sample's kind, or where that is None the sample. trust_remote_code: run code
    that the checkpoint brings. allow_pickle: read tensors, and nothing else, from pickled weights. least_fp32: the worst cosine
    with torch that fp32 may have. least_quantized: the mean cosine that a quantized graph may have. force: keep a bundle that
    fails either. device: of the codebook's sample, and of the verification where it is named.
    """

    quantize: tuple[str, ...] = ()
    sample: Sequence[str] | None = None
    dim: int | None = None
    rules: str = "trained"
    query_length: int | str | None = None
    document_length: int | None = None
    pooling: Pooling | None = None
    bits: int | None = None
    centroids: int | None = None
    documents: float | None = None
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    allow_pickle: bool = False
    least_fp32: float = 0.9999
    least_quantized: float = 0.99
    force: bool = False
    device: str | Device = AUTO
    dense: Mapping[str, str | Path] = field(default_factory=dict)
    dense_dims: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: UsageError naming the option; MissingDependency where onnxruntime lacks the device."""
        check_device(Device.of(self.device))
        if self.rules not in RULES:
            raise UsageError(f"--rules {self.rules} unknown; known: {', '.join(RULES)}")
        if self.dim is not None and self.dim < 1:
            raise UsageError(f"--dim must be at least 1, got {self.dim}")
        for name, value in (("query", self.query_length), ("document", self.document_length)):
            if value is not None and not (value == "auto" and name == "query") and (not isinstance(value, int) or value < 4):
                raise UsageError(f"--{name}-length must be at least 4{', or auto' if name == 'query' else ''}, got {value}")
        if self.pooling is not None:
            check_pooling(self.pooling)
        if self.bits is not None and self.bits not in BITS:
            raise UsageError(f"--bits must be 1, 2 or 4, got {self.bits}")
        if self.centroids is not None and not 1 <= self.centroids <= MAX_CENTROIDS:
            raise UsageError(f"--centroids must be from 1 to {MAX_CENTROIDS:,}, got {self.centroids}")
        for name in {**self.dense, **self.dense_dims}:
            check_dense_name(name, UsageError)
        if unknown := sorted(set(self.dense_dims) - set(self.dense)):
            raise UsageError(f"--dense-dim of {unknown[0]}, of which there is no --dense")
        if self.documents is not None and not 1 <= self.documents <= MOST_DOCUMENTS:
            raise UsageError(f"--documents must be from 1 to {MOST_DOCUMENTS:g}, got {self.documents:g}")
