"""GET and POST of JSON, with one deadline for the whole response."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from late_interaction.errors import VespaRefused, VespaTimeout
from vespa_app.running.http import answer_json, connect, mapped_errors

__all__ = ["AT_ONCE", "HttpClient"]

AT_ONCE = 16  # connections to one address

MOST_BYTES = 1 << 26  # metrics of a thousand hosts have some 30 MB


class HttpClient:
    """A client for the status pages of Vespa. Threads may share one; close it after use.

    Args:
        timeout: Seconds for one answer, from the connection to its last byte.
        transport: Replaces the network in tests.
        clock: Replaces the clock in tests.
    """

    def __init__(
        self,
        timeout: float,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout = timeout
        self._transport = transport
        self._clock = clock
        self._clients: dict[str, httpx.Client] = {}  # one costs 50 ms to make
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, url: str) -> httpx.Client:
        with self._lock:
            if url not in self._clients:
                self._clients[url] = connect(url, timeout=self.timeout, connections=AT_ONCE, transport=self._transport)
            return self._clients[url]

    def json(
        self, url: str, path: str, *, parameters: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the answer as a JSON object.

        Raises:
            VespaUnreachable: If the server does not answer.
            VespaTimeout: If the answer is not complete in time.
            VespaBusy: If the server is busy.
            VespaRefused: If the server refuses the request, or the answer is not a JSON object.
            UsageError: If the address is not valid.
        """
        return answer_json(self.get(url, path, parameters=parameters, timeout=timeout))

    def get(
        self,
        url: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Return the whole answer, whatever its status.

        Args:
            url: Address of the server.
            path: Path of the request.
            parameters: Parameters of the query string.
            body: If given, it is posted as JSON.
            timeout: Seconds; None for the client's.

        Raises:
            VespaUnreachable: If the server does not answer.
            VespaTimeout: If the answer is not complete in time.
            VespaRefused: If the answer is not valid or too large.
            UsageError: If the address is not valid.
        """
        limit = self.timeout if timeout is None else timeout
        until = self._clock() + limit
        content = None if body is None else json.dumps(body).encode()
        client = self._client(url)
        with mapped_errors(url):
            request = client.build_request(
                "GET" if body is None else "POST", path, params=parameters, content=content, timeout=limit,
                headers={"Content-Type": "application/json"} if body is not None else None,
            )  # fmt: skip
            response = client.send(request, stream=True)
            try:
                read = bytearray()
                for block in response.iter_bytes():
                    read += block
                    if self._clock() > until:
                        raise VespaTimeout(f"{url} did not answer in {limit:g} s")
                    if len(read) > MOST_BYTES:
                        raise VespaRefused(
                            f"{url} returned more than {MOST_BYTES >> 20} MiB; check that it is a Vespa endpoint"
                        )
            finally:
                response.close()
        headers = {"Content-Type": response.headers.get("Content-Type", "")}
        return httpx.Response(response.status_code, headers=headers, content=bytes(read), request=request)
