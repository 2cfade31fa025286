"""Convert Vespa's answers to results and errors, by pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from late_interaction.errors import VespaBusy, VespaError, VespaRefused, VespaTimeout
from late_interaction.metadata import FieldType, MetadataSchema, Value
from query.types import Hit
from vespa_app.candidates.base import BEST, CANDIDATE_SCORE, MAXSIM
from vespa_app.candidates.bm25 import WORDS
from vespa_app.candidates.dense import DENSE
from vespa_app.running.http import check, error_text
from vespa_app.running.layouts import CHUNK

__all__ = ["VespaCoverage", "checked_answer", "coverage_of", "hits_of", "joint", "timings_of"]

_TIMEOUT = 12  # Vespa's error codes: com.yahoo.container.protect.Error
_TRY_AGAIN = (0, 10, 11)  # no backends in service, an unreachable backend, one that does not answer a ping
_PROFILES = {
    "match_profiling": "vespa_matching",
    "first_phase_profiling": "vespa_first_phase",
    "second_phase_profiling": "vespa_second_phase",
}
_FEATURES = {"bm25": WORDS, "dense": DENSE}
_REASONS = {
    "timeout": "some nodes ran out of time",
    "adaptive-timeout": "slow nodes were skipped",
    "match-phase": "matching was limited",
    "non-ideal-state": "documents are moving between nodes",
}


def checked_answer(response: httpx.Response, url: str) -> Mapping[str, Any]:
    """Return the body of an answer with a result, complete or not.

    Raises:
        VespaTimeout: if the answer is only an error about time, with Vespa's message.
        VespaBusy: if Vespa asks to wait.
        VespaRefused: if the answer is only another error.
    """
    try:
        body: Any = orjson.loads(response.content)
    except ValueError:
        body = None
    root = body.get("root") if isinstance(body, dict) else None
    if not isinstance(root, dict):
        check(response)
        raise VespaRefused(f"{url} did not return a search result; check that it is a Vespa query port", response.status_code)
    errors = _errors(root)
    if errors and not root.get("children"):
        raise _error(errors, body, url, response.status_code)
    if not response.is_success:
        check(response)
    answer: dict[str, Any] = body
    return answer


def _errors(root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    errors = root.get("errors")
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _error(errors: Sequence[Mapping[str, Any]], body: Mapping[str, Any], url: str, status: int) -> VespaError:
    codes = [error.get("code") for error in errors]
    said = error_text(body)
    if _TIMEOUT in codes:
        return VespaTimeout(f"Vespa at {url} ran out of time: {said}", status)
    if status in (429, 503) or all(code in _TRY_AGAIN for code in codes):
        return VespaBusy(f"Vespa at {url} cannot answer now: {said}", status)
    return VespaRefused(f"Vespa at {url} refused the query: {said}", status)


@dataclass(frozen=True, slots=True)
class VespaCoverage:
    """Coverage of an answer.

    Attributes:
        share: share of the documents that were searched, 0 to 1.
        documents: how many.
        degraded: why not all.
    """

    share: float
    documents: int | None
    degraded: tuple[str, ...] = ()


def coverage_of(root: Mapping[str, Any], expected: int | None) -> VespaCoverage:
    """Return the coverage. expected: documents that must have been searched; Vespa may call an incomplete answer full."""
    said = root.get("coverage", {})
    share, documents = float(said.get("coverage", 100)) / 100, said.get("documents")
    why = [_REASONS.get(name, name) for name, is_so in said.get("degraded", {}).items() if is_so]
    why += [f"error of Vespa: {error.get('message') or error.get('summary')}" for error in _errors(root)]
    if (share < 1 or said.get("full") is False) and not why:  # the share is in whole per cent
        why.append("some nodes did not answer")
    if expected is not None and documents is not None and documents < expected:
        share = min(share, documents / expected)
        why.append(f"{documents:,} documents were searched, at least {expected:,} were expected")
    return VespaCoverage(share, documents, tuple(why))


def joint(parts: Sequence[VespaCoverage]) -> tuple[float, tuple[str, ...]]:
    """Return share and reasons of an answer that combines several."""
    reasons = dict.fromkeys(reason for part in parts for reason in part.degraded)
    return min((part.share for part in parts), default=1.0), tuple(reasons)


def hits_of(
    root: Mapping[str, Any], schemas: Mapping[str, MetadataSchema], first_rank: int, *, by_maxsim: bool = True
) -> list[Hit]:
    """Return the hits. schemas: metadata fields of each index by name. by_maxsim: whether a score is MaxSim by default."""
    only = next(iter(schemas))
    hits = []
    for rank, item in enumerate(root.get("children", []), start=first_rank):
        fields = item.get("fields", {})
        features = fields.get("matchfeatures", {})
        score = _number(item["relevance"])
        index = only if len(schemas) == 1 else str(fields["sddocname"])
        hits.append(
            Hit(
                rank=rank,
                id=str(fields["document_id"]),
                passage_id=str(fields["id"]),
                score=score,
                title=str(fields.get("title", "")),
                text=_text(fields.get("text", "")),
                metadata=_metadata(schemas[index], fields),
                index=index,
                stages=_stages(features, score if by_maxsim else None),
                rows=_row_scores(features.get(BEST)),
            )
        )
    return hits


def timings_of(body: Mapping[str, Any]) -> dict[str, float]:
    """Return Vespa's own timings in milliseconds.

    With explain, also what matching and the ranking phases took in the slowest thread and node.
    """
    names = {"querytime": "vespa_query", "summaryfetchtime": "vespa_summaries", "searchtime": "vespa_search"}
    timing = body.get("timing", {})
    found = {ours: 1000 * float(timing[name]) for name, ours in names.items() if name in timing}
    for profile in _profiles(body.get("trace")):
        ours = _PROFILES[profile["tag"]]
        found[ours] = max(found.get(ours, 0.0), float(profile.get("total_time_ms", 0.0)))
    return found


def _profiles(trace: object) -> Iterator[Mapping[str, Any]]:
    """Walk a trace, a tree of lists and objects of many kinds."""
    if isinstance(trace, list):
        for item in trace:
            yield from _profiles(item)
    elif isinstance(trace, dict):
        if trace.get("tag") in _PROFILES:
            yield trace
        for item in trace.values():
            yield from _profiles(item)


def _number(value: object) -> float:
    """Return a number; Vespa writes null, or a text, for one that is not finite."""
    return math.nan if value is None else float(value)  # type: ignore[arg-type]  # a number, or the text of one


def _stages(features: Mapping[str, Any], score: float | None) -> dict[str, float]:
    """Return what each stage gave a hit. MaxSim is the score, except for strategies that change it or have none."""
    found = {"candidates": _number(features.get(CANDIDATE_SCORE, 0.0))}
    if MAXSIM in features or score is not None:
        found["maxsim"] = _number(features.get(MAXSIM, score))
    return found | {ours: _number(features[name]) for ours, name in _FEATURES.items() if name in features}


def _row_scores(best: object) -> tuple[float, ...]:
    """Read tensor(qt{}) in its short form; of tensor(chunk{}, qt{}) the rows of the chunk with the largest sum."""
    cells = best.get("cells", {}) if isinstance(best, dict) else {}
    if isinstance(cells, dict):
        return _in_order({int(label): float(value) for label, value in cells.items()})
    chunks: dict[str, dict[int, float]] = {}
    for cell in cells:
        chunks.setdefault(cell["address"][CHUNK], {})[int(cell["address"]["qt"])] = float(cell["value"])
    return _in_order(max(chunks.values(), key=lambda rows: sum(rows.values()), default={}))


def _in_order(rows: Mapping[int, float]) -> tuple[float, ...]:
    return tuple(value for _, value in sorted(rows.items()))


def _text(value: object) -> str:
    """Return the text; in layout `chunks` it is the list of its passages."""
    return "\n".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _metadata(schema: MetadataSchema, fields: Mapping[str, Any]) -> dict[str, Value]:
    present = set(fields.get("present", ()))
    found = {name: fields[name] for name in schema.fields if name in present and name in fields}
    return schema.shown(found) | {name: _place(found[name]) for name in found if schema.fields[name] is FieldType.POSITION}


def _place(value: Mapping[str, Any]) -> Value:
    return {"lat": float(value["lat"]), "lng": float(value["lng"])}
