"""The body of a query to Vespa, by pure functions.

Everything from the user is sent as a parameter or an escaped literal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from late_interaction.errors import UsageError
from late_interaction.filters import parse_where
from query.backend import dense_model, unfit_for
from query.options import SearchOptions
from query.types import EncodedQuery
from query.yql import filter_to_yql, string_literal
from vespa_app.candidates import QueryParts, StrategyRequest, strategy_of
from vespa_app.candidates.base import EXPLAINED, rerank_parameters
from vespa_app.candidates.dense import dense_field
from vespa_app.codecs import Codebooks
from vespa_app.running import Description
from vespa_app.running.passage_fields import SUMMARY, VECTORS_SUMMARY
from vespa_app.running.request_features import layout_parameters
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import parts_of

__all__ = [
    "Request",
    "documents_clause",
    "score_request",
    "search_request",
    "stored_request",
    "unfit_strategies",
    "vectors_request",
]

GROUPED = {"collapsefield": "document_id", "collapse.summary": SUMMARY}  # the container requests more until it has k documents
WITH_VECTORS = {"presentation.summary": VECTORS_SUMMARY, "presentation.format.tensors": "hex"}
PROFILED = {"trace.level": 1, "trace.profileDepth": 1}  # duration of each phase of the content nodes
KEEP_ALL = -1e300  # a limit below every score, so that everything a filter of ids names is scored
_FIRST = 1  # least number of reranked candidates: Vespa takes 0 for "as in the profile"


@dataclass(frozen=True)
class Request:
    """A query.

    Attributes:
        selection: what to match, in YQL.
        parameters: its parameters.
        reranked: most candidates that get a MaxSim score; 0 if none is computed.
    """

    selection: str
    parameters: Mapping[str, Any]
    reranked: int

    def body(self, schemas: Sequence[str]) -> dict[str, Any]:
        """Return the body of one query to several indexes.

        They are named twice: Vespa types the query's tensors before it reads the YQL.
        """
        source = schemas[0] if len(schemas) == 1 else f"sources {', '.join(schemas)}"
        yql = f"select * from {source} where {self.selection}"  # noqa: S608 - checked names, and see above
        return {"yql": yql, "model.restrict": ",".join(schemas), "presentation.timing": True, **self.parameters}


def unfit_strategies(settings: AppSettings, query: EncodedQuery, options: SearchOptions) -> dict[str, str]:
    """Return strategies of an application that cannot take a query, and why. options: with the application's defaults."""
    model = dense_model(options.dense, settings.dense, settings.schema) if settings.dense else options.dense
    found = unfit_for(query, options, model)
    if len(query.rows) > settings.query_rows:
        found["token"] = f"it takes {settings.query_rows} query rows, but there are {len(query.rows)}; raise setting query_rows"
    return found


def search_request(
    description: Description, books: Codebooks, query: EncodedQuery, options: SearchOptions, strategy: str
) -> Request:
    """Return the request of a search. options: with the application's defaults.

    Raises:
        FilterError: if the filter is not valid.
        UsageError: if an option does not fit.
        SettingsError: if the settings do not support it.
    """
    settings = description.settings
    if options.probes is not None:
        settings = dataclasses.replace(settings, probes=options.probes)
    rerank = options.reranked(settings.rerank) if strategy != "exhaustive" else options.last
    where = parse_where(options.where, settings.metadata)
    model = dense_model(options.dense, settings.dense, settings.schema) if settings.dense else ""
    parts = strategy_of(strategy).query(
        StrategyRequest(
            rows=query.rows,
            text=query.text,
            rerank=rerank,
            settings=settings,
            codebook=books.codebook,
            thresholds=books.thresholds,
            one_vector=books.one_vector,
            weights=options.fusion_weights,
            fusion=options.fusion or "rrf",
            model=model,
            dense=query.dense.get(model),
        )
    )
    page = {"hits": options.k, "offset": options.first, "presentation.summary": SUMMARY}
    more: dict[str, Any] = layout_parameters(description, query.text, where)
    if options.group:
        more |= GROUPED
    if options.explain:
        more |= PROFILED
    if options.first_stage:
        more |= _without_maxsim(parts)
    if options.explain and query.text and settings.layout == "passages":
        page |= WITH_VECTORS
    if options.scored == "client":
        _check_client_scores(settings, strategy, options)
        more |= _without_maxsim(parts)
        page = {"hits": rerank, "offset": 0, **WITH_VECTORS}
    selection = parts.yql_where if where is None else f"({parts.yql_where}) and {filter_to_yql(where)}"
    if options.ids is not None:
        selection = f"({selection}) and {documents_clause(options.ids)}"
    scored = rerank if strategy != "hybrid" or "maxsim" in options.fusion_weights else 0
    return Request(selection, page | _profile(parts, options) | dict(parts.parameters) | more, scored)


def score_request(description: Description, books: Codebooks, query: EncodedQuery, passage_ids: Sequence[str]) -> Request:
    """Return the request for MaxSim of the passages with those ids.

    Raises:
        UsageError: if the index reads one group per query, or encodes by itself and there is no text.
    """
    settings = description.settings
    if settings.mode == "streaming":
        raise UsageError(
            "an index in mode streaming reads one group per query; instead of score, search with a filter that names the group"
        )
    ids = ", ".join(string_literal(id_) for id_ in passage_ids)
    request = StrategyRequest(query.rows, query.text, len(passage_ids), settings)
    parameters = rerank_parameters(request) | layout_parameters(description, query.text, None)
    limits = {"ranking.rankScoreDropLimit": KEEP_ALL, "ranking.secondPhase.rankScoreDropLimit": KEEP_ALL}
    page = {"hits": len(passage_ids), "presentation.summary": SUMMARY, "ranking.profile": _score_profile(settings)}
    return Request(f"id in ({ids})", page | parameters | limits, len(passage_ids))


def _score_profile(settings: AppSettings) -> str:
    """Return a profile with MaxSim that needs only the query's rows; hybrid has it among its features."""
    singles = [part for candidates in settings.candidates for part in parts_of(candidates)]
    if "exhaustive" in singles:
        return "exhaustive"
    return next(dense_field(next(iter(settings.dense))) if name == "dense" else name for name in singles)


def stored_request(settings: AppSettings, selection: str, hits: int, summary: str = SUMMARY) -> Request:
    """Return the request for stored passages, in no order. selection: YQL in which everything from a user is escaped."""
    parameters: dict[str, Any] = {"hits": hits, "presentation.summary": summary, "ranking.profile": "unranked"}
    if settings.mode == "streaming":
        parameters["streaming.selection"] = "true"  # all groups
    return Request(selection, parameters, 0)


def documents_clause(ids: Sequence[str]) -> str:
    """Return the YQL that selects documents by id."""
    return f"document_id in ({', '.join(string_literal(id_) for id_ in ids)})" if ids else "false"


def vectors_request(settings: AppSettings, passage_ids: Sequence[str]) -> Request:
    """Return the request for the stored vectors of passages.

    Raises:
        UsageError: if there is no Vespa document per passage, or the index reads one group per query.
    """
    if settings.layout != "passages" or settings.mode == "streaming":
        raise UsageError("stored vectors can be read only with layout passages and a mode other than streaming")
    ids = ", ".join(string_literal(id_) for id_ in passage_ids)
    page = {"hits": len(passage_ids), **WITH_VECTORS}
    return Request(f"id in ({ids})", page | {"ranking.profile": "unranked"}, 0)


def _profile(parts: QueryParts, options: SearchOptions) -> dict[str, str]:
    return {"ranking.profile": parts.profile + (EXPLAINED if options.explain else "")}


def _without_maxsim(parts: QueryParts) -> dict[str, Any]:
    """Return the parameters that keep the first phase's order. `exhaustive` has MaxSim in it."""
    found: dict[str, Any] = {}
    if "ranking.secondPhase.totalRerankCount" in parts.parameters:
        found["ranking.secondPhase.totalRerankCount"] = _FIRST
    if "ranking.globalPhase.rerankCount" in parts.parameters:
        found["ranking.globalPhase.rerankCount"] = _FIRST
    return found


def _check_client_scores(settings: AppSettings, strategy: str, options: SearchOptions) -> None:
    if strategy == "hybrid" and "maxsim" not in options.fusion_weights:
        raise UsageError("scored='client' computes MaxSim, which has no weight here; omit scored")
    if settings.layout != "passages":
        raise UsageError(
            f"the client can score only layout passages, but this index has {settings.layout}; use scored='engine'"
        )
    if strategy == "exhaustive":
        raise UsageError("candidates exhaustive are scored in the engine; choose other candidates to score them at the client")
    if options.group:
        raise UsageError(
            "group does not work with scored='client', because Vespa groups after its own scores; omit one of them"
        )
