"""The only writer of an index of shards: one writer per shard, and steps that are finished even after a crash.

All shards have the same version number. A step (commit, rollback, tuning) gives each the next number, one after the other;
COMMITTING records the step until the last shard has it. If that file still exists, the next writer repeats the step for the
shards that are behind, so a step is applied wholly or not at all. Readers take the version that all have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from types import TracebackType

from late_interaction.array_types import Matrix, Packed, TokenIds, Vector
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.shards.intent import Intent, read_intent, remove_half_written, remove_intent, write_intent
from late_interaction.plaid.shards.layout import shard_path
from late_interaction.plaid.shards.states import OpenedStates
from late_interaction.plaid.store.history import check_version, known_versions, version_named
from late_interaction.plaid.store.lock import WriterLock
from late_interaction.plaid.store.versions import Tuned
from late_interaction.plaid.types import CommitSummary
from late_interaction.plaid.writing.writer import IndexWriter, left_over_error
from late_interaction.text import checked_id

__all__ = ["ShardedWriter"]


class ShardedWriter:
    """The writer of an index of shards; use it as a context manager. `IndexWriter` documents each method."""

    def __init__(self, states: OpenedStates, *, resume: bool) -> None:
        """Open a writer for each shard.

        Raises:
            LocalIndexError: if a shard is missing or damaged, or another writer has the index.
        """
        self._states = states
        self._root = states.path
        with contextlib.ExitStack() as opening:
            opening.callback(WriterLock(self._root).release)
            remove_half_written(self._root)
            self._unfinished = read_intent(self._root)
            self._shards: list[LocalIndex] = []
            self._writers: list[IndexWriter] = []
            for shard in range(states.sharding.count):
                opened = LocalIndex.open(shard_path(self._root, shard))
                self._writers.append(opening.enter_context(opened.writer(resume=resume or self._unfinished is not None)))
                self._shards.append(opened)
            self._check_aligned()
            self._finish()
            states.refresh()
            self._open = opening.pop_all()

    def _check_aligned(self) -> None:
        intent = self._unfinished
        numbers = {shard.version for shard in self._shards}
        if len(numbers) > 1 if intent is None else not numbers <= {intent.version - 1, intent.version}:
            found = ", ".join(str(shard.version) for shard in self._shards)
            raise LocalIndexError(
                f"{self._root}: its shards are at different versions ({found}); restore all of them from one copy"
            )

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @property
    def pending(self) -> Mapping[str, int]:
        """Count the changes of all shards that are not committed."""
        return {id_: rows for writer in self._writers for id_, rows in writer.pending.items()}

    @property
    def changed(self) -> bool:
        """Tell whether any shard has changes to commit."""
        return any(writer.changed for writer in self._writers)

    @property
    def left_over(self) -> bool:
        """Tell whether an interrupted run left changes in any shard."""
        return any(writer.left_over for writer in self._writers)

    def check_name(self, name: str) -> None:
        """Raise if a version of a shard cannot have that name."""
        for writer in self._writers:
            writer.check_name(name)

    def has(self, passage_id: str) -> bool:
        """Tell whether any shard has the passage."""
        return any(writer.has(passage_id) for writer in self._writers)

    def check_usable(self) -> None:
        """Raise if a shard's writer cannot continue, or a step failed after some shards had taken it."""
        self._check_finished()
        if self.left_over:
            raise left_over_error(self._root)

    def _check_finished(self) -> None:
        if self._unfinished is not None:
            number = self._unfinished.version
            raise LocalIndexError(f"{self._root}: some shards are at version {number}, others not yet; commit first")

    def discard(self) -> None:
        """Drop the changes that are not committed."""
        self._check_finished()
        for writer in self._writers:
            writer.discard()

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """Return the digest of each passage of a document."""
        return {
            id_: digest for writer in self._writers_of(document_id) for id_, digest in writer.passages_of(document_id).items()
        }

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """Change metadata of a document.

        Raises:
            UsageError: if a field is the one that assigns passages to shards.
        """
        self.check_usable()
        if (field := self._states.sharding.field) is not None and field in metadata:
            raise UsageError(
                f"metadata field {field!r} assigns passages to shards, so it cannot be updated alone; feed the whole document"
            )
        return sum(writer.update_metadata(document_id, metadata) for writer in self._writers_of(document_id))

    def put(
        self,
        passage: Passage,
        vectors: Matrix,
        token_ids: TokenIds | None = None,
        dense: Mapping[str, Vector] | None = None,
    ) -> None:
        """Insert or replace a passage in its shard; if its key has changed, it leaves the former shard."""
        self.check_usable()
        sharding = self._states.sharding
        passage = passage.checked()
        home = sharding.of_passage(passage, self._states.form.schema)
        self._writers[home].put(passage, vectors, token_ids, dense)
        if sharding.field is not None:
            self._remove(passage.id, but=home)

    def takes_codes_of(self, codebook: Codebook) -> bool:
        """Tell whether all shards accept codes of that codebook."""
        return all(writer.takes_codes_of(codebook) for writer in self._writers)

    def put_encoded(self, passage: Passage, encoded: Packed, dense: Mapping[str, Vector] | None = None) -> None:
        """Insert or replace a passage with its codes and residuals in its shard."""
        self.check_usable()
        sharding = self._states.sharding
        home = sharding.of_passage(passage, self._states.form.schema)
        self._writers[home].put_encoded(passage, encoded, dense)
        if sharding.field is not None:
            self._remove(passage.id, but=home)

    def delete_document(self, document_id: str) -> int:
        """Delete a document; if metadata assign shards, from all shards."""
        self.check_usable()
        document_id = checked_id(document_id, "document id")
        return sum(writer.delete_document(document_id) for writer in self._writers_of(document_id))

    def _writers_of(self, document_id: str) -> list[IndexWriter]:
        home = self._states.sharding.of_document(document_id)
        return self._writers if home is None else [self._writers[home]]

    def delete_passage(self, passage_id: str) -> int:
        """Delete a passage; return 1, or 0 if there was none."""
        self.check_usable()
        return self._remove(passage_id)

    def _remove(self, passage_id: str, but: int | None = None) -> int:
        having = (writer for shard, writer in enumerate(self._writers) if shard != but and writer.has(passage_id))
        return sum(writer.delete_passage(passage_id) for writer in having)

    def flush(self) -> None:
        """Make the changes so far durable for `resume=True`; searches do not see them before `commit`."""
        for writer in self._writers:
            writer.flush()

    def commit(self, name: str = "", *, compact: bool = False, always: bool = False) -> CommitSummary:
        """Commit every shard, one after the other.

        After a crash or an error in between, some shards are committed, and readers stay at the version before; the next
        writer, or the next commit of this one, commits the others first.
        """
        start = time.perf_counter()
        unfinished = self._unfinished
        self._finish()
        if unfinished is not None and unfinished == Intent(unfinished.version, name, compact):
            return self._done(start)
        self.check_usable()
        self.check_name(name)
        self.flush()
        if name or compact or always or self.changed:
            self._bring_all(Intent(self._next_number(), name, compact))
        else:
            for writer in self._writers:
                writer.commit()  # makes no version, but drops puts that were deleted again
        return self._done(start)

    def rollback(self, to: int | str) -> CommitSummary:
        """Restore an older version in all shards; nothing changes if one of its files is damaged."""
        start = time.perf_counter()
        self.check_usable()
        chosen = version_named(self._root, self._states.versions(), to)
        for shard in self._shards:
            check_version(shard.path, version_named(shard.path, known_versions(shard.path), chosen.number))
        self._bring_all(Intent(self._next_number(), to=chosen.number))
        return self._done(start)

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """Store the effort in all shards, each with its own number of token vectors, but at least the mean."""
        start = time.perf_counter()
        self.check_usable()
        if self.changed:
            raise UsageError(f"{self._root} has uncommitted changes; commit or discard them before tuning")
        sizes = [shard.token_vectors for shard in self._shards]
        mean = sum(sizes) // len(sizes)
        of_shards = tuple(dataclasses.replace(tuned, token_vectors=max(size, mean)) for size in sizes)
        self._bring_all(Intent(self._next_number(), tuned=of_shards))
        return self._done(start)

    def add_fields(self, further: MetadataSchema) -> CommitSummary:
        """Add metadata fields in all shards."""
        start = time.perf_counter()
        self.check_usable()
        if self.changed:
            raise UsageError(f"{self._root} has uncommitted changes; commit or discard them before adding fields")
        if further.fields.items() - self._states.form.schema.fields.items():
            self._bring_all(Intent(self._next_number(), fields=further.to_json()))
        return self._done(start)

    def prune(self, keep: int = 1) -> list[int]:
        """Remove old versions of all shards; return their numbers."""
        self._check_finished()
        return sorted(set().union(*(writer.prune(keep) for writer in self._writers)))

    def _next_number(self) -> int:
        return self._shards[0].version + 1

    def _bring_all(self, intent: Intent) -> None:
        write_intent(self._root, intent)
        self._unfinished = intent
        try:
            self._finish()
        except Exception:
            if all(shard.version < intent.version for shard in self._shards):  # undo the step
                remove_intent(self._root)
                self._unfinished = None
            raise

    def _finish(self) -> None:
        """Bring the shards that are behind to where the others are."""
        intent = self._unfinished
        if intent is None:
            return
        for number, (shard, writer) in enumerate(zip(self._shards, self._writers, strict=True)):
            if shard.version == intent.version:
                continue
            if intent.to is not None:
                writer.rollback(intent.to)
            elif intent.tuned is not None:
                writer.store_tuned(intent.tuned[number])
            elif intent.fields is not None:
                writer.add_fields(MetadataSchema.from_json(intent.fields))
            else:
                if (codebook := self._codebook()) is not None:
                    writer.adopt(codebook)
                writer.commit(intent.name, compact=intent.compact, always=True)
        remove_intent(self._root)
        self._unfinished = None

    def _codebook(self) -> Codebook | None:
        """Return the codebook of the first shard that has one.

        A shard without one takes up the same, so that scores can be compared and a copy keeps codes and residuals.
        """
        return next((shard.codebook for shard in self._shards if shard.codebook is not None), None)

    def _done(self, start: float) -> CommitSummary:
        self._states.refresh()
        passages = sum(shard.passages for shard in self._shards)
        vectors = sum(shard.token_vectors for shard in self._shards)
        return CommitSummary(self._shards[0].version, passages, vectors, time.perf_counter() - start)
