"""What an answer to an operation means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from feeder.sending.operations import Operation
from vespa_app.running.credentials import NOT_LET_IN, RENEW

__all__ = ["HttpAnswer", "Verdict", "judge"]

PASSING = (502, 503, 504, 507)  # a gateway or Vespa that is unavailable, timed out, or has a full disk
NOT_FOUND, TOO_MANY = 404, 429


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer.

    Attributes:
        status: HTTP status; 0 if there was no answer (see `error`).
        body: the body.
        error: why there was no answer.
        lasting: a retry cannot succeed.
        seconds: from sending to here.
    """

    status: int
    body: bytes = b""
    error: str = ""
    lasting: bool = False
    seconds: float = 0.0


class Verdict(Enum):
    """What to do after an answer."""

    DONE = "ok"
    REFUSED = "refused"  # permanent, for this operation
    THROTTLED = "throttled"  # retry without a cap
    FAILED = "failed"  # retry a few times
    HOPELESS = "hopeless"  # no operation can succeed


def judge(operation: Operation, answer: HttpAnswer) -> tuple[Verdict, str]:
    """Return the verdict and, unless it is DONE, the message: Vespa's own if there is one."""
    if answer.error:
        return (Verdict.HOPELESS if answer.lasting else Verdict.FAILED), answer.error
    body = _parsed(answer.body)
    if answer.status in NOT_LET_IN:
        return Verdict.HOPELESS, f"{_message(answer, body)} ({RENEW})"
    if answer.status == TOO_MANY:
        return Verdict.THROTTLED, _message(answer, body)
    if answer.status in PASSING:
        return Verdict.FAILED, _message(answer, body)
    names_document = body is not None and "id" in body
    if not names_document and answer.status < 400:
        return Verdict.FAILED, f"answered {answer.status} without the JSON of document/v1; check for a proxy in front of Vespa"
    if 200 <= answer.status < 300 or (answer.status == NOT_FOUND and operation.method == "DELETE" and names_document):
        return Verdict.DONE, ""
    return Verdict.REFUSED, _message(answer, body)


def _parsed(body: bytes) -> dict[str, object] | None:
    """Return the object of an answer; None if there is none. That of an executed operation has the document's `id`."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _message(answer: HttpAnswer, body: dict[str, object] | None) -> str:
    said = body.get("message") if body else None
    text = said if isinstance(said, str) else answer.body.decode("utf-8", "replace").strip()
    return f"answered {answer.status}: {text[:500] or 'nothing'}"
