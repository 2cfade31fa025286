"""The writing side of the frameworks: documents with any metadata, put, read and deleted by id.

Metadata that fits a field of the index is stored in it and can be filtered. All other metadata, such as nested objects, is
stored as JSON in the text field `metadata_json`, and returned with the document.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from feeder import FeedOptions, Splitting, start_feed
from feeder.feeding.dead_letters import read_letters
from feeder.sources.spool import checked_document
from late_interaction.addresses import VespaUrl, locate
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, Device
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import ColbertVespaError, LocalIndexError, MetadataError, UsageError, VespaRefused
from late_interaction.files import is_there
from late_interaction.metadata import FieldType, MetadataSchema, SchemaInference, Value
from late_interaction.text import checked_ids, given_list
from query import Client
from vespa_app.running.passage_fields import OWN_FIELDS
from vespa_app.settings.names import field_fault

__all__ = [
    "METADATA_JSON",
    "DocumentStore",
    "Outcome",
    "feed_documents",
    "packed_document",
    "title_of",
    "whole_document",
    "whole_metadata",
]

METADATA_JSON = "metadata_json"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a write.

    Attributes:
        failed: Reason of each failure, by id.
    """

    succeeded: tuple[str, ...]
    failed: Mapping[str, str]


class DocumentStore:
    """Documents of a Vespa index or a local one. Close it after use.

    A missing local index is created by the first `put`. Threads may share a store; writers wait for each other.
    """

    def __init__(
        self,
        address: str | Path,
        bundle: Bundle | str | Path | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        splitting: Splitting | None = None,
        device: str | Device = AUTO,
    ) -> None:
        """Open a store.

        Args:
            address: Folder of an index, or URL of Vespa.
            bundle: Needed for a new local index, and for a Vespa application whose own bundle is not known on this machine.
            fields: Metadata fields of a new local index and their types; default: as in the first documents.
            splitting: How documents are split; default: one passage per document.
            device: Device of the model.

        Raises:
            LocalIndexError: If the index is damaged, or missing and no bundle is given.
            BundleError: If the bundle is missing or damaged.
            VespaError: If Vespa does not answer.
            MetadataError: If `fields` are not valid.
        """
        self._place = locate(address)
        self.address = str(self._place)
        self._bundle = Bundle.open(bundle) if isinstance(bundle, (str, Path)) else bundle
        self._fields = None if fields is None else MetadataSchema.from_json(fields)
        self._splitting = splitting or Splitting()
        self._device = Device.of(device)
        self._writing = threading.Lock()
        there = not isinstance(self._place, Path) or is_there(self._place)
        self._client = Client(str(self._place), self._bundle, device=self._device) if there else None

    @property
    def client(self) -> Client | None:
        """Return the client; None as long as there is no index."""
        return self._client

    def put(self, documents: Sequence[Document]) -> Outcome:
        """Put documents, replacing those with the same ids.

        Of several documents with the same id the last one counts. Blank documents fail, and stored documents with their ids are
        removed. Documents that the index refuses fail too.

        Raises:
            MetadataError: If a value does not fit its field; nothing is written then.
            LocalIndexError: If the index is damaged or cannot be written.
            VespaError: If Vespa does not answer.
        """
        documents = [checked_document(item, place) for place, item in enumerate(given_list(documents, "documents"))]
        if not documents:
            return Outcome((), {})
        with self._writing:
            client = self._client or self._created(documents)
            return self._fed([packed_document(document, client.schema) for document in documents], client, "put")

    def get(self, ids: Sequence[str], where: Mapping[str, object] | None = None) -> list[Document]:
        """Return the existing documents that the filter selects, in the order given, passages joined by newlines."""
        wanted = checked_ids(ids)
        if self._client is None:
            return []
        return [whole_document(passages) for passages in self._client.get(wanted, where=where).check_full().values()]

    def delete(self, ids: Sequence[str]) -> Outcome:
        """Delete documents by id; unknown ids are in neither list of the outcome.

        Raises:
            UsageError: If `ids` is a string.
            LocalIndexError: If the index is damaged or cannot be written.
            VespaError: If Vespa does not answer.
        """
        documents = [Document(id_) for id_ in checked_ids(ids)]
        with self._writing:
            if self._client is None or not documents:
                return Outcome((), {})
            return self._fed(documents, self._client, "delete")

    def delete_where(self, where: Mapping[str, object] | None) -> None:
        """Delete the documents that a filter selects; without a filter, all documents.

        Raises:
            FilterError: If the filter does not parse or names an unknown field.
            LocalIndexError: If the index cannot be written, or some documents were not deleted.
            VespaError: If Vespa does not answer; VespaRefused if some documents were not deleted.
        """
        while self._client is not None and (ids := self._client.select(where).check_full()):
            outcome = self.delete(ids)
            for id_, why in outcome.failed.items():
                raise self.refusal(f"document {id_!r} could not be deleted: {why}")
            if not outcome.succeeded:
                raise self.refusal(
                    f"{len(ids)} documents that the filter selects cannot be found for deletion, such as {ids[0]!r}; try again"
                )

    def refusal(self, message: str) -> ColbertVespaError:
        """Return the error for a document that the index did not accept."""
        kind = LocalIndexError if isinstance(self._place, Path) else VespaRefused
        return kind(f"{self.address}: {message}")

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()

    def _created(self, documents: Sequence[Document]) -> Client:
        from late_interaction.plaid import LocalIndex

        assert isinstance(self._place, Path)
        if self._bundle is None:
            raise UsageError(f"no index at {self.address}; give the bundle to create one with (bundle=...)")
        fields = dict((self._fields or _inferred(documents)).fields)
        LocalIndex.create(self._place, bundle=self._bundle, schema=MetadataSchema({**fields, METADATA_JSON: FieldType.STRING}))
        self._client = Client(self._place, device=self._device)
        return self._client

    def _fed(self, documents: Sequence[Document], client: Client, operation: str) -> Outcome:
        encoder = client.encoder if operation == "put" and client.bundle.encodes else None
        return feed_documents(documents, self._place, client.bundle, operation, encoder, self._splitting)


def feed_documents(
    documents: Sequence[Document],
    to: Path | VespaUrl,
    bundle: Bundle,
    operation: str,
    encoder: Encoder | None,
    splitting: Splitting | None = None,
) -> Outcome:
    """Feed documents that fit the index, in one feed.

    Args:
        documents: Documents to put, or to delete by their ids.
        to: Folder of an index, or URL of Vespa.
        bundle: Bundle of the index.
        operation: `put` or `delete`.
        encoder: Encodes documents that are put.
        splitting: How documents are split.

    Returns:
        Which documents succeeded and failed. A deleted document that did not exist is in neither list.

    Raises:
        IndexBeingWritten: If another writer has the index.
        LocalIndexError: If the index is damaged or cannot be written.
        VespaError: If Vespa does not answer.
        MetadataError: If a value does not fit its field.
        CollectionError: If a document is not valid.
    """
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as folder:
        options = FeedOptions(
            to=to, journal=Path(folder) / "journal", bundle=bundle, operation=operation, splitting=splitting or Splitting(),
            encoder=encoder, named=len(documents),
        )  # fmt: skip
        with start_feed([documents], options) as run:
            summary = run.go()
        if summary.outcome == "interrupted":
            raise KeyboardInterrupt
        failed = dict.fromkeys(summary.skipped_blank_ids, "the document is blank")
        if summary.dead_letter_file is not None:
            failed |= _refusals(Path(summary.dead_letter_file))
    missing = {*failed, *summary.absent_ids}
    return Outcome(tuple(id_ for id_ in dict.fromkeys(d.id for d in documents) if id_ not in missing), failed)


def whole_metadata(metadata: Mapping[str, Value]) -> dict[str, object]:
    """Return the metadata that were put: the fields, and the content of `metadata_json`."""
    found: dict[str, object] = {name: value for name, value in metadata.items() if name != METADATA_JSON}
    packed = metadata.get(METADATA_JSON)
    return found | (json.loads(packed) if isinstance(packed, str) else {})


def title_of(metadata: Mapping[str, object]) -> str:
    """Return the title that a framework's document has in its metadata; '' without one."""
    title = metadata.get("title")
    return title if isinstance(title, str) else ""


def whole_document(passages: Sequence[Passage]) -> Document:
    """Return the document of these passages, which are in order; its text is theirs, joined by newlines."""
    first = passages[0]
    text = "\n".join(passage.text for passage in passages)
    return Document(first.document_id, first.title, text, first.metadata)


def _refusals(path: Path) -> dict[str, str]:
    return {str(letter["id"]): str(letter["message"]) for letter in read_letters(path)}


def packed_document(document: Document, schema: MetadataSchema) -> Document:
    """Return the document with all metadata that no field can hold in `metadata_json`.

    Raises:
        MetadataError: If a value does not fit its field.
    """
    typed: dict[str, Value] = {}
    rest: dict[str, object] = {}
    for name, value in document.metadata.items():
        if name in schema.fields and name != METADATA_JSON and value is not None and value != []:
            typed[name] = value
        else:
            rest[name] = value
    try:
        schema.check(typed)
        if rest and METADATA_JSON in schema.fields:
            typed[METADATA_JSON] = json.dumps(rest)
        elif unknown := [name for name, value in rest.items() if value is not None and value != []]:
            raise MetadataError(
                f"metadata {', '.join(unknown)} has no field in the index (fields: {', '.join(schema.fields)}): add it, "
                f"or {METADATA_JSON} of type string for all that has none"
            )
    except (MetadataError, TypeError, ValueError) as error:
        raise MetadataError(f"document {document.id!r}: {error}") from None
    return replace(document, metadata=typed)


def _inferred(documents: Iterable[Document]) -> MetadataSchema:
    """Infer fields from metadata whose type and name Vespa supports, so that the index can be copied there.

    Raises: MetadataError where a field has values of two types.
    """
    found, unfit = SchemaInference(), {METADATA_JSON}
    fields: list[tuple[str, str, object]] = [(d.id, name, value) for d in documents for name, value in d.metadata.items()]
    for _, name, value in fields:
        try:
            SchemaInference().add("", {name: value})
        except MetadataError:
            unfit.add(name)
        if field_fault(name):
            unfit.add(name)
    for id_, name, value in fields:
        if name not in unfit and name not in OWN_FIELDS:
            found.add(id_, {name: value})
    return found.schema()
