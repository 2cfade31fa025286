"""Texts to token vectors with onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, OUTPUT, Bundle
from late_interaction.cores import cores
from late_interaction.devices import CPU, Device, Graph, open_graph
from late_interaction.errors import BundleError, ColbertVespaError
from late_interaction.pooling import pool
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["Encoder", "check_finite", "open_graph", "suitable_precision"]


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
        self.bundle = bundle
        self.device = Device.of(device)
        self.precision = precision or suitable_precision(bundle, self.device)
        self.threads = threads or cores()
        self.tokenizing = Tokenizing(bundle)
        bundle.model_path(self.precision)

    @property
    def dim(self) -> int:
        return self.bundle.manifest.dim

    def encode_queries(self, texts: Sequence[str]) -> list[Matrix]:
        """One `[q, d]` float32 per text, L2-normalised rows. Raises: BundleError where the model cannot be loaded."""
        return [self._run(self._wide, [rows])[0] for rows in self.tokenizing.queries(texts)]

    def encode_together(self, texts: Sequence[str]) -> list[Matrix]:
        """As `encode_queries`, the same but for float noise: in batches, which take half the time of one after the other."""
        if len(texts) == 1 or self.precision == "int8-tensor":  # whose vectors depend on the batch
            return self.encode_queries(texts)
        rows = self.tokenizing.queries(texts)
        found: list[Matrix] = [np.empty((0, self.dim), np.float32)] * len(rows)
        for places in self._batches(rows):
            for place, vectors in zip(places, self._run(self._wide, [rows[place] for place in places]), strict=True):
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
        found: list[Matrix] = [np.empty((0, self.dim), np.float32)] * len(rows)
        batches = list(self._batches(rows))
        pooling = self.bundle.manifest.pooling if pooled else None
        graph = self._narrow

        def encode(places: list[int]) -> list[Matrix]:
            vectors = self._run(graph, [rows[place] for place in places])
            return vectors if pooling is None else [pool(D, pooling) for D in vectors]

        with ThreadPoolExecutor(self.device.kind.lanes or self.threads, thread_name_prefix="encode") as threads:
            for places, encoded in zip(batches, threads.map(encode, batches), strict=True):
                for place, vectors in zip(places, encoded, strict=True):
                    found[place] = vectors
        return found

    @cached_property
    def _wide(self) -> Graph:
        """For one query at a time: all threads on one text."""
        return self._graph(self.threads, 1)

    @cached_property
    def _narrow(self) -> Graph:
        """For many documents: a thread each, or the whole of a device that is not the processor."""
        return self._wide if self.device.kind.lanes else self._graph(1, self.threads)

    def _graph(self, threads: int, lanes: int) -> Graph:
        path = self.bundle.model_path(self.precision)
        self._check_still_there()
        try:
            graph = open_graph(path, threads, self.device, lanes=lanes, fp16=self.precision == "fp16")
        except ColbertVespaError:
            raise
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise BundleError(f"{path} cannot be loaded by onnxruntime: {error}") from None
        if (graph.inputs, graph.outputs) != ({INPUT_IDS, ATTENTION_MASK}, {OUTPUT}):
            raise BundleError(f"{path} has inputs {sorted(graph.inputs)} and outputs {sorted(graph.outputs)}: export it again")
        return graph

    def _check_still_there(self) -> None:
        """Raises: BundleError where another bundle has taken this one's place, as when an index is replaced."""
        files = Bundle.open(self.bundle.path, verify=False).manifest.files
        for name in (self.bundle.manifest.models[self.precision], "tokenizer.json"):
            if files.get(name) != self.bundle.manifest.files[name]:
                raise BundleError(f"{self.bundle.path} was replaced by another bundle while it was in use: open it again")

    def _run(self, graph: Graph, batch: Sequence[TokenRows]) -> list[Matrix]:
        ids, attention = self._padded(batch)
        output = graph.run([OUTPUT], {INPUT_IDS: ids, ATTENTION_MASK: attention})[0]
        if output.shape[2] != self.dim:
            raise BundleError(f"{self.bundle.path}: the model gives {output.shape[2]} dimensions, the manifest says {self.dim}")
        return [np.ascontiguousarray(output[row, : len(item.ids)][item.keep], np.float32) for row, item in enumerate(batch)]

    def _padded(self, batch: Sequence[TokenRows]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and attention `[texts, tokens]`, on devices that compile every shape in few shapes; rows that are added attend to
        their first token, as softmax over nothing is not a number.
        """
        longest = max(len(item.ids) for item in batch)
        tokens, texts = self.device.kind.powers
        shape = (
            round_up(len(batch), texts),
            max(longest, min(round_up(longest, tokens), self.bundle.manifest.max_tokens)),
        )
        ids = np.full(shape, self.bundle.manifest.pad_id, np.int64)
        attention = np.zeros(shape, np.int64)
        attention[len(batch) :, 0] = 1
        for row, item in enumerate(batch):
            ids[row, : len(item.ids)] = item.ids
            attention[row, : len(item.ids)] = item.attention
        return ids, attention

    def _batches(self, rows: Sequence[TokenRows]) -> Iterator[list[int]]:
        """Places of texts, longest first, so that a batch pads little and stays within the device's budget of tokens."""
        kind, batch = self.device.kind, list[int]()
        lengths = [len(item.ids) for item in rows]
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            if batch and (len(batch) == kind.texts or (len(batch) + 1) * lengths[batch[0]] > kind.tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch


def suitable_precision(bundle: Bundle, device: Device) -> str:
    """The first of the device's that the bundle has."""
    return next(name for name in device.kind.precisions if name in bundle.manifest.models)


def round_up(number: int, base: int) -> int:
    """To a power of `base`; 1: not at all."""
    if base == 1:
        return number
    power = 1
    while power < number:
        power *= base
    return power


def check_finite(vectors: Sequence[Matrix], bundle: Bundle) -> None:
    """Scores of rows that are no numbers put documents in no order. Raises: BundleError."""
    if not all(np.isfinite(rows).all() for rows in vectors):
        raise BundleError(f"{bundle.path} gives vectors that are no finite numbers: export it again, or with another precision")
