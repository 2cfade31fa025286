"""The writer of an index: puts and deletions are logged, and a commit makes all of them searchable at once."""

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
    """The only writer of an index; use it as a context manager.

    Leaving the context without `commit` keeps what was flushed for a writer with `resume=True`. If an interrupted run has
    left changes and this writer does not resume them, they stay, and any operation that would invalidate them is refused
    until `discard`.
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
            fsync_folder(self._root)  # a writer may have replaced CURRENT but failed to make it durable
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
        """Return the uncommitted passages' ids with their number of rows, including those of a resumed run."""
        return self._changes.puts

    @property
    def changed(self) -> bool:
        """Tell whether the next commit makes a version."""
        return bool(self._changes)

    @property
    def left_over(self) -> bool:
        """Tell whether an interrupted run has left changes that this writer neither took up nor dropped."""
        return self._left_over

    def check_usable(self) -> None:
        """Check that the writer can continue.

        Raises:
            UsageError: if the writer is closed.
            LocalIndexError: if an interrupted run has left changes.
        """
        self._check_open()
        if self._left_over:
            raise left_over_error(self._root)

    def _check_open(self) -> None:
        if not self._lock.held:
            raise UsageError(f"this writer of {self._root} is closed, or belongs to the parent process; open another")
        if self._unusable:
            raise LocalIndexError(self._unusable)

    def discard(self) -> None:
        """Drop everything since the last commit, including what an interrupted run has left."""
        self._check_open()
        self._start_over()

    def _start_over(self) -> None:
        self._log.restart(self._opened.version.number)
        self._changes = Changes(self._opened.snapshot)
        self._left_over = False

    def has(self, passage_id: str) -> bool:
        """Tell whether a passage of that id exists after the next commit."""
        return self._changes.has(passage_id)

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """Return the ids of the document's passages after the next commit, and their digests."""
        return self._changes.passages_of(document_id)

    def put(
        self,
        passage: Passage,
        vectors: Matrix,
        token_ids: TokenIds | None = None,
        dense: Mapping[str, Vector] | None = None,
    ) -> None:
        """Insert or replace a passage.

        If an error is raised, the index is unchanged.

        Args:
            passage: the passage.
            vectors: `[t, d]`, rows of length 1 within 0.01; codec float32 accepts any shorter than 1,000, and scores their
                inner products.
            token_ids: `[t]`, the vocabulary id of each row, -1 if unknown; None if none is known.
            dense: `[dim]` of each dense model that the index has, by name.

        Raises:
            UsageError: if an id or text is not valid, the vectors have another width or length or are not finite, token_ids
                are not one per row, or a dense vector is missing.
            MetadataError: if the metadata do not fit the schema.
            LocalIndexError: if the disk refuses.
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
        """Tell whether `put_encoded` accepts codes and residuals of that codebook.

        An index without vectors takes up the codebook itself, unless its bundle has another.
        """
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
        """Take up a codebook in the next commit that brings vectors, if the index has none, instead of training one."""
        self._adopted = codebook

    def put_encoded(self, passage: Passage, encoded: Packed, dense: Mapping[str, Vector] | None = None) -> None:
        """Insert or replace a passage with codes `[t]` and residuals `[t, bytes]`, which are stored as they are.

        `takes_codes_of` must have accepted their codebook. Errors are those of `put`.
        """
        self.check_usable()
        rows, of_models = packed_rows(encoded, self._opened.version.dim), self._joined(passage.id, dense)
        passage = dataclasses.replace(passage.checked(), metadata=self._opened.version.schema.check(passage.metadata))
        place = self._log.append(PUT_ENCODED, passage.id, passage, (rows, None), of_models)
        self._changes.put(passage.id, passage.document_id, place, len(rows), passage.digest, encoded=True)

    def delete_document(self, document_id: str) -> int:
        """Delete all passages of the document, including those put since the last commit; return how many there were."""
        self.check_usable()
        document_id = checked_id(document_id, "document id")
        self._log.append(REMOVE_DOCUMENT, document_id)
        return self._changes.remove_document(document_id)

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """Set the given fields of all passages of the document, and remove those given as None.

        Their stored vectors stay; their digests become empty, as they no longer match what was fed.

        Returns:
            how many passages the document has.

        Raises:
            MetadataError: if a value does not fit the schema.
            LocalIndexError: if the disk refuses.
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
        """Delete one passage; return 1, or 0 if there was none."""
        self.check_usable()
        passage_id = checked_id(passage_id, "passage id")
        self._log.append(REMOVE_PASSAGE, passage_id)
        return self._changes.remove_passage(passage_id)

    def flush(self) -> None:
        """Make the changes so far durable for `resume=True`; searches do not see them before `commit`."""
        self._check_open()
        self._log.flush()

    def commit(self, name: str = "", *, compact: bool = False, always: bool = False) -> CommitSummary:
        """Make everything since the last commit searchable, atomically and durably.

        A crash before the end leaves the old version and what was flushed; readers see the new version after `refresh`.

        Args:
            name: a name that keeps this version from being pruned; the commit may then be empty.
            compact: write one segment without deleted passages. Its vectors stay as stored, unless a new codebook is worth
                it: if the index has twice the vectors that its own was trained on, or a drift of .03. A codebook from the
                bundle stays.
            always: make a version even if nothing is new.

        Raises:
            LocalIndexError: if the disk refuses; the message says which version is current.
            UsageError: if the name is taken or is a number.
        """
        start = time.perf_counter()
        self._check_open()
        self.check_name(name)
        self._log.flush()
        if self._changes or name or compact or always:
            self._publish(lambda: dataclasses.replace(Commit(self._uncommitted()).write(compact=compact), name=name))
        return self._done(start)

    def rollback(self, to: int | str) -> CommitSummary:
        """Make a new version with the passages of version `to`, a number or a name.

        Uncommitted changes are dropped.

        Raises:
            LocalIndexError: if there is no such version (the message names those that exist), or a file of it is damaged.
        """
        start = time.perf_counter()
        self.check_usable()
        old = version_named(self._root, known_versions(self._root), to)
        check_version(self._root, old)
        self._publish(lambda: dataclasses.replace(old, name="", number=self._next_number(), created=now()))
        return self._done(start)

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """Make a version that differs only in the default effort of searches.

        Raises:
            UsageError: if there are uncommitted changes.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has uncommitted changes; commit or discard them before tuning")
        old = self._opened.version
        number = self._next_number()
        self._publish(lambda: dataclasses.replace(old, tuned=tuned, name="", number=number, created=now()))
        return self._done(start)

    def add_fields(self, further: MetadataSchema) -> CommitSummary:
        """Make a version that also has these metadata fields; fields that exist already are ignored.

        Raises:
            UsageError: if there are uncommitted changes.
            MetadataError: if a field exists with another type.
        """
        start = time.perf_counter()
        self.check_usable()
        if self._changes:
            raise UsageError(f"{self._root} has uncommitted changes; commit or discard them before adding fields")
        snapshot, number = self._opened.snapshot, self._next_number()
        if further.fields.items() - snapshot.version.schema.fields.items():
            self._publish(lambda: widened(self._root, snapshot, number, further))
        return self._done(start)

    def prune(self, keep: int = 1) -> list[int]:
        """Remove all versions except the newest `keep`, the current and the named ones; return the numbers removed."""
        self._check_open()
        if keep < 1:
            raise UsageError(f"keep must be at least 1, got {keep}")
        return remove_unused(self._root, known_versions(self._root), self._opened.version, keep)

    def check_name(self, name: str) -> None:
        """Check the name of a version.

        Raises:
            UsageError: if no version can have that name.
        """
        if name.isdecimal():
            raise UsageError(f"a version's name cannot be a number, got {name!r}")
        if name and any(version.name == name for version in known_versions(self._root)):
            raise UsageError(f"{self._root} already has a version named {name!r}; choose another name")

    def _publish(self, make: Callable[[], Version]) -> None:
        """Make the version that `make` writes the current one, once it is known to open."""
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
        """Return the error of a commit that the disk refused, after cleaning up as far as possible."""
        if read_current(self._root)[0] == old.number:
            remove_uncommitted(self._root)
            return f"{self._root}: the commit failed, and version {old.number} is still current ({error})"
        self._opened.refresh()
        number = self._opened.version.number
        self._unusable = (
            f"{self._root}: version {number} is current, but could not be made durable ({error}); a power failure "
            f"may bring back version {old.number}; open a new writer"
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
    """Return the error about changes of an interrupted run."""
    return LocalIndexError(
        f"{root} has uncommitted changes of an interrupted run; continue with `colbert-vespa feed ... --to {root} "
        f"--resume`, or drop them with `colbert-vespa index discard {root}`"
    )
