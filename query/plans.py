"""Searches as generators that yield requests and receive answers.

They do no input or output themselves, so the sync and the async client drive the same code (exchange.py).
"""

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
    """One query.

    Attributes:
        url: the application.
        body: body of the POST to /search/, without `timeout`.
        deadline: on the exchange's clock.
    """

    url: str
    body: Mapping[str, Any]
    deadline: float


@dataclass(frozen=True)
class ServerQuery:
    """One request to our server.

    Attributes:
        url: the server.
        path: path of the POST.
        body: body without `timeout`.
        deadline: on the exchange's clock.
        first_line: read only the first line of an answer in lines.
    """

    url: str
    path: str
    body: Mapping[str, Any]
    deadline: float
    first_line: bool = False


Ask: TypeAlias = VespaQuery | ServerQuery


@dataclass(frozen=True)
class VespaAnswer:
    """An answer of Vespa or our server.

    Attributes:
        body: the answer.
        seconds: from request to answer.
        sent: how many times it was sent.
    """

    body: Mapping[str, Any]
    seconds: float
    sent: int = 1


Plan: TypeAlias = Generator[tuple[Ask, ...], list[VespaAnswer], T]


def step(plan: Plan[T], answers: list[VespaAnswer] | None) -> tuple[tuple[Ask, ...] | None, list[T]]:
    """Return the plan's next requests, or None and its result: StopIteration cannot pass through a future.

    answers: None to start.
    """
    try:
        return plan.send(answers), []  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as stop:
        return None, [stop.value]


def answering(operation: Callable[..., Plan[Any]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for what runs a plan: name, docstring and arguments are those of `operation`."""
    signature = inspect.signature(operation)
    answer = str(signature.return_annotation).removeprefix("Plan[").removesuffix("]")

    def decorated(run: Callable[P, R]) -> Callable[P, R]:
        """Return the method with the operation's signature."""
        method: Any = functools.wraps(operation)(run)
        method.__signature__ = signature.replace(return_annotation=answer)
        method.__annotations__ = operation.__annotations__ | {"return": answer}
        return method  # type: ignore[no-any-return]

    return decorated


def at_once(make: Callable[[], T]) -> Plan[T]:
    """Return a plan without requests."""
    yield from ()
    return make()


def together(plans: Sequence[Plan[T]]) -> Plan[list[T]]:
    """Run plans side by side: their next requests are sent at once."""
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
