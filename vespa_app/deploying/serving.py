"""Waiting until a deployed application serves, with clock and sleep as parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from late_interaction.errors import VespaError, VespaUnreachable
from vespa_app.running.description import DESCRIPTION_FILE, DESCRIPTION_PATH, description_document, read_description
from vespa_app.running.http import check, connect, mapped_errors

__all__ = ["DeployReport", "Poll", "Progress", "wait_until_serving"]

Progress = Callable[[str], None]
PAUSE_S = 0.5


@dataclass(frozen=True)
class DeployReport:
    """query_url: where to feed and search. regions: of Vespa Cloud, each with its own. warnings: of Vespa's deploy log.
    restart, reindex, refeed: Vespa's messages about what the change needs, and ours. seconds: until the application took a
    document."""

    query_url: str
    generation: int
    seconds: float
    warnings: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reindex: tuple[str, ...] = ()
    refeed: tuple[str, ...] = ()
    regions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Poll:
    """Asks again until something is done or `timeout` seconds have passed. say: told what is waited for, once each."""

    timeout: float
    say: Progress
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, done: Callable[[], bool], waiting: Callable[[], str], deadline: float) -> None:
        """Errors of Vespa count as not done: what starts answers 404 and 5xx, or not at all.

        Raises: VespaUnreachable naming what is not up.
        """
        said = ""
        while True:
            reason = ""
            try:
                if done():
                    return
            except VespaError as error:
                reason = f" ({error})"
            if self.clock() >= deadline:
                raise VespaUnreachable(
                    f"not up after {self.timeout:.0f} s: waiting for {waiting()}{reason}; Vespa's log says why"
                )
            if waiting() != said:
                said = waiting()
                self.say(f"waiting for {said}")
            self.sleep(PAUSE_S)


def wait_until_serving(
    folder: Path, query_url: str, place: str, poll: Poll, deadline: float, transport: httpx.BaseTransport | None = None
) -> None:
    """Polls until the package's description, written as a document, is read back. place: what is waited for, in words.

    Raises: VespaUnreachable.
    """
    body = description_document((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))

    def serving() -> bool:
        with connect(query_url, timeout=10.0, connections=1, transport=transport) as client, mapped_errors(query_url):
            check(client.get("/ApplicationStatus"))
            check(client.post(DESCRIPTION_PATH, content=body, headers={"Content-Type": "application/json"}))
        read_description(query_url, transport=transport)
        return True

    poll.until(serving, lambda: place, deadline)
