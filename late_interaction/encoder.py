"""Texts to token vectors with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import OUTPUT, Bundle
from late_interaction.cores import cores
from late_interaction.devices import CPU, Device, Graph
from late_interaction.errors import BundleError
from late_interaction.graphs import BundleGraph, best_precision
from late_interaction.pooling import pool
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["Encoder", "check_finite", "suitable_precision"]


class Encoder:
    """One bundle's model in one precision (None: the one that suits the device) on one device.

    On the processor queries are encoded one at a time with all threads, documents in batches sorted by length, one batch per
    thread; other devices get larger batches (`late_interaction.devices`). The batch changes nothing but float noise, except in
    `int8-tensor`, whose activations are quantized per batch (cosine above .99). The models are loaded when first used; memory
    beyond them is bounded by the token budget, or by the longest text where that is longer.
    """

    def __init__(
        self, bundle: Bundle, *, precision: str | None = None, threads: int | None = None, device: str | Device = CPU
    ) -> None:
        """`threads`: of onnxruntime, by default one per core. device: `cuda`, `cuda:1`; see `late_interaction.devices.DEVICES`.

        Raises: BundleError where the bundle has no such model; UsageError where there is no such device.
        """
        bundle.check_encodes()
        self.bundle = bundle
        self.device = Device.of(device)
        self.precision = precision or suitable_precision(bundle, self.device)
        self.threads = threads or cores()
        self.tokenizing = Tokenizing(bundle)
        bundle.model_path(self.precision)
        manifest = bundle.manifest
        self._graph = BundleGraph(
            bundle, manifest.models[self.precision], "tokenizer.json", OUTPUT, manifest.pad_id, manifest.max_tokens,
            self.device, self.threads, fp16=self.precision == "fp16",
        )  # fmt: skip

    @property
    def dim(self) -> int:
        return self.bundle.manifest.dim

    def encode_queries(self, texts: Sequence[str]) -> list[Matrix]:
        """One `[q, d]` float32 per text, L2-normalised rows. Raises: BundleError where the model cannot be loaded."""
        return [self._run(self._graph.wide, [rows])[0] for rows in self.tokenizing.queries(texts)]

    def encode_together(self, texts: Sequence[str]) -> list[Matrix]:
        """As `encode_queries`, the same but for float noise: in batches, which take half the time of one after the other."""
        if len(texts) == 1 or self.precision == "int8-tensor":  # whose vectors depend on the batch
            return self.encode_queries(texts)
        rows = self.tokenizing.queries(texts)
        found: list[Matrix] = [np.empty((0, self.dim), np.float32)] * len(rows)
        for places in self._graph.batches([len(item.ids) for item in rows]):
            for place, vectors in zip(places, self._run(self._graph.wide, [rows[place] for place in places]), strict=True):
                found[place] = vectors
        return found

    def encode_documents(
        self, texts: Sequence[str], rows: Sequence[TokenRows] | None = None, *, pooled: bool = True
    ) -> list[Matrix]:
        """One `[t, d]` float32 per text, in the order given; without pooling one row for each kept row of the tokenizing.

        rows: of the texts, where they have been tokenized already.

        Raises: BundleError where the model cannot be loaded.
        """
        return self._documents(self.tokenizing.documents(texts) if rows is None else rows, pooled=pooled)

    def _documents(self, rows: Sequence[TokenRows], *, pooled: bool) -> list[Matrix]:
        pooling = self.bundle.manifest.pooling if pooled else None
        graph = self._graph.narrow

        def encode(places: list[int]) -> list[Matrix]:
            vectors = self._run(graph, [rows[place] for place in places])
            return vectors if pooling is None else [pool(D, pooling) for D in vectors]

        return self._graph.in_batches([len(item.ids) for item in rows], encode)

    def _run(self, graph: Graph, batch: Sequence[TokenRows]) -> list[Matrix]:
        output = self._graph.run(graph, [item.ids for item in batch], [item.attention for item in batch])
        if output.shape[2] != self.dim:
            raise BundleError(f"{self.bundle.path}: the model gives {output.shape[2]} dimensions, the manifest says {self.dim}")
        return [np.ascontiguousarray(output[row, : len(item.ids)][item.keep], np.float32) for row, item in enumerate(batch)]


def suitable_precision(bundle: Bundle, device: Device) -> str:
    """The first of the device's that the bundle has."""
    return best_precision(bundle.manifest.models, device)


def check_finite(vectors: Sequence[Matrix], bundle: Bundle) -> None:
    """Scores of rows that are no numbers put documents in no order. Raises: BundleError."""
    if not all(np.isfinite(rows).all() for rows in vectors):
        raise BundleError(f"{bundle.path} gives vectors that are no finite numbers: export it again, or with another precision")
