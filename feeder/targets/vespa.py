"""A Vespa application as a target: document/v1 over pooled connections, with retries where they are safe.

Retry rules, those of Vespa's own feed client: 429 for ever, 503, 507 and transport errors ten times, anything else not at
all. A put replaces the whole document, so sending it twice is harmless.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from feeder.targets import EncodedDocument, Failure, Finished, Settled, Stored
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.errors import MetadataError, VespaBusy, VespaRefused, VespaUnreachable
from late_interaction.metadata import MetadataSchema
from vespa_app.application import Application
from vespa_app.http import check, connect, mapped_errors
from vespa_app.layouts import document_path, selection_path

__all__ = ["VespaTarget"]

MAX_ATTEMPTS = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


def open_vespa(url: str, bundle: Bundle | None) -> VespaTarget:
    """Raises: VespaError where no application of ours answers, BundleError where its bundle is not known here."""
    application = Application.read(url)
    return VespaTarget(application, application.choose_bundle(bundle))


class VespaTarget:
    """`sleep` (seconds) and `transport` are parameters so that faults can be tested without waiting."""

    def __init__(
        self,
        application: Application,
        bundle: Bundle,
        *,
        connections: int = 8,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = application.url
        self.bundle = bundle
        self._application = application
        self._client = connect(application.url, connections=connections, transport=transport)
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="feed")
        self._sleep = sleep
        self._jitter = random.Random(0)
        self._outcomes: list[Settled] = []

    @property
    def schema(self) -> MetadataSchema:
        return self._application.settings.metadata

    @property
    def needs_vectors(self) -> bool:
        return self._application.settings.encoding == "client"

    def durable(self, acknowledged: Mapping[str, str]) -> Mapping[str, str]:
        return acknowledged

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {}

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        passages = [passage for item in batch for passage in item.passages]
        vectors = [rows for item in batch for rows in item.vectors]
        fields = self._application.batch_fields(passages, vectors, self.bundle)
        failures = list(self._pool.map(self._put_one, passages, fields))
        start = 0
        for item in batch:
            own = failures[start : start + len(item.passages)]
            start += len(item.passages)
            self._outcomes.append(Settled(item.document.id, next((failure for failure in own if failure), None)))

    def update(self, batch: Sequence[Document]) -> None:
        for document in batch:
            body = {name: {"assign": value} for name, value in document.metadata.items()}
            path = document_path(self._application.settings, Passage.id_of(document.id, 0), {})
            failure = self._send("PUT", document.id, path, json.dumps({"fields": body}).encode())
            self._outcomes.append(Settled(document.id, failure))

    def delete(self, document_ids: Sequence[str]) -> None:
        failures = self._pool.map(self._delete_one, document_ids)
        self._outcomes += [Settled(id_, failure) for id_, failure in zip(document_ids, failures, strict=True)]

    def settled(self, *, wait: bool = False) -> list[Settled]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def finish(self) -> Finished:
        return Finished()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _put_one(self, passage: Passage, fields: Mapping[str, object]) -> Failure | None:
        body = json.dumps({"fields": fields}, separators=(",", ":")).encode()
        try:
            path = document_path(self._application.settings, passage.id, passage.metadata)
        except MetadataError as error:
            return Failure(passage.document_id, 0, str(error))
        return self._send("POST", passage.document_id, path, body)

    def _delete_one(self, document_id: str) -> Failure | None:
        settings = self._application.settings
        if settings.mode == "streaming":  # the group is part of the id, and not known here
            return self._send("DELETE", document_id, selection_path(settings, document_id), None)
        return self._send("DELETE", document_id, document_path(settings, Passage.id_of(document_id, 0), {}), None)

    def _send(self, method: str, document_id: str, path: str, body: bytes | None) -> Failure | None:
        attempt = 0
        while True:
            try:
                with mapped_errors(self.name):
                    check(self._client.request(method, path, content=body, headers={"Content-Type": "application/json"}))
                return None
            except VespaRefused as error:
                return Failure(document_id, error.status, str(error))
            except (VespaBusy, VespaUnreachable) as error:
                throttled = error.status == httpx.codes.TOO_MANY_REQUESTS
                attempt += 0 if throttled else 1
                if attempt >= MAX_ATTEMPTS:
                    raise
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10))
                self._sleep(pause * self._jitter.uniform(0.5, 1.5))
