"""Bodies of responses, and their descriptions in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from colbert_vespa.server.errors import PROBLEM

__all__ = ["NDJSON", "answer", "line", "responses"]

NDJSON = "application/x-ndjson"
_SAYS = {
    400: "The body is not JSON.",
    401: "The key is missing or unknown.",
    403: "The key lacks the permission.",
    404: "The index, document or task does not exist.",
    409: "Another writer has the index.",
    413: "The body is too large.",
    415: "The content type of the body is not supported.",
    422: "A field, option, filter or document is not valid.",
    429: "The server is busy, or the key's rate limit is reached: see Retry-After.",
    500: "A fault of the server.",
    502: "Vespa refused the request.",
    503: "The index or Vespa is not available.",
    504: "The request timed out.",
}
_ALWAYS = (400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504)


def answer(body: object, status: int = 200) -> Response:
    """Return a JSON response; numbers that are not finite become null, and arrays become lists."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def line(body: object) -> bytes:
    """Return a body as one line of NDJSON."""
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def responses(
    model: type[BaseModel] | None,
    *more: int,
    status: int = 200,
    description: str = "",
    also: Mapping[str, Any] | None = None,
    only: tuple[int, ...] = _ALWAYS,
) -> dict[int | str, Any]:
    """Describe the answers of a route for OpenAPI.

    Args:
        model: Model of the route's answer, or None.
        more: Status codes of further problems of this route.
        status: Status code of the answer.
        description: Description of the answer.
        also: Further content types of the answer.
        only: Status codes of the problems that every route has.

    Returns:
        Responses by status code, as FastAPI takes them.
    """
    found: dict[int | str, Any] = {
        code: {"description": _SAYS[code], "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for code in sorted({*only, *more})
    }
    found[status] = {"description": description or "The answer.", **({"content": dict(also)} if also else {})}
    if model is not None:
        found[status]["model"] = model
    return found
