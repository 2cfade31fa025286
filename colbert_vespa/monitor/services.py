"""The health of config servers, and of every service as reported by a config server.

Health is reported by host, so that a process that is down and a host that is unreachable look different.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from colbert_vespa.monitor.http_client import AT_ONCE, HttpClient
from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, CheckRow, Sample, Section
from late_interaction.errors import VespaError, VespaRefused
from vespa_app.deploying.config_server import APPLICATION_PATH, CONVERGE_PATH

__all__ = ["Service", "look_at_services", "service_rows", "services_of"]

AREA = "services"
HEALTH = "/state/v1/health"
SHOWN = 12  # hosts that each get a line although they are fine
SILENT = "silent about its health"
NO_SUCH_PATH = 404  # of a config server that does not pass health on


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the application.

    Attributes:
        generation: Generation of its configuration; -1 if it does not answer the config server.
        health: "up", "" if the service was not asked, or a description of the fault.
    """

    host: str
    type: str
    port: int
    generation: int
    health: str = ""

    @property
    def answers(self) -> bool:
        """Return whether the service answers the config server."""
        return self.generation >= 0

    @property
    def up(self) -> bool:
        """Return whether the service answers and reports no fault."""
        return self.answers and self.health in ("", "up")


def look_at_services(http: HttpClient, config_urls: Sequence[str]) -> tuple[Section, tuple[Service, ...]]:
    """Ask the config servers, and return the rows and samples with the list of services.

    Raises:
        UsageError: If an address is not valid.
    """
    rows: list[CheckRow] = []
    serving = ""
    for url in config_urls:
        row = _config_server(http, url)
        rows.append(row)
        serving = serving or (url if row.state == OK else "")
    if not serving:
        rows.append(CheckRow(AREA, "hosts", UNKNOWN, "no config server answers, and only they list all services"))
        return Section(tuple(rows)), ()
    patience = max(1, int(http.timeout * 2 // 3))  # of the config server for each service; then it answers us
    try:
        answer = http.json(serving, CONVERGE_PATH, parameters={"timeout": str(patience)}, timeout=http.timeout * 2)
    except VespaRefused as error:
        missing = error.status == NO_SUCH_PATH
        says = "nothing is deployed there; run colbert-vespa deploy APP" if missing else str(error)
        return Section((*rows, CheckRow(AREA, "hosts", WRONG if missing else UNKNOWN, says))), ()
    except VespaError as error:
        return Section((*rows, CheckRow(AREA, "hosts", UNKNOWN, str(error)))), ()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="health") as threads:
        services = tuple(threads.map(lambda service: _with_health(http, serving, service), services_of(answer)))
    told = service_rows(services, int(answer.get("wantedGeneration", -1)))
    return Section((*rows, *told.rows), told.samples), services


def _config_server(http: HttpClient, url: str) -> CheckRow:
    try:
        code = _code(http.json(url, HEALTH))
    except VespaError as error:
        return CheckRow("config server", url, WRONG, str(error))
    return CheckRow("config server", url, OK if code == "up" else WRONG, code)


def _code(answer: Mapping[str, Any]) -> str:
    status = answer.get("status")
    return str(status.get("code", "unknown")) if isinstance(status, dict) else "unknown"


def services_of(answer: Mapping[str, Any]) -> list[Service]:
    """Return the services of a config server's list.

    Raises:
        KeyError: If the answer has another shape; also TypeError and ValueError.
    """
    return [
        Service(str(item["host"]), str(item["type"]), int(item["port"]), int(item.get("currentGeneration", -1)))
        for item in answer["services"]
    ]


def _with_health(http: HttpClient, config_url: str, service: Service) -> Service:
    """Add a service's health, requested through the config server, because host names may not resolve outside the cluster."""
    if not service.answers:
        return service
    try:
        health = _code(http.json(config_url, f"{APPLICATION_PATH}/service/{service.type}/{service.host}{HEALTH}"))
    except VespaRefused as error:
        health = "" if error.status == NO_SUCH_PATH else SILENT
    except VespaError:
        health = SILENT
    return Service(service.host, service.type, service.port, service.generation, health)


def service_rows(services: Sequence[Service], wanted: int) -> Section:
    """Return a row for each host, and samples of its services; `wanted` is the active generation of the configuration."""
    hosts: dict[str, list[Service]] = {}
    for service in services:
        hosts.setdefault(service.host, []).append(service)
    rows = [_host(host, own, wanted) for host, own in sorted(hosts.items())]
    samples = [
        Sample("services", float(sum(service.up == answers for service in own)), {"host": host, "answers": said})
        for host, own in hosts.items()
        for answers, said in ((True, "yes"), (False, "no"))
    ]
    fine = [row for row in rows if row.state == OK]
    if len(fine) > SHOWN:
        rows = [row for row in rows if row.state != OK]
        rows.insert(0, CheckRow(AREA, "hosts", OK, f"{len(fine)} of {len(hosts)} are fine"))
    return Section(tuple(rows), tuple(samples))


def _host(host: str, services: Sequence[Service], wanted: int) -> CheckRow:
    down = [service for service in services if not service.up]
    if len(down) == len(services) and not any(service.answers for service in down):
        return CheckRow(AREA, host, WRONG, f"none of its {len(services)} services answers: the host is down or unreachable")
    if down:
        said = ", ".join(_unwell(service) for service in down)
        others = f"{len(services) - len(down)} other services of the host are up"
        return CheckRow(AREA, host, WRONG, f"{said}; {others}: see vespa.log there")
    behind = sorted({f"{service.type} has {service.generation}" for service in services if service.generation < wanted})
    if behind:
        return CheckRow(AREA, host, WARNING, f"configuration {wanted} is active, {', '.join(behind)}")
    return CheckRow(AREA, host, OK, f"all {len(services)} services are up")


def _unwell(service: Service) -> str:
    what = f"{service.type} (port {service.port})"
    return f"{what} is {service.health}" if service.answers else f"{what} does not answer"
