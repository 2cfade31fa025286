"""A search as a generator that says what to ask Vespa and is sent the answers: it does no input or output itself, so that the
sync and the async client drive the same code (exchange.py)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

__all__ = ["Ask", "Plan", "ServerQuery", "VespaAnswer", "VespaQuery", "answering", "at_once", "step", "together"]

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True)
class VespaQuery:
    """One query. url: of the application. body: of the POST to /search/, without `timeout`. deadline: on the exchange's
    clock."""

    url: str
    body: Mapping[str, Any]
    deadline: float


@dataclass(frozen=True)
class ServerQuery:
    """One request to a server of ours. path: of the POST. body: without `timeout`. first_line: of an answer in lines the rest
    is not waited for."""

    url: str
    path: str
    body: Mapping[str, Any]
    deadline: float
    first_line: bool = False


Ask: TypeAlias = VespaQuery | ServerQuery


@dataclass(frozen=True)
class VespaAnswer:
    """What Vespa, or a server of ours, said. seconds: from asking to here. sent: how many times it was asked."""

    body: Mapping[str, Any]
    seconds: float
    sent: int = 1


Plan: TypeAlias = Generator[tuple[Ask, ...], list[VespaAnswer], T]


def step(plan: Plan[T], answers: list[VespaAnswer] | None) -> tuple[tuple[Ask, ...] | None, list[T]]:
    """What the plan asks next, or None and its result: StopIteration cannot pass through a future. answers: None to begin."""
    try:
        return plan.send(answers), []  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as stop:
        return None, [stop.value]


def answering(operation: Callable[..., Plan[Any]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for what runs a plan: it has the name, docstring and arguments of `operation`, and returns its answer."""
    signature = inspect.signature(operation)
    answer = str(signature.return_annotation).removeprefix("Plan[").removesuffix("]")

    def decorated(run: Callable[P, R]) -> Callable[P, R]:
        method: Any = functools.wraps(operation)(run)
        method.__signature__ = signature.replace(return_annotation=answer)
        method.__annotations__ = operation.__annotations__ | {"return": answer}
        return method  # type: ignore[no-any-return]

    return decorated


def at_once(make: Callable[[], T]) -> Plan[T]:
    """A plan that asks nothing."""
    yield from ()
    return make()


def together(plans: Sequence[Plan[T]]) -> Plan[list[T]]:
    """Plans side by side: what all of them ask next is asked at once."""
    results: dict[int, T] = {}
    answers: dict[int, list[VespaAnswer] | None] = dict.fromkeys(range(len(plans)))
    while answers:
        asked: dict[int, tuple[Ask, ...]] = {}
        for place, answer in answers.items():
            try:
                asked[place] = plans[place].send(answer)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                results[place] = stop.value
        answers = {}
        if asked:
            source = iter((yield tuple(ask for asks in asked.values() for ask in asks)))
            answers = {place: [next(source) for _ in asks] for place, asks in asked.items()}
    return [results[place] for place in range(len(plans))]
