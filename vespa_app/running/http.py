"""The boundary between httpx and our error tree: connections to Vespa, and its answers as our errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from late_interaction.addresses import vespa_url
from late_interaction.errors import UsageError, VespaBusy, VespaError, VespaRefused, VespaTimeout, VespaUnreachable
from late_interaction.problems import MEDIA_TYPE, PREFIX
from vespa_app.running.credentials import NOT_LET_IN, RENEW, tls_context, token_header

__all__ = [
    "Body",
    "ServerAnswered",
    "answer_json",
    "check",
    "check_not_server",
    "connect",
    "mapped_errors",
    "parse_address",
]

BUSY = (429, 503, 507)
MAX_MESSAGE = 500
MOST_BYTES = 1 << 30  # uncompressed bytes of an answer


class _Client(httpx.Client):
    """A client that reads answers only up to a limit."""

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        response = super().send(request, stream=True, **options)
        if stream:
            return response
        body = Body(request.url.host)
        try:
            for block in response.iter_bytes():
                body.add(block)
        finally:
            response.close()
        return body.of(response)


def connect(
    url: str, *, timeout: float = 30.0, connections: int = 16, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Return a pooled client for one Vespa endpoint.

    Args:
        url: the endpoint.
        timeout: seconds, for each of connect, read and write.
        connections: most connections.
        transport: for tests.

    Raises:
        UsageError: if the address is not an http(s) URL or has a password in it, or credentials or a proxy cannot be used.
    """
    parsed = parse_address(url)
    headers, verify = token_header(parsed), tls_context() if parsed.scheme == "https" else True
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    try:
        return _Client(
            base_url=parsed, timeout=timeout, headers=headers, verify=verify, limits=limits, transport=transport,
            http2=parsed.scheme == "https",
        )  # fmt: skip
    except (ValueError, ImportError, httpx.InvalidURL):  # the variables may contain a password
        raise UsageError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; set it to http://host:port, "
            f"or add {parsed.host} to NO_PROXY"
        ) from None


def parse_address(url: str, name: str = "") -> httpx.URL:
    """Return the URL of a server, without the name of an index.

    Args:
        url: the address.
        name: the setting or option that it comes from.

    Raises:
        UsageError: if it is not an http(s) URL with a host, or has a user, password, path or index.
    """
    said = f"{name}: " if name else ""
    place = vespa_url(url, name)
    if place.index:
        raise UsageError(f"{said}{url!r} names an index, but the URL of a server is needed; remove #{place.index}")
    try:
        return httpx.URL(place.url)
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"{said}{url!r} is not the address of a server; write http(s)://host:port") from None


class Body:
    """Collects an answer block by block, up to the size of any answer of Vespa."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._blocks: list[bytes] = []
        self._left = MOST_BYTES

    def add(self, block: bytes) -> None:
        """Add a block.

        Raises:
            VespaRefused: if the limit is exceeded.
        """
        self._left -= len(block)
        if self._left < 0:
            raise VespaRefused(f"{self._where} returned more than {MOST_BYTES >> 20} MiB; check that it is a Vespa endpoint")
        self._blocks.append(block)

    def of(self, response: httpx.Response) -> httpx.Response:
        """Return the answer with this body."""
        response._content = b"".join(self._blocks)
        return response


@contextlib.contextmanager
def mapped_errors(url: object, what: str = "Vespa") -> Iterator[None]:
    """Turn httpx's errors into VespaUnreachable or VespaTimeout that name `url`. what: what the request goes to."""
    try:
        yield
    except httpx.TimeoutException:
        raise VespaTimeout(f"{url} did not answer in time; check that {what} is up and not overloaded") from None
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        reason = str(error) or type(error).__name__
        raise VespaUnreachable(f"{url} does not answer ({reason}); check that {what} is up at that address") from None


class ServerAnswered(VespaRefused):
    """A server of `colbert-vespa serve` answered where Vespa was expected."""


def check_not_server(response: httpx.Response) -> None:
    """Raise ServerAnswered if a server of ours answered, which has none of Vespa's paths."""
    if response.is_success or response.headers.get("content-type", "").partition(";")[0] != MEDIA_TYPE:
        return
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return
    if isinstance(body, dict) and str(body.get("type")).startswith(PREFIX):
        where = str(response.url.copy_with(raw_path=b"/")).rstrip("/")
        advice = "which can only be searched; use Vespa's own address here"
        raise ServerAnswered(f"{where} is a server of `colbert-vespa serve`, {advice}", response.status_code)


def check(response: httpx.Response) -> httpx.Response:
    """Return the answer if it is not an error.

    Raises:
        VespaBusy: on 429, 503 and 507.
        VespaRefused: on any other error status, with Vespa's own message.
        ServerAnswered: if it is not Vespa's.
    """
    if response.is_success:
        return response
    check_not_server(response)
    error: type[VespaError] = VespaBusy if response.status_code in BUSY else VespaRefused
    advice = f" ({RENEW})" if response.status_code in NOT_LET_IN else ""
    said = f"{response.status_code}: {message_of(response)}{advice}"
    raise error(f"Vespa at {response.url.host} answered {said}", response.status_code)


def answer_json(response: httpx.Response) -> dict[str, Any]:
    """Return the checked answer's JSON object.

    Raises:
        VespaRefused: if it is not one.
    """
    try:
        body = json.loads(check(response).content)
    except (ValueError, RecursionError):
        raise VespaRefused(
            f"{response.url} did not return JSON; check that it is a Vespa endpoint", response.status_code
        ) from None
    if not isinstance(body, dict):
        raise VespaRefused(
            f"{response.url} did not return a JSON object; check that it is a Vespa endpoint", response.status_code
        )
    return body


def message_of(response: httpx.Response) -> str:
    """Return Vespa's message in an error body of any of its APIs."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text.strip()[:MAX_MESSAGE] or response.reason_phrase
    return error_text(body)[:MAX_MESSAGE] if isinstance(body, dict) else str(body)[:MAX_MESSAGE]


def error_text(body: Mapping[str, Any]) -> str:
    """Return the error text: `message` in document/v1 and the config server, `root.errors` in search."""
    root = body.get("root")
    errors = root.get("errors") if isinstance(root, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        first = errors[0]
        return str(first.get("message") or first.get("summary") or first)
    return str(body.get("message") or body)
