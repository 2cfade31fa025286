"""A local index, of shards or not, as a target: puts are durable batch by batch, and searchable when the feed finishes."""

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
    """Opens the index at `path`, or creates it where there is none."""

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
        """dry: the index is only read, beside a writer too. storage, sharding: of a new index. codes_of: a codebook, whose
        packed rows are taken as they are where the index can.

        Raises: LocalIndexError where the index is damaged, locked, missing, was built with another bundle, storage or shards,
        or has changes of an interrupted run that are not resumed; UsageError where the field that decides on shards is none of
        the schema.
        """
        self.name = str(path)
        if is_there(path):
            index = open_index(path)
            if bundle is not None and bundle.sha256 != index.bundle.sha256:
                raise LocalIndexError(f"{path} was built with another bundle: leave --bundle out, or feed into a new folder")
            _check_storage(index, storage)
            _check_sharding(index, sharding)
        elif not create:
            raise LocalIndexError(f"no index at {path}: there is nothing to change")
        elif bundle is None:
            raise LocalIndexError(
                f"no index at {path}: name the bundle to build one with (--bundle); `colbert-vespa export` makes bundles"
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
        return str(self._index.path.resolve())

    @property
    def built(self) -> str:
        """When the index was first written: its lock file stays for as long as it does."""
        lock = self._index.path / LOCK
        return str(lock.stat().st_mtime_ns) if lock.exists() else ""

    @property
    def bundle(self) -> Bundle:
        return self._index.bundle

    @property
    def schema(self) -> MetadataSchema:
        return self._schema

    def add_fields(self, further: MetadataSchema) -> None:
        """Metadata fields that the index does not have. Raises: as IndexWriter.add_fields."""
        if self._opened is not None:
            self._opened.add_fields(further)
        self._schema = MetadataSchema({**self._schema.fields, **further.fields})

    @property
    def digest_basis(self) -> str:
        """What stored vectors depend on besides the content; an index never changes its codec, and sees to its codebook."""
        return self.bundle.sha256

    @property
    def counted(self) -> bool:
        return True

    @property
    def needs_vectors(self) -> bool:
        return True

    @property
    def kept(self) -> Kept:
        return kept_locally(self._index, self._codes_of)

    @property
    def unit_rows(self) -> bool:
        return self._index.codec != "float32"

    def size(self) -> int:
        """Without what waits for `finish`."""
        return self._index.passages

    def still_updated(self, document_ids: Sequence[str]) -> Collection[str]:
        """None: what an earlier run has changed may have been discarded since."""
        return ()

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        found: dict[str, StoredDigest] = {}
        for id_ in document_ids:
            if digests := self._planned(id_):
                agreed = set(digests.values())
                found[id_] = StoredDigest(agreed.pop() if len(agreed) == 1 else "", tuple(digests))
        return found

    def put(self, batch: Sequence[EncodedDocument]) -> None:
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
        missing = "there is no such document: an update changes what is there, feed it first"
        outcomes: list[Settled] = []
        for document in batch:
            count = self._writer.update_metadata(document.id, document.metadata)
            outcomes.append(Settled(document.id, None if count else Failure(document.id, 0, missing)))
        self._settle(outcomes)

    def delete(self, document_ids: Sequence[str]) -> None:
        self._settle([Settled(id_, absent=not self._writer.delete_document(id_)) for id_ in document_ids])

    def _settle(self, outcomes: Sequence[Settled]) -> None:
        self._writer.flush()
        self._outcomes += outcomes

    def settled(self, *, wait: bool = False) -> list[Settled]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def statistics(self) -> None:
        return None

    def finish(self) -> Finished:
        return Finished(self._writer.commit().version)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)


def _check_sharding(index: PlaidIndex, asked: Sharding | None) -> None:
    if asked is not None and asked != index.sharding:
        raise LocalIndexError(f"{index.path} has {index.sharding or 'no shards'}, not {asked}: feed into a new folder")


def _check_storage(index: PlaidIndex, asked: Storage | None) -> None:
    if asked is None:
        return
    there = Storage(index.codec, index.bits if asked.bits else None, index.refine)
    if asked != there:
        raise LocalIndexError(f"{index.path} stores its vectors in another way ({there}): feed into a new folder")


def kept_locally(index: PlaidIndex, codebook: Codebook | None = None) -> Kept:
    """codebook: of the index; default is the bundle's, which an index takes."""
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
