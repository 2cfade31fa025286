"""Run exported ONNX graphs on a device, with token ids in batches sorted by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from late_interaction.array_types import F32, I64
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, TYPE_IDS, ExportedFolder
from late_interaction.devices import Device, Graph, open_graph
from late_interaction.errors import BundleError, ColbertVespaError

__all__ = ["BundleGraph", "best_precision", "round_up"]

_Encoded = TypeVar("_Encoded")


@dataclass(frozen=True)
class BundleGraph:
    """A graph of an exported folder on one device, loaded when first used. Its inputs are ids and attention.

    Attributes:
        bundle: the exported folder.
        model: file of the graph.
        tokenizer: file of the tokenizer.
        output: name of its only output.
        pad_id: the padding token.
        max_tokens: most tokens of a text.
        device: where it runs.
        threads: threads of the processor.
        precision: of the graph.
        token_types: whether the graph takes token types that tell two texts apart.
    """

    bundle: ExportedFolder[Any]
    model: str
    tokenizer: str
    output: str
    pad_id: int
    max_tokens: int
    device: Device
    threads: int
    precision: str
    token_types: bool = False

    @cached_property
    def wide(self) -> Graph:
        """Return a session for one text at a time: all threads on it."""
        return self._opened(self.threads, 1)

    @cached_property
    def narrow(self) -> Graph:
        """Return a session for many texts: one thread each, or the whole of a device other than the processor."""
        return self.wide if self.device.kind.lanes else self._opened(1, self.threads)

    def _opened(self, threads: int, lanes: int) -> Graph:
        """Open the graph; BundleError if it cannot be loaded, or another bundle has replaced this one."""
        path = self.bundle.file(self.model)
        self._check_still_there()
        try:
            graph = open_graph(path, threads, self.device, lanes=lanes, fp16=self.precision == "fp16")
        except ColbertVespaError:
            raise
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from None
        inputs = {INPUT_IDS, ATTENTION_MASK, *([TYPE_IDS] if self.token_types else [])}
        if (graph.inputs, graph.outputs) != (inputs, {self.output}):
            raise BundleError(
                f"{path} has inputs {sorted(graph.inputs)} and outputs {sorted(graph.outputs)}, which "
                f"is not what an export has; export it again"
            )
        return graph

    def _check_still_there(self) -> None:
        """Raise BundleError if another bundle has replaced this one, for example because an index was replaced."""
        files = type(self.bundle).open(self.bundle.path, verify=False).manifest.files
        for name in (self.model, self.tokenizer):
            if files.get(name) != self.bundle.manifest.files[name]:
                raise BundleError(
                    f"{self.bundle.path} was replaced by another {self.bundle.noun} while it was in use; open it again"
                )

    def run(self, graph: Graph, ids: Sequence[I64], attention: Sequence[I64], types: Sequence[I64] = ()) -> F32:
        """Return the output of `wide` or `narrow` for the given texts, with at least as many rows as texts.

        Args:
            graph: the session.
            ids: token ids `[n]` of each text.
            attention: attention `[n]` of each text.
            types: token types, if the graph takes them.
        """
        inputs, mask = self._padded(ids, attention)
        feed = {INPUT_IDS: inputs, ATTENTION_MASK: mask}
        if self.token_types:
            feed[TYPE_IDS] = np.zeros_like(inputs)
            for row, own in enumerate(types):
                feed[TYPE_IDS][row, : len(own)] = own
        return graph.run([self.output], feed)[0]

    def _padded(self, ids: Sequence[I64], attention: Sequence[I64]) -> tuple[I64, I64]:
        """Pad ids and attention `[texts, tokens]`, to few shapes on devices that compile each.

        Added rows attend to their first token: a softmax over nothing is not a number.
        """
        longest = max(map(len, ids))
        tokens, texts = self.device.kind.powers
        shape = round_up(len(ids), texts), max(longest, min(round_up(longest, tokens), self.max_tokens))
        inputs = np.full(shape, self.pad_id, np.int64)
        mask = np.zeros(shape, np.int64)
        mask[len(ids) :, 0] = 1
        for row, (own, attended) in enumerate(zip(ids, attention, strict=True)):
            inputs[row, : len(own)] = own
            mask[row, : len(own)] = attended
        return inputs, mask

    def in_batches(self, lengths: Sequence[int], encode: Callable[[list[int]], Sequence[_Encoded]]) -> list[_Encoded]:
        """Return what `encode` makes of each text, in the given order.

        `encode` receives the places of a batch and runs in that batch's thread.
        """
        parts = list(self.batches(lengths))
        encoded: dict[int, _Encoded] = {}
        with ThreadPoolExecutor(self.device.kind.lanes or self.threads, thread_name_prefix="encode") as threads:
            for places, made in zip(parts, threads.map(encode, parts), strict=True):
                encoded.update(zip(places, made, strict=True))
        return [encoded[place] for place in range(len(lengths))]

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield places of texts, longest first, so that a batch pads little and stays within the device's token budget."""
        kind, batch = self.device.kind, list[int]()
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            if batch and (len(batch) == kind.texts or (len(batch) + 1) * lengths[batch[0]] > kind.tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch


def best_precision(models: Mapping[str, str], device: Device) -> str:
    """Return the device's first precision that is available."""
    return next(name for name in device.kind.precisions if name in models)


def round_up(number: int, base: int) -> int:
    """Round up to a power of `base`; a base of 1 changes nothing."""
    if base == 1:
        return number
    power = 1
    while power < number:
        power *= base
    return power
