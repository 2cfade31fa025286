"""HTTP/2 by libcurl: many streams over few connections, in one thread.

libcurl was the cheapest of ten clients measured (docs/performance/notes.md). Over http:// it speaks HTTP/2 at once, as Vespa's
containers do; over https:// it negotiates. Streams are spread over all connections, so that a load balancer in between has
several to distribute. After an operation timed out, its connection may be one whose other side accepts bytes but no longer
reads them, and libcurl would reuse it: all connections are then abandoned, and later operations go over new ones.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from typing import Any

import httpx

from feeder.sending.jobs import Attempt
from feeder.sending.verdicts import HttpAnswer
from late_interaction.extras import required
from vespa_app.running.credentials import tls_files, token_header

with required("feed", "feeding Vespa"):
    import pycurl

__all__ = ["CONNECTIONS", "STREAMS", "CurlTransport"]

CONNECTIONS = 8
STREAMS = 128  # most streams of a connection
CONNECT_S = 10.0
MOST_BYTES = 1 << 24  # most bytes of an answer
SILENCE_S = 30  # a peer that acknowledges nothing for so long is gone

# verification and credentials: a retry cannot succeed
LASTING = {
    pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CERTPROBLEM, pycurl.E_SSL_CACERT_BADFILE, pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_ISSUER_ERROR, pycurl.E_SSL_PINNEDPUBKEYNOTMATCH, pycurl.E_URL_MALFORMAT, pycurl.E_UNSUPPORTED_PROTOCOL,
}  # fmt: skip
_TLS_TALK = {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR}
_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class CurlTransport:
    """Sends operations by libcurl.

    timeout: seconds after which Vespa gives up an operation. We give up slightly later, so that it cannot be executed after
    its retry, and perhaps after a newer operation on its document.

    Raises:
        UsageError: if the credentials of the environment cannot be used.
    """

    def __init__(self, address: httpx.URL, *, timeout: float, connections: int = CONNECTIONS) -> None:
        self._base = str(address).rstrip("/")
        self._timeout, self._connections = timeout, connections
        self._limit = f"timeout={int(1000 * timeout)}ms"
        self._headers = [f"{name}: {value}" for name, value in token_header(address).items()]
        self._tls = tls_files() if address.scheme == "https" else None
        self._idle: dict[str, list[_Stream]] = {"POST": [], "PUT": [], "DELETE": []}
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._pools = [_Pool(self._selector, connections)]  # the last one takes operations, those before were abandoned

    def send(self, attempt: Attempt, allowed: int) -> None:
        """Send an operation. allowed: how many may be in flight, spread over the connections."""
        idle = self._idle[attempt.operation.method]
        stream = idle.pop() if idle else self._stream(attempt.operation.method)
        stream.begin(attempt, self._base, self._limit)
        self._pools[-1].add(stream, min(-(-allowed // self._connections), STREAMS))

    def poll(self, seconds: float) -> list[tuple[Attempt, HttpAnswer]]:
        """Return answers; wait at most `seconds` for the first one, or until `wake`."""
        answered = self._taken()
        until = time.monotonic() + (0.0 if answered else seconds)
        while True:
            now = time.monotonic()
            pause = min([until, *(pool.due for pool in self._pools if pool.due is not None)]) - now
            events = self._selector.select(max(0.0, pause))
            woken = False
            for key, _ in events:
                if key.fd == self._woken:
                    os.read(self._woken, 4096)
                    woken = True
                else:
                    key.data.act(key.fd)
            for pool in self._pools:
                pool.act_if_due()
            answered += self._taken()
            if answered or woken or time.monotonic() >= until:
                return answered

    def wake(self) -> None:
        """End a `poll` in progress."""
        with contextlib.suppress(BlockingIOError):  # the pipe is already full of wake-ups
            os.write(self._waker, b"w")

    def close(self) -> None:
        """Close all connections."""
        busy = [curl for pool in self._pools for curl in pool.close()]
        for curl in [*busy, *(stream.curl for idle in self._idle.values() for stream in idle)]:
            curl.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)

    def _taken(self) -> list[tuple[Attempt, HttpAnswer]]:
        found = []
        for pool in list(self._pools):
            for stream, code, message in pool.ended():
                self._idle[stream.method].append(stream)
                found.append(stream.end(code, message))
                if code == pycurl.E_OPERATION_TIMEDOUT and pool is self._pools[-1]:
                    self._pools.append(_Pool(self._selector, self._connections))
            if pool is not self._pools[-1] and not pool.busy:
                self._pools.remove(pool)
                pool.close()
        return found

    def _stream(self, method: str) -> _Stream:
        curl = pycurl.Curl()
        set_ = curl.setopt
        secure = self._tls is not None
        set_(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if secure else pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
        set_(pycurl.PIPEWAIT, 1)  # prefer a stream of a connection being opened to one more connection
        set_(pycurl.NOSIGNAL, 1)
        set_(pycurl.CONNECTTIMEOUT_MS, int(1000 * CONNECT_S))
        set_(pycurl.TIMEOUT_MS, int(1100 * self._timeout))
        set_(pycurl.SOCKOPTFUNCTION, _notice_silence)
        if self._tls is not None:
            for option, file in (
                (pycurl.SSLCERT, self._tls.certificate),
                (pycurl.SSLKEY, self._tls.key),
                (pycurl.CAINFO, self._tls.authorities_file),
                (pycurl.CAPATH, self._tls.authorities_folder),
            ):
                if file:
                    set_(option, file)
        if method == "DELETE":
            set_(pycurl.CUSTOMREQUEST, method)
        else:
            set_(pycurl.POST, 1)
            if method == "PUT":
                set_(pycurl.CUSTOMREQUEST, method)
        return _Stream(curl, method, [*self._headers, "Content-Type: application/json", "Expect:"])


class _Pool:
    """Connections and their operations. due: when libcurl wants to act again, by the monotonic clock."""

    def __init__(self, selector: selectors.BaseSelector, connections: int) -> None:
        self.due: float | None = None
        self.busy: dict[Any, _Stream] = {}
        self._selector = selector
        self._streams = 0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def add(self, stream: _Stream, streams: int) -> None:
        """Add an operation. streams: most streams of a connection."""
        if streams != self._streams:
            self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, streams)
            self._streams = streams
        self.busy[stream.curl] = stream
        self._multi.add_handle(stream.curl)

    def act(self, fd: int) -> None:
        self._multi.socket_action(fd, 0)

    def act_if_due(self) -> None:
        if self.due is not None and time.monotonic() >= self.due:
            self.due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def ended(self) -> list[tuple[_Stream, int, str]]:
        """Return operations that have ended, each with libcurl's code and message."""
        found = []
        more = 1
        while more:
            more, done, failed = self._multi.info_read()
            for curl, code, message in [*((curl, pycurl.E_OK, "") for curl in done), *failed]:
                self._multi.remove_handle(curl)
                found.append((self.busy.pop(curl), code, message))
        return found

    def close(self) -> list[Any]:
        """End the connections; return the handles whose operations were in progress."""
        for curl in self.busy:
            self._multi.remove_handle(curl)
        self._multi.close()
        return list(self.busy)

    def _watch(self, what: int, fd: int, multi: Any, data: Any) -> None:
        """Note which sockets libcurl waits for."""
        known = fd in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, _EVENTS[what], self)
        else:
            self._selector.register(fd, _EVENTS[what], self)

    def _set_timer(self, milliseconds: int) -> None:
        self.due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


class _Stream:
    """A libcurl handle, used for one operation after another."""

    def __init__(self, curl: Any, method: str, headers: list[str]) -> None:
        self.curl, self.method = curl, method
        self._plain, self._gzip = headers, [*headers, "Content-Encoding: gzip"]
        self._gzipped: bool | None = None
        self._chunks: list[bytes] = []
        self._attempt: Attempt | None = None
        self._began = 0.0
        self._left = MOST_BYTES
        curl.setopt(pycurl.WRITEFUNCTION, self._keep)

    def _keep(self, block: bytes) -> int:
        """Keep part of an answer; libcurl gives up if less is taken than it gave."""
        self._left -= len(block)
        if self._left < 0:
            return 0
        self._chunks.append(block)
        return len(block)

    def begin(self, attempt: Attempt, base: str, limit: str) -> None:
        operation = attempt.operation
        self._left = MOST_BYTES
        self._attempt, self._began = attempt, time.monotonic()
        self.curl.setopt(pycurl.URL, f"{base}{operation.path}{'&' if '?' in operation.path else '?'}{limit}")
        if self.method != "DELETE":
            self.curl.setopt(pycurl.POSTFIELDS, operation.body)
        if self._gzipped is not operation.gzipped:
            self.curl.setopt(pycurl.HTTPHEADER, self._gzip if operation.gzipped else self._plain)
            self._gzipped = operation.gzipped

    def end(self, code: int, message: str) -> tuple[Attempt, HttpAnswer]:
        attempt, body = self._attempt, b"".join(self._chunks)
        assert attempt is not None
        self._attempt = None
        self._chunks.clear()
        seconds = time.monotonic() - self._began
        if code == pycurl.E_OK:
            return attempt, HttpAnswer(self.curl.getinfo(pycurl.RESPONSE_CODE), body, seconds=seconds)
        lasting = code in LASTING or (code in _TLS_TALK and "certificate" in message)
        advice = "; renew the invalid certificate, ours or Vespa's" if lasting and "certificate" in message else ""
        reason = f"{message or f'error {code} of libcurl'}{advice}"
        return attempt, HttpAnswer(0, b"", f"does not answer ({reason})", lasting, seconds)


def _notice_silence(fd: int, purpose: int, address: Any = None) -> int:
    """Let the kernel drop a connection on which nothing is acknowledged, because an unreachable host sends no reset.

    The descriptor is libcurl's, which closes it.
    """
    options = [("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 1000 * SILENCE_S)]
    with contextlib.suppress(OSError):  # this kernel lacks one of them
        connection = socket.socket(fileno=fd)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in options:
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        finally:
            connection.detach()
    return 0
