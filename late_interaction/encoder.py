"""Texts to token vectors with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, OUTPUT, Bundle
from late_interaction.errors import BundleError
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["Encoder"]

Matrix = NDArray[np.float32]
TOKEN_BUDGET = 4096
MAX_BATCH = 64


class Encoder:
    """One bundle's model in one precision (`fp32`, `int8`; None is the bundle's default).

    Queries are encoded one at a time, so a query's vectors never depend on its batch mates. Documents are encoded in
    batches sorted by length. In fp32 the batch changes nothing but float noise; int8 quantizes activations per batch, so
    the same text may differ slightly (cosine above .99) from batch to batch.
    """

    def __init__(self, bundle: Bundle, *, precision: str | None = None, threads: int | None = None) -> None:
        """`threads`: of onnxruntime, by default one per core. Raises: BundleError where the model cannot be loaded."""
        self.bundle = bundle
        self.precision = precision or bundle.default_precision
        self.tokenizing = Tokenizing(bundle)
        options = ort.SessionOptions()
        options.intra_op_num_threads = (
            threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or 0
        )
        options.log_severity_level = 3
        path = bundle.model_path(self.precision)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise BundleError(f"{path} cannot be loaded by onnxruntime: {error}") from None
        names = {item.name for item in self._session.get_inputs()}, {item.name for item in self._session.get_outputs()}
        if names != ({INPUT_IDS, ATTENTION_MASK}, {OUTPUT}):
            raise BundleError(f"{path} has inputs {sorted(names[0])} and outputs {sorted(names[1])}: export it again")

    @property
    def dim(self) -> int:
        return self.bundle.manifest.dim

    def encode_queries(self, texts: Sequence[str]) -> list[Matrix]:
        """One `[q, d]` float32 per text, L2-normalised rows."""
        return [self._run([rows])[0] for rows in self.tokenizing.queries(texts)]

    def encode_documents(self, texts: Sequence[str]) -> list[Matrix]:
        """One `[t, d]` float32 per text, in the order given."""
        rows = self.tokenizing.documents(texts)
        found: list[Matrix] = [np.empty((0, self.dim), np.float32)] * len(rows)
        for places in _batches([len(item.ids) for item in rows]):
            for place, vectors in zip(places, self._run([rows[place] for place in places]), strict=True):
                found[place] = vectors
        return found

    def _run(self, batch: Sequence[TokenRows]) -> list[Matrix]:
        longest = max(len(item.ids) for item in batch)
        ids = np.full((len(batch), longest), self.bundle.manifest.pad_id, np.int64)
        attention = np.zeros((len(batch), longest), np.int64)
        for row, item in enumerate(batch):
            ids[row, : len(item.ids)] = item.ids
            attention[row, : len(item.ids)] = item.attention
        output = self._session.run([OUTPUT], {INPUT_IDS: ids, ATTENTION_MASK: attention})[0]
        if output.shape[2] != self.dim:
            raise BundleError(f"{self.bundle.path}: the model gives {output.shape[2]} dimensions, the manifest says {self.dim}")
        return [np.ascontiguousarray(output[row, : len(item.ids)][item.keep], np.float32) for row, item in enumerate(batch)]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts, longest first, so that a batch pads little and stays within the token budget."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (len(batch) == MAX_BATCH or (len(batch) + 1) * lengths[batch[0]] > TOKEN_BUDGET):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
