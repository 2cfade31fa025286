"""Deploy a package to a config server (docker compose or any URL) or to Vespa Cloud.

A package that would invalidate the documents of the running application is refused before anything is sent.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from pathlib import Path

import httpx

from vespa_app.changes.staging import check_staging
from vespa_app.changes.staleness import REFEED, documents_to_feed, read_running
from vespa_app.deploying.cloud import CloudZone
from vespa_app.deploying.config_server import ConfigServer
from vespa_app.deploying.serving import DeployReport, Poll, Progress
from vespa_app.deploying.shipment import overriding
from vespa_app.deploying.targets import CLOUD_TARGETS, check_named, check_target, choose_timeout, choose_urls
from vespa_app.package import check_package

__all__ = ["deploy"]

START_S = 60.0  # for a config server that does not accept connections yet


def deploy(
    package_folder: str | Path,
    target: str,
    *,
    query_url: str | None = None,
    timeout: float | None = None,
    allow: Collection[str] = (),
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    transport: httpx.BaseTransport | None = None,
) -> DeployReport:
    """Deploy a package and wait until the application serves.

    Args:
        package_folder: the package.
        target: "docker", "cloud" (its dev zone), "cloud-prod", or the URL of a config server.
        query_url: URL of that server's container; by default port 8080 of the same host if the target has the usual port
            19071.
        timeout: seconds for everything after Vespa has accepted the package; by default what suits the target. A config
            server that is starting gets as long before that, by default 60 seconds.
        allow: Vespa's names of changes that it refuses by default, such as field-type-change, allowed for this deployment
            only; and `refeed`, for a package that invalidates the documents of the running application.
        progress: called with a line before each step.
        clock: for tests.
        sleep: for tests.
        transport: for tests.

    Returns:
        where the application answers, and what remains to be done.

    Raises:
        SettingsError: if the folder is not a package.
        VespaRefused: with Vespa's message.
        VespaUnreachable: if nothing answers or services do not come up in time.
        UsageError: if the target is unknown, or the package is made for another target or invalidates documents.
    """
    folder = Path(package_folder)
    poll = Poll(choose_timeout(target, timeout), progress or _silent, clock, sleep)
    description = check_package(folder)
    check_target(description.settings, target, query_url)
    more = overriding(description, allow)
    place: CloudZone | ConfigServer
    if target in CLOUD_TARGETS:
        place = CloudZone(folder, description.settings.name, CLOUD_TARGETS[target], poll)
    else:
        config_url, answers = choose_urls(target, query_url)
        check_named(target, query_url)
        if query_url is None:
            poll.say(f"queries go to {answers}, the usual port; --query-url names another")
        place = ConfigServer(folder, config_url, answers, poll, transport)
        place.wait_for_start(START_S if timeout is None else timeout)
    running = read_running(place.running_urls(), transport)
    stale = documents_to_feed(running, description, allowed=REFEED in allow)
    if target == "cloud-prod":
        check_staging(folder, running)
    report = place.deploy(more)
    for message in stale:
        poll.say(message)
    return dataclasses.replace(report, refeed=(*report.refeed, *stale))


def _silent(message: str) -> None:
    pass
