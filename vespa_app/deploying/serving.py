"""Wait until a deployed application serves, with clock and sleep as parameters."""

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
    """The outcome of a deployment.

    Attributes:
        query_url: where to feed and search.
        generation: Vespa's generation of the package.
        seconds: until the application accepted a document.
        warnings: warnings in Vespa's deploy log.
        restart: Vespa's messages about services to restart.
        reindex: Vespa's messages about reindexing.
        refeed: messages about documents to feed again, Vespa's and ours.
        regions: query URL of each region of Vespa Cloud.
    """

    query_url: str
    generation: int
    seconds: float
    warnings: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reindex: tuple[str, ...] = ()
    refeed: tuple[str, ...] = ()
    regions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Poll:
    """Polls until something is done or `timeout` seconds have passed. say: called with what is waited for, once each."""

    timeout: float
    say: Progress
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, done: Callable[[], bool], waiting: Callable[[], str], deadline: float) -> None:
        """Poll until `done`. Errors of Vespa count as not done: a starting service answers 404 and 5xx, or not at all.

        Raises:
            VespaUnreachable: if it is not up in time; the message names it.
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
                raise VespaUnreachable(f"not up after {self.timeout:.0f} s: waiting for {waiting()}{reason}; see Vespa's log")
            if waiting() != said:
                said = waiting()
                self.say(f"waiting for {said}")
            self.sleep(PAUSE_S)


def wait_until_serving(
    folder: Path, query_url: str, place: str, poll: Poll, deadline: float, transport: httpx.BaseTransport | None = None
) -> None:
    """Poll until the package's description, written as a document, is read back.

    place: what is waited for.

    Raises:
        VespaUnreachable: if it is not up in time.
    """
    body = description_document((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))

    def serving() -> bool:
        """Tell whether the description can be read."""
        with connect(query_url, timeout=10.0, connections=1, transport=transport) as client, mapped_errors(query_url):
            check(client.get("/ApplicationStatus"))
            check(client.post(DESCRIPTION_PATH, content=body, headers={"Content-Type": "application/json"}))
        read_description(query_url, transport=transport)
        return True

    poll.until(serving, lambda: place, deadline)
