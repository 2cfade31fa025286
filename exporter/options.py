"""The options of an export."""

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
READY_MADE = "ready-made"  # in place of a dense checkpoint: vectors are supplied with documents and queries


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        quantize: schemes of `quantization.QUANTIZERS`, one graph each.
        sample: texts of documents; needed to fit a projection to a plain encoder, and used for verification.
        dim: dimensions to keep (the first of a trained checkpoint, as Matryoshka training orders them; 128 for a plain
            encoder); None for all.
        rules: "trained", or "vespa" for the tokenization of Vespa's colbert-embedder.
        query_length: most rows of a query; None for the checkpoint's, "auto" to grow with the query.
        document_length: most rows of a document; None for the checkpoint's.
        pooling: pooling of document rows.
        bits: bits per dimension of the codebook's residuals; None for 4.
        centroids: number of centroids; None for as many as suit `documents`.
        documents: how many documents of the sample's kind will be indexed; None for the size of the sample.
        revision: revision on the hub.
        local_files_only: do not access the hub.
        trust_remote_code: run code that the checkpoint brings.
        allow_pickle: read tensors, and nothing else, from pickled weights.
        least_fp32: lowest allowed cosine with torch of any fp32 row.
        least_quantized: lowest allowed mean cosine of a quantized graph.
        force: keep a bundle that fails either limit.
        device: device that encodes the codebook's sample and, if named, runs the verification.
        dense: dense models to add: checkpoint by name.
        dense_dims: dimensions to keep, by name of a dense model.
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
        """Check the options.

        Raises:
            UsageError: if an option is not valid; the message names it.
            MissingDependency: if onnxruntime lacks the device.
        """
        check_device(Device.of(self.device))
        if self.rules not in RULES:
            raise UsageError(f"--rules {self.rules} is unknown; known: {', '.join(RULES)}")
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
            if name.endswith("explained"):
                raise UsageError(f"dense model {name!r} must not end in explained: Vespa's rank profiles do")
        if unknown := sorted(set(self.dense_dims) - set(self.dense)):
            raise UsageError(f"--dense-dim names {unknown[0]}, but no --dense does")
        if self.documents is not None and not 1 <= self.documents <= MOST_DOCUMENTS:
            raise UsageError(f"--documents must be from 1 to {MOST_DOCUMENTS:g}, got {self.documents:g}")
