"""The arguments of a search, checked once, and the settings of a client."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeAlias, TypeVar, get_type_hints

import numpy as np

from late_interaction.cross_encoder import CrossEncoder
from late_interaction.documents import Document
from late_interaction.errors import UsageError
from late_interaction.text import checked_ids, checked_text, given_list
from vespa_app.settings.application_settings import DEFAULT_WEIGHTS, FUSIONS, MAX_HITS, MOST_WEIGHT, SCORES, parts_of

__all__ = [
    "AUTO",
    "SCORED",
    "ClientSettings",
    "Names",
    "SearchOptions",
    "check_count",
    "check_documents",
    "check_flag",
    "check_ids",
    "check_names",
    "check_seconds",
    "check_weights",
    "takes_options",
]

P = ParamSpec("P")
S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")
A = TypeVar("A")
Names: TypeAlias = str | Sequence[str] | None

AUTO = "auto"
SCORED = ("engine", "client")
_ALONE = (AUTO, "hybrid", "exhaustive")  # candidates that cannot be combined with others


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search: the single definition of the arguments of `search`, `search_many` and `stages`.

    A new field here becomes an argument of the clients' methods.

    Attributes:
        k: how many hits.
        where: a filter on metadata.
        ids: search only these documents.
        candidates: a strategy of the index, several joined by "+" (everything found, ordered by MaxSim), or `auto`.
        index: name or names; None for the default.
        rerank: how many candidates of the whole cluster get a MaxSim score; None for the index's own.
        probes: centroids looked up for each query row; None for the index's own.
        offset: hits before this page; give it on all pages, also as 0.
        group: return the best passage of each of k documents.
        weights: weights of candidates hybrid, as {"maxsim": 1.0, "bm25": 0.5, "dense": 1.0}; an absent name takes no part;
            None for the index's own.
        fusion: how hybrid combines them, by `rrf` (ranks) or `sum` (scores from 0 to 1); None for the index's own.
        dense: name of the dense model; None for the only one, or `dense`.
        scored: compute MaxSim in the `engine`, or at the `client` over vectors that it fetches.
        explain: add matched words, and scores by query row.
        rerank_with: a cross-encoder, or its folder, that orders the best hits at the end; if the time does not suffice,
            their order stays, and the result says so.
        rerank_with_top: how many hits it reads, None for 50; requests a server's own cross-encoder.
        timeout: seconds, encoding included; None for the client's.
        first_stage: set by `stages`.
    """

    k: int = 10
    _: KW_ONLY
    where: Mapping[str, object] | None = None
    ids: Sequence[str] | None = None
    candidates: str = AUTO
    index: Names = None
    rerank: int | None = None
    probes: int | None = None
    offset: int | None = None
    group: bool = False
    weights: Mapping[str, float] | None = None
    fusion: str | None = None
    dense: str | None = None
    scored: str = "engine"
    explain: bool = False
    rerank_with: CrossEncoder | str | Path | None = None
    rerank_with_top: int | None = None
    timeout: float | None = None
    first_stage: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: if an argument is out of range; the message names it.
        """
        checked: dict[str, object] = {"k": check_count("k", self.k)}
        for name in ("rerank", "probes", "rerank_with_top"):
            if getattr(self, name) is not None:
                checked[name] = check_count(name, getattr(self, name))
        if self.offset is not None:
            most = MAX_HITS - self.k
            if not _is_whole(self.offset) or not 0 <= self.offset <= most:
                raise UsageError(f"offset must be a whole number from 0 to {most} (with k={self.k}), got {self.offset!r}")
            checked["offset"] = int(self.offset)
        for name in ("group", "explain"):
            checked[name] = check_flag(name, getattr(self, name))
        self._check_names()
        if self.ids is not None:
            checked["ids"] = tuple(check_ids(self.ids))
        if self.weights is not None:
            checked["weights"] = check_weights(self.weights)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _check_names(self) -> None:
        """Check names."""
        _check_candidates(self.candidates)
        if self.fusion is not None and self.fusion not in FUSIONS:
            raise UsageError(f"fusion {self.fusion!r} is unknown; known: {', '.join(FUSIONS)}")
        if self.dense is not None and (not isinstance(self.dense, str) or not self.dense):
            raise UsageError(f"dense must be the name of a dense model, got {self.dense!r}")
        if self.scored not in SCORED:
            raise UsageError(f"scored {self.scored!r} is unknown; known: {', '.join(SCORED)}")
        if self.rerank_with is not None and not isinstance(self.rerank_with, (CrossEncoder, str, Path)):
            raise UsageError(f"rerank_with must be a CrossEncoder or its folder, got {type(self.rerank_with).__name__}")

    @property
    def first(self) -> int:
        """Return the number of hits before the page."""
        return 0 if self.offset is None else self.offset

    @property
    def last(self) -> int:
        """Return the number of hits to the end of the page."""
        return self.first + self.k

    @property
    def fusion_weights(self) -> dict[str, float]:
        """Return the weights of hybrid, by names of scores; each above 0."""
        given = DEFAULT_WEIGHTS if self.weights is None else self.weights
        return {name: given[name] for name in SCORES if given.get(name, 0.0) > 0}

    @property
    def finders(self) -> tuple[str, ...]:
        """Return the strategies whose finds are joined; the only one, if it is one."""
        return parts_of(self.candidates)

    @property
    def needs_dense(self) -> bool:
        """Tell whether the query needs a dense vector; the choice of `auto` is not known here."""
        return "dense" in self.finders or (self.candidates == "hybrid" and "dense" in self.fusion_weights)

    def with_defaults(self, weights: Mapping[str, float] | None, fusion: str | None) -> SearchOptions:
        """Return the options with an index's own weights and fusion as defaults."""
        return replace(self, weights=self.weights or weights or None, fusion=self.fusion or fusion or None)

    def for_first_stage(self) -> SearchOptions:
        """Return the same search without its reranking.

        Raises:
            UsageError: if nothing is left without it.
        """
        if self.offset is not None or self.scored == "client":
            raise UsageError("stages work only on the first page, scored by the engine; omit offset and scored")
        return _FirstStageOptions(**{**vars(self), "explain": False, "rerank_with": None, "rerank_with_top": None})

    def by_candidates(self) -> SearchOptions:
        """Return the same search, ranked as its candidates were found."""
        return _FirstStageOptions(**{**vars(self), "explain": False})

    def reranked(self, default: int) -> int:
        """Return how many candidates get a MaxSim score: the same for every page of one search, so that pages fit together.

        Raises:
            UsageError: if the page ends after them.
        """
        wanted = default if self.rerank is None else self.rerank
        if self.offset is None:
            return max(wanted, self.k)
        if self.last > wanted:
            raise UsageError(
                f"this page ends at hit {self.last}, but only {wanted} candidates are reranked; raise rerank, on all pages"
            )
        return wanted


class _FirstStageOptions(SearchOptions):
    first_stage = True


def takes_options(options: Callable[P, A]) -> Callable[[Callable[[S, Q, A], R]], Callable[Concatenate[S, Q, P], R]]:
    """Turn a method that takes `options` into one that takes its fields, visible to type checkers and `inspect.signature`."""

    def decorated(method: Callable[[S, Q, A], R]) -> Callable[Concatenate[S, Q, P], R]:
        """Return the method with the fields of the options as arguments."""
        own = inspect.signature(method)
        _, query, _ = own.parameters.values()
        plain: Any = method

        @functools.wraps(method)
        def call(self: S, *args: Any, **named: Any) -> Any:
            """Call the method."""
            by_name = {query.name: named.pop(query.name)} if query.name in named else {}
            return plain(self, *args[:1], **by_name, options=options(*args[1:], **named))

        @functools.wraps(method)
        async def call_async(self: S, *args: Any, **named: Any) -> Any:
            """Call the async method."""
            return await call(self, *args, **named)

        chosen: Any = call_async if inspect.iscoroutinefunction(method) else call
        parameters = [*list(own.parameters.values())[:2], *inspect.signature(options).parameters.values()]
        hints = {name: hint for name, hint in get_type_hints(options).items() if name in inspect.signature(options).parameters}
        chosen.__signature__ = own.replace(parameters=parameters)
        chosen.__annotations__ = {query.name: query.annotation, **hints, "return": own.return_annotation}
        return chosen  # type: ignore[no-any-return]

    return decorated


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Settings of a client.

    Attributes:
        timeout: seconds that a search may take, unless it says otherwise.
        soft_timeout: Vespa returns what it has found when time is nearly up; otherwise it returns an error.
        retries: how often a query is retried after a refused or broken connection, or an answer that asks to wait.
        hedge_after: seconds without an answer after which a query is sent a second time, and the first answer counts; None
            for never.
        connections: connections kept open to each address.
        require_full: raise IncompleteAnswer if an answer does not cover all documents.
        expected: least documents that each index must have searched; fewer count as missing even if Vespa calls its answer
            full.
        version: number or name of an older version of local indexes that still exists; commits are not seen then.
    """

    timeout: float = 10.0
    soft_timeout: bool = True
    retries: int = 2
    hedge_after: float | None = None
    connections: int = 16
    require_full: bool = False
    expected: Mapping[str, int] = field(default_factory=dict)
    version: int | str | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: if a setting is out of range; the message names it.
        """
        check_seconds("timeout", self.timeout)
        if self.hedge_after is not None:
            check_seconds("hedge_after", self.hedge_after)
        for name, least in (("retries", 0), ("connections", 1)):
            check_count(name, getattr(self, name), least=least)
        for name in ("soft_timeout", "require_full"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.expected, Mapping):
            raise UsageError(f"expected must be a dict from index to number of documents, got {self.expected!r}")
        for index, documents in self.expected.items():
            check_count(f"expected of index {index!r}", documents, least=0, most=None)
        if self.version is not None and not isinstance(self.version, str):
            check_count("version", self.version, least=0, most=None)


def check_seconds(name: str, value: float) -> float:
    """Return a time above 0.

    Raises:
        UsageError: if it is not one.
    """
    if not _is_number(value) or not 0 < value < math.inf:
        raise UsageError(f"{name} must be above 0 seconds, got {value!r}")
    return float(value)


def check_count(name: str, value: int, *, least: int = 1, most: int | None = MAX_HITS) -> int:
    """Return a whole number in that range, of Python or numpy.

    Raises:
        UsageError: if it is not one.
    """
    if not _is_whole(value) or value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} must be a whole number {allowed}, got {value!r}")
    return int(value)


def check_flag(name: str, value: bool) -> bool:
    """Return true or false.

    Raises:
        UsageError: if it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_weights(given: Mapping[str, float]) -> dict[str, float]:
    """Return weights by names of scores.

    Raises:
        UsageError: if a name is unknown, a weight is negative, too large or not a number, or none is above 0.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f'weights must be a dict such as {{"maxsim": 1.0, "bm25": 0.5}}, got {given!r}')
    for name, value in given.items():
        if name not in SCORES:
            raise UsageError(f"weights must have the names {', '.join(SCORES)}, got {name!r}")
        if not _is_number(value) or not 0 <= value <= MOST_WEIGHT:
            raise UsageError(f"weight {name} must be a number from 0 to {MOST_WEIGHT:,.0f}, got {repr(value)[:40]}")
    if not any(given.values()):
        raise UsageError(f"weights must name at least one of {', '.join(SCORES)} with a number above 0, got {dict(given)!r}")
    return {name: float(value) for name, value in given.items()}


def _check_candidates(candidates: object) -> None:
    if not isinstance(candidates, str):
        raise UsageError(f"candidates must be the name of a strategy, got {candidates!r}")
    parts = parts_of(candidates)
    if len(parts) == 1:
        return
    if len(set(parts)) < len(parts) or "" in parts:
        raise UsageError(f"candidates {candidates!r}: choose different strategies, such as bm25+dense")
    for part in parts:
        if part in _ALONE:
            raise UsageError(f"candidates {candidates!r}: {part} cannot be combined with others")


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ids in their order, each once; whole numbers become their digits.

    Raises:
        UsageError: if it is not a list of ids.
    """
    return list(dict.fromkeys(checked_ids(ids)))


def check_names(names: str | Sequence[str]) -> list[str]:
    """Return names of indexes.

    Raises:
        UsageError: if it is neither a name nor a list of names.
    """
    chosen = [names] if isinstance(names, str) else given_list(names, "index")
    for name in chosen:
        if not isinstance(name, str):
            raise UsageError(f"index must be a name or a list of names, got {name!r}")
    return [str(name) for name in chosen]


def check_documents(documents: Sequence[str | Document]) -> list[Document]:
    """Return texts as documents, whose ids are their places.

    Raises:
        UsageError: if one is neither a text nor a Document.
    """
    return [
        item if isinstance(item, Document) else Document(str(place), text=checked_text(item, f"documents[{place}]"))
        for place, item in enumerate(given_list(documents, "documents"))
    ]


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, (float, np.floating))
