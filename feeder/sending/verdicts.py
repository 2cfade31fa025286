"""What an answer to an operation means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from feeder.sending.operations import Operation
from vespa_app.running.credentials import NOT_LET_IN, RENEW

__all__ = ["HttpAnswer", "Verdict", "judge"]

PASSING = (502, 503, 504, 507)  # a gateway or Vespa that is not there now, timed out, or has its disk full
NOT_FOUND, TOO_MANY = 404, 429


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """status: of HTTP, 0 where no answer came, and then `error` says why. lasting: no other attempt can go better.
    seconds: from sending to here."""

    status: int
    body: bytes = b""
    error: str = ""
    lasting: bool = False
    seconds: float = 0.0


class Verdict(Enum):
    DONE = "ok"
    REFUSED = "refused"  # for good, this operation
    THROTTLED = "throttled"  # again, without a cap
    FAILED = "failed"  # again, a few times
    HOPELESS = "hopeless"  # no operation can go better


def judge(operation: Operation, answer: HttpAnswer) -> tuple[Verdict, str]:
    """The verdict and, where it is not DONE, the message: Vespa's own where there is one."""
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
        return Verdict.FAILED, f"answered {answer.status} without the JSON of document/v1: is something between us and Vespa?"
    if 200 <= answer.status < 300 or (answer.status == NOT_FOUND and operation.method == "DELETE" and names_document):
        return Verdict.DONE, ""
    return Verdict.REFUSED, _message(answer, body)


def _parsed(body: bytes) -> dict[str, object] | None:
    """The object of an answer; None where it is none. Of an operation that was carried out it has the document's `id`."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _message(answer: HttpAnswer, body: dict[str, object] | None) -> str:
    said = body.get("message") if body else None
    text = said if isinstance(said, str) else answer.body.decode("utf-8", "replace").strip()
    return f"answered {answer.status}: {text[:500] or 'nothing'}"
