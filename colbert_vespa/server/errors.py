"""Convert errors to responses: one table from the error tree to HTTP, in one JSON form (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from late_interaction.errors import ColbertVespaError
from late_interaction.problems import MEDIA_TYPE as PROBLEM
from late_interaction.problems import PREFIX, PROBLEMS

__all__ = ["PROBLEM", "Refusal", "detail_of", "problem", "problem_of", "status_of"]

RETRY_AFTER_S = 1


class Refusal(ColbertVespaError):
    """An error of the server itself, with its status and further headers."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def _row(error: ColbertVespaError) -> tuple[int, str]:
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def status_of(error: ColbertVespaError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, Refusal) else _row(error)[0]


def detail_of(error: ColbertVespaError) -> str:
    """Return the message for the caller; faults of the server's own files are not described."""
    if status_of(error) == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server cannot answer this; its log has the reason, under the request's id"
    if _row(error)[1] == "index-unavailable":
        return "the index is missing or damaged; the server's log has the reason, under the request's id"
    return str(error)


def problem(
    status: int, detail: str, request_id: str, *, kind: str = "", headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return a problem as an HTTP response.

    Args:
        status: HTTP status.
        detail: What is wrong.
        request_id: Id of the request.
        kind: End of the problem's type; default: from the status.
        headers: Headers of the response.
        more: Further members of the problem.
    """
    title = HTTPStatus(status).phrase
    body = {"type": f"{PREFIX}{kind or title.lower().replace(' ', '-')}", "title": title, "status": status}
    content = orjson.dumps({**body, "detail": detail, "request_id": request_id, **more})
    return Response(content, status, dict(headers or {}), PROBLEM)


def problem_of(error: ColbertVespaError, request_id: str, detail: str | None = None) -> Response:
    """Return an error as an HTTP response, with `detail` instead of the error's own text if it is given."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    kind = "" if isinstance(error, Refusal) else _row(error)[1]
    return problem(status, detail_of(error) if detail is None else detail, request_id, kind=kind, headers=headers)
