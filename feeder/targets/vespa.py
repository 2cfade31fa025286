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

from feeder.targets import EncodedDocument, Failure, Finished
from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
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

    @property
    def schema(self) -> MetadataSchema:
        return self._application.settings.metadata

    @property
    def needs_vectors(self) -> bool:
        return self._application.settings.encoding == "client"

    def durable(self, acknowledged: Mapping[str, str]) -> Mapping[str, str]:
        return acknowledged

    def put(self, batch: Sequence[EncodedDocument]) -> list[Failure]:
        passages, vectors = [item.passage for item in batch], [item.vectors for item in batch]
        fields = self._application.batch_fields(passages, vectors, self.bundle)
        return [failure for failure in self._pool.map(self._put_one, batch, fields) if failure is not None]

    def delete(self, document_ids: Sequence[str]) -> list[Failure]:
        return [failure for failure in self._pool.map(self._delete_one, document_ids) if failure is not None]

    def finish(self) -> Finished:
        return Finished()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _put_one(self, item: EncodedDocument, fields: Mapping[str, object]) -> Failure | None:
        body = json.dumps({"fields": fields}, separators=(",", ":")).encode()
        try:
            path = document_path(self._application.settings, item.passage.id, item.passage.metadata)
        except MetadataError as error:
            return Failure(item.document.id, 0, str(error))
        return self._send("POST", item.document.id, path, body)

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
