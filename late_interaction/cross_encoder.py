"""A cross-encoder reads a query and a passage together and gives one score. It is the optional last stage of a search.

    FOLDER/
      manifest.json       kind "cross-encoder", source, lengths, activation, sha256 of every other file
      model.onnx          inputs input_ids, attention_mask and, with `token_types`, token_type_ids [batch, tokens];
                          output logit [batch]
      model.int8.onnx     optional: the same with quantized weights
      tokenizer.json      without truncation and padding of its own
      report.json         optional: results of the verification against sentence-transformers

It is checked like a bundle.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import CROSS_ENCODER, FORMAT_VERSION, TOKENIZER, ExportedFolder, FileEntry, write_files
from late_interaction.cores import cores
from late_interaction.devices import CPU, Device, Graph
from late_interaction.errors import BundleError
from late_interaction.graphs import BundleGraph, best_precision
from late_interaction.structured import Count, parse, read
from late_interaction.text import without_surrogates

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["ACTIVATIONS", "LOGIT", "CrossEncoder", "CrossEncoderFolder", "CrossEncoderManifest", "write_cross_encoder"]

LOGIT = "logit"
MAX_LENGTH = 1 << 16  # most tokens of a pair
F64 = NDArray[np.float64]
ACTIVATIONS: dict[str, Callable[[F64], F64]] = {
    "identity": lambda logits: logits,
    "sigmoid": lambda logits: np.exp(-np.logaddexp(0.0, -logits)),
}


@dataclass(frozen=True)
class CrossEncoderManifest:
    """The content of a cross-encoder's manifest.json.

    Attributes:
        source: the checkpoint that it was exported from.
        max_tokens: most tokens of a pair, special tokens included.
        pad_id: the padding token.
        activation: how a logit becomes a score.
        query_prompt: text put before a query.
        token_types: whether the graph takes token types that mark the passage.
        models: file by precision.
        files: checksum and size of every other file.
        format_version: version of the format.
        kind: "cross-encoder".
    """

    source: str
    max_tokens: Count
    pad_id: Count
    activation: str = "identity"
    query_prompt: str = ""
    token_types: bool = True
    models: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    kind: str = CROSS_ENCODER

    @property
    def listed(self) -> set[str]:
        """Return the files that it names."""
        return {*self.models.values(), TOKENIZER}

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json."""
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, text: str, where: str) -> CrossEncoderManifest:
        """Parse and check manifest.json.

        Raises:
            BundleError: if a key is missing, unknown or of a wrong type; the message names it.
        """
        data = parse(text, BundleError, where, "export the cross-encoder again", format_version=FORMAT_VERSION)
        if data.get("kind") != CROSS_ENCODER:
            raise BundleError(
                f"{where} is not the manifest of a cross-encoder; create one with `colbert-vespa export --cross-encoder`"
            )
        manifest = read(cls, data, BundleError, where)
        if not 8 <= manifest.max_tokens <= MAX_LENGTH:
            raise BundleError(f"{where}: max_tokens must be from 8 to {MAX_LENGTH}")
        if "fp32" not in manifest.models:
            raise BundleError(f"{where}: models has no fp32")
        if manifest.activation not in ACTIVATIONS:
            raise BundleError(f"{where}: activation {manifest.activation!r} unknown; known: {', '.join(ACTIVATIONS)}")
        return manifest


@dataclass(frozen=True, eq=False)
class CrossEncoderFolder(ExportedFolder[CrossEncoderManifest]):
    """An opened, verified folder of a cross-encoder."""

    noun: ClassVar[str] = "cross-encoder"
    made_by: ClassVar[str] = "colbert-vespa export --cross-encoder"

    @classmethod
    def read_manifest(cls, text: str, where: str) -> CrossEncoderManifest:
        """Parse the manifest."""
        return CrossEncoderManifest.from_json(text, where)


def write_cross_encoder(root: Path, manifest: CrossEncoderManifest) -> CrossEncoderFolder:
    """Write the manifest with the checksum of every file below `root`, then open the folder."""
    write_files(root, manifest)
    return CrossEncoderFolder.open(root, verify=False)


class CrossEncoder:
    """One cross-encoder in one precision on one device, loaded when first used.

    Pairs go in batches sorted by length; on the processor, one batch for each thread. Callers are served one at a time, as
    each uses all threads. Batching changes only float noise, except with `int8-tensor`.

    Args:
        folder: the exported folder.
        precision: fp32, int8, ...; None for the one that suits the device.
        threads: threads of onnxruntime, by default one per core.
        device: as for `Encoder`.

    Raises:
        BundleError: if it is not such a folder, has no such model, or its tokenizer cannot be read.
        UsageError: if the device is unknown.
    """

    def __init__(
        self,
        folder: CrossEncoderFolder | str | Path,
        *,
        precision: str | None = None,
        threads: int | None = None,
        device: str | Device = CPU,
    ) -> None:
        """Open the folder and its tokenizer; the model is loaded when first used."""
        self.folder = folder if isinstance(folder, CrossEncoderFolder) else CrossEncoderFolder.open(folder)
        self.device = Device.of(device)
        manifest = self.folder.manifest
        self.precision = precision or best_precision(manifest.models, self.device)
        self.folder.model_path(self.precision)
        self._graph = BundleGraph(
            self.folder, manifest.models[self.precision], TOKENIZER, LOGIT, manifest.pad_id, manifest.max_tokens, self.device,
            threads or cores(), self.precision, token_types=manifest.token_types,
        )  # fmt: skip
        self._turn = threading.Lock()
        self._pace = 0.0  # seconds per token in a batch, as last measured
        self._tokenizer = self._read_tokenizer()

    @property
    def name(self) -> str:
        """Return the checkpoint's name."""
        return self.folder.manifest.source

    def scores(
        self,
        query: str,
        passages: Sequence[str],
        *,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> list[float] | None:
        """Score each passage; higher is better.

        A pair that is too long loses the end of its passage; a query is limited to half of the model's length.

        Args:
            query: the query text.
            passages: the passage texts.
            deadline: a time of `clock` by which the scores are needed; None to wait for all.
            clock: the clock of `deadline`.

        Returns:
            a score for each passage; None if they cannot be computed by the deadline.

        Raises:
            BundleError: if the graph cannot be loaded, or its scores are not finite.
        """
        logits = self.logits(query, passages, deadline=deadline, clock=clock)
        return None if logits is None else ACTIVATIONS[self.folder.manifest.activation](logits).tolist()

    def logits(
        self,
        query: str,
        passages: Sequence[str],
        *,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> F64 | None:
        """Return the scores `[n]` before the activation, which does not change the order."""
        left = deadline - clock()
        if left <= 0 or not self._turn.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
            return None
        try:
            pairs, graph = self._pairs(query, passages), self._graph.narrow

            def run(places: list[int]) -> list[float | None]:
                """Score one batch; None once the deadline is out of reach."""
                start, tokens = clock(), sum(len(pairs[place]) for place in places)
                if start + tokens * self._pace >= deadline:
                    self._pace /= 2  # one slow batch does not rule out all later ones
                    return [None] * len(places)
                values = self._run(graph, [pairs[place] for place in places])
                self._pace = (clock() - start) / tokens
                return list(values)

            found = self._graph.in_batches([len(pair) for pair in pairs], run)
        finally:
            self._turn.release()
        return None if None in found else np.array(found, np.float64)

    def _run(self, graph: Graph, pairs: Sequence[Encoding]) -> list[float]:
        def column(name: str) -> list[NDArray[np.int64]]:
            return [np.array(getattr(pair, name), np.int64) for pair in pairs]

        output = self._graph.run(graph, column("ids"), column("attention_mask"), column("type_ids"))
        if output.ndim != 1 or not np.isfinite(output[: len(pairs)]).all():
            raise BundleError(
                f"{self.folder.path} returns scores that are not finite; export it again, or with another precision"
            )
        values: list[float] = output[: len(pairs)].tolist()
        return values

    def _pairs(self, query: str, passages: Sequence[str]) -> list[Encoding]:
        asked = self.folder.manifest.query_prompt + without_surrogates(query)
        return self._tokenizer.encode_batch([(asked, without_surrogates(passage)) for passage in passages])

    def _read_tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        path = self.folder.file(TOKENIZER)
        try:
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self.folder.manifest.max_tokens, strategy="longest_first")
        except Exception as error:  # noqa: BLE001  tokenizers raises bare Exception
            raise BundleError(f"{path} cannot be read as a tokenizer: {error}") from None
        return tokenizer
