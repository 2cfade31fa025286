"""Ids, texts and metadata of an imported index: from the files beside it, or from the user's documents."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction.array_types import Mask
from late_interaction.documents import Document
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.imports.databases import metadata_rows
from late_interaction.plaid.imports.json_lists import iterate_texts
from late_interaction.plaid.imports.peer import Peer, read_json
from late_interaction.plaid.imports.pylate_ids import pylate_ids

__all__ = ["TsvCollection", "documents_of", "with_documents"]


def documents_of(peer: Peer) -> Iterable[Document]:
    """Return the document of each living passage, in order, from the peer's own files.

    If these have no ids, the id is the passage's number. The result can be iterated more than once. Tables of ids and
    RAGatouille's metadata are read whole; texts are not.

    Raises:
        LocalIndexError: if a file is damaged or describes another number of passages.
    """
    folder, living = peer.folder, peer.living
    if (folder / "pid_docid_map.json").is_file() or (folder / "collection.json").is_file():
        return _Ragatouille(folder, living)
    ids = pylate_ids(folder)
    numbers = np.flatnonzero(living).tolist()
    if ids is not None and sorted(ids) != numbers:
        raise LocalIndexError(
            f"{folder} is damaged: PyLate's table has {len(ids)} ids, but the index has {len(numbers)} passages"
        )
    names = [str(number) if ids is None else ids[number] for number in numbers]
    return _Named(names, numbers, folder / "metadata.db")


def with_documents(peer: Peer, documents: Iterable[Document]) -> Iterable[Document]:
    """Return `documents`, one for each passage of the peer in its order.

    Documents of passages that the peer has removed may be present or left out.

    Raises:
        LocalIndexError: if there are more or fewer.
    """
    documents = list(documents) if isinstance(documents, Iterator) else documents
    return _Living(documents, peer.living, f"{peer.folder}: the documents given")


class TsvCollection:
    """Documents of ColBERT's TSV: number, text and optional title; line i is passage i.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            LocalIndexError: if a line has fewer than two columns, or a number other than its place; the message names the
                line.
        """
        try:
            with self._path.open(encoding="utf-8-sig", newline="\n") as file:
                for number, line in enumerate(file):
                    parts = line.rstrip("\r\n").split("\t")
                    if len(parts) < 2 or parts[0] not in (str(number), "id"):
                        raise LocalIndexError(f"{self._path}:{number + 1}: expected {number}, a tab and the passage's text")
                    yield Document(str(number), parts[2] if len(parts) > 2 else "", parts[1])
        except (OSError, UnicodeDecodeError) as error:
            raise LocalIndexError(f"{self._path} cannot be read ({error})") from None


class _Named:
    def __init__(self, names: list[str], numbers: list[int], metadata: Path) -> None:
        self._names, self._numbers, self._metadata = names, numbers, metadata

    def __iter__(self) -> Iterator[Document]:
        rows = metadata_rows(self._metadata) if self._metadata.is_file() else iter(())
        row = next(rows, None)
        for name, number in zip(self._names, self._numbers, strict=True):
            while row is not None and row[0] < number:
                row = next(rows, None)
            yield Document(name, metadata=row[1] if row is not None and row[0] == number else {})


class _Living:
    """Items of a list that covers all passages, or only the living ones."""

    def __init__(self, documents: Iterable[Document], living: Mask, where: str) -> None:
        self._documents = documents
        count, wanted = sum(1 for _ in documents), int(living.sum())
        if count not in (wanted, len(living)):
            raise LocalIndexError(f"{where} number {count}, but there are {wanted} passages")
        self._chosen = living.tolist() if count != wanted else None

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents) if self._chosen is None else itertools.compress(self._documents, self._chosen)


class _Ragatouille:
    """RAGatouille's own files.

    `delete_from_index` closes up the collection and leaves gaps in the numbers of `pid_docid_map.json`; `add_to_index`
    continues from the highest number left. So the k-th living passage has the k-th number of the map and the k-th text.
    """

    def __init__(self, folder: Path, living: Mask) -> None:
        self._collection = folder / "collection.json"
        path = folder / "pid_docid_map.json"
        numbers = np.flatnonzero(living).tolist()
        ids = read_json(path, dict) if path.is_file() else {str(number): str(number) for number in numbers}
        if not all(pid.isdecimal() and isinstance(id_, (str, int)) and str(id_) for pid, id_ in ids.items()):
            raise LocalIndexError(f"{path} is damaged: it is not a map from numbers to document ids")
        self._names = [str(ids[pid]) for pid in sorted(ids, key=int)]
        if len(self._names) != len(numbers):
            raise LocalIndexError(f"{path} has {len(self._names)} passages, but the index has {len(numbers)}")
        self._metadata: dict[str, Any] = {}
        if (about := folder / "docid_metadata_map.json").is_file():
            self._metadata = read_json(about, dict)
            if not all(value is None or isinstance(value, dict) for value in self._metadata.values()):
                raise LocalIndexError(f"{about} is damaged: a document's metadata is not an object")
        texts = sum(1 for _ in iterate_texts(self._collection))
        if texts not in (len(self._names), len(living)):
            raise LocalIndexError(f"{self._collection} has {texts} passages, but the index has {len(self._names)}")
        self._chosen = living.tolist() if texts != len(self._names) else None

    def __iter__(self) -> Iterator[Document]:
        texts = iterate_texts(self._collection)
        chosen = texts if self._chosen is None else itertools.compress(texts, self._chosen)
        for name, text in zip(self._names, chosen, strict=True):
            yield Document(name, text=text, metadata=self._metadata.get(name) or {})
