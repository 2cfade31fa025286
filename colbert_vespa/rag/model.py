"""`RAGPretrainedModel`, with RAGatouille's methods, parameters, defaults and result keys."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.rag.building import OVERWRITE, add_documents, build_index, delete_documents, made_documents
from colbert_vespa.rag.checkpoints import bundle_of, with_document_length
from colbert_vespa.rag.checks import checked_count, checked_length, checked_metadatas, checked_texts, listed, listed_queries
from colbert_vespa.rag.corpus import Preprocessing, Splitter, sentence_splitter
from colbert_vespa.rag.index_locations import IndexLocation, listed_versions
from colbert_vespa.rag.memory import EncodedDocuments
from colbert_vespa.rag.results import Result, flat_if_one, of_hit, of_text
from late_interaction.addresses import VespaUrl, locate, vespa_url
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO as AUTO_DEVICE
from late_interaction.devices import CPU, Device, check_device
from late_interaction.encoder import check_finite
from late_interaction.errors import ArgumentError, UsageError
from late_interaction.plaid import open_index
from query import Client, ClientSettings

__all__ = ["RAGPretrainedModel"]

AUTO = "auto"
Results = list[Result] | list[list[Result]]
Metadatas = Sequence[Mapping[str, Any] | None]
logger = logging.getLogger("colbert_vespa.rag")


class RAGPretrainedModel:
    """A model with its indexes, which are in a folder, one under each name, or in a Vespa application.

    Create one with `from_pretrained` or `from_index`. Calls without an index name use the index that was named last.

    Some arguments are accepted for compatibility with RAGatouille and have no effect: `bsize` (batches are made by length),
    `use_faiss`, `force` of `clear_encoded_docs`, `verbose` of `encode`.
    """

    def __init__(
        self,
        bundle: Bundle,
        location: IndexLocation,
        *,
        name: str | None,
        default_name: str,
        verbose: int,
        device: Device = AUTO_DEVICE,
    ) -> None:
        self._bundle = bundle
        self._device = device
        self._location = location
        self._name = name
        self._default_name = default_name
        self._verbose = verbose
        self._version: tuple[str, int | str] | None = None  # of one index, which was opened at it
        self._clients: dict[tuple[str, ...], Client] = {}
        self._models: dict[int, Client] = {}  # by tokens of a document; without an index
        self._encoded: EncodedDocuments | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        n_gpu: int = -1,
        verbose: int = 1,
        index_root: str | None = None,
        *,
        address: str | None = None,
        device: str | None = None,
    ) -> RAGPretrainedModel:
        """Open a checkpoint folder, a hub name, or a bundle. A checkpoint is exported once, into the user's cache.

        Args:
            pretrained_model_name_or_path: Checkpoint folder, hub name, or folder of a bundle.
            n_gpu: 0 for the CPU.
            verbose: 0 for no messages to the logger `colbert_vespa.rag`.
            index_root: Folder of the indexes; default: `.ragatouille/`.
            address: `http(s)://host:port` of a deployed Vespa application, whose index is then used; `#NAME` for one of
                several.
            device: Device of the model instead of `n_gpu`, as for `Client`.

        Raises:
            BundleError: If the bundle is damaged.
            CheckpointError: If the checkpoint cannot be loaded or exported.
            MissingDependency: If an extra is not installed.
            UsageError: If an argument is not valid.
        """
        on = _device(device, n_gpu)
        bundle = bundle_of(pretrained_model_name_or_path, _sayer(verbose))
        default = f"{Path(pretrained_model_name_or_path).name}_new_index"
        if address is None:
            location = IndexLocation.under(index_root)
            return cls(bundle, location, name=None, default_name=default, verbose=verbose, device=on)
        url = vespa_url(address, "address")
        return cls(bundle, IndexLocation(url), name=url.index, default_name=url.index, verbose=verbose, device=on)

    @classmethod
    def from_index(
        cls,
        index_path: str | Path,
        n_gpu: int = -1,
        verbose: int = 1,
        *,
        version: int | str | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
    ) -> RAGPretrainedModel:
        """Open an index and the model it was made with.

        An index written by RAGatouille or colbert-ai is imported, bit by bit, into NAME.imported beside it.

        Args:
            index_path: Folder of the index, or `http(s)://host:port` of a deployed Vespa application whose bundle is known on
                this machine.
            n_gpu: As for `from_pretrained`.
            verbose: As for `from_pretrained`.
            version: An older version of a local index, by number or name, for reading.
            checkpoint: Checkpoint of RAGatouille's index, if the one named by the index is not available.
            device: As for `from_pretrained`.

        Returns:
            The model, with the index as the one that calls without a name use.

        Raises:
            LocalIndexError: If the index is missing or damaged.
            BundleError: If the bundle is damaged.
            CheckpointError: If the checkpoint cannot be loaded.
            MetadataError: If the imported metadata are not valid.
            VespaError: If the application does not answer.
            UsageError: If an argument is not valid.
        """
        say, on = _sayer(verbose), _device(device, n_gpu)
        place = locate(index_path, "index_path")
        if isinstance(place, VespaUrl):
            if version is not None:
                raise UsageError("only local indexes have versions, not Vespa")
            with Client(index_path) as client:
                bundle = client.bundle
            return cls(bundle, IndexLocation(place), name=place.index, default_name=place.index, verbose=verbose, device=on)
        path = place.absolute()
        opened = IndexLocation(path.parent).opened(path.name, None if checkpoint is None else bundle_of(checkpoint, say), say)
        model = cls(
            open_index(opened).bundle, IndexLocation(path.parent), name=path.name, default_name=path.name, verbose=verbose,
            device=on,
        )  # fmt: skip
        if version is not None:
            open_index(opened, version=version)
            model._version = path.name, version
        return model

    def index(
        self,
        collection: Sequence[str],
        document_ids: Sequence[str] | None = None,
        document_metadatas: Metadatas | None = None,
        index_name: str | None = None,
        overwrite_index: bool | str = True,
        max_document_length: int = 256,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = sentence_splitter,
        preprocessing_fn: Preprocessing | Sequence[Preprocessing] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> str:
        """Index documents and return the path of the index, or its address.

        A Vespa application is never emptied: documents with the same ids are replaced.

        Args:
            collection: Texts of the documents.
            document_ids: Id of each document; default: `uuid4`.
            document_metadatas: Metadata of each document. Fields get the types of their values and can be filtered with
                `where`.
            index_name: Name of the index; default: the one named last.
            overwrite_index: True or "force_silent_overwrite" replaces the index when the new one is complete. False raises an
                error if the index exists. "reuse" leaves it unchanged. "resume" continues an interrupted "resume".
            max_document_length: Tokens of a passage, special tokens included; without splitting, documents are cut off there.
                On Vespa no more than the application's bundle reads.
            split_documents: Whether documents are split into passages.
            document_splitter_fn: Splits the documents.
            preprocessing_fn: One function or several, applied in order to the passages.
            bsize: No effect.
            use_faiss: No effect.

        Raises:
            ArgumentError: If an argument is not valid; also a ValueError.
            LocalIndexError: If the index exists and may not be replaced, or cannot be written.
            MetadataError: If a value does not fit its field.
            CollectionError: If a document is not valid.
            VespaError: If Vespa does not answer or refuses documents.
        """
        if overwrite_index not in OVERWRITE:
            raise ArgumentError(f"overwrite_index must be one of {', '.join(map(repr, OVERWRITE))}, got {overwrite_index!r}")
        name = index_name if index_name is not None else (self._name or self._default_name)
        length = checked_length(max_document_length)
        remote, bundle = self._location.remote, with_document_length(self._bundle, length)
        address = self._location.address(name)
        self._check_writable(name)
        if remote:
            bundle = self._bundle
            if overwrite_index is False:
                raise ArgumentError(f"{address} exists; overwrite_index=True adds documents to it, and removes none")
        documents = made_documents(
            collection, document_ids, document_metadatas, splitter=document_splitter_fn if split_documents else None,
            preprocessing=preprocessing_fn, bundle=bundle, length=min(length, bundle.manifest.document.length),
        )  # fmt: skip
        self._say(f"indexing {len(documents)} documents into {address}")
        if not remote:
            build_index(Path(address), documents, bundle, overwrite_index, named=document_ids is not None, device=self._device)
        elif overwrite_index != "reuse":
            add_documents(address, documents, bundle, remote=True, device=self._device)
        self._name = name
        self._forget(name)
        return address

    def add_to_index(
        self,
        new_collection: Sequence[str],
        new_document_ids: Sequence[str] | None = None,
        new_document_metadatas: Metadatas | None = None,
        index_name: str | None = None,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = sentence_splitter,
        preprocessing_fn: Preprocessing | Sequence[Preprocessing] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> None:
        """Add documents, replacing those with the same ids; the next search finds them.

        Passages are as long as those the index was made with.

        Args:
            new_collection: Texts of the documents.
            new_document_ids: Id of each document; default: generated.
            new_document_metadatas: Metadata of each document.
            index_name: Name of the index; default: the one named last.
            split_documents: Whether documents are split into passages.
            document_splitter_fn: Splits the documents.
            preprocessing_fn: One function or several, applied in order to the passages.
            bsize: No effect.
            use_faiss: No effect.

        Raises:
            ArgumentError: If an argument is not valid; also a ValueError.
            UsageError: If there is no index.
            LocalIndexError: If the index is damaged or cannot be written.
            MetadataError: If a metadata value does not fit its field.
            CollectionError: If a document is not valid.
            VespaError: If Vespa does not answer or refuses documents.
        """
        address = self._address(index_name)
        bundle = self._bundle if self._location.remote else open_index(address).bundle
        documents = made_documents(
            new_collection, new_document_ids, new_document_metadatas,
            splitter=document_splitter_fn if split_documents else None, preprocessing=preprocessing_fn,
            bundle=bundle, length=bundle.manifest.document.length,
        )  # fmt: skip
        summary = add_documents(address, documents, bundle, remote=self._location.remote, device=self._device)
        self._remember(index_name)
        blank = f"; {summary.skipped_blank} are blank and were skipped" if summary.skipped_blank else ""
        self._say(f"added {summary.acknowledged} documents to {address}; {summary.already_there} were there already{blank}")

    def delete_from_index(self, document_ids: str | Sequence[str], index_name: str | None = None) -> None:
        """Delete documents; unknown ids change nothing. The next search does not find them.

        Raises:
            UsageError: If there is no index.
            LocalIndexError: If the index is damaged or cannot be written.
            VespaError: If Vespa does not answer.
        """
        address = self._address(index_name)
        summary = delete_documents(address, listed(document_ids), self._bundle if self._location.remote else None)
        absent = f"; {summary.absent} did not exist" if summary.absent else ""
        self._say(f"deleted {summary.acknowledged} documents from {address}{absent}")
        self._remember(index_name)

    def search(
        self,
        query: str | Sequence[str],
        index_name: str | None = None,
        k: int = 10,
        force_fast: bool = False,
        zero_index_ranks: bool = False,
        doc_ids: Sequence[str] | None = None,
        *,
        where: Mapping[str, object] | None = None,
        index_names: Sequence[str] | None = None,
        explain: bool = False,
    ) -> Results:
        """Return the k best passages of each query, best first.

        Args:
            query: One query, or a list of them.
            index_name: Name of the index; default: the one named last.
            k: Number of passages.
            force_fast: Search with the least effort, for this call.
            zero_index_ranks: Count ranks from 0 instead of 1.
            doc_ids: Search only these documents.
            where: Metadata filter, such as `{"year": {"$gte": 2020}}`.
            index_names: Search several indexes at once; each result then has a key index_name.
            explain: Add a key explanation to each result, with the words that matched.

        Returns:
            Dicts with content, score (MaxSim), rank, document_id, passage_id (number of the passage in its document, from 0),
            and document_metadata if the document has any. One query gives a flat list, also as a list of one; several queries
            give a list of lists.

        Raises:
            UsageError: If there is no index, or an argument is out of range.
            FilterError: If `where` does not parse or names an unknown field.
            LocalIndexError: If the index is missing or damaged.
            VespaError: If Vespa does not answer or refuses the query.
        """
        queries = listed_queries(query)
        client = self._client(self._named(index_name, index_names))
        self._remember(index_name)
        results = client.search_many(
            queries, k, where=where, ids=None if doc_ids is None else listed(doc_ids), probes=1 if force_fast else None,
            rerank=k if force_fast else None, explain=explain,
        )  # fmt: skip
        several = index_names is not None
        return flat_if_one([[of_hit(hit, zero=zero_index_ranks, several=several) for hit in r.hits] for r in results])

    def rerank(
        self,
        query: str | Sequence[str],
        documents: Sequence[str],
        k: int = 10,
        zero_index_ranks: bool = False,
        bsize: int | str = AUTO,
        *,
        explain: bool = False,
    ) -> Results:
        """Return the k best of the given documents, or all if there are fewer, best first. No index is needed.

        Documents are read as far as the model can.

        Args:
            query: One query, or a list of them.
            documents: Texts of the documents.
            k: Number of documents.
            zero_index_ranks: Count ranks from 0 instead of 1.
            bsize: No effect.
            explain: Add a key explanation to each result, with the words that matched.

        Returns:
            Dicts with content, score, rank and result_index.

        Raises:
            ArgumentError: If an argument is not valid.
            UsageError: If a query is blank.
        """
        texts = checked_texts(documents, "documents")
        model = self._model(AUTO)
        found = [
            [
                of_text(hit.text, hit.score, hit.rank, int(hit.id), zero=zero_index_ranks, explanation=hit.explanation)
                for hit in model.rerank(each, texts, checked_count(k), explain=explain)
            ]
            for each in listed_queries(query)
        ]
        return flat_if_one(found)

    def encode(
        self,
        documents: Sequence[str],
        bsize: int | str = AUTO,
        document_metadatas: Metadatas | None = None,
        verbose: bool = True,
        max_document_length: int | str = AUTO,
    ) -> None:
        """Encode documents and keep them in memory, together with those of earlier calls.

        Args:
            documents: Texts of the documents.
            bsize: No effect.
            document_metadatas: Metadata of each document.
            verbose: No effect.
            max_document_length: Tokens of a document, at most; "auto" for as many as the model reads.

        Raises:
            ArgumentError: If an argument is not valid.
        """
        texts = checked_texts(documents, "documents")
        metadatas = checked_metadatas(document_metadatas, len(texts), "documents")
        encoder = self._model(max_document_length).encoder
        vectors = encoder.encode_documents(texts)
        check_finite(vectors, encoder.bundle)
        if self._encoded is None:
            self._encoded = EncodedDocuments(self._bundle.manifest.dim)
        self._encoded.add(texts, vectors, metadatas)

    def search_encoded_docs(
        self, query: str | Sequence[str], k: int = 10, bsize: int = 32, *, zero_index_ranks: bool = False
    ) -> Results:
        """Rerank the documents kept by `encode`, as `rerank` does; results have document_metadata if the document has any.

        Raises:
            UsageError: If no documents are kept, or a query is blank.
        """
        kept = self._encoded
        if kept is None:
            raise UsageError("no documents are encoded; call encode(documents) first")
        queries = checked_texts([query] if isinstance(query, str) else query, "query")
        if any(not text.strip() for text in queries):
            raise UsageError("the query is blank")
        found = [
            [
                of_text(kept.texts[place], score, rank, place, zero=zero_index_ranks, metadata=kept.metadatas[place])
                for rank, (place, score) in enumerate(kept.best(Q, checked_count(k)), start=1)
            ]
            for Q in self._model(AUTO).encoder.encode_queries(queries)
        ]
        return flat_if_one(found)

    def clear_encoded_docs(self, force: bool = False) -> None:
        """Forget the documents kept by `encode`, without waiting."""
        self._encoded = None

    def versions(self, index_name: str | None = None) -> list[dict[str, Any]]:
        """Return the kept versions of a local index, oldest first.

        `from_index(path, version=)` opens any of them.

        Args:
            index_name: Name of the index; default: the one named last.

        Returns:
            Dicts with version, name, passages, created and current.

        Raises:
            UsageError: If there is no index, or it is on Vespa.
            LocalIndexError: If the index is missing or damaged.
        """
        if self._location.remote:
            raise UsageError("only local indexes have versions, not Vespa")
        found = listed_versions(self._opened(self._named(index_name, None)[0]))
        self._remember(index_name)
        return found

    def as_langchain_retriever(
        self, *, k: int = 10, index_name: str | None = None, where: Mapping[str, object] | None = None
    ) -> Any:
        """Return a LangChain retriever over an index, `colbert_vespa.langchain.ColbertRetriever`.

        Raises:
            MissingDependency: If LangChain is not installed.
            ColbertVespaError: As for `search`.
        """
        client = self._client(self._named(index_name, None))
        self._remember(index_name)
        return _langchain().ColbertRetriever(client=client, k=k, where=None if where is None else dict(where))

    def as_langchain_document_compressor(self, k: int = 5) -> Any:
        """Return a LangChain document compressor that keeps the k best, `colbert_vespa.langchain.ColbertReranker`.

        Raises:
            MissingDependency: If LangChain is not installed.
        """
        return _langchain().ColbertReranker(client=self._model(AUTO), k=k)

    def close(self) -> None:
        """Close connections, and the processes of an index of shards."""
        for client in (*self._clients.values(), *self._models.values()):
            client.close()
        self._clients.clear()
        self._models.clear()

    def _say(self, text: str) -> None:
        _sayer(self._verbose)(text)

    def _named(self, name: str | None, names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the names of a call's indexes; '' is the first index of an application."""
        if names is not None:
            if name is not None or isinstance(names, str) or not names:
                raise UsageError("index_names must be a list of at least one name, instead of index_name")
            return tuple(names)
        chosen = self._name if name is None else name
        if chosen is None:
            raise UsageError("there is no index yet; build one with index(), choose one with index_name=, or use from_index()")
        return (chosen,)

    def _remember(self, name: str | None) -> None:
        """Remember the name of a successful call, for calls without a name."""
        self._name = self._name if name is None else name

    def _opened(self, name: str) -> str:
        return self._location.opened(name, self._bundle, self._say)

    def _address(self, name: str | None) -> str:
        """Return the address of an existing index that may be changed."""
        (chosen,) = self._named(name, None)
        self._check_writable(chosen)
        return self._opened(chosen)

    def _check_writable(self, name: str) -> None:
        if self._version is not None and self._version[0] == name:
            raise UsageError(f"{name} was opened at version {self._version[1]}, read-only; open it without a version to write")

    def _client(self, names: tuple[str, ...]) -> Client:
        if names not in self._clients:
            version = None
            if self._version is not None and self._version[0] in names:
                if len(names) > 1:
                    raise UsageError(f"{self._version[0]} was opened at version {self._version[1]}; search it separately")
                version = self._version[1]
            addresses = [self._opened(name) for name in names]
            bundle = self._bundle if self._location.remote else None
            self._clients[names] = Client(addresses, bundle, settings=ClientSettings(version=version), device=self._device)
        return self._clients[names]

    def _forget(self, name: str) -> None:
        """Close the clients of a replaced index, so that they are opened again."""
        for names in [names for names in self._clients if name in names]:
            self._clients.pop(names).close()

    def _model(self, length: int | str) -> Client:
        """Return a client without an index that reads so many tokens of a document."""
        most = self._bundle.manifest.max_tokens
        tokens = most if length == AUTO else min(most, checked_length(length))  # type: ignore[arg-type]  # or it raises
        if tokens not in self._models:
            self._models[tokens] = Client([], with_document_length(self._bundle, tokens), device=self._device)
        return self._models[tokens]


def _device(device: str | None, n_gpu: int) -> Device:
    """Return the device: the CPU for RAGatouille's 0 GPUs, any other number means the fastest one."""
    chosen = Device.of(device or (CPU if n_gpu == 0 else AUTO_DEVICE))
    check_device(chosen)
    return chosen


def _sayer(verbose: int) -> Any:
    return logger.info if verbose else logger.debug


def _langchain() -> Any:
    return importlib.import_module("colbert_vespa.langchain")
