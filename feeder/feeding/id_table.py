"""Store ids as 16 bytes each, so that millions of them fit: which ids repeat, and what was last noted of each."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
from numpy.typing import NDArray

__all__ = ["DigestTable", "DigestTableBuilder", "last_places", "short_hash"]

Hashes = NDArray[np.uint64]


def short_hash(text: str) -> bytes:
    """Return 16 bytes. Two of a thousand million ids collide with a probability of 1 to 10^20."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def last_places(hashes: bytes | bytearray) -> tuple[dict[bytes, int], int]:
    """Return the hashes that repeat with the last place of each, and how many hashes come again later.

    The hashes are 16 bytes each, one after the other. Memory use is 40 bytes per hash.
    """
    words = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    ordered = words[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    last_of_run = np.flatnonzero(same & np.append(~same[1:], True)) + 1 if len(same) else np.zeros(0, np.int64)
    last = {ordered[place].tobytes(): int(order[place]) for place in last_of_run.tolist()}  # lexsort is stable
    return last, int(same.sum())


class DigestTableBuilder:
    """Collects ids with a digest each; the last digest of an id counts."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._digests = array("Q")

    def add(self, id_: str, digest: str) -> None:
        """Note the digest of an id."""
        self._hashes += short_hash(id_)
        self._digests.append(_digest_word(digest))

    def table(self) -> DigestTable:
        """Return the table."""
        words = np.frombuffer(self._hashes, np.uint64).reshape(-1, 2)
        digests = np.frombuffer(self._digests, np.uint64) if self._digests else np.zeros(0, np.uint64)
        order = np.lexsort((words[:, 1], words[:, 0]))
        last = np.ones(len(order), np.bool_)
        if len(order) > 1:
            ordered = words[order]
            last[:-1] = (ordered[1:] != ordered[:-1]).any(axis=1)
        chosen = order[last]
        return DigestTable(np.ascontiguousarray(words[chosen, 0]), np.ascontiguousarray(words[chosen, 1]), digests[chosen])


class DigestTable:
    """Digests by id, in 24 bytes per id."""

    def __init__(self, high: Hashes, low: Hashes, digests: Hashes) -> None:
        """Hold the arrays. high: first words of the ids' hashes, ascending; low: the second ones."""
        self._high, self._low, self._digests = high, low, digests

    def __len__(self) -> int:
        return len(self._high)

    def has(self, id_: str, digest: str) -> bool:
        """Tell whether `digest` is the last one noted of that id."""
        high, low = np.frombuffer(short_hash(id_), np.uint64)
        first = int(np.searchsorted(self._high, high))
        while first < len(self._high) and self._high[first] == high:
            if self._low[first] == low:
                return int(self._digests[first]) == _digest_word(digest)
            first += 1
        return False


def _digest_word(digest: str) -> int:
    return int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "little")
