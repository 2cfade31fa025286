"""Words of a segment's passages, written with it, so that BM25 needs no building at search time.

    words_hashes [V]       hash of every word (storage.string_hash), ascending; words themselves are not kept
    words_starts [V + 1]   where the postings of each begin
    words_postings [P, 2]  of each word the passages that have it, ascending, and how often each has it
    words_lengths [n]      number of words of each passage

A score depends on all living passages of an index (how many have a word, how long they are), so it is computed at search
time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I64, Mask
from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.store.storage import ArrayWriter, hash_all, write_array

__all__ = ["SegmentWords", "WordsWriter", "best_by_words", "word_run", "word_scores"]

F64 = NDArray[np.float64]
RUN_CHARACTERS = 1 << 22  # characters of texts whose words are counted at a time
BLOCK_POSTINGS = 1 << 21  # postings that are merged at a time: about 100 MiB with the memory for sorting


@dataclass(frozen=True, eq=False)
class SegmentWords:
    """The arrays, mapped or in memory. where: their folder."""

    hashes: NDArray[np.uint64]
    starts: I64
    postings: NDArray[np.int32]
    lengths: NDArray[np.int32]
    where: str = ""

    def check(self, passages: int) -> None:
        """Check the arrays.

        Raises:
            LocalIndexError: if they do not fit each other.
        """
        starts = self.starts
        whole = len(starts) == len(self.hashes) + 1 and starts[0] == 0 and starts[-1] == len(self.postings)
        if not whole or (starts[1:] < starts[:-1]).any() or self.postings.shape[1] != 2 or len(self.lengths) != passages:
            raise LocalIndexError(f"{self.where} is damaged: its words do not fit its passages")

    def of(self, key: np.uint64) -> NDArray[np.int32]:
        """Return the postings of the word of that hash.

        Raises:
            LocalIndexError: if they refer to passages that do not exist.
        """
        place = int(np.searchsorted(self.hashes, key))
        if place == len(self.hashes) or self.hashes[place] != key:
            return self.postings[:0]
        return self.between(place, place + 1)

    def between(self, first: int, last: int) -> NDArray[np.int32]:
        """Return the postings of the words from place `first` to before `last`.

        Raises:
            LocalIndexError: as in `of`.
        """
        found = self.postings[int(self.starts[first]) : int(self.starts[last])]
        if len(found) and not 0 <= found[:, 0].min() <= found[:, 0].max() < len(self.lengths):
            raise LocalIndexError(f"{self.where} is damaged: words_postings.npy refers to passages that do not exist")
        return found


def word_run(texts: Sequence[str]) -> SegmentWords:
    """Count the words of these texts."""
    from late_interaction.bm25 import word_counts

    counted, vocabulary = word_counts(texts)
    sizes = [len(counts) for counts in counted]
    words = np.fromiter((word for counts in counted for word in counts), np.int64, sum(sizes))
    counts = np.fromiter((count for counts in counted for count in counts.values()), np.int32, sum(sizes))
    postings = np.stack([np.repeat(np.arange(len(texts), dtype=np.int32), sizes), counts], axis=1)
    lengths = np.array([sum(counts.values()) for counts in counted], np.int32)
    hashes, starts, order = _grouped(hash_all(vocabulary)[words])
    return SegmentWords(hashes, starts, postings[order], lengths)


def _grouped(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], I64, NDArray[np.intp]]:
    """Return distinct keys, where each begins, and the order in which equal ones stand together, stably."""
    order = np.argsort(keys, kind="stable")
    hashes, counts = np.unique(keys, return_counts=True)
    return hashes, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), order


class WordsWriter:
    """Takes texts, or words of older segments, and writes the files of a segment.

    Memory use is one run, one block, and 4 bytes per passage; runs wait in an unnamed file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: list[str] = []
        self._characters = 0
        self._runs: list[tuple[SegmentWords, Mask | None]] = []
        self._spilled: IO[bytes] | None = None

    def append(self, texts: Sequence[str]) -> None:
        """Append texts."""
        self._texts += texts
        self._characters += sum(map(len, texts))
        if self._characters >= RUN_CHARACTERS:
            self._end_run()

    def append_words(self, words: SegmentWords, living: Mask) -> None:
        """Append the words of the living passages of an older segment."""
        self._end_run()
        self._runs.append((words, living))

    def _end_run(self) -> None:
        if self._texts:
            self._runs.append((self._spill(word_run(self._texts)), None))
            self._texts, self._characters = [], 0

    def _spill(self, run: SegmentWords) -> SegmentWords:
        if self._spilled is None:
            self._spilled = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `abandon`
        file = self._spilled

        def mapped(array: NDArray[Any]) -> NDArray[Any]:
            place = file.seek(0, 2)
            file.write(np.ascontiguousarray(array).data)
            file.flush()
            return np.memmap(file, array.dtype, "r", place, array.shape) if array.size else array

        return SegmentWords(mapped(run.hashes), mapped(run.starts), mapped(run.postings), run.lengths)

    def close(self) -> dict[str, FileEntry]:
        """Write the files, make them durable, and return their entries by name."""
        self._end_run()
        lengths = [words.lengths if living is None else words.lengths[living] for words, living in self._runs]
        postings = ArrayWriter(self._folder / "words_postings.npy", "<i4", (2,))
        hashes: list[NDArray[np.uint64]] = []
        sizes: list[I64] = []
        try:
            for keys, block in self._blocks():
                found, starts, order = _grouped(keys)
                postings.append(block[order])
                hashes.append(found)
                sizes.append(np.diff(starts))
            files = {"words_postings.npy": postings.close()}
        finally:
            postings.abandon()
        arrays: dict[str, NDArray[Any]] = {
            "words_hashes": np.concatenate([np.zeros(0, np.uint64), *hashes]),
            "words_starts": np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes])),
            "words_lengths": np.concatenate([np.zeros(0, np.int32), *lengths]),
        }
        return files | {f"{name}.npy": write_array(self._folder / f"{name}.npy", array) for name, array in arrays.items()}

    def _blocks(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int32]]]:
        """Yield keys and postings of one range of hashes after the other, each in the order of the runs."""
        total = sum(len(words.postings) for words, _ in self._runs)
        parts = max(1, -(-total // BLOCK_POSTINGS))
        edges = [np.uint64((place << 64) // parts) for place in range(parts)]
        bases = np.cumsum([0, *(len(w.lengths) if alive is None else int(alive.sum()) for w, alive in self._runs)])
        for number in range(parts if total else 0):
            keys: list[NDArray[np.uint64]] = []
            blocks: list[NDArray[np.int32]] = []
            for base, (words, living) in zip(bases.tolist(), self._runs, strict=False):
                first = int(np.searchsorted(words.hashes, edges[number]))
                last = len(words.hashes) if number + 1 == parts else int(np.searchsorted(words.hashes, edges[number + 1]))
                hashes = np.repeat(words.hashes[first:last], np.diff(words.starts[first : last + 1]))
                block = np.array(words.between(first, last))
                if living is not None:
                    kept = living[block[:, 0]]
                    hashes, block = hashes[kept], block[kept]
                    block[:, 0] = (np.cumsum(living) - 1)[block[:, 0]]
                block[:, 0] += base
                keys.append(hashes)
                blocks.append(block)
            yield np.concatenate(keys), np.concatenate(blocks)

    def abandon(self) -> None:
        """Close the files without finishing them."""
        if self._spilled is not None:
            self._spilled.close()


def word_scores(parts: Sequence[tuple[SegmentWords, Mask]], text: str) -> list[F64]:
    """Return BM25 scores of all passages of several segments; 0 without a word of `text`.

    `parts` are the segments, each with its living passages. Other passages do not count.
    """
    from late_interaction.bm25 import K1, B, word_counts

    (asked,), vocabulary = word_counts([text])
    passages = sum(int(np.count_nonzero(living)) for _, living in parts)
    length = sum(int(words.lengths[living].sum(dtype=np.int64)) for words, living in parts)
    scores = [np.zeros(len(living)) for _, living in parts]
    for key, times in zip(hash_all(vocabulary), asked.values(), strict=True):
        stored = [words.of(key) for words, _ in parts]
        alive = [postings[living[postings[:, 0]]] for (_, living), postings in zip(parts, stored, strict=True)]
        having = sum(len(postings) for postings in alive)
        weight = times * np.log1p((passages - having + 0.5) / (having + 0.5))
        for (words, _), postings, summed in zip(parts, alive, scores, strict=True):
            rows, often = postings[:, 0], postings[:, 1]
            lengths = words.lengths[rows] * (passages / max(1, length))
            summed[rows] += weight * (often / (often + K1 * (1 - B + B * lengths)))
    return scores


def best_by_words(scores: Sequence[F64], allowed: Sequence[Mask], count: int) -> tuple[I64, F64]:
    """Return places and scores of the best `count` allowed passages that have a word.

    Places count through the rows of all segments. The best come first, equal ones in their order. scores: from
    `word_scores`.
    """
    parts = [np.where(mask, part, 0.0) for part, mask in zip(scores, allowed, strict=True)]
    every = np.concatenate([np.zeros(0), *parts])
    places = np.flatnonzero(every)
    if len(places) > count:
        least = np.partition(every[places], len(places) - count)[len(places) - count]
        places = places[every[places] >= least]
    best = places[np.lexsort((places, -every[places]))][:count]
    return best, every[best]
