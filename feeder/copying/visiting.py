"""A Vespa application as a place with stored documents: a visit over document/v1.

A visit comes in no order that means anything, so it asks for first passages, and the others of each document are fetched by
their ids: a document is whole, and memory does not grow. In layout `chunks` a document of Vespa is whole already.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from feeder.copying.stored import END, Batch, Kept, StoredDocument, stored_document
from feeder.sending.retrying import insistent
from feeder.targets.vespa_stored import StoredRows
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import VespaRefused
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.thresholds import plain_thresholds
from vespa_app.application import Application, bundle_books
from vespa_app.http import answer_json, connect, mapped_errors
from vespa_app.layouts import document_path, documents_path
from vespa_app.stored import StoredPassage, stored_field_set, stored_passages

__all__ = ["VespaStored", "kept_by_vespa"]

PAGE = 256  # documents of an answer
FETCHERS = 8
TIMEOUT_S = 120
FIRST = 'id.specific = "*#0"'  # Vespa's selection language: a glob


class VespaStored:
    """sleep: seconds, between attempts."""

    def __init__(self, application: Application, bundle: Bundle, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises: BundleError where the bundle lacks a codebook that the application needs."""
        self.bundle, self._application, self._settings = bundle, application, application.settings
        self.name = f"{application.url}#{self._settings.schema}"
        self.counted = self._settings.layout != "chunks"
        self.kept = kept_by_vespa(application, bundle)
        self._books = application.books(bundle)
        self._sleep = sleep
        self._client = connect(application.url, timeout=TIMEOUT_S + 5, connections=FETCHERS + 1)
        self._rows = StoredRows(application, sleep=sleep)
        self._pool = ThreadPoolExecutor(FETCHERS + 1)

    @property
    def version(self) -> str:
        return self._application.digest_basis(self.bundle)

    @property
    def schema(self) -> MetadataSchema:
        return self._settings.metadata

    @property
    def storage(self) -> Storage:
        """float32 holds bfloat16, too, and bits that are cut elsewhere than a local index cuts them."""
        if self._settings.codec == "residual":
            return Storage("residual", self._settings.residual_bits)
        here = bundle_books(self.bundle, codebook=False).thresholds or plain_thresholds(self._settings.dim)
        return Storage("binary" if self.kept.key == f"binary {here.sha256}" else "float32")

    @property
    def codebook(self) -> Codebook | None:
        return self._books.codebook if self._settings.codec == "residual" else None

    def size(self) -> int:
        return self._rows.count()

    def batches(self, resume: str) -> Iterator[Batch]:
        """Places are Vespa's continuation tokens. The next answer is on its way while one is worked on."""
        if resume == END:
            return
        coming: Future[Mapping[str, Any]] = self._pool.submit(self._visit, resume)
        while True:
            answer = coming.result()
            following = str(answer.get("continuation", ""))
            if following:
                coming = self._pool.submit(self._visit, following)
            documents = self._documents([item["fields"] for item in answer.get("documents", ())])
            yield Batch(documents, following or END)
            if not following:
                return

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()
        self._rows.close()

    def _visit(self, continuation: str) -> Mapping[str, Any]:
        parameters = {"wantedDocumentCount": str(PAGE), "timeout": f"{TIMEOUT_S}s", "concurrency": "4"}
        parameters |= {"selection": FIRST} if self.counted else {}
        parameters |= {"continuation": continuation} if continuation else {}
        return self._asked(documents_path(self._settings), parameters) or {}

    def _asked(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The answer; None where there is no such document."""
        query = {**parameters, "fieldSet": stored_field_set(self._settings), "format.tensors": "hex"}

        def ask() -> Mapping[str, Any] | None:
            with mapped_errors(self._application.url):
                response = self._client.get(path, params=query)
            return None if response.status_code == httpx.codes.NOT_FOUND else answer_json(response)

        return insistent(ask, self._sleep, random.Random())

    def _documents(self, found: Sequence[Mapping[str, Any]]) -> list[StoredDocument]:
        if not self.counted:
            whole = [stored_passages(fields, self._settings, self._books) for fields in found]
        else:
            whole = self._with_others([stored_passages(fields, self._settings, self._books)[0] for fields in found])
        return [
            stored_document(
                [item.passage for item in items], [item.vectors for item in items],
                [item.packed for item in items if item.packed is not None], counted=self.counted,
            )
            for items in whole if items
        ]  # fmt: skip

    def _with_others(self, firsts: Sequence[StoredPassage]) -> list[list[StoredPassage]]:
        """All passages of each document, of which the first is there."""
        unsure = [item.passage.document_id for item in firsts if _count(item.passage) is None]
        rows = self._rows.of(unsure) if unsure else {}
        wanted: list[list[str]] = []
        for item in firsts:
            id_, count = item.passage.document_id, _count(item.passage)
            ids = [row.passage_id for row in rows.get(id_, ())] if count is None else _ids(id_, count)
            wanted.append([other for other in ids if other != item.passage.id])
        coming = [
            [self._pool.submit(self._fetch, other, item.passage) for other in ids]
            for item, ids in zip(firsts, wanted, strict=True)
        ]
        found = []
        for item, others in zip(firsts, coming, strict=True):
            fetched = [one for other in others if (one := other.result()) is not None]
            found.append([item, *sorted(fetched, key=lambda one: _place(one.passage))])
        return found

    def _fetch(self, passage_id: str, first: Passage) -> StoredPassage | None:
        answer = self._asked(document_path(self._settings, passage_id, first.metadata), {})
        return None if answer is None else stored_passages(answer["fields"], self._settings, self._books)[0]


def _count(first: Passage) -> int | None:
    """How many passages the digest says that there are."""
    count = first.digest.partition("-")[2]
    return int(count) if count.isdecimal() else None


def _ids(document_id: str, count: int) -> list[str]:
    return [Passage.id_of(document_id, number) for number in range(count)]


def _place(passage: Passage) -> int:
    number = passage.id.rpartition("#")[2]
    if not number.isdecimal():
        raise VespaRefused(f"passage {passage.id!r} has no number: it was not fed by the feeder")
    return int(number)


def kept_by_vespa(application: Application, bundle: Bundle) -> Kept:
    settings = application.settings
    if settings.encoding == "embedder":
        return Kept(json.dumps(["embedder", settings.codec, settings.precision]), f"{settings.codec}, made by Vespa's embedder")
    if settings.codec == "float32":
        return Kept.as_encoded()
    books = application.books(bundle)
    if settings.codec == "binary":
        return Kept(f"binary {(books.thresholds or plain_thresholds(settings.dim)).sha256}", "binary")
    if settings.codec == "residual":
        assert books.codebook is not None
        return Kept(f"residual {books.codebook.sha256}", f"residual, {settings.residual_bits} bits")
    return Kept(settings.codec, settings.codec)
