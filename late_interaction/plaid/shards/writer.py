"""The one writer of an index of shards: a writer for each, and commits that are finished even if a crash interrupts them.

A commit makes every shard's log durable, writes COMMITTING, commits the shards one after the other, and removes COMMITTING.
Where the file is still there, the next writer takes up every log and commits it: what a commit holds comes whole or not at
all. Readers do not move on while the file is there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from late_interaction.documents import Passage
from late_interaction.errors import UsageError
from late_interaction.files import atomic_write, fsync_folder
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.lock import WriterLock
from late_interaction.plaid.shards.layout import shard_path
from late_interaction.plaid.types import CommitSummary
from late_interaction.plaid.writer import IndexWriter, left_over_error

if TYPE_CHECKING:
    from late_interaction.plaid.shards.index import ShardedIndex

__all__ = ["ShardedWriter", "is_committing"]

COMMITTING = "COMMITTING"
Matrix = NDArray[np.float32]


def is_committing(root: Path) -> bool:
    """Whether a commit is under way, or was interrupted."""
    return (root / COMMITTING).exists()


class ShardedWriter:
    """As IndexWriter; use it as a context manager."""

    def __init__(self, index: ShardedIndex, *, resume: bool) -> None:
        """Raises: LocalIndexError where a shard is missing or damaged, or another writer has the index."""
        self._index = index
        self._root = index.path
        with contextlib.ExitStack() as opening:
            opening.callback(WriterLock(self._root).release)
            interrupted = is_committing(self._root)
            self._writers: list[IndexWriter] = []
            for shard in range(index.sharding.count):
                opened = LocalIndex.open(shard_path(self._root, shard))
                self._writers.append(opening.enter_context(opened.writer(resume=resume or interrupted)))
            if interrupted:
                self._commit_shards("", compact=False)
            index.refresh()
            self._open = opening.pop_all()

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @property
    def pending(self) -> Mapping[str, int]:
        """As IndexWriter.pending, of all shards."""
        return {id_: rows for writer in self._writers for id_, rows in writer.pending.items()}

    def check_usable(self) -> None:
        """As IndexWriter.check_usable."""
        if any(writer.left_over for writer in self._writers):
            raise left_over_error(self._root)

    def discard(self) -> None:
        """As IndexWriter.discard."""
        for writer in self._writers:
            writer.discard()

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """As IndexWriter.passages_of."""
        return {
            id_: digest for writer in self._writers_of(document_id) for id_, digest in writer.passages_of(document_id).items()
        }

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """As IndexWriter.update_metadata. Raises also: UsageError where a field is the one that decides on the shard."""
        self.check_usable()
        if (field := self._index.sharding.field) is not None and field in metadata:
            raise UsageError(f"metadata field {field!r} decides on the shard of a passage: feed the whole document instead")
        return sum(writer.update_metadata(document_id, metadata) for writer in self._writers_of(document_id))

    def put(self, passage: Passage, vectors: Matrix) -> None:
        """As IndexWriter.put, into the shard of the passage; where its key has changed, it leaves the shard where it was."""
        self.check_usable()
        sharding = self._index.sharding
        home = sharding.of_passage(passage, self._index.schema)
        self._writers[home].put(passage, vectors)
        if sharding.field is not None:
            self._remove(passage.id, but=home)

    def delete_document(self, document_id: str) -> int:
        """As IndexWriter.delete_document; where metadata decides, all shards are asked."""
        self.check_usable()
        return sum(writer.delete_document(document_id) for writer in self._writers_of(document_id))

    def _writers_of(self, document_id: str) -> list[IndexWriter]:
        home = self._index.sharding.of_document(document_id)
        return self._writers if home is None else [self._writers[home]]

    def delete_passage(self, passage_id: str) -> int:
        """Deletes one passage; 1, or 0 where there was none."""
        self.check_usable()
        return self._remove(passage_id)

    def _remove(self, passage_id: str, but: int | None = None) -> int:
        having = (writer for shard, writer in enumerate(self._writers) if shard != but and writer.has(passage_id))
        return sum(writer.delete_passage(passage_id) for writer in having)

    def flush(self) -> None:
        """What was put and deleted so far survives a crash (for `resume=True`); searches do not see it before `commit`."""
        for writer in self._writers:
            writer.flush()

    def commit(self, name: str = "", *, compact: bool = False) -> CommitSummary:
        """As IndexWriter.commit for every shard, one after the other; `version` is the highest of theirs.

        A crash or an error in between leaves some shards committed; the next writer, or this one's next commit, commits the
        others.
        """
        start = time.perf_counter()
        self.check_usable()
        self.flush()
        atomic_write(self._root / COMMITTING, b"")
        done = self._commit_shards(name, compact=compact)
        self._index.refresh()
        passages, vectors = sum(one.passages for one in done), sum(one.token_vectors for one in done)
        return CommitSummary(max(one.version for one in done), passages, vectors, time.perf_counter() - start)

    def _commit_shards(self, name: str, *, compact: bool) -> list[CommitSummary]:
        done = [writer.commit(name, compact=compact) for writer in self._writers]
        (self._root / COMMITTING).unlink()
        fsync_folder(self._root)
        return done
