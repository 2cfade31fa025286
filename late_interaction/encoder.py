"""Texts to token vectors with onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, OUTPUT, Bundle
from late_interaction.cores import cores
from late_interaction.errors import BundleError
from late_interaction.pooling import pool
from late_interaction.tokenizing import Tokenizing, TokenRows

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["Encoder", "check_finite", "open_graph"]

TOKEN_BUDGET = 1024  # padded tokens of a batch: what stays in a core's cache
MAX_BATCH = 64


class Encoder:
    """One bundle's model in one precision (None: the bundle's default).

    Queries are encoded one at a time with all threads. Documents are encoded in batches sorted by length, one batch per
    thread. The batch changes nothing but float noise, except in `int8-tensor`, whose activations are quantized per batch
    (cosine above .99). The models are loaded when first used; memory beyond them is bounded by the token budget, or by the
    longest text where that is longer.
    """

    def __init__(self, bundle: Bundle, *, precision: str | None = None, threads: int | None = None) -> None:
        """`threads`: of onnxruntime, by default one per core. Raises: BundleError where the bundle has no such model."""
        self.bundle = bundle
        self.precision = precision or bundle.default_precision
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
        for places in _batches([len(item.ids) for item in rows]):
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
        batches = list(_batches([len(item.ids) for item in rows]))
        pooling = self.bundle.manifest.pooling if pooled else None
        session = self._narrow

        def encode(places: list[int]) -> list[Matrix]:
            vectors = self._run(session, [rows[place] for place in places])
            return vectors if pooling is None else [pool(D, pooling) for D in vectors]

        with ThreadPoolExecutor(self.threads, thread_name_prefix="encode") as threads:
            for places, encoded in zip(batches, threads.map(encode, batches), strict=True):
                for place, vectors in zip(places, encoded, strict=True):
                    found[place] = vectors
        return found

    @cached_property
    def _wide(self) -> ort.InferenceSession:
        """For one query at a time: all threads on one text."""
        return self._session(self.threads)

    @cached_property
    def _narrow(self) -> ort.InferenceSession:
        """For many documents: a thread each."""
        return self._session(1)

    def _session(self, threads: int) -> ort.InferenceSession:
        path = self.bundle.model_path(self.precision)
        self._check_still_there()
        try:
            session = open_graph(path, threads)
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise BundleError(f"{path} cannot be loaded by onnxruntime: {error}") from None
        names = {item.name for item in session.get_inputs()}, {item.name for item in session.get_outputs()}
        if names != ({INPUT_IDS, ATTENTION_MASK}, {OUTPUT}):
            raise BundleError(f"{path} has inputs {sorted(names[0])} and outputs {sorted(names[1])}: export it again")
        return session

    def _check_still_there(self) -> None:
        """Raises: BundleError where another bundle has taken this one's place, as when an index is replaced."""
        files = Bundle.open(self.bundle.path, verify=False).manifest.files
        for name in (self.bundle.manifest.models[self.precision], "tokenizer.json"):
            if files.get(name) != self.bundle.manifest.files[name]:
                raise BundleError(f"{self.bundle.path} was replaced by another bundle while it was in use: open it again")

    def _run(self, session: ort.InferenceSession, batch: Sequence[TokenRows]) -> list[Matrix]:
        longest = max(len(item.ids) for item in batch)
        ids = np.full((len(batch), longest), self.bundle.manifest.pad_id, np.int64)
        attention = np.zeros((len(batch), longest), np.int64)
        for row, item in enumerate(batch):
            ids[row, : len(item.ids)] = item.ids
            attention[row, : len(item.ids)] = item.attention
        output = session.run([OUTPUT], {INPUT_IDS: ids, ATTENTION_MASK: attention})[0]
        if output.shape[2] != self.dim:
            raise BundleError(f"{self.bundle.path}: the model gives {output.shape[2]} dimensions, the manifest says {self.dim}")
        return [np.ascontiguousarray(output[row, : len(item.ids)][item.keep], np.float32) for row, item in enumerate(batch)]


def check_finite(vectors: Sequence[Matrix], bundle: Bundle) -> None:
    """Scores of rows that are no numbers put documents in no order. Raises: BundleError."""
    if not all(np.isfinite(rows).all() for rows in vectors):
        raise BundleError(f"{bundle.path} gives vectors that are no finite numbers: export it again, or with another precision")


def open_graph(path: Path, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU whose int8 products are exact on every processor.

    Without VNNI, onnxruntime's quicker kernel adds pairs of products in 16 bits, which overflow: other vectors.
    """
    import onnxruntime as ort  # when there is something to encode

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not _has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _has_vnni() -> bool:
    """Whether int8 products are exact as they are; asking for precision there takes 1.6 times as long."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:  # not Linux
        return False
    return flags is not None and not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags[1].split())


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
