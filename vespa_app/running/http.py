"""The one boundary between httpx and our error tree: connections to Vespa, and its answers as errors of ours."""

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
MOST_BYTES = 1 << 30  # of an answer, unpacked


class _Client(httpx.Client):
    """Answers are read no further than a limit."""

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
    """A pooled client for one Vespa endpoint. `timeout` in seconds, for each of connect, read and write.

    Raises: UsageError on an address that is no http(s) URL or has a password in it, or credentials or a proxy that cannot be
    used.
    """
    parsed = parse_address(url)
    headers, verify = token_header(parsed), tls_context() if parsed.scheme == "https" else True
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    try:
        return _Client(
            base_url=parsed, timeout=timeout, headers=headers, verify=verify, limits=limits, transport=transport,
            http2=parsed.scheme == "https",
        )  # fmt: skip
    except (ValueError, ImportError, httpx.InvalidURL):  # what they say may have a password in it
        raise UsageError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used: wanted http://host:port; correct it, "
            f"or put {parsed.host} into NO_PROXY"
        ) from None


def parse_address(url: str, name: str = "") -> httpx.URL:
    """Of a server, without the name of an index. name: of the setting or option that it comes from.

    Raises: UsageError where it is not an http(s) URL with a host, or has a user, password, path or index in it.
    """
    said = f"{name}: " if name else ""
    place = vespa_url(url, name)
    if place.index:
        raise UsageError(f"{said}{url!r} names an index, where the URL of a server is needed: leave #{place.index} out")
    try:
        return httpx.URL(place.url)
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"{said}{url!r} is not an address: write http(s)://host:port") from None


class Body:
    """What is unpacked of an answer, block by block, and no more than any answer of Vespa has."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._blocks: list[bytes] = []
        self._left = MOST_BYTES

    def add(self, block: bytes) -> None:
        """Raises: VespaRefused past the limit."""
        self._left -= len(block)
        if self._left < 0:
            raise VespaRefused(f"{self._where} answered more than {MOST_BYTES >> 20} MiB: is that a Vespa endpoint?")
        self._blocks.append(block)

    def of(self, response: httpx.Response) -> httpx.Response:
        """The answer, with this body."""
        response._content = b"".join(self._blocks)
        return response


@contextlib.contextmanager
def mapped_errors(url: object, what: str = "Vespa") -> Iterator[None]:
    """httpx's errors as VespaUnreachable or VespaTimeout, naming `url`. what: is asked there."""
    try:
        yield
    except httpx.TimeoutException:
        raise VespaTimeout(f"{url} did not answer in time: is {what} up and not overloaded?") from None
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
        reason = str(error) or type(error).__name__
        raise VespaUnreachable(f"{url} does not answer ({reason}): is {what} up at that address?") from None


class ServerAnswered(VespaRefused):
    """A server of `colbert-vespa serve` is at an address where Vespa was looked for."""


def check_not_server(response: httpx.Response) -> None:
    """A server of ours knows none of Vespa's paths, and says so in its own way. Raises: ServerAnswered."""
    if response.is_success or response.headers.get("content-type", "").partition(";")[0] != MEDIA_TYPE:
        return
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return
    if isinstance(body, dict) and str(body.get("type")).startswith(PREFIX):
        where = str(response.url.copy_with(raw_path=b"/")).rstrip("/")
        advice = "which can be searched; here Vespa's own address is needed"
        raise ServerAnswered(f"{where} is a server of `colbert-vespa serve`, {advice}", response.status_code)


def check(response: httpx.Response) -> httpx.Response:
    """Raises: VespaBusy on 429, 503 and 507, VespaRefused on any other error status, with Vespa's own message; ServerAnswered
    where it is not Vespa's."""
    if response.is_success:
        return response
    check_not_server(response)
    error: type[VespaError] = VespaBusy if response.status_code in BUSY else VespaRefused
    advice = f" ({RENEW})" if response.status_code in NOT_LET_IN else ""
    said = f"{response.status_code}: {message_of(response)}{advice}"
    raise error(f"Vespa at {response.url.host} answered {said}", response.status_code)


def answer_json(response: httpx.Response) -> dict[str, Any]:
    """The checked answer's JSON object. Raises: VespaRefused where it is none."""
    try:
        body = json.loads(check(response).content)
    except (ValueError, RecursionError):
        raise VespaRefused(f"{response.url} answered no JSON: is that a Vespa endpoint?", response.status_code) from None
    if not isinstance(body, dict):
        raise VespaRefused(f"{response.url} answered no JSON object: is that a Vespa endpoint?", response.status_code)
    return body


def message_of(response: httpx.Response) -> str:
    """Vespa's message in an error body, whatever API it came from."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text.strip()[:MAX_MESSAGE] or response.reason_phrase
    return error_text(body)[:MAX_MESSAGE] if isinstance(body, dict) else str(body)[:MAX_MESSAGE]


def error_text(body: Mapping[str, Any]) -> str:
    """document/v1 and the config server say `message`; search answers `root.errors`."""
    root = body.get("root")
    errors = root.get("errors") if isinstance(root, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        first = errors[0]
        return str(first.get("message") or first.get("summary") or first)
    return str(body.get("message") or body)
