"""Search in a Vespa application that this project generated."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import httpx

from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError, VespaRefused
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema, Value
from query.checks import check_count, choose_strategy, query_rows
from query.retriever import Question
from query.types import Hit, SearchResult
from query.yql import filter_to_yql
from vespa_app.application import Application
from vespa_app.asking import layout_parameters, query_body
from vespa_app.candidates import STRATEGIES, QueryParts, StrategyRequest
from vespa_app.candidates.base import BEST, CANDIDATE_SCORE, EXPLAINED, MAXSIM
from vespa_app.codecs import Books
from vespa_app.http import answer_json, connect, error_text, mapped_errors
from vespa_app.layouts import CHUNK
from vespa_app.schema import SUMMARY

__all__ = ["VespaRetriever", "build_request", "parse_answer"]

GROUPED = {"collapsefield": "document_id", "collapse.summary": SUMMARY}  # the container asks for more until it has k documents


class VespaRetriever:
    """`timeout` in seconds is Vespa's own for a query; the connection waits a little longer."""

    def __init__(
        self,
        url: str,
        bundle: Bundle | None = None,
        *,
        precision: str | None = None,
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises: VespaError where no application of ours answers, BundleError where its bundle is not known here."""
        self.address = url
        self.timeout = timeout
        self._client = connect(url.partition("#")[0], timeout=timeout + 5, transport=transport)
        self.application = Application.read(url, transport=transport)
        self.bundle = self.application.choose_bundle(bundle)
        self._precision = precision

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.bundle, precision=self._precision)

    @functools.cached_property
    def _books(self) -> Books:
        return self.application.books(self.bundle)

    @property
    def schema(self) -> MetadataSchema:
        return self.application.settings.metadata

    @property
    def strategies(self) -> tuple[str, ...]:
        return self.application.settings.candidates

    def search(
        self,
        query: Question,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        rerank: int | None = None,
        group: bool = False,
        row_scores: bool = False,
    ) -> SearchResult:
        """As Retriever.search. row_scores: each hit's `stages` also has `row N`, what query row N found in the passage (in
        layout `chunks`, in its best chunk); their sum is its MaxSim."""
        k = check_count("k", k)
        settings = self.application.settings
        rerank = max(k, check_count("rerank", rerank if rerank is not None else settings.rerank))
        strategy = choose_strategy(candidates, self.strategies, self.address)
        filter_ = parse_filter(where, self.schema) if where else None
        filter_yql = filter_to_yql(filter_) if filter_ is not None else None
        start = time.perf_counter()
        Q = query_rows(query, self.encoder)
        encoded = time.perf_counter()
        request = StrategyRequest(
            rows=Q,
            text=query if isinstance(query, str) else None,
            rerank=rerank,
            settings=settings,
            codebook=self._books.codebook,
            thresholds=self._books.thresholds,
        )
        if STRATEGIES[strategy].needs_text and not request.text:
            raise UsageError(f"candidates {strategy} need the query as text, not ready rows")
        parts = STRATEGIES[strategy].query(request)
        if row_scores:
            parts = dataclasses.replace(parts, profile=parts.profile + EXPLAINED)
        more = layout_parameters(self.application.description, request.text, filter_)
        more = {**more, **GROUPED} if group else more
        parts = dataclasses.replace(parts, parameters={**parts.parameters, **more})
        body = build_request(self.application, parts, k, filter_yql, self.timeout)
        built = time.perf_counter()
        with mapped_errors(self.address):
            answer = answer_json(self._client.post("/search/", json=body))
        done = time.perf_counter()
        timings = {"encode": encoded - start, "request": built - encoded, "vespa": done - built}
        return parse_answer(self.application, answer, strategy, rerank, timings)

    def close(self) -> None:
        self._client.close()


def build_request(
    application: Application, parts: QueryParts, k: int, filter_yql: str | None, timeout: float
) -> dict[str, Any]:
    """The body of a POST to /search/: everything from the user travels as a parameter or an escaped literal."""
    selection = f"({parts.yql_where}) and {filter_yql}" if filter_yql else parts.yql_where
    return {
        **query_body(application.settings, selection, parts.profile, k),
        "timeout": f"{timeout}s",
        "presentation.summary": "passage_hit",
        "presentation.timing": True,
        **parts.parameters,
    }


def parse_answer(
    application: Application,
    answer: Mapping[str, Any],
    strategy: str,
    rerank: int,
    seconds: Mapping[str, float],
) -> SearchResult:
    """Raises: VespaRefused where the answer holds an error and no hits, or is not of our application."""
    root = answer.get("root", {})
    if root.get("errors"):
        raise VespaRefused(f"Vespa at {application.url} refused the query: {error_text(answer)}")
    coverage = root.get("coverage", {})
    hits = []
    for rank, item in enumerate(root.get("children", []), start=1):
        fields = item.get("fields", {})
        features = fields.get("matchfeatures", {})
        score = float(item["relevance"])
        hits.append(
            Hit(
                rank=rank,
                id=str(fields["document_id"]),
                passage_id=str(fields["id"]),
                score=score,
                title=str(fields.get("title", "")),
                text=_text(fields.get("text", "")),
                metadata=_metadata(application.settings.metadata, fields),
                stages=_stages(features, score),
            )
        )
    share = float(coverage.get("coverage", 100)) / 100
    notes = () if share >= 1 and "degraded" not in coverage else (f"only {share:.0%} of the documents were searched",)
    timing = answer.get("timing", {})
    timings = {name: 1000 * value for name, value in seconds.items()}
    timings["vespa_search"] = 1000 * float(timing.get("searchtime", 0.0))
    return SearchResult(
        hits=tuple(hits),
        candidates=strategy,
        matched=root.get("fields", {}).get("totalCount"),
        reranked=rerank,
        coverage=share,
        timings_ms=timings,
        notes=notes,
    )


def _stages(features: Mapping[str, Any], score: float) -> dict[str, float]:
    """What each stage gave a hit. MaxSim is the score, but for strategies that make another one of it."""
    found = {"candidates": float(features.get(CANDIDATE_SCORE, 0.0)), "maxsim": float(features.get(MAXSIM, score))}
    return found | {f"row {label}": value for label, value in sorted(_row_scores(features.get(BEST)).items())}


def _row_scores(best: object) -> dict[int, float]:
    """Of tensor(qt{}) in its short form; of tensor(chunk{}, qt{}) the rows of the chunk whose sum is largest."""
    cells = best.get("cells", {}) if isinstance(best, Mapping) else {}
    if isinstance(cells, Mapping):
        return {int(label): float(value) for label, value in cells.items()}
    chunks: dict[str, dict[int, float]] = {}
    for cell in cells:
        chunks.setdefault(cell["address"][CHUNK], {})[int(cell["address"]["qt"])] = float(cell["value"])
    return max(chunks.values(), key=lambda rows: sum(rows.values()), default={})


def _text(value: object) -> str:
    """In layout `chunks` a document's text is the list of its passages."""
    return "\n".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _metadata(schema: MetadataSchema, fields: Mapping[str, Any]) -> dict[str, Value]:
    present = set(fields.get("present", ()))
    found = {name: fields[name] for name in schema.fields if name in present and name in fields}
    return schema.shown(found) | {name: _place(found[name]) for name in found if schema.fields[name] is FieldType.POSITION}


def _place(value: Mapping[str, Any]) -> Value:
    return {"lat": float(value["lat"]), "lng": float(value["lng"])}
