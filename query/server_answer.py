"""Convert the answers of our server (`colbert-vespa serve`) to results and errors."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np
import orjson

from late_interaction.array_types import Matrix
from late_interaction.documents import Passage
from late_interaction.errors import (
    ColbertVespaError,
    UsageError,
    VespaBusy,
    VespaError,
    VespaRefused,
    VespaTimeout,
    VespaUnreachable,
)
from late_interaction.problems import PREFIX, PROBLEMS
from query.types import Explanation, Hit, Match, SearchResult
from vespa_app.running.credentials import NOT_LET_IN
from vespa_app.running.http import BUSY, MAX_MESSAGE, message_of

__all__ = [
    "SERVER",
    "ServerAnswers",
    "checked_server_answer",
    "hits_of_server",
    "matrix_of",
    "passages_of_server",
    "result_of_server",
    "server_error",
]

T = TypeVar("T")
SERVER = "colbert-vespa"  # how errors name what does not answer
MOST_WAIT_S = 3600.0
_OF_KIND = {kind: error for error, (_, kind) in PROBLEMS.items() if error is not ColbertVespaError}
_NOT_GIVEN = "set its key in COLBERT_VESPA_API_KEY, or in a file named by COLBERT_VESPA_TOKEN_FILE"
_OF_THE_CALL = (404, 413, 422)


class _ServedMatch(msgspec.Struct):
    query_word: str
    passage_word: str
    start: int
    end: int
    similarity: float | None


class _ServedExplanation(msgspec.Struct):
    text: str
    matches: list[_ServedMatch]
    words: list[tuple[int, int]] = []
    similarities: list[list[float | None]] = []


class _ServedHit(msgspec.Struct):
    rank: int
    id: str
    passage_id: str
    score: float | None
    title: str
    text: str
    metadata: dict[str, Any]
    index: str = ""
    stages: dict[str, float | None] = {}
    rows: list[float | None] | None = None
    explanation: _ServedExplanation | None = None


class _ServedResult(msgspec.Struct):
    hits: list[_ServedHit]
    candidates: str
    matched: int | None
    reranked: int
    stage: str
    chosen: str
    coverage: float
    searched: int | None
    degraded: list[str]
    timings_ms: dict[str, float | None]
    notes: list[str]
    reranked_with: str = ""


class _ServedPassage(msgspec.Struct):
    id: str
    document_id: str
    title: str
    text: str
    metadata: dict[str, Any]


class _ServedRows(msgspec.Struct):
    base64: str
    shape: tuple[int, int]


class ServerAnswers:
    """Shapes of answers, for `converted`."""

    results = list[_ServedResult]
    hits = list[_ServedHit]
    passages = list[_ServedPassage]
    scores = dict[str, float | None]
    vectors = dict[str, _ServedRows]
    ids = list[str]
    share = float
    reasons = list[str]


def checked_server_answer(response: httpx.Response, url: str, *, first_line: bool = False) -> Mapping[str, Any]:
    """Return the object of the answer.

    Raises:
        ColbertVespaError: the server's error as it is here.
        VespaRefused: if the answer is not ours.
    """
    if not response.is_success:
        raise server_error(response, url)
    content = response.content.partition(b"\n")[0] if first_line else response.content
    try:
        body: Any = orjson.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise VespaRefused(
            f"{url} did not return a JSON object; check that it is a server of `colbert-vespa serve`", response.status_code
        )
    return body


def server_error(response: httpx.Response, url: str) -> ColbertVespaError:
    """Return the error by the kind of the problem, or by the status if it has none."""
    status, body = response.status_code, _problem(response)
    kind = str(body.get("type", "")).removeprefix(PREFIX)
    detail = str(body.get("detail", ""))[:MAX_MESSAGE] or message_of(response)
    found = _OF_KIND.get(kind) or _of_status(status)
    if not issubclass(found, VespaError):
        return found(detail if issubclass(found, UsageError) or kind == "filter" else f"{url}: {detail}")
    advice = f" ({_NOT_GIVEN})" if status in NOT_LET_IN else ""
    error = found(f"{url} answered {status}: {detail}{advice}", status)
    if isinstance(error, VespaBusy):
        error.retry_after = _seconds(response.headers.get("retry-after", ""))
    return error


def _of_status(status: int) -> type[ColbertVespaError]:
    if status in _OF_THE_CALL:
        return UsageError
    if status in BUSY:
        return VespaBusy
    return {502: VespaUnreachable, 504: VespaTimeout}.get(status, VespaRefused)


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) and str(body.get("type", "")).startswith(PREFIX) else {}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds <= MOST_WAIT_S else 0.0


def converted(value: object, kind: type[T], url: str) -> T:
    """Convert an answer.

    Raises:
        VespaRefused: if it has another shape.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise VespaRefused(f"{url} returned something that this version does not expect ({error}); update both") from None


def result_of_server(given: _ServedResult, seconds: float, sent: int) -> SearchResult:
    """Return a search result. seconds: from request to answer."""
    again = (f"the query was sent {sent} times until the server answered",) if sent > 1 else ()
    return SearchResult(
        hits=hits_of_server(given.hits),
        candidates=given.candidates,
        matched=given.matched,
        reranked=given.reranked,
        stage=given.stage,
        chosen=given.chosen,
        coverage=given.coverage,
        searched=given.searched,
        degraded=tuple(given.degraded),
        timings_ms={**{stage: took or 0.0 for stage, took in given.timings_ms.items()}, "server": 1000 * seconds},
        notes=(*given.notes, *again),
        reranked_with=given.reranked_with,
    )


def hits_of_server(given: list[_ServedHit]) -> tuple[Hit, ...]:
    """Return the hits."""
    return tuple(
        Hit(
            hit.rank, hit.id, hit.passage_id, _number(hit.score), hit.title, hit.text, hit.metadata, hit.index,
            {stage: _number(score) for stage, score in hit.stages.items()},
            tuple(map(_number, hit.rows or ())), None if hit.explanation is None else _explanation(hit.explanation),
        )
        for hit in given
    )  # fmt: skip


def _explanation(given: _ServedExplanation) -> Explanation:
    matches = [Match(m.query_word, m.passage_word, m.start, m.end, _number(m.similarity)) for m in given.matches]
    rows = [[_number(value) for value in row] for row in given.similarities]
    table = np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32)
    return Explanation(given.text, tuple(matches), tuple(given.words), table)


def passages_of_server(given: list[_ServedPassage]) -> dict[str, tuple[Passage, ...]]:
    """Return passages by document id."""
    found: dict[str, list[Passage]] = {}
    for one in given:
        found.setdefault(one.document_id, []).append(Passage(one.id, one.document_id, one.title, one.text, one.metadata))
    return {id_: tuple(passages) for id_, passages in found.items()}


def matrix_of(given: _ServedRows, url: str) -> Matrix:
    """Return a matrix.

    Raises:
        VespaRefused: if bytes and shape do not match.
    """
    try:
        return np.frombuffer(base64.b64decode(given.base64, validate=True), "<f4").reshape(given.shape).astype(np.float32)
    except (binascii.Error, ValueError):
        raise VespaRefused(f"{url} returned rows whose bytes do not match their shape") from None


def _number(value: float | None) -> float:
    """Return a number; JSON has null for the score of a passage without rows."""
    return -math.inf if value is None else value
