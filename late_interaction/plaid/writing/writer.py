"""The one writer of an index: puts and deletions are logged, and a commit makes all of them searchable at once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from late_interaction.array_types import Matrix, Packed, TokenIds, TokenVectors, Vector
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.files import fsync_folder
from late_interaction.metadata import MetadataSchema, Value
from late_interaction.plaid.inputs import checked_dense, checked_token_ids, document_rows
from late_interaction.plaid.store.dense import joined
from late_interaction.plaid.store.history import (
    check_version,
    known_versions,
    remove_leftovers,
    remove_uncommitted,
    remove_unused,
    version_named,
)
from late_interaction.plaid.store.lock import WriterLock
from late_interaction.plaid.store.opened import OpenedVersion
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.store.versions import (
    Tuned,
    Version,
    now,
    publish,
    read_current,
)
from late_interaction.plaid.types import CommitSummary
from late_interaction.plaid.writing.changes import Changes
from late_interaction.plaid.writing.committing import Commit, Uncommitted, code_bytes, packed_rows
from late_interaction.plaid.writing.fields import widened
from late_interaction.plaid.writing.pending import (
    NO_DENSE,
    PUT,
    PUT_ENCODED,
    REMOVE_DOCUMENT,
    REMOVE_PASSAGE,
    UPDATE,
    PendingLog,
)
from late_interaction.plaid.writing.training import bundle_codebook
from late_interaction.text import checked_id

__all__ = ["IndexWriter", "left_over_error"]


class IndexWriter:
    """Use as a context manager; leaving it without `commit` keeps what was flushed for a writer with `resume=True`.

    Where an interrupted run has left changes and this writer does not resume them, they stay as they are, and whatever would
    make them worthless is refused until `discard`.
    """

    def __init__(self, opened: OpenedVersion, *, resume: bool) -> None:
        self._opened = opened
        self._root = opened.path
        self._lock = WriterLock(opened.path)
        self._unusable = ""
        self._adopted: Codebook | None = None
        try:
            self._fresh_start()
            version = opened.version
            self._log = PendingLog(self._root, version.dim, version.number, version.dense_width)
            self._changes = Changes(opened.snapshot)
            self._left_over = not resume and self._log.left_over
            for record in self._log.resume() if resume else ():
                self._changes.note(record)
        except BaseException:
            self._lock.release()
            raise

    def _fresh_start(self) -> None:
        try:
            fsync_folder(self._root)  # CURRENT may have been replaced by a writer that failed to make it durable
        except OSError as error:
            raise LocalIndexError(f"{self._root} cannot be written: {error}") from None
        remove_leftovers(self._root)
        self._opened.refresh()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock.held:
            self._log.close()
            self._lock.release()

    @property
    def pending(self) -> Mapping[str, int]:
        """Ids of the passages that wait for the commit, those of a resumed run included, with their number of rows."""
        return self._changes.puts

    @property
    def changed(self) -> bool:
        """Whether the next commit makes a version."""
        return bool(self._changes)

    @property
    def left_over(self) -> bool:
        """Whether an interrupted run has left changes that this writer neither took up nor dropped."""
        return self._left_over

    def check_usable(self) -> None:
        """Raises: UsageError on a closed writer; LocalIndexError where an interrupted run has left changes."""
        self._check_open()
        if self._left_over:
            raise left_over_error(self._root)

    def _check_open(self) -> None:
        if not self._lock.held:
            raise UsageError(f"this writer of {self._root} is closed, or belongs to the parent process: open another")
        if self._unusable:
            raise LocalIndexError(self._unusable)

    def discard(self) -> None:
        """Drops everything since the last commit, what an interrupted run has left included."""
        self._check_open()
        self._start_over()

    def _start_over(self) -> None:
        self._log.restart(self._opened.version.number)
        self._changes = Changes(self._opened.snapshot)
        self._left_over = False

    def has(self, passage_id: str) -> bool:
        """Whether the next commit leaves or makes a passage of that id."""
        return self._changes.has(passage_id)

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """Ids of the passages that the document has after the next commit, and their digests."""
        return self._changes.passages_of(document_id)

    def put(
        self,
        passage: Passage,
        vectors: Matrix,
        token_ids: TokenIds | None = None,
        dense: Mapping[str, Vector] | None = None,
    ) -> None:
        """Adds `passage` with `vectors [t, d]`, or replaces the one of that id. Rows have length 1, give or take 0.01; codec
        float32 takes any that are shorter than 1,000, and scores their inner products.

        token_ids: `[t]`, the vocabulary id of each row, -1 where it is not known; None where none is. dense: `[dim]` of each
        dense model that the index has, by name.

        Raises: UsageError where an id or text cannot be one, the vectors have another width or length or are not finite,
        token_ids are not one for each row, or a dense vector is missing; MetadataError where the metadata does not fit the
        schema; LocalIndexError where the disk refuses. The index stays as it was.
        """
        self.check_usable()
        rows = document_rows(passage.id, vectors, self._opened.version.dim, self._opened.version.codec)
        ids = checked_token_ids(passage.id, token_ids, len(rows))
        of_models = self._joined(passage.id, dense)
        passage = dataclasses.replace(passage.checked(), metadata=self._opened.version.schema.check(passage.metadata))
        place = self._log.append(PUT, passage.id, passage, (rows, ids), of_models)
        self._changes.put(passage.id, passage.document_id, place, len(rows), passage.digest)

    def _joined(self, passage_id: str, dense: Mapping[str, Vector] | None) -> Vector:
        forms = self._opened.version.dense
        return joined(checked_dense(passage_id, dense, forms), forms)

    def takes_codes_of(self, codebook: Codebook) -> bool:
        """Whether `put_encoded` takes codes and residuals of that codebook: an index without vectors takes up the codebook
        itself, unless its bundle has another."""
        version = self._opened.version
        fits = (codebook.bits, codebook.dim) == (version.residual_bits, version.dim) and not version.refine
        if not fits or code_bytes(codebook) > 4 * version.dim:
            return False
        known = self._opened.snapshot.codebook or bundle_codebook(self._opened.bundle)
        if known is not None and known.sha256 != codebook.sha256:
            return False
        self.adopt(codebook)
        return True

    def adopt(self, codebook: Codebook) -> None:
        """Takes up a codebook in the next commit that brings vectors, if the index has none, instead of training one."""
        self._adopted = codebook

    def put_encoded(self, passage: Passage, encoded: Packed, dense: Mapping[str, Vector] | None = None) -> None:
        """As `put`, of codes `[t]` and residuals `[t, bytes]` of a codebook that `takes_codes_of` has agreed to: they are
        stored as they are."""
        self.check_usable()
        rows, of_models = packed_rows(encoded, self._opened.version.dim), self._joined(passage.id, dense)
        passage = dataclasses.replace(passage.checked(), metadata=self._opened.version.schema.check(passage.metadata))
        place = self._log.append(PUT_ENCODED, passage.id, passage, (rows, None), of_models)
        self._changes.put(passage.id, passage.document_id, place, len(rows), passage.digest, encoded=True)

    def delete_document(self, document_id: str) -> int:
        """Deletes all passages of the document, those put since the last commit included; how many there were."""
        self.check_usable()
        document_id = checked_id(document_id, "document id")
        self._log.append(REMOVE_DOCUMENT, document_id)
        return self._changes.remove_document(document_id)

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """Sets the fields given, and takes away those given as None, of all passages of the document; how many it has. Their
        vectors stay as they are stored; their digests become empty, as they are no longer those of what was fed.

        Raises: MetadataError where a value does not fit the schema; LocalIndexError where the disk refuses.
        """
        self.check_usable()
        checked = self._opened.version.schema.check(metadata)
        passage_ids = list(self._changes.passages_of(checked_id(document_id, "document id")))
        for passage_id in passage_ids:
            self._update_passage(passage_id, metadata, checked)
        return len(passage_ids)

    def _update_passage(self, passage_id: str, metadata: Mapping[str, object], checked: Mapping[str, Value]) -> None:
        place, committed = self._changes.place_of(passage_id)
        rows: TokenVectors = (np.empty((0, self._opened.version.dim), np.float32), None)
        dense = NO_DENSE
        if place is not None:
            self._log.flush()
            old, rows, dense = next(self._uncommitted().read([place]))
        else:
            assert committed is not None
            old = committed[0].passage(committed[1])
        kept = {name: value for name, value in old.metadata.items() if name not in metadata}
        new = dataclasses.replace(old, metadata={**kept, **checked}, digest="")
        if committed is None:
            place = self._log.append(PUT, new.id, new, rows, dense)
            self._changes.put(new.id, new.document_id, place, len(rows[0]), "")
        else:
            self._changes.update(new.id, self._log.append(UPDATE, new.id, new))

    def delete_passage(self, passage_id: str) -> int:
        """Deletes one passage; 1, or 0 where there was none."""
        self.check_usable()
        passage_id = checked_id(passage_id, "passage id")
        self._log.append(REMOVE_PASSAGE, passage_id)
        return self._changes.remove_passage(passage_id)

    def flush(self) -> None:
        """What was put and deleted so far survives a crash (for `resume=True`); searches do not see it before `commit`."""
        self._check_open()
        self._log.flush()

    def commit(self, name: str = "", *, compact: bool = False, always: bool = False) -> CommitSummary:
        """Makes everything since the last commit searchable, atomically and durably.

        name: keeps this version from being pruned; there may be nothing new to commit. compact: one segment without what was
        deleted. Its vectors stay as they are stored, unless a new codebook is worth it: where the index has twice the vectors
        that its own was trained on, or their drift is .03. One that the bundle brought stays. always: makes a version though
        there is nothing new.

        A crash before the end leaves the old version and what was flushed; readers see the new version at `refresh`.

        Raises: LocalIndexError where the disk refuses, saying which version stands. UsageError on a name that is taken or a
        number.
        """
        start = time.perf_counter()
        self._check_open()
        self.check_name(name)
        self._log.flush()
        if self._changes or name or compact or always:
            self._publish(lambda: dataclasses.replace(Commit(self._uncommitted()).write(compact=compact), name=name))
        return self._done(start)

    def rollback(self, to: int | str) -> CommitSummary:
        """Makes a new version with the passages of version `to`, a number or a name; what was not committed is dropped.

        Raises: LocalIndexError where there is no such version, naming those that are there, or a file of it is damaged.
        """
        start = time.perf_counter()
        self.check_usable()
        old = version_named(self._root, known_versions(self._root), to)
        check_version(self._root, old)
        self._publish(lambda: dataclasses.replace(old, name="", number=self._next_number(), created=now()))
        return self._done(start)

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """A new version, the same but for the effort that searches take by default.

        Raises: UsageError where something waits for a commit.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has changes that wait for a commit: commit or discard them before tuning")
        old = self._opened.version
        number = self._next_number()
        self._publish(lambda: dataclasses.replace(old, tuned=tuned, name="", number=number, created=now()))
        return self._done(start)

    def add_fields(self, further: MetadataSchema) -> CommitSummary:
        """A new version that has these metadata fields too; those that are there already change nothing.

        Raises: UsageError where something waits for a commit; MetadataError where a field is there with another type.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has changes that wait for a commit: commit or discard them before adding fields")
        snapshot, number = self._opened.snapshot, self._next_number()
        if further.fields.items() - snapshot.version.schema.fields.items():
            self._publish(lambda: widened(self._root, snapshot, number, further))
        return self._done(start)

    def prune(self, keep: int = 1) -> list[int]:
        """Removes all versions but the newest `keep`, the current and the named ones; the numbers of those removed."""
        self._check_open()
        if keep < 1:
            raise UsageError(f"keep must be at least 1, got {keep}")
        return remove_unused(self._root, known_versions(self._root), self._opened.version, keep)

    def check_name(self, name: str) -> None:
        """Raises: UsageError where no version can have that name."""
        if name.isdecimal():
            raise UsageError(f"a version's name cannot be a number, got {name!r}")
        if name and any(version.name == name for version in known_versions(self._root)):
            raise UsageError(f"{self._root} has a version named {name!r} already: give another name")

    def _publish(self, make: Callable[[], Version]) -> None:
        """The version that `make` writes becomes the one that counts, once it is known to open."""
        self.check_usable()
        remove_uncommitted(self._root)
        known, old = known_versions(self._root), self._opened.snapshot
        try:
            version = make()
            snapshot = Snapshot(self._root, version, old)
            current = version.number, publish(self._root, version)
        except OSError as error:
            raise LocalIndexError(self._after_failure(old.version, error)) from None
        self._opened.move_to(snapshot, current)
        remove_unused(self._root, [*known, version], version)

    def _after_failure(self, old: Version, error: OSError) -> str:
        """What to say of a commit that the disk refused, when it has been cleared away as far as may be."""
        if read_current(self._root)[0] == old.number:
            remove_uncommitted(self._root)
            return f"{self._root}: commit failed, version {old.number} stands ({error})"
        self._opened.refresh()
        number = self._opened.version.number
        self._unusable = (
            f"{self._root}: version {number} is in place, but the disk refused to make that durable ({error}): "
            f"a power failure may bring back version {old.number}; open a new writer"
        )
        return self._unusable

    def _done(self, start: float) -> CommitSummary:
        if not self._left_over:
            self._start_over()
        version = self._opened.version
        return CommitSummary(version.number, version.passages, version.token_vectors, time.perf_counter() - start)

    def _next_number(self) -> int:
        return self._opened.version.number + 1

    def _uncommitted(self) -> Uncommitted:
        return Uncommitted(self._opened, self._log, self._changes, self._adopted)


def left_over_error(root: Path) -> LocalIndexError:
    return LocalIndexError(
        f"{root} has changes of an interrupted run that are not committed: go on with "
        f"`colbert-vespa feed ... --to {root} --resume`, or drop them with `colbert-vespa index discard {root}`"
    )
