"""Deploying a package: to a config server of one's own (docker compose or any URL), or to Vespa Cloud.

Config server: prepareandactivate, wait until every service runs the new generation, until the query port is up and the
content cluster takes a document; that document is the application's description.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from late_interaction.errors import UsageError, VespaRefused, VespaUnreachable
from vespa_app.addresses import is_url, parse_address
from vespa_app.checks import check_package
from vespa_app.cloud import CLOUD_TARGETS, deploy_to_cloud
from vespa_app.description import Description
from vespa_app.http import answer_json, connect, mapped_errors
from vespa_app.places import CHANGES
from vespa_app.services import overrides_xml
from vespa_app.serving import DeployReport, Poll, Progress, wait_until_serving
from vespa_app.zips import zip_folder

__all__ = ["DOCKER_CONFIG_URL", "SESSION_PATH", "DeployReport", "choose_urls", "deploy", "overriding"]

DOCKER_CONFIG_URL = "http://localhost:19071"
QUERY_PORT = 8080  # of a container, unless told otherwise
ACCEPT_TIMEOUT_S = 300.0  # the config server may read a large model while the client waits
_TENANT = "/application/v2/tenant/default"
SESSION_PATH = f"{_TENANT}/prepareandactivate"
_CONVERGE = f"{_TENANT}/application/default/environment/prod/region/default/instance/default/serviceconverge"
_QUIET_LEVELS = ("INFO", "FINE", "DEBUG", "CONFIG", "EVENT")


def deploy(
    package_folder: str | Path,
    target: str,
    *,
    query_url: str | None = None,
    timeout: float = 300.0,
    allow: Collection[str] = (),
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    transport: httpx.BaseTransport | None = None,
) -> DeployReport:
    """Deploys and waits until the application serves.

    target: "docker", "cloud" (its dev zone), "cloud-prod", or the URL of a config server; query_url: of that server's
    container, by default port 8080 of the same host. timeout in seconds, for everything after Vespa has accepted the
    package. allow: Vespa's names of changes that it refuses unless told, such as field-type-change; allowed for this
    deployment alone.

    Raises: SettingsError where the folder is no package, VespaRefused with Vespa's message, VespaUnreachable where nothing
    answers or services do not come up in time, UsageError on an unknown target.
    """
    if not 0 < timeout < math.inf:
        raise UsageError(f"--timeout must be a number of seconds above 0, got {timeout:g}")
    folder = Path(package_folder)
    description = check_package(folder)
    poll = Poll(timeout, progress or _silent, clock, sleep)
    if target in CLOUD_TARGETS:
        return deploy_to_cloud(folder, description.settings.name, CLOUD_TARGETS[target], poll)
    server = _ConfigServer(*choose_urls(target, query_url), poll, transport)
    try:
        answer = server.activate(folder, overriding(description, allow))
    except VespaUnreachable as error:
        if target != "docker":
            raise
        raise VespaUnreachable(f"{error} Start it with: docker compose up -d --wait", error.status) from None
    return server.wait(folder, answer)


def choose_urls(target: str, query_url: str | None) -> tuple[str, str]:
    """Of the config server, and of the container. Raises: UsageError on a target or a query URL that is none."""
    if target != "docker" and not is_url(target):
        shown = "" if "@" in target else f" {target!r}"
        raise UsageError(f"deploy target{shown} unknown: docker, cloud, cloud-prod, or the http(s) URL of a config server")
    config_url = DOCKER_CONFIG_URL if target == "docker" else target
    address = parse_address(config_url, "--target")
    if query_url is None:
        query_url = str(address.copy_with(port=QUERY_PORT, path="/", query=None))
    parse_address(query_url, "--query-url")
    return config_url.rstrip("/"), query_url.rstrip("/")


def overriding(description: Description, allow: Collection[str]) -> dict[str, bytes]:
    """The package's file of overrides with `allow` in it, valid for today; tomorrow too, for clocks of other time zones.

    Raises: UsageError on a change that Vespa does not know.
    """
    if unknown := sorted(set(allow) - CHANGES):
        raise UsageError(f"--allow {unknown[0]!r}: no change that Vespa knows; known: {', '.join(sorted(CHANGES))}")
    until = (datetime.now(timezone.utc).date() + timedelta(days=1)).isoformat()
    days = {**description.settings.allow, **dict.fromkeys(allow, until)}
    return {"validation-overrides.xml": overrides_xml(days).encode()} if allow else {}


def _silent(message: str) -> None:
    pass


class _ConfigServer:
    def __init__(self, config_url: str, query_url: str, poll: Poll, transport: httpx.BaseTransport | None) -> None:
        self._config_url = config_url
        self._query_url = query_url
        self._poll = poll
        self._transport = transport
        self._start = poll.clock()

    def activate(self, folder: Path, more: Mapping[str, bytes]) -> dict[str, Any]:
        """The config server's answer to the package and `more` files of it. Raises: VespaRefused, VespaUnreachable."""
        body = io.BytesIO()
        zip_folder(folder, body, more)
        self._poll.say(f"sending {len(body.getvalue()) / 1e6:.1f} MB to {self._config_url}")
        with self._client(ACCEPT_TIMEOUT_S) as client, mapped_errors(self._config_url):
            headers = {"Content-Type": "application/zip"}
            response = client.post(SESSION_PATH, content=body.getvalue(), headers=headers)
        answer = answer_json(response)
        if not str(answer.get("session-id", "")).isdigit():
            raise VespaRefused(f"{self._config_url} is no Vespa config server: it answered {str(answer)[:100]}")
        return answer

    def wait(self, folder: Path, answer: dict[str, Any]) -> DeployReport:
        """Raises: VespaUnreachable naming the services that are not up in time."""
        generation = int(answer["session-id"])
        self._poll.say(f"Vespa accepted the package as generation {generation}")
        warnings = _warnings(answer)
        for message in warnings:
            self._poll.say(f"Vespa warns: {message}")
        deadline = self._poll.clock() + self._poll.timeout
        self._wait_for_services(generation, deadline)
        wait_until_serving(folder, self._query_url, self._poll, deadline, self._transport)
        changes = answer.get("configChangeActions") or {}
        return DeployReport(
            query_url=self._query_url,
            generation=generation,
            seconds=self._poll.clock() - self._start,
            warnings=warnings,
            restart=_messages(changes, "restart"),
            reindex=_messages(changes, "reindex"),
            refeed=_messages(changes, "refeed"),
        )

    def _wait_for_services(self, generation: int, deadline: float) -> None:
        waiting = ["all services"]

        def converged() -> bool:
            nonlocal waiting
            with self._client(10.0) as client, mapped_errors(self._config_url):
                services = answer_json(client.get(_CONVERGE)).get("services", [])
            waiting = [_service_name(item) for item in services if item.get("currentGeneration", -1) < generation]
            return bool(services) and not waiting

        self._poll.until(converged, lambda: ", ".join(waiting), deadline)

    def _client(self, timeout: float) -> httpx.Client:
        return connect(self._config_url, timeout=timeout, connections=1, transport=self._transport)


def _service_name(service: dict[str, Any]) -> str:
    return f"{service.get('type', 'service')} on {service.get('host', '?')}:{service.get('port', '?')}"


def _warnings(answer: dict[str, Any]) -> tuple[str, ...]:
    entries = [entry for entry in answer.get("log", ()) if entry.get("level") not in _QUIET_LEVELS]
    return tuple(" ".join(str(entry.get("message", entry)).split()) for entry in entries)


def _messages(changes: dict[str, Any], kind: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(message) for item in changes.get(kind, ()) for message in item.get("messages", ())))
