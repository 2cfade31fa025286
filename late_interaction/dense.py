"""Encode each text as one vector with a dense model of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from late_interaction.array_types import I64, Matrix
from late_interaction.bundle import DENSE, DENSE_OUTPUT, Bundle, DensePart
from late_interaction.cores import cores
from late_interaction.devices import AUTO, CPU, Device, Graph
from late_interaction.errors import BundleError, UsageError
from late_interaction.graphs import BundleGraph, best_precision
from late_interaction.text import without_surrogates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["DenseEncoder", "dense_encoders", "dense_part"]


def dense_part(bundle: Bundle, name: str = DENSE) -> DensePart:
    """Return the bundle's dense model of that name.

    Raises:
        UsageError: if the bundle has no dense model of that name.
    """
    part = bundle.manifest.dense.get(name)
    if part is None:
        known = ", ".join(bundle.manifest.dense) or "none"
        raise UsageError(f"{bundle.path} has no dense model {name!r}; it has: {known}; add one with `export --dense`")
    return part


def dense_encoders(bundle: Bundle, *, threads: int | None = None, device: str | Device = CPU) -> Mapping[str, DenseEncoder]:
    """Return the bundle's dense models that have a graph, by name."""
    return {
        name: DenseEncoder(bundle, name, threads=threads, device=device)
        for name, part in bundle.manifest.dense.items()
        if part.models
    }


class DenseEncoder:
    """One dense model of a bundle in one precision on one device.

    As with `Encoder`, queries are encoded one at a time with all threads, documents in batches sorted by length, one batch
    per thread.

    Args:
        bundle: the bundle.
        name: name of the dense model.
        precision: fp32, int8, ...; None for the one that suits the device.
        threads: threads of onnxruntime, by default one per core.
        device: as for `Encoder`; auto is the processor here, because devices are measured with the token model.

    Raises:
        UsageError: if the bundle has no dense model of that name, or one without a graph.
        BundleError: if it lacks that precision, or its tokenizer cannot be read.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str = DENSE,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | Device = CPU,
    ) -> None:
        """Open the tokenizer; the model is loaded when first used."""
        self.bundle, self.name, self.part = bundle, name, dense_part(bundle, name)
        if not self.part.models:
            raise UsageError(
                f"dense model {name!r} of {bundle.path} has no graph; supply its vectors with documents and queries"
            )
        named = Device.of(device)
        self.device = CPU if named == AUTO else named
        self.precision = precision or best_precision(self.part.models, self.device)
        if self.precision not in self.part.models:
            known = ", ".join(self.part.models)
            raise BundleError(f"dense model {name!r} of {bundle.path} has no {self.precision} model (it has {known})")
        self._tokenizer = _tokenizer(bundle, self.part)
        self._graph = BundleGraph(
            bundle, self.part.models[self.precision], self.part.tokenizer, DENSE_OUTPUT, self.part.pad_id, self.part.max_tokens,
            self.device, threads or cores(), self.precision,
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """Return the dimensions of its vectors."""
        return self.part.dim

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        """Return `[n, dim]` float32, one row per text.

        Raises:
            BundleError: if the graph cannot be loaded.
        """
        return self._stacked([self._run(self._graph.wide, [ids])[0] for ids in self.token_ids(texts, self.part.query_prompt)])

    def encode_documents(self, texts: Sequence[str]) -> Matrix:
        """Encode like `encode_queries`, with the document prompt."""
        ids, graph = self.token_ids(texts, self.part.document_prompt), self._graph.narrow
        lengths = [len(own) for own in ids]
        return self._stacked(self._graph.in_batches(lengths, lambda places: list(self._run(graph, [ids[at] for at in places]))))

    def token_ids(self, texts: Sequence[str], prompt: str) -> list[I64]:
        """Return the vocabulary ids `[t]` of prompt and text, special tokens included, truncated to `max_tokens`."""
        whole = [prompt + without_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch([text.lower() for text in whole] if self.part.lower_case else whole)
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    def _stacked(self, vectors: Sequence[Matrix]) -> Matrix:
        return np.stack(vectors) if vectors else np.zeros((0, self.dim), np.float32)

    def _run(self, graph: Graph, ids: Sequence[I64]) -> Matrix:
        output = self._graph.run(graph, ids, [np.ones_like(own) for own in ids])
        if output.shape[1:] != (self.dim,):
            raise BundleError(
                f"{self.bundle.path}: dense model {self.name!r} returns vectors of shape {list(output.shape[1:])}, "
                f"but the manifest says [{self.dim}]; export the bundle again"
            )
        return np.ascontiguousarray(output[: len(ids)], np.float32)


def _tokenizer(bundle: Bundle, part: DensePart) -> Tokenizer:
    from tokenizers import Tokenizer  # imported when something is encoded

    path = bundle.file(part.tokenizer)
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(part.max_tokens, strategy="longest_first")
    except Exception as error:  # noqa: BLE001  tokenizers raises bare Exception
        raise BundleError(f"{path} cannot be read as a tokenizer: {error}") from None
    return tokenizer
