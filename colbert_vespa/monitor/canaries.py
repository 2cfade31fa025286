"""Canaries: queries with recorded hits, run again to check that production still returns them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from colbert_vespa.evaluation.metrics import percentile
from colbert_vespa.monitor.report import OK, UNKNOWN, WRONG, CheckRow, Sample, Section
from late_interaction.errors import UsageError, VespaError
from late_interaction.files import atomic_write, check_own_output
from late_interaction.reading import read_regular
from late_interaction.structured import parse, read
from query import Client
from query.types import Hit, SearchResult

__all__ = ["Canaries", "Canary", "ask_canaries", "compare", "make_canaries"]

FORMAT = 1
AREA = "canaries"
TOLERANCE = 0.05  # of a score: rows of 16 bits, and encoders of another processor, differ by less
MOST_BYTES = 1 << 28  # of one of our own files
SHOWN = 60  # characters of a query
Form = TypeVar("Form")


@dataclass(frozen=True)
class Canary:
    """A query with its expected hits.

    Attributes:
        expected: Passage ids and scores, best first.
    """

    query: str
    expected: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Canaries:
    """Queries with the hits that an index must keep returning.

    Attributes:
        bundle: sha256 of the bundle that the hits were found with.
        candidates: Candidates, as a search names them.
    """

    bundle: str
    candidates: str
    k: int
    tolerance: float
    canaries: tuple[Canary, ...]

    def write(self, path: Path) -> None:
        """Write the canaries to a file, replacing only earlier canaries."""
        canaries = [{"query": item.query, "expected": [list(hit) for hit in item.expected]} for item in self.canaries]
        head = {name: getattr(self, name) for name in ("bundle", "candidates", "k", "tolerance")}
        data = {"format": "colbert-vespa canaries", "version": FORMAT, **head, "canaries": canaries}
        check_own_output(path, "colbert-vespa canaries")
        atomic_write(path, (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Canaries:
        """Read canaries from a file.

        Raises:
            UsageError: If the file does not hold canaries, or has an unknown version.
        """
        return read_made(cls, path, "colbert-vespa canaries", FORMAT, "colbert-vespa monitor canaries")


def read_made(form: type[Form], path: Path, kind: str, version: int, made_by: str) -> Form:
    """Read one of our own files as the dataclass `form`.

    Raises:
        UsageError: If the file is not of this kind, or has an unknown version.
    """
    try:
        text = read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    data = parse(text, UsageError, str(path), f"make it with {made_by}", format=kind, version=version)
    return read(form, data, UsageError, f"{path} holds no {kind.rsplit(maxsplit=1)[-1]}, which {made_by} makes")


def make_canaries(client: Client, queries: Sequence[str], *, k: int, candidates: str) -> Canaries:
    """Make canaries from the current answers of an index, which somebody should have reviewed.

    Raises:
        UsageError: If there is no query, or a query finds nothing.
        VespaError: If Vespa does not answer.
        IncompleteAnswer: If an answer lacks documents.
    """
    if not queries:
        raise UsageError("no query: the index is empty, or the file of --queries has none")
    found = []
    for query in queries:
        result = client.search(query, k, candidates=candidates).check_full()
        if not result.hits:
            raise UsageError(f"{query!r} matches nothing; remove it")
        found.append(Canary(query, tuple((hit.passage_id, round(hit.score, 4)) for hit in result.hits)))
    return Canaries(client.bundle.sha256, candidates, k, TOLERANCE, tuple(found))


def ask_canaries(client: Client, canaries: Canaries, timeout: float) -> Section:
    """Ask the query of every canary and compare the answers.

    Args:
        client: Client of the index.
        canaries: Queries with their expected hits.
        timeout: Seconds for each query.

    Raises:
        UsageError: If the index does not support the canaries' candidates.
    """
    if client.bundle.sha256 != canaries.bundle:
        says = f"made with bundle {canaries.bundle[:8]}, the index has {client.bundle.sha256[:8]}; make them again"
        broken = Sample("canaries", float(len(canaries.canaries)), {"outcome": "broken"})
        return Section((CheckRow(AREA, "bundle", WRONG, says),), (broken,))
    rows, outcomes, seconds = [], Counter({"kept": 0, "broken": 0, "silent": 0}), []
    for canary in canaries.canaries:
        name = canary.query if len(canary.query) <= SHOWN else canary.query[: SHOWN - 3] + "..."
        start = time.perf_counter()
        try:
            result = client.search(canary.query, canaries.k, candidates=canaries.candidates, timeout=timeout)
        except VespaError as error:
            outcomes["silent"] += 1
            rows.append(CheckRow(AREA, name, UNKNOWN, str(error)))
            continue
        seconds.append(time.perf_counter() - start)
        why = compare(canary, result, canaries.tolerance)
        outcomes["broken" if why else "kept"] += 1
        if why:
            rows.append(CheckRow(AREA, name, WRONG, why))
    whole = OK if outcomes["kept"] == len(canaries.canaries) else WRONG
    p50, most = (percentile(seconds, 0.5), max(seconds)) if seconds else (0.0, 0.0)
    says = f"{outcomes['kept']} of {len(canaries.canaries)} answer as before"
    says += f"; p50 {1000 * p50:.0f} ms, slowest {1000 * most:.0f} ms" if seconds else ""
    samples = [Sample("canaries", float(count), {"outcome": outcome}) for outcome, count in outcomes.items()]
    samples += [Sample("canary_latency_seconds", value, {"quantile": q}) for q, value in (("0.5", p50), ("1", most))]
    return Section((CheckRow(AREA, "all", whole, says), *rows), tuple(samples))


def compare(canary: Canary, result: SearchResult, tolerance: float) -> str:
    """Return why the canary is broken, or an empty string.

    New passages may come before the expected ones and push the last of them out. No expected passage may be missing that would
    still rank among the hits, and no score may have changed.
    """
    if not result.full:
        return f"the answer lacks documents ({'; '.join(result.degraded) or f'coverage {result.coverage:.1%}'})"
    scores = {hit.passage_id: hit.score for hit in result.hits}
    changed = [(id_, was) for id_, was in canary.expected if id_ in scores and not abs(scores[id_] - was) <= tolerance]
    if changed:
        id_, was = changed[0]
        both = f"score of {id_} was {was:.3f} and is {scores[id_]:.3f}"
        return f"{both}{_more(changed)}: another text, encoder, codec or codebook"
    floor = _floor(result.hits, len(canary.expected))
    lost = [(id_, was) for id_, was in canary.expected if id_ not in scores and not was <= floor + tolerance]
    if lost:
        return f"{lost[0][0]} is no longer found{_more(lost)}: deleted, on a lost node, or missed by the candidates"
    return ""


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _floor(hits: Sequence[Hit], wanted: int) -> float:
    """Return the score that a passage needs to be among the hits; minus infinity if there are fewer hits than expected."""
    return hits[-1].score if len(hits) >= wanted else float("-inf")
