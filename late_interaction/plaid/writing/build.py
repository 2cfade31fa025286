"""Write segments from passages with vectors, or from the living passages of older segments."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask, Matrix, Packed, TokenIds, TokenVectors, Vector
from late_interaction.bundle import FileEntry
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage, passage_text
from late_interaction.files import fsync_folder
from late_interaction.metadata import MetadataSchema, Value
from late_interaction.plaid.store import kernels
from late_interaction.plaid.store.codecs import Codec
from late_interaction.plaid.store.columns import Column, column_of, join_columns, write_columns
from late_interaction.plaid.store.dense import DenseWriter, dense_stem, parted
from late_interaction.plaid.store.segment import PayloadForm, Segment, codes_dtype
from late_interaction.plaid.store.storage import ArrayWriter, Strings, StringsWriter, hash_all, write_array
from late_interaction.plaid.store.versions import SegmentEntry
from late_interaction.plaid.store.words import WordsWriter
from late_interaction.token_ids import joined_rows

__all__ = ["Rows", "build_encoded_segment", "build_segment", "merge_segments"]

BLOCK_ROWS = 1 << 14  # token vectors encoded at a time: 8 MiB at 128 dimensions
TEXTS = ("ids", "documents", "titles", "texts", "digests")
Rows = TypeVar("Rows", TokenVectors, Packed)  # rows of a passage: vectors with ids, or codes and residuals


class _SegmentWriter:
    """Appends passages to the files of `segments/NAME`; leftovers of an earlier crash there are removed."""

    def __init__(self, root: Path, name: str, codebook: Codebook | None, form: PayloadForm) -> None:
        self.folder = root / "segments" / name
        self.name = name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.centroids = 0 if codebook is None else codebook.size
        self.codes = ArrayWriter(self.folder / "codes.npy", codes_dtype(self.centroids))
        self.payload = ArrayWriter(self.folder / "payload.npy", form.dtype, (form.width,))
        self.refine = ArrayWriter(self.folder / "refine.npy", "|i1", (form.refine,)) if form.refine else None
        self.nearness = 0.0  # sum of the vectors' similarities to their centroids
        self.texts = {name: StringsWriter(self.folder, name) for name in TEXTS}
        self.lengths: list[NDArray[np.int64]] = []
        self.hashes: dict[str, list[NDArray[np.uint64]]] = {"ids": [], "documents": []}
        self.words = WordsWriter(self.folder)
        self._forms = form.dense
        self.dense = {name: DenseWriter(self.folder, dense_stem(name), model.dim) for name, model in form.dense.items()}

    def abandon(self) -> None:
        self.codes.abandon()
        self.payload.abandon()
        if self.refine is not None:
            self.refine.abandon()
        for texts in self.texts.values():
            texts.abandon()
        self.words.abandon()
        for dense in self.dense.values():
            dense.abandon()

    def append_dense(self, vectors: Sequence[Vector]) -> None:
        """Append the dense vectors of one passage after the other, made by `joined`."""
        for name, rows in parted(np.stack(vectors), self._forms).items():
            self.dense[name].append(rows)

    def finish(self, schema: MetadataSchema, columns: dict[str, Column]) -> SegmentEntry:
        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        files: dict[str, FileEntry] = {"codes.npy": self.codes.close(), "payload.npy": self.payload.close()}
        if self.refine is not None:
            files["refine.npy"] = self.refine.close()
        for texts in self.texts.values():
            files.update(texts.close())
        files.update(self.words.close())
        for dense in self.dense.values():
            files.update(dense.close())
        arrays: dict[str, NDArray[Any]] = {"offsets": offsets, **self._ivf(offsets)}
        for name, parts in self.hashes.items():
            hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
            order = np.argsort(hashes, kind="stable")
            arrays[f"{name}_hashes"], arrays[f"{name}_rows"] = hashes[order], order.astype(np.int32)
        for name, array in arrays.items():
            files[f"{name}.npy"] = write_array(self.folder / f"{name}.npy", array)
        files.update(write_columns(self.folder, schema, columns))
        fsync_folder(self.folder)
        fsync_folder(self.folder.parent)
        fit = self.nearness / max(1, int(offsets[-1]))
        return SegmentEntry(self.name, len(lengths), int(offsets[-1]), files, fit=round(fit, 6))

    def _ivf(self, offsets: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        codes = np.load(self.folder / "codes.npy", mmap_mode="r" if offsets[-1] else None, allow_pickle=False)
        starts = np.zeros(self.centroids + 1, np.int64)
        kernels.fill_ivf(np.asarray(codes), offsets, starts, np.zeros(0, np.int32), True)
        passages = np.zeros(starts[-1], np.int32)
        kernels.fill_ivf(np.asarray(codes), offsets, starts, passages, False)
        return {"ivf_offsets": starts, "ivf_passages": passages}


def build_segment(
    root: Path,
    name: str,
    schema: MetadataSchema,
    codebook: Codebook | None,
    codec: Codec | None,
    form: PayloadForm,
    items: Iterable[tuple[Passage, TokenVectors, Vector]],
) -> SegmentEntry:
    """Write a segment of `items` (passages, rows, dense vectors made by `joined`), encoded block by block.

    Memory use is one block, 28 bytes per passage, and the metadata columns. codebook, codec: None only if no passage has a
    row.
    """
    writer = _SegmentWriter(root, name, codebook, form)
    metadata: dict[str, list[Value]] = {field: [] for field in schema.fields}
    try:
        for block in _blocks(items):
            _append_passages(writer, metadata, *_unzipped(block))
            if codebook is not None and codec is not None:
                _append_vectors(writer, codebook, codec, *joined_rows([rows for _, rows, _ in block]))
        fields = {field: column_of(type_, metadata[field]) for field, type_ in schema.fields.items()}
        return writer.finish(schema, fields)
    finally:
        writer.abandon()


def build_encoded_segment(
    root: Path,
    name: str,
    schema: MetadataSchema,
    codebook: Codebook,
    form: PayloadForm,
    items: Iterable[tuple[Passage, Packed, Vector]],
) -> SegmentEntry:
    """Write a segment of passages that are encoded already, by codec residual with `codebook`, without int8 rows.

    Memory use is that of `build_segment`.
    """
    writer = _SegmentWriter(root, name, codebook, form)
    metadata: dict[str, list[Value]] = {field: [] for field in schema.fields}
    try:
        for block in _blocks(items):
            _append_passages(writer, metadata, *_unzipped(block))
            codes = np.concatenate([encoded[0] for _, encoded, _ in block])
            residuals = np.concatenate([encoded[1] for _, encoded, _ in block])
            for start in range(0, len(codes), BLOCK_ROWS):
                rows = slice(start, start + BLOCK_ROWS)
                writer.codes.append(codes[rows])
                writer.payload.append(residuals[rows])
                decoded = codebook.decode(codes[rows], residuals[rows])
                writer.nearness += float(np.einsum("ij,ij->", decoded, codebook.rows(codes[rows])))
        fields = {field: column_of(type_, metadata[field]) for field, type_ in schema.fields.items()}
        return writer.finish(schema, fields)
    finally:
        writer.abandon()


def _append_passages(
    writer: _SegmentWriter,
    metadata: dict[str, list[Value]],
    passages: Sequence[Passage],
    lengths: Sequence[int],
    dense: Sequence[Vector],
) -> None:
    writer.lengths.append(np.array(lengths, np.int64))
    writer.append_dense(dense)
    columns = ([p.id for p in passages], [p.document_id for p in passages])
    texts = ([p.title for p in passages], [p.text for p in passages], [p.digest for p in passages])
    for text_name, values in zip(TEXTS, (*columns, *texts), strict=True):
        writer.texts[text_name].append(values)
    writer.words.append([passage_text(p.title, p.text) for p in passages])
    for hashed, values in zip(("ids", "documents"), columns, strict=True):
        writer.hashes[hashed].append(hash_all(values))
    for field, collected in metadata.items():
        collected.extend(passage.metadata.get(field) for passage in passages)


def _unzipped(block: Sequence[tuple[Passage, Rows, Vector]]) -> tuple[list[Passage], list[int], list[Vector]]:
    """Return passages, the number of rows of each, and dense vectors."""
    return [item[0] for item in block], [len(item[1][0]) for item in block], [item[2] for item in block]


def _append_vectors(
    writer: _SegmentWriter, codebook: Codebook, codec: Codec, vectors: Matrix, token_ids: TokenIds | None
) -> None:
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        codes = codebook.assign_near(block, None if token_ids is None else token_ids[start : start + BLOCK_ROWS])
        writer.codes.append(codes)
        writer.payload.append(codec.encode(block, codes))
        if writer.refine is not None:
            largest = np.abs(block).max(axis=1, keepdims=True, initial=1e-20)
            writer.refine.append(np.rint(block * (127 / largest)).astype(np.int8))
        writer.nearness += float(np.einsum("ij,ij->", block, codebook.rows(codes)))


def _blocks(items: Iterable[tuple[Passage, Rows, Vector]]) -> Iterator[list[tuple[Passage, Rows, Vector]]]:
    block: list[tuple[Passage, Rows, Vector]] = []
    rows = 0
    for item in items:
        block.append(item)
        rows += len(item[1][0])
        if rows >= BLOCK_ROWS or len(block) >= BLOCK_ROWS:
            yield block
            block, rows = [], 0
    if block:
        yield block


def merge_segments(
    root: Path,
    name: str,
    schema: MetadataSchema,
    codebook: Codebook | None,
    form: PayloadForm,
    parts: Sequence[tuple[Segment, Mask]],
    changed: Sequence[Passage] | None = None,
) -> SegmentEntry:
    """Write one segment of the passages of `parts` whose mask is set, in order.

    Codes are copied; nothing is encoded again. changed: the passages whose metadata, digests or set of fields differ from
    the parts'.
    """
    writer = _SegmentWriter(root, name, codebook, form)
    selected: dict[str, list[Column]] = {field: [] for field in schema.fields}
    try:
        for segment, living in parts:
            rows = np.flatnonzero(living)
            writer.lengths.append(segment.lengths()[rows])
            writer.words.append_words(segment.words, living)
            writer.nearness += segment.entry.fit * float(writer.lengths[-1].sum())
            for first, last in _runs(living):
                start, stop = int(segment.offsets[first]), int(segment.offsets[last])
                writer.codes.append(segment.codes[start:stop])
                writer.payload.append(segment.payload[start:stop])
                if writer.refine is not None and segment.refine is not None:
                    writer.refine.append(segment.refine[start:stop])
                for model, dense in writer.dense.items():
                    dense.append_rows(segment.dense[model], slice(first, last))
                for text_name, strings in _texts(segment):
                    if changed is not None and text_name == "digests":
                        continue
                    begin, end = int(strings.offsets[first]), int(strings.offsets[last])
                    sizes = np.diff(strings.offsets[first : last + 1])
                    writer.texts[text_name].append_encoded(strings.blob[begin:end], sizes)
            for hashed, hashes, places in (
                ("ids", segment.id_hashes, segment.id_rows),
                ("documents", segment.document_hashes, segment.document_rows),
            ):
                by_row = np.empty(segment.passages, np.uint64)
                by_row[places] = hashes
                writer.hashes[hashed].append(by_row[rows])
            if changed is None:
                for field, columns in selected.items():
                    columns.append(segment.columns[field].select(rows))
        if changed is None:
            return writer.finish(schema, {field: join_columns(columns) for field, columns in selected.items()})
        writer.texts["digests"].append([passage.digest for passage in changed])
        metadata = {name: [passage.metadata.get(name) for passage in changed] for name in schema.fields}
        return writer.finish(schema, {name: column_of(type_, metadata[name]) for name, type_ in schema.fields.items()})
    finally:
        writer.abandon()


def _texts(segment: Segment) -> Iterator[tuple[str, Strings]]:
    texts = (segment.ids, segment.documents, segment.titles, segment.texts, segment.digests)
    yield from zip(TEXTS, texts, strict=True)


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Yield first and one-past-last place of every run of set places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
