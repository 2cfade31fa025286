"""What every route needs from a request: the caller, the time limit, and strictly parsed JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor

from colbert_vespa.server.access import ADMIN, READ, WRITE, Access
from colbert_vespa.server.engine import Engine
from late_interaction.errors import UsageError
from query.types import QueryVectors

__all__ = [
    "Administers",
    "Asked",
    "Patience",
    "Reads",
    "StrictRoute",
    "Timeout",
    "Writes",
    "check_sizes",
    "strict_json",
]


class IdConvertor(StringConvertor):
    """An id in a path, with any characters, including slashes and line breaks."""

    regex = r"(?s:.+)"


register_url_convertor("id", IdConvertor())


class StrictRequest(Request):
    async def json(self) -> Any:
        """Return the body, parsed.

        Raises:
            HTTPException: If the body is not JSON, in FastAPI's form.
            Refusal: If a key occurs twice.
        """
        return strict_json(await self.body())


def strict_json(body: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        JSONDecodeError: If the body is not JSON, has a key twice, or has a number that JSON does not allow; a ValueError.
    """
    try:
        return json.loads(body, object_pairs_hook=_once, parse_constant=_not_a_number)
    except UnicodeDecodeError:
        raise json.JSONDecodeError("not UTF-8", "", 0) from None
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise json.JSONDecodeError("a key occurs twice in one object", "", 0)
    return whole


def _not_a_number(name: str) -> object:
    raise json.JSONDecodeError(f"{name} is not a JSON number", "", 0)


class StrictRoute(APIRoute):
    """A route that rejects JSON bodies with duplicate keys, NaN or infinity."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, which gets each request as a StrictRequest."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _asked(request: Request) -> Engine:
    return engine_of(request)


async def _reads(request: Request) -> Access:
    access: Access = request.app.state.door.admitted(request, READ)
    return access


async def _writes(request: Request) -> Access:
    access: Access = request.app.state.door.admitted(request, WRITE)
    return access


async def _administers(request: Request) -> Access:
    access: Access = request.app.state.door.admitted(request, ADMIN)
    return access


async def _timeout(
    request: Request,
    x_timeout: Annotated[str | None, Header(description="Time limit of the request in seconds, such as 2.5.")] = None,
) -> Callable[[float | None], float]:
    """Return a function from a body's timeout to the request's: the shorter of body and header; UsageError or Refusal."""
    most = engine_of(request).settings
    asked = None if x_timeout is None else _seconds(x_timeout)

    def chosen(of_body: float | None) -> float:
        named = [seconds for seconds in (asked, of_body) if seconds is not None]
        return _allowed(min(named, default=most.timeout), most.max_timeout)

    return chosen


async def _patience(
    request: Request,
    x_timeout: Annotated[str | None, Header(description="Most seconds to wait until the write is durable.")] = None,
) -> float | None:
    """Return the seconds that a write may wait, None for no limit; UsageError or Refusal if the header is not valid."""
    return None if x_timeout is None else _allowed(_seconds(x_timeout), engine_of(request).settings.max_timeout)


def _allowed(seconds: float, most: float) -> float:
    if not 0 < seconds <= most:
        raise UsageError(f"timeout must be above 0, at most {most:g} seconds, got {seconds:g}")
    return seconds


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"header X-Timeout must be a number of seconds, got {text[:40]!r}")
    return seconds


Asked = Annotated[Engine, Depends(_asked)]
Reads = Annotated[Access, Depends(_reads)]
Administers = Annotated[Access, Depends(_administers)]
Writes = Annotated[Access, Depends(_writes)]
Patience = Annotated[float | None, Depends(_patience)]
Timeout = Annotated[Callable[[float | None], float], Depends(_timeout)]


def check_sizes(engine: Engine, *, texts: tuple[object, ...] = (), many: int = 0, counts: tuple[int | None, ...] = ()) -> None:
    """Check the sizes of a request against the limits of the server.

    Raises:
        UsageError: If a text, the number of items, or a number of hits or candidates is above its limit.
    """
    limits = engine.settings
    if many > limits.max_batch:
        raise UsageError(f"at most {limits.max_batch} at once, got {many}; send several requests")
    for given in texts:
        text = given.text if isinstance(given, QueryVectors) else given
        if isinstance(text, str) and len(text) > limits.max_text:
            raise UsageError(f"a text of at most {limits.max_text:,} characters, got {len(text):,}")
    for count in counts:
        if count is not None and count > limits.max_k:
            raise UsageError(f"k, rerank, probes, offset and rerank_with_top are at most {limits.max_k:,} here, got {count:,}")
