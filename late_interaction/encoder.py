"""Encode texts as token vectors with onnxruntime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import OUTPUT, Bundle
from late_interaction.cores import cores
from late_interaction.device_choice import Choice, choose
from late_interaction.devices import AUTO, Device, Graph, check_device
from late_interaction.errors import BundleError
from late_interaction.graphs import BundleGraph
from late_interaction.pooling import pool
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["Encoder", "check_finite", "seconds_a_text"]

SAMPLE = (
    "Late interaction keeps one vector for each token of a passage, and scores a passage by the sum, over the tokens of the "
    "query, of the most similar of its vectors. The vectors of a passage are computed once, when it is indexed."
)


class Encoder:
    """One bundle's model in one precision on one device.

    On the processor, queries are encoded one at a time with all threads, documents in batches sorted by length, one batch
    per thread; other devices get larger batches (`late_interaction.devices`). Batching changes only float noise, except
    with `int8-tensor`, whose activations are quantized per batch (cosine above .99). The models are loaded when first used.
    Memory beyond them is bounded by the token budget, or by the longest text if that is longer.

    Args:
        bundle: the bundle.
        precision: fp32, int8, ...; None for the one that suits the device.
        threads: threads of the processor, by default one per core.
        device: a name in `late_interaction.devices.DEVICES`, such as `cuda` or `cuda:1`; `auto` for the fastest here, which
            is measured once.

    Raises:
        BundleError: if the bundle has no such model.
        UsageError: if the device is unknown.
        MissingDependency: if the device's package is not installed.
    """

    def __init__(
        self, bundle: Bundle, *, precision: str | None = None, threads: int | None = None, device: str | Device = AUTO
    ) -> None:
        """Open the tokenizer; the model is loaded when first used."""
        bundle.check_encodes()
        self.bundle = bundle
        self.threads = threads or cores()
        self.tokenizing = Tokenizing(bundle)
        self._asked = Device.of(device)
        self._precision = precision
        self._choosing = threading.Lock()
        self._started: dict[Choice, BundleGraph] = {}
        self._chosen: BundleGraph | None = None
        bundle.model_path(precision or bundle.default_precision)
        check_device(self._asked)

    @property
    def device(self) -> Device:
        """Return the device, chosen on first use."""
        return self._graph.device

    @property
    def precision(self) -> str:
        """Return the precision, chosen on first use."""
        return self._graph.precision

    @property
    def _graph(self) -> BundleGraph:
        """The graph, chosen when it is first needed."""
        with self._choosing:
            if self._chosen is None:
                choice = choose(self.bundle, self._asked, self._precision, self)
                self._chosen = self._started.get(choice) or self._graph_of(choice)
            return self._chosen

    def start(self, choice: Choice) -> None:
        """Open the graph of a choice.

        Raises:
            DeviceError: if the device does not start.
        """
        graph = self._graph_of(choice)
        _ = graph.wide
        self._started[choice] = graph

    def seconds(self, choice: Choice) -> float:
        """Return the seconds that a document takes with a choice.

        Raises:
            DeviceError: if the device fails.
        """
        return seconds_a_text(Encoder(self.bundle, precision=choice.precision, threads=self.threads, device=choice.device))

    def _graph_of(self, choice: Choice) -> BundleGraph:
        manifest = self.bundle.manifest
        return BundleGraph(
            self.bundle, manifest.models[choice.precision], "tokenizer.json", OUTPUT, manifest.pad_id, manifest.max_tokens,
            choice.device, self.threads, choice.precision,
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """Return the dimensions of a token vector."""
        return self.bundle.manifest.dim

    def encode_queries(self, texts: Sequence[str]) -> list[Matrix]:
        """Return one `[q, d]` float32 matrix per text, with L2-normalised rows.

        Raises:
            BundleError: if the model cannot be loaded.
        """
        return [self._run(self._graph.wide, [rows])[0] for rows in self.tokenizing.queries(texts)]

    def encode_together(self, texts: Sequence[str]) -> list[Matrix]:
        """Encode queries in batches, in half the time; the result differs from `encode_queries` only by float noise."""
        if len(texts) == 1 or self.precision == "int8-tensor":  # its vectors depend on the batch
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
        """Return one `[t, d]` float32 matrix per text, in the given order.

        Without pooling there is one row for each kept row of the tokenization.

        Args:
            texts: the texts of the passages.
            pooled: whether to pool rows as the bundle says.
            rows: the tokenized texts, if they have been tokenized already.

        Raises:
            BundleError: if the model cannot be loaded.
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
            raise BundleError(
                f"{self.bundle.path}: the model returns {output.shape[2]} dimensions, but the "
                f"manifest says {self.dim}; export the bundle again"
            )
        return [np.ascontiguousarray(output[row, : len(item.ids)][item.keep], np.float32) for row, item in enumerate(batch)]


def seconds_a_text(encoder: Encoder, clock: Callable[[], float] = time.perf_counter) -> float:
    """Measure the second or third of batches that suit the device: the first loads and compiles."""
    kind = encoder.device.kind
    length = len(encoder.tokenizing.documents([SAMPLE])[0].ids)
    texts = [SAMPLE] * max(1, kind.tokens * (kind.lanes or encoder.threads) // length)
    encoder.encode_documents(texts)
    seconds = []
    for _ in range(2):
        start = clock()
        encoder.encode_documents(texts)
        seconds.append(clock() - start)
    return min(seconds) / len(texts)


def check_finite(vectors: Sequence[Matrix], bundle: Bundle) -> None:
    """Check that rows are finite: scores of other rows cannot be ordered.

    Raises:
        BundleError: if a number is not finite.
    """
    if not all(np.isfinite(rows).all() for rows in vectors):
        raise BundleError(f"{bundle.path} returns vectors that are not finite; export it again, or with another precision")
