"""A local index, with or without shards, as a target: puts are durable batch by batch, and searchable after the feed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from feeder.outcomes import Failure, Finished, Settled, StoredDigest
from feeder.targets import EncodedDocument, Kept
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Document
from late_interaction.errors import LocalIndexError
from late_interaction.files import is_there
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import PlaidIndex, PlaidWriter, Storage, create_index, open_index
from late_interaction.plaid.shards import Sharding
from late_interaction.plaid.store.lock import LOCK
from late_interaction.plaid.store.snapshot import index_thresholds
from late_interaction.plaid.writing.training import bundle_codebook

__all__ = ["LocalTarget", "kept_locally"]


class LocalTarget:
    """Opens the index at `path`, or creates it."""

    def __init__(
        self,
        path: Path,
        bundle: Bundle | None,
        schema: MetadataSchema,
        *,
        resume: bool,
        create: bool,
        dry: bool = False,
        storage: Storage | None = None,
        sharding: Sharding | None = None,
        codes_of: Codebook | None = None,
    ) -> None:
        """Open or create the index.

        Args:
            path: the folder.
            bundle: the bundle; None for that of the index.
            schema: metadata fields of a new index.
            resume: take up what an interrupted run had made durable.
            dry: the index is only read, possibly beside a writer.
            create: whether a missing index is created.
            storage: storage of a new index.
            sharding: shards of a new index.
            codes_of: a codebook whose packed rows are stored unchanged if the index can.

        Raises:
            LocalIndexError: if the index is damaged, locked, missing, was built with another bundle, storage or shards, or
                has changes of an interrupted run that are not resumed.
            UsageError: if the sharding field is not in the schema.
        """
        self.name = str(path)
        if is_there(path):
            index = open_index(path)
            if bundle is not None and bundle.sha256 != index.bundle.sha256:
                raise LocalIndexError(
                    f"{path} was built with another bundle; use a new folder (a feed without --bundle takes the index's own)"
                )
            _check_storage(index, storage)
            _check_sharding(index, sharding)
        elif not create:
            raise LocalIndexError(f"no index at {path}, so there is nothing to change")
        elif bundle is None:
            raise LocalIndexError(
                f"no index at {path}; give the bundle to build one with (--bundle); `colbert-vespa export` makes bundles"
            )
        else:
            index = create_index(path, bundle=bundle, schema=schema, storage=storage, sharding=sharding)
        self._index: PlaidIndex = index
        self._schema = index.schema
        self._opened = None if dry else index.writer(resume=resume)
        self._planned = index.planned(resume=resume) if self._opened is None else self._opened.passages_of
        self._outcomes: list[Settled] = []
        self._codes_of: Codebook | None = None
        try:
            if self._opened is not None:
                self._opened.check_usable()
                if codes_of is not None and self._opened.takes_codes_of(codes_of):
                    self._codes_of = codes_of
        except BaseException:
            self.close()
            raise

    @property
    def _writer(self) -> PlaidWriter:
        assert self._opened is not None  # a dry run changes nothing
        return self._opened

    @property
    def place(self) -> str:
        """Return the absolute path."""
        return str(self._index.path.resolve())

    @property
    def built(self) -> str:
        """Return when the index was first written: its lock file stays as long as the index."""
        lock = self._index.path / LOCK
        return str(lock.stat().st_mtime_ns) if lock.exists() else ""

    @property
    def bundle(self) -> Bundle:
        """Return the index's bundle."""
        return self._index.bundle

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._schema

    def add_fields(self, further: MetadataSchema) -> None:
        """Add metadata fields that the index lacks. Errors are those of `IndexWriter.add_fields`."""
        if self._opened is not None:
            self._opened.add_fields(further)
        self._schema = MetadataSchema({**self._schema.fields, **further.fields})

    @property
    def digest_basis(self) -> str:
        """Return what stored vectors depend on besides the content.

        An index never changes its codec, and maintains its codebook.
        """
        return self.bundle.sha256

    @property
    def counted(self) -> bool:
        """Return False: a commit stores documents whole."""
        return True

    @property
    def needs_vectors(self) -> bool:
        """Return True: an index does not encode."""
        return True

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""
        return kept_locally(self._index, self._codes_of)

    @property
    def unit_rows(self) -> bool:
        """Tell whether it accepts only rows of length one."""
        return self._index.codec != "float32"

    def size(self) -> int:
        """Return the number of committed passages."""
        return self._index.passages

    def still_updated(self, document_ids: Sequence[str]) -> Collection[str]:
        """Return nothing: what an earlier run has changed may have been discarded since."""
        return ()

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        """Return those of the documents that exist."""
        found: dict[str, StoredDigest] = {}
        for id_ in document_ids:
            if digests := self._planned(id_):
                agreed = set(digests.values())
                found[id_] = StoredDigest(agreed.pop() if len(agreed) == 1 else "", tuple(digests))
        return found

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        """Hand over documents."""
        for item in batch:
            passages = [replace(passage, digest=item.digest) for passage in item.passages]
            if self._codes_of is not None and any(len(codes) for codes, _ in item.packed):
                for passage, packed, dense in zip(passages, item.packed, item.dense_by_passage, strict=True):
                    self._writer.put_encoded(passage, packed, dense)
            else:
                for passage, (vectors, token_ids), dense in zip(passages, item.rows, item.dense_by_passage, strict=True):
                    self._writer.put(passage, vectors, token_ids, dense)
            for passage_id in item.stale:
                self._writer.delete_passage(passage_id)
        self._settle([Settled(item.document.id) for item in batch])

    def update(self, batch: Sequence[Document]) -> None:
        """Update the given metadata fields."""
        missing = "there is no such document; feed it before updating it"
        outcomes: list[Settled] = []
        for document in batch:
            count = self._writer.update_metadata(document.id, document.metadata)
            outcomes.append(Settled(document.id, None if count else Failure(document.id, 0, missing)))
        self._settle(outcomes)

    def delete(self, document_ids: Sequence[str]) -> None:
        """Delete documents."""
        self._settle([Settled(id_, absent=not self._writer.delete_document(id_)) for id_ in document_ids])

    def _settle(self, outcomes: Sequence[Settled]) -> None:
        self._writer.flush()
        self._outcomes += outcomes

    def settled(self, *, wait: bool = False) -> list[Settled]:
        """Return outcomes since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def statistics(self) -> None:
        """Return None: nothing goes over a network."""

    def finish(self) -> Finished:
        """Commit, and return the version."""
        return Finished(self._writer.commit().version)

    def close(self) -> None:
        """Close index and writer."""
        if self._opened is not None:
            self._opened.__exit__(None, None, None)


def _check_sharding(index: PlaidIndex, asked: Sharding | None) -> None:
    if asked is not None and asked != index.sharding:
        raise LocalIndexError(f"{index.path} has {index.sharding or 'no shards'}, not {asked}; feed into a new folder")


def _check_storage(index: PlaidIndex, asked: Storage | None) -> None:
    if asked is None:
        return
    there = Storage(index.codec, index.bits if asked.bits else None, index.refine)
    if asked != there:
        raise LocalIndexError(f"{index.path} stores its vectors differently ({there}); feed into a new folder")


def kept_locally(index: PlaidIndex, codebook: Codebook | None = None) -> Kept:
    """Return what an index keeps of a vector. codebook: that of the index; by default the bundle's, which an index takes up."""
    found = _kept_rows(index, codebook)
    return Kept(f"{found.key}, dense int8", f"{found.shown} (dense ones: int8)") if index.dense else found


def _kept_rows(index: PlaidIndex, codebook: Codebook | None) -> Kept:
    if index.refine:
        return Kept("int8", f"{index.codec} with int8 rows")
    if index.codec == "float32":
        return Kept.as_encoded()
    if index.codec == "binary":
        return Kept(f"binary {index_thresholds(index.bundle.path.parent, index.dim, index.bundle.sha256).sha256}", "binary")
    book = codebook or bundle_codebook(index.bundle)
    return Kept(f"residual {index.path if book is None else book.sha256}", f"residual, {index.bits} bits")
