"""A Vespa application as a place with stored documents: a visit over document/v1.

A visit has no useful order, so it requests first passages, and the others of each document are fetched by their ids:
documents are complete, and memory does not grow. In layout `chunks` one Vespa document is a whole document.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from feeder.copying.source import END, Batch, stored_document
from feeder.sending.retrying import insistent
from feeder.targets import EncodedDocument
from feeder.targets.stored_rows import StoredRows
from feeder.targets.vespa import kept_by_vespa
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import VespaBusy, VespaRefused
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.thresholds import plain_thresholds
from vespa_app.codecs import bundle_codebooks
from vespa_app.running import Application
from vespa_app.running.http import answer_json, connect, error_text, mapped_errors
from vespa_app.running.layouts import document_path, documents_path
from vespa_app.running.stored import StoredPassage, stored_field_set, stored_passages

__all__ = ["VespaSource"]

PAGE, FIRST_PAGE = 256, 16  # most documents of an answer; the second is for the first answer, before their size is known
BATCH_BYTES = 32 << 20  # bytes of vectors that are fetched and handed on at a time: at least one document
FETCHERS = 8
TIMEOUT_S = 120
FIRST = 'id.specific = "*#0"'  # Vespa's selection language: a glob


class VespaSource:
    """A Vespa application as a source. sleep: waits for seconds between attempts."""

    def __init__(self, application: Application, bundle: Bundle, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Open the application.

        Raises:
            BundleError: if the bundle lacks a codebook that the application needs.
        """
        self.bundle, self._application, self._settings = bundle, application, application.settings
        self.name = self.place = f"{application.url}#{self._settings.schema}"
        self.counted = self._settings.layout != "chunks"
        self.kept = kept_by_vespa(application, bundle)
        self._books = application.books(bundle)
        self._sleep = sleep
        self._client = connect(application.url, timeout=TIMEOUT_S + 5, connections=FETCHERS + 1)
        self._rows = StoredRows(application, sleep=sleep)
        self._pool = ThreadPoolExecutor(FETCHERS + 1)
        self._page = min(PAGE, FIRST_PAGE)

    @property
    def version(self) -> str:
        """Return the identity of the application's settings."""
        return self._application.digest_basis(self.bundle)

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._settings.metadata

    @property
    def storage(self) -> Storage:
        """Return the storage: float32 also holds bfloat16, and bits cut at thresholds that a local index does not have."""
        if self._settings.codec == "residual":
            return Storage("residual", self._settings.residual_bits)
        here = bundle_codebooks(self.bundle, codebook=False).thresholds or plain_thresholds(self._settings.dim)
        return Storage("binary" if self.kept.key == f"binary {here.sha256}" else "float32")

    @property
    def codebook(self) -> Codebook | None:
        """Return the codebook of packed rows; None if they are not packed."""
        return self._books.residual if self._settings.codec == "residual" else None

    def size(self) -> int:
        """Return the number of passages or documents."""
        return self._rows.count()

    def batches(self, resume: str) -> Iterator[Batch]:
        """Yield documents; places are Vespa's continuation tokens.

        Within an answer a place is `DONE:PAGE:TOKEN`: how many of its documents, in order of their ids, were handed on, and
        how many were requested. The next answer is requested while one is processed.
        """
        if resume == END:
            return
        *begun, token = resume.split(":")
        done, page = (int(number) for number in begun) if begun else (0, self._page)
        coming: Future[Mapping[str, Any]] = self._pool.submit(self._visit, token, page)
        while True:
            answer = coming.result()
            following, following_page = str(answer.get("continuation", "")), self._page
            if following:
                coming = self._pool.submit(self._visit, following, following_page)
            found = [item["fields"] for item in answer.get("documents", ())]
            found.sort(key=lambda fields: str(fields.get("document_id", "")))
            for documents, count in self._cut(found[done:]):
                done += count
                yield Batch(documents, f"{done}:{page}:{token}" if done < len(found) else following or END)
            if done == len(found) == 0:
                yield Batch([], following or END)
            if not following:
                return
            token, done, page = following, 0, following_page

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()
        self._rows.close()

    def _visit(self, continuation: str, page: int) -> Mapping[str, Any]:
        parameters = {"wantedDocumentCount": str(page), "timeout": f"{TIMEOUT_S}s", "concurrency": "4"}
        parameters |= {"selection": FIRST} if self.counted else {}
        parameters |= {"continuation": continuation} if continuation else {}
        answer = self._asked(documents_path(self._settings), parameters)
        if answer is None:
            raise VespaRefused(
                f"{self._application.url} has no documents of {self._settings.schema} to visit; check that it is deployed"
            )
        return answer

    def _asked(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Return the answer; None if there is no such document."""
        query = {**parameters, "fieldSet": stored_field_set(self._settings), "format.tensors": "hex"}

        def ask() -> Mapping[str, Any] | None:
            with mapped_errors(self._application.url):
                response = self._client.get(path, params=query)
            if response.status_code == httpx.codes.NOT_FOUND and _names_document(response):
                return None
            answer = answer_json(response)
            if "message" in answer:  # an answer cut short by an error in Vespa looks like the end
                raise VespaBusy(
                    f"{self._application.url} cannot return all documents: {error_text(answer)}", response.status_code
                )
            return answer

        return insistent(ask, self._sleep, random.Random())

    def _cut(self, found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[EncodedDocument], int]]:
        """Yield whole documents of a visit, about BATCH_BYTES of vectors at a time, and how many of `found`."""
        whole = [stored_passages(fields, self._settings, self._books) for fields in found]
        others = self._others([items[0].passage for items in whole]) if self.counted else [[] for _ in whole]
        sizes = [sum(item.vectors.nbytes for item in items) * (1 + len(ids)) for items, ids in zip(whole, others, strict=True)]
        self._page = max(1, min(PAGE, BATCH_BYTES * len(sizes) // max(1, sum(sizes)))) if sizes else self._page
        first = 0
        while first < len(found):
            last, size = first + 1, sizes[first]
            while last < len(found) and size + sizes[last] <= BATCH_BYTES:
                size += sizes[last]
                last += 1
            yield self._documents(whole[first:last], others[first:last]), last - first
            first = last

    def _documents(self, whole: Sequence[list[StoredPassage]], others: Sequence[Sequence[str]]) -> list[EncodedDocument]:
        """Return each document from what was found and the passages of the ids `others`."""
        coming = [
            [self._pool.submit(self._fetch, other, items[0].passage) for other in ids]
            for items, ids in zip(whole, others, strict=True)
        ]
        found = []
        for items, fetched in zip(whole, coming, strict=True):
            further = [one for other in fetched if (one := other.result()) is not None]
            if not (passages := [*items, *sorted(further, key=lambda one: _place(one.passage))]):
                continue
            packed = [item.packed for item in passages if item.packed is not None]
            vectors = [item.vectors for item in passages]
            dense = [item.dense for item in passages] if self._settings.dense else []
            stored = [item.passage for item in passages]
            found.append(stored_document(stored, vectors, packed, counted=self.counted, dense=dense))
        return found

    def _others(self, firsts: Sequence[Passage]) -> list[list[str]]:
        """Return the ids of each document's other passages, given its first."""
        unsure = [first.document_id for first in firsts if _count(first) is None]
        rows = self._rows.of(unsure) if unsure else {}
        wanted: list[list[str]] = []
        for first in firsts:
            count = _count(first)
            stored = [row.passage_id for row in rows.get(first.document_id, ())]
            ids = stored if count is None else _ids(first.document_id, count)
            wanted.append([other for other in ids if other != first.id])
        return wanted

    def _fetch(self, passage_id: str, first: Passage) -> StoredPassage | None:
        answer = self._asked(document_path(self._settings, passage_id, first.metadata), {})
        return None if answer is None else stored_passages(answer["fields"], self._settings, self._books)[0]


def _names_document(response: httpx.Response) -> bool:
    """Tell whether document/v1 has answered, and not a proxy in between."""
    try:
        body = json.loads(response.content)
    except ValueError:
        return False
    return isinstance(body, dict) and "id" in body


def _count(first: Passage) -> int | None:
    """Return the number of passages in the digest."""
    count = first.digest.partition("-")[2]
    return int(count) if count.isdecimal() else None


def _ids(document_id: str, count: int) -> list[str]:
    return [Passage.id_of(document_id, number) for number in range(count)]


def _place(passage: Passage) -> int:
    number = passage.id.rpartition("#")[2]
    if not number.isdecimal():
        raise VespaRefused(f"passage {passage.id!r} has no number, so it was not fed by colbert-vespa; feed or delete it")
    return int(number)
