"""One open version of an index: segments with their living passages, and the codebook. It never changes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask, Matrix, Places
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import BundleError, LocalIndexError
from late_interaction.filters import Filter
from late_interaction.plaid.store.codecs import CODECS, Codec, Refined
from late_interaction.plaid.store.columns import evaluate
from late_interaction.plaid.store.dense import dense_stem, lacks_links
from late_interaction.plaid.store.linking import row_files
from late_interaction.plaid.store.segment import PayloadForm, Segment, codes_dtype
from late_interaction.plaid.store.selection import WantedIds
from late_interaction.plaid.store.storage import check_file, open_array
from late_interaction.plaid.store.versions import SegmentEntry, Version
from late_interaction.thresholds import Thresholds, plain_thresholds

__all__ = ["Living", "Snapshot"]

CHECKED_BYTES = 1 << 24  # a codebook up to this size has its checksum compared on opening; a larger one is mapped, not read


@dataclass(frozen=True, eq=False)
class Living:
    """A segment and its living passages.

    Attributes:
        segment: the segment.
        mask: `[n]`, which passages are alive.
        base: how many passages are in segments before it.
    """

    segment: Segment
    mask: Mask
    base: int


class Snapshot:
    """An open version.

    Attributes:
        living: the segments in order of insertion.
        codebook: None until a vector is committed.
    """

    def __init__(self, root: Path, version: Version, before: Snapshot | None = None) -> None:
        """Open all files of the version, reusing segments and codebook that `before` has open.

        Raises:
            LocalIndexError: if a file is missing or damaged; the message names it.
        """
        self.version = version
        dtype, width = CODECS[version.codec].row(version.bits, version.dim)
        self.form = PayloadForm(dtype, width, version.dim if version.refine else 0, version.row_sets)
        self._root = root
        known = {part.segment.entry.name: part.segment for part in before.living} if before is not None else {}
        living: list[Living] = []
        base = 0
        self.codebook = self._open_codebook(root, before)
        for entry in version.segments:
            segment = known.get(entry.name)
            if segment is None or segment.entry.files != entry.files:
                segment = Segment(root, entry, version.schema, self.form)
            self._check_codes(root, segment)
            living.append(Living(segment, _living_mask(root, entry), base))
            base += entry.passages
        self.living: tuple[Living, ...] = tuple(living)
        self.rows = base  # passages, including deleted ones

    def _open_codebook(self, root: Path, before: Snapshot | None) -> Codebook | None:
        named = self.version.codebook
        if named is None:
            return None
        if before is not None and before.version.codebook == named:
            return before.codebook
        path = check_file(root, named.name, named.entry, checksum=named.entry.bytes <= CHECKED_BYTES)
        try:
            codebook = Codebook.load(path)
        except BundleError as error:
            raise LocalIndexError(f"{root} is damaged: {error}") from None
        if codebook.dim != self.version.dim or codebook.bits != self.version.bits:
            raise LocalIndexError(f"{root} is damaged: {named.name} has other dimensions or bits than the index")
        return codebook

    def _check_codes(self, root: Path, segment: Segment) -> None:
        if not segment.entry.token_vectors:
            return
        if self.codebook is None:
            raise LocalIndexError(f"{root} is damaged: version {self.version.number} has vectors but no codebook")
        centroids = self.codebook.size
        # a codebook only grows, so that older segments may know fewer centroids
        if not 1 < len(segment.ivf_offsets) <= centroids + 1 or segment.codes.dtype.str != codes_dtype(centroids):
            raise LocalIndexError(f"{root} is damaged: segment {segment.entry.name} was made with another codebook")

    @functools.cached_property
    def codec(self) -> Codec:
        """Return the codec.

        Raises:
            LocalIndexError: if the index has no vector yet, or a damaged bundle.
        """
        if self.codebook is None:
            raise LocalIndexError(f"{self._root} has no vectors yet")
        version = self.version
        return CODECS[version.codec].open(self.codebook, lambda: index_thresholds(self._root, version.dim, version.bundle))

    @functools.cached_property
    def mean_list(self) -> float:
        """Return the mean number of passages in a centroid's list."""
        assert self.codebook is not None
        return sum(len(part.segment.ivf_passages) for part in self.living) / self.codebook.size

    def vectors(self, part: Living, rows: slice | NDArray[np.int64]) -> Matrix:
        """Return the decoded vectors `rows` of a segment, `[n, d]`."""
        segment = part.segment
        return self.codec.decode(segment.codes[rows], segment.payload[rows])

    def best_vectors(self, part: Living, rows: slice | NDArray[np.int64]) -> Matrix:
        """Return vectors like `vectors`, from the int8 rows if there are any."""
        if part.segment.refine is None:
            return self.vectors(part, rows)
        return Refined().decode(part.segment.refine[rows])

    def dense_bytes(self, name: str) -> int:
        """Return the bytes of a dense model's vectors, including deleted passages."""
        names = row_files(dense_stem(name))
        return sum(entry.files[file].bytes for entry in self.version.segments for file in names if file in entry.files)

    def dense_linked(self, name: str) -> int:
        """Return the number of vectors of a dense model that are in a graph, including those of deleted passages."""
        links = row_files(dense_stem(name))[2]
        return sum(entry.passages for entry in self.version.segments if links in entry.files)

    def dense_unlinked(self, name: str) -> int:
        """Return the number of vectors in segments that lack a graph because faiss was not installed when they were written."""
        segments = self.version.segments
        return sum(entry.passages for entry in segments if lacks_links(entry.files, dense_stem(name), entry.passages))

    def find(self, passage_id: str) -> tuple[Living, int] | None:
        """Return segment and row of the living passage of that id; None if there is none."""
        for part in reversed(self.living):
            row = part.segment.find(passage_id)
            if row is not None and part.mask[row]:
                return part, row
        return None

    def at(self, place: int) -> tuple[Living, int]:
        """Return segment and row of the passage at a global place."""
        bases = [part.base for part in self.living]
        part = self.living[int(np.searchsorted(bases, place, "right")) - 1]
        return part, place - part.base

    def iter_passages(self) -> Iterator[Passage]:
        """Yield the living passages."""
        for part in self.living:
            for row in np.flatnonzero(part.mask).tolist():
                yield part.segment.passage(row)

    def select(self, where: Filter | None, ids: Iterable[str] | None = None) -> list[Mask]:
        """Return per segment the living passages with rows that the filter selects, of the documents `ids`."""
        wanted = None if ids is None else WantedIds(ids)
        masks: list[Mask] = []
        for part, findable in zip(self.living, self._findable, strict=True):
            mask = findable
            if wanted is not None and mask.any():
                chosen = np.zeros(part.segment.passages, np.bool_)
                chosen[wanted.document_rows(part.segment)] = True
                mask = mask & chosen
            if where is not None and mask.any():
                mask = mask & evaluate(where, part.segment.columns, part.segment.passages)
            masks.append(mask)
        return masks

    def places(self, masks: Iterable[Mask]) -> Places:
        """Return the global places of the passages of `masks`, made by `select`, ascending."""
        return np.concatenate([part.base + np.flatnonzero(mask) for part, mask in zip(self.living, masks, strict=True)])

    @functools.cached_property
    def _findable(self) -> list[Mask]:
        return [part.mask & (part.segment.lengths() > 0) for part in self.living]

    @functools.cached_property
    def documents(self) -> int:
        """Return the number of documents with a living passage."""
        hashes = [p.segment.document_hashes[p.mask[p.segment.document_rows]] for p in self.living]
        return len(np.unique(np.concatenate(hashes))) if hashes else 0

    def stored_bytes(self) -> int:
        """Return the bytes of codes, payload, inverted lists and int8 rows, including deleted passages."""
        names = ("codes.npy", "payload.npy", "refine.npy", "ivf_offsets.npy", "ivf_passages.npy")
        return sum(entry.files[name].bytes for entry in self.version.segments for name in names if name in entry.files)


def index_thresholds(root: Path, dim: int, sha256: str) -> Thresholds:
    """Return the thresholds of codec binary: those of the index's bundle, or 0.

    Args:
        root: the index.
        dim: dimensions of a token vector.
        sha256: checksum of its bundle.

    Raises:
        LocalIndexError: if they are damaged, or belong to an index that has replaced this one.
    """
    try:
        bundle = Bundle.open(root / "bundle", verify=False)
        if bundle.sha256 != sha256:
            raise LocalIndexError(f"{root} is damaged or was just replaced: it has another bundle")
        name = bundle.manifest.codebooks.get("binary")
        found = plain_thresholds(dim) if name is None else Thresholds.load(bundle.file(name))
    except BundleError as error:
        raise LocalIndexError(f"{root} is damaged: {error}") from None
    if found.dim != dim:
        raise LocalIndexError(
            f"{root} is damaged: the thresholds of its bundle have {found.dim} dimensions, but the index has {dim}"
        )
    return found


def _living_mask(root: Path, entry: SegmentEntry) -> Mask:
    mask = np.ones(entry.passages, np.bool_)
    if entry.deleted is not None:
        rows = open_array(root, entry.deleted.name, entry.deleted.entry, "<i4")
        if len(rows) != entry.deleted_passages or (len(rows) and not 0 <= rows.min() <= rows.max() < entry.passages):
            raise LocalIndexError(f"{root} is damaged: {entry.deleted.name} does not fit its segment")
        mask[rows] = False
    return mask
