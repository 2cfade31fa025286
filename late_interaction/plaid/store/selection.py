"""Look up many ids at once in the hash tables of a segment."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from late_interaction.array_types import Mask, Places
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.store.segment import Segment
from late_interaction.plaid.store.storage import Strings, hash_all

__all__ = ["WantedIds", "ranges"]


class WantedIds:
    """Distinct ids, hashed and encoded once for all segments."""

    def __init__(self, ids: Iterable[str]) -> None:
        known = list(dict.fromkeys(ids))
        encoded = [id_.encode("utf-8", "surrogatepass") for id_ in known]
        self._hashes = hash_all(known)
        self._sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._blob = np.frombuffer(b"".join(encoded), np.uint8)

    def document_rows(self, segment: Segment) -> Places:
        """Return the rows of those documents' passages, deleted ones too, in no order."""
        first = np.searchsorted(segment.document_hashes, self._hashes, "left")
        counts = np.searchsorted(segment.document_hashes, self._hashes, "right") - first
        which = np.repeat(np.arange(len(counts)), counts)
        rows = segment.document_rows[ranges(first, counts)].astype(np.int64)
        return rows[self._equal(which, segment.documents, rows)]

    def _equal(self, which: Places, texts: Strings, rows: Places) -> Mask:
        """Tell whether each of the ids `which [n]` is the text of `rows [n]`: two ids may share a hash."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(texts):
            raise LocalIndexError("the index is damaged: a table of ids refers to a passage that does not exist")
        starts, sizes = texts.offsets[rows], self._sizes[which]
        equal: Mask = texts.offsets[rows + 1] - starts == sizes
        starts, sizes, which = starts[equal], sizes[equal], which[equal]
        if len(starts) and not (starts.min() >= 0 and int((starts + sizes).max()) <= len(texts.blob)):
            raise LocalIndexError("the index is damaged: offsets of its ids do not ascend")
        differs = texts.blob[ranges(starts, sizes)] != self._blob[ranges(self._starts[which], sizes)]
        of_text = np.repeat(np.arange(len(sizes)), sizes)[differs]
        equal[np.flatnonzero(equal)[of_text]] = False
        return equal


def ranges(starts: Places, lengths: Places) -> Places:
    """Return `start .. start + length` of each, one after the other."""
    before = np.cumsum(lengths) - lengths
    found: Places = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return found
