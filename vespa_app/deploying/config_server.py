"""Deploy to a config server.

Wait for one that is starting, call prepareandactivate, wait until every service runs the new generation, until the query
port is up and the content cluster accepts a document; that document is the application's description.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from late_interaction.errors import VespaError, VespaRefused, VespaUnreachable
from vespa_app.changes.staleness import read_running
from vespa_app.deploying.serving import DeployReport, Poll, wait_until_serving
from vespa_app.deploying.targets import DOCKER_CONFIG_URL, start_command
from vespa_app.package.zips import zip_folder
from vespa_app.running.http import answer_json, check, connect, mapped_errors

__all__ = ["APPLICATION_PATH", "CONVERGE_PATH", "SESSION_PATH", "ConfigServer"]

PROBE_TIMEOUT_S = 10.0
ACCEPT_TIMEOUT_S = 300.0  # the config server may read a large model while the client waits
_TENANT = "/application/v2/tenant/default"
SESSION_PATH = f"{_TENANT}/prepareandactivate"
APPLICATION_PATH = f"{_TENANT}/application/default/environment/prod/region/default/instance/default"
CONVERGE_PATH = f"{APPLICATION_PATH}/serviceconverge"
HEALTH_PATH = "/state/v1/health"
_QUIET_LEVELS = ("INFO", "FINE", "DEBUG", "CONFIG", "EVENT")


class ConfigServer:
    """A config server."""

    def __init__(
        self, folder: Path, config_url: str, query_url: str, poll: Poll, transport: httpx.BaseTransport | None
    ) -> None:
        self._folder = folder
        self._config_url = config_url
        self._query_url = query_url
        self._poll = poll
        self._transport = transport
        self._start = poll.clock()

    def running_urls(self) -> tuple[str, ...]:
        """Return where the application answers."""
        return (self._query_url,)

    def wait_for_start(self, seconds: float) -> None:
        """Wait until a config server that refuses or drops connections answers, at most `seconds`.

        If it then has an application, the query port is waited for too, so that the package is compared with what runs.

        Raises:
            VespaUnreachable: if it does not answer in time.
        """
        if self._answers():
            return
        poll = dataclasses.replace(self._poll, timeout=seconds)
        deadline = poll.clock() + seconds
        with self._advised():
            poll.until(self._answers, lambda: f"the config server {self._config_url}", deadline)
        if self._has_application():
            urls, waiting = self.running_urls(), f"the application at {self._query_url}"
            with contextlib.suppress(VespaUnreachable):  # it may be broken, and the package mends it
                poll.until(lambda: bool(read_running(urls, self._transport)), lambda: waiting, deadline)

    def _answers(self) -> bool:
        """Tell whether there is an answer, or an error that waiting does not mend: the deployment will report it."""
        try:
            with self._client(PROBE_TIMEOUT_S) as client:
                client.get(HEALTH_PATH)
        except (httpx.RequestError, httpx.StreamError, VespaError) as error:
            return not _may_be_starting(error)
        return True

    def _has_application(self) -> bool:
        try:
            with self._client(PROBE_TIMEOUT_S) as client, mapped_errors(self._config_url):
                check(client.get(APPLICATION_PATH))
        except VespaError:
            return False
        return True

    @contextlib.contextmanager
    def _advised(self) -> Iterator[None]:
        """Add to VespaUnreachable how Vespa is started on this machine."""
        try:
            yield
        except VespaUnreachable as error:
            if self._config_url != DOCKER_CONFIG_URL:
                raise
            raise VespaUnreachable(f"{error}; to start Vespa: {start_command()}", error.status) from None

    def deploy(self, more: Mapping[str, bytes]) -> DeployReport:
        """Send the package plus `more` files, and wait until it serves.

        Raises:
            VespaRefused: with Vespa's message.
            VespaUnreachable: if services are not up in time; the message names them.
        """
        with self._advised():
            answer = self._activate(more)
        return self._wait(answer)

    def _activate(self, more: Mapping[str, bytes]) -> dict[str, Any]:
        body = zip_folder(self._folder, more)
        self._poll.say(f"sending {len(body) / 1e6:.1f} MB to {self._config_url}")
        with self._client(ACCEPT_TIMEOUT_S) as client, mapped_errors(self._config_url):
            headers = {"Content-Type": "application/zip"}
            response = client.post(SESSION_PATH, content=body, headers=headers)
        answer = answer_json(response)
        if not str(answer.get("session-id", "")).isdigit():
            raise VespaRefused(f"{self._config_url} is not a Vespa config server: it answered {str(answer)[:100]}")
        return answer

    def _wait(self, answer: dict[str, Any]) -> DeployReport:
        generation = int(answer["session-id"])
        self._poll.say(f"Vespa accepted the package as generation {generation}")
        warnings = _warnings(answer)
        for message in warnings:
            self._poll.say(f"Vespa warns: {message}")
        deadline = self._poll.clock() + self._poll.timeout
        self._wait_for_services(generation, deadline)
        place = f"the query port {self._query_url}"
        wait_until_serving(self._folder, self._query_url, place, self._poll, deadline, self._transport)
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
                services = answer_json(client.get(CONVERGE_PATH)).get("services", [])
            waiting = [_service_name(item) for item in services if item.get("currentGeneration", -1) < generation]
            return bool(services) and not waiting

        self._poll.until(converged, lambda: ", ".join(waiting), deadline)

    def _client(self, timeout: float) -> httpx.Client:
        return connect(self._config_url, timeout=timeout, connections=1, transport=self._transport)


def _may_be_starting(error: Exception) -> bool:
    """Tell whether connections are refused, or dropped as docker does for a port that nothing listens on yet."""
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        return True
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConnectionRefusedError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _service_name(service: dict[str, Any]) -> str:
    return f"{service.get('type', 'service')} on {service.get('host', '?')}:{service.get('port', '?')}"


def _warnings(answer: dict[str, Any]) -> tuple[str, ...]:
    entries = [entry for entry in answer.get("log", ()) if entry.get("level") not in _QUIET_LEVELS]
    return tuple(" ".join(str(entry.get("message", entry)).split()) for entry in entries)


def _messages(changes: dict[str, Any], kind: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(message) for item in changes.get(kind, ()) for message in item.get("messages", ())))
