"""Wrap every request: its id, the size of its body, cancellation when the caller disconnects, its line in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colbert_vespa.server.errors import problem

__all__ = ["LOG", "Guard"]

LOG = logging.getLogger("colbert_vespa.server")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Guard:
    """An ASGI application that wraps another."""

    def __init__(self, app: ASGIApp, max_body: int, done: Callable[[Scope, int, float], None], max_held: int = 1 << 28) -> None:
        """Wrap an application.

        Args:
            app: The application that answers.
            max_body: Bytes of one request body, at most.
            done: Called after each request with its scope, the status of the answer (499 if the caller went away) and its
                seconds.
            max_held: Bytes of all request bodies held at once, at most.
        """
        self._app, self._done = app, done
        self.max_body, self.max_held = max_body, max(max_body, max_held)
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on within the limits and report it when it is done."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request = _Watched(scope, receive, send, self)
        try:
            await request.run(self._app)
        finally:
            self.held -= request.read
            self._done(scope, request.status, time.perf_counter() - start)


class _Watched:
    """One request. One message is read ahead, so that a disconnect is noticed while the request is processed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard) -> None:
        self._scope, self._receive, self._send, self._guard = scope, receive, send, guard
        self._messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
        self.read = 0
        self._ended = False
        self.status = 499
        self.id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self, app: ASGIApp) -> None:
        work = asyncio.ensure_future(app(self._scope, self._next, self._answer))
        watch = asyncio.ensure_future(self._watch(work))
        try:
            await work
        except asyncio.CancelledError:
            if not self._gone:
                raise
        except Exception as error:  # noqa: BLE001  the last place where a fault can be told
            await self._fault(error)
        finally:
            watch.cancel()
            work.cancel()

    _gone = False

    async def _watch(self, work: asyncio.Future[None]) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = True
                if not self._ended:
                    work.cancel()
                return
            await self._messages.put(message)

    async def _next(self) -> Message:
        """Read the next message; HTTPException if the body, or all bodies together, are too large."""
        message = await self._messages.get()
        size = len(message.get("body", b""))
        self.read += size
        self._guard.held += size
        if self.read > self._guard.max_body:
            raise HTTPException(413, f"the body has more than {self._guard.max_body:,} bytes")
        if self._guard.held > self._guard.max_held:
            raise HTTPException(429, "the server is busy with large bodies; try again later", {"Retry-After": "1"})
        return message

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self.id.encode("ascii"))]}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    async def _fault(self, error: Exception) -> None:
        """Log an error by type and place only, because its message may contain texts of the request."""
        places = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-6:])
        LOG.error("fault", extra={"request_id": self.id, "error": type(error).__name__, "places": places})
        if self.status == 499:
            response = problem(500, "the server has a fault; its log has the reason, under the request's id", self.id)
            await response(self._scope, self._next, self._answer)


def _request_id(scope: Scope) -> str:
    """Return the caller's request id if it is fit for a log, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode("ascii") if _ID.fullmatch(given) else uuid.uuid4().hex
