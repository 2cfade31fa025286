"""Add documents to an index and delete them, by the feeder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.rag.checks import checked_ids, checked_metadatas, checked_texts
from colbert_vespa.rag.corpus import CorpusProcessor, ModelSplitter, Preprocessing, Splitter, sentence_splitter
from colbert_vespa.rag.index_locations import check_replaceable, is_colbert_ai
from feeder import FeedOptions, FeedSummary, Splitting, start_feed
from feeder.encoding.passages import MARK
from feeder.feeding.dead_letters import read_letters
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.devices import AUTO, Device
from late_interaction.documents import Document
from late_interaction.errors import ArgumentError, CollectionError, LocalIndexError
from late_interaction.files import is_there, replace_folder
from late_interaction.plaid import open_index
from late_interaction.plaid.shards.layout import is_index_folder
from late_interaction.tokenizing import Tokenizing

__all__ = ["OVERWRITE", "add_documents", "build_index", "delete_documents", "made_documents"]

OVERWRITE = (True, False, "reuse", "resume", "force_silent_overwrite")


def made_documents(
    collection: Sequence[str],
    document_ids: Sequence[str] | None,
    document_metadatas: Sequence[Mapping[str, Any] | None] | None,
    *,
    splitter: Splitter | None,
    preprocessing: Preprocessing | Sequence[Preprocessing] | None,
    bundle: Bundle,
    length: int,
) -> list[Document]:
    """Make documents whose passages are marked in their texts.

    Args:
        collection: Texts of the documents.
        document_ids: Id of each document; None for new ones.
        document_metadatas: Metadata of each document.
        splitter: Splits the documents; None for one passage each.
        preprocessing: One function or several, applied in order to the passages.
        bundle: Bundle of the model.
        length: Tokens of a passage, at most.

    Raises:
        ArgumentError: If an argument is not valid.
    """
    texts = checked_texts(collection, "collection")
    ids = checked_ids(document_ids, len(texts))
    metadatas = checked_metadatas(document_metadatas, len(texts))
    if splitter is sentence_splitter:
        splitter = ModelSplitter(Tokenizing(bundle))
    pieces = CorpusProcessor(splitter, preprocessing).process_corpus(texts, ids, length)
    parts: dict[str, list[str]] = {id_: [] for id_ in ids}
    for piece in pieces:
        parts[piece["document_id"]].append(piece["content"].replace(MARK, " "))
    return [Document(id_, "", MARK.join(parts[id_]), meta or {}) for id_, meta in zip(ids, metadatas, strict=True)]


def build_index(
    path: Path, documents: Sequence[Document], bundle: Bundle, overwrite: bool | str, *, named: bool, device: Device
) -> None:
    """Build a local index of documents.

    Args:
        path: Folder of the index.
        documents: Documents to index.
        bundle: Bundle of the model.
        overwrite: As for `RAGPretrainedModel.index`. A replaced index stays until the new one is complete. An index written by
            RAGatouille is never replaced: it may be the only copy.
        named: Whether the ids come from the user and so stay the same in the next run.
        device: Device of the model.

    Raises:
        ArgumentError: If `overwrite` is 'resume' and the ids are not the user's.
        LocalIndexError: If the index exists and may not be replaced, or cannot be written.
        MetadataError: If a metadata value does not fit its field.
        CollectionError: If a document is not valid.
    """
    if is_colbert_ai(path) and overwrite != "reuse":
        raise LocalIndexError(f"{path} was written by RAGatouille and is not replaced; choose another index_name, or remove it")
    if overwrite == "reuse" and is_there(path):
        if not is_colbert_ai(path):  # such an index is imported when it is searched
            open_index(path)
        return
    if overwrite == "resume":
        if not named:
            raise ArgumentError("overwrite_index='resume' needs document_ids, to know which documents are there already")
        _fed(documents, str(path), bundle, resume=True, device=device)
        return
    if overwrite in (False, "reuse") and is_there(path):
        raise LocalIndexError(f"{path} exists; choose another index_name, or use overwrite_index=True to replace it")
    check_replaceable(path)
    try:
        with replace_folder(path, owned=is_index_folder) as staging:
            _fed(documents, str(staging), bundle, device=device)
    except OSError as error:
        raise LocalIndexError(f"cannot create {path}: {error}") from None
    register_bundle(open_index(path).bundle)  # the feed registered it where it was built


def add_documents(
    address: str, documents: Sequence[Document], bundle: Bundle | None, *, remote: bool, device: Device
) -> FeedSummary:
    """Put documents into an existing index; a local index gets the metadata fields that it lacks.

    Raises:
        LocalIndexError: If the index is damaged or cannot be written.
        MetadataError: If a value does not fit its field.
        VespaError: If Vespa does not answer or refuses documents.
        CollectionError: If a document is not valid.
    """
    return _fed(documents, address, bundle, add_fields=not remote, device=device)


def delete_documents(address: str, ids: Sequence[str], bundle: Bundle | None) -> FeedSummary:
    """Delete documents by id.

    Raises:
        LocalIndexError: If the index is damaged or cannot be written.
        VespaError: If Vespa does not answer.
    """
    return _fed([Document(id_) for id_ in ids], address, bundle, operation="delete")


def _fed(
    documents: Sequence[Document],
    address: str,
    bundle: Bundle | None,
    *,
    operation: str = "put",
    resume: bool = False,
    add_fields: bool = False,
    device: Device = AUTO,
) -> FeedSummary:
    """Feed documents; CollectionError if one is rejected, KeyboardInterrupt after Ctrl-C once sent documents have arrived."""
    scratch = Path(tempfile.mkdtemp(prefix="colbert-vespa-"))
    try:
        options = FeedOptions(
            to=address, journal=scratch / "journal", bundle=bundle, operation=operation, resume=resume,
            splitting=Splitting("marked"), add_fields=add_fields, device=device,
        )  # fmt: skip
        with start_feed([documents], options) as run:
            summary = run.go()
        if summary.outcome == "interrupted":
            raise KeyboardInterrupt
        if summary.dead_lettered:
            first = next(read_letters(options.dead_letter_path))
            raise CollectionError(
                f"{summary.dead_lettered} of {summary.documents} documents were refused by {address}, "
                f"the first: {first['id']!r}: {first['message']}"
            )
        return summary
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
