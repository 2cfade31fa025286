"""The description of an application, and the number of documents that a query finds in each of its indexes."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field

from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, CheckRow, Sample, Section
from late_interaction.errors import ColbertVespaError, VespaError, VespaUnreachable
from query.vespa_answer import VespaCoverage, checked_answer, coverage_of
from vespa_app.running import Description
from vespa_app.running.description import read_description
from vespa_app.settings import AppSettings

__all__ = ["EarlierLooks", "counted", "look_at_application"]

AREA = "documents"


@dataclass
class EarlierLooks:
    """Results of earlier checks of an application.

    Attributes:
        most: The largest number of passages seen in each index. Vespa may report full coverage although the documents of a lost
            host are missing, until other hosts have taken them over.
        description: Description of the application. It is stored in the content cluster and cannot be read while that is down.
    """

    most: dict[str, int] = field(default_factory=dict)
    description: Description | None = None


def look_at_application(http: HttpClient, url: str, seen: EarlierLooks) -> Section:
    """Check the container, the description and the documents of an application, and update `seen`."""
    container = _container(http, url)
    if container.state != OK:
        return Section((container,))
    rows = [container]
    try:
        seen.description = read_description(url, timeout=http.timeout)
        rows.append(_described(seen.description))
    except ColbertVespaError as error:
        rows.append(CheckRow("application", "description", UNKNOWN, str(error)))
    samples: list[Sample] = []
    for index in seen.description.all if seen.description else ():
        found = _searched(http, url, index.settings, seen.most)
        rows += found.rows
        samples += found.samples
    return Section(tuple(rows), tuple(samples))


def _container(http: HttpClient, url: str) -> CheckRow:
    try:
        code = str(http.json(url, "/state/v1/health")["status"]["code"])
    except VespaUnreachable as error:
        return CheckRow("application", "container", WRONG, str(error))
    except VespaError as error:
        return CheckRow("application", "container", UNKNOWN, str(error))
    return CheckRow("application", "container", OK if code == "up" else WRONG, f"{url} is {code}")


def _described(description: Description) -> CheckRow:
    said = [f"{index.settings.schema} ({index.settings.codec}, bundle {index.bundle_sha256[:8]})" for index in description.all]
    return CheckRow("application", "indexes", OK, ", ".join(said))


def counted(http: HttpClient, url: str, settings: AppSettings) -> tuple[int, VespaCoverage]:
    """Return how many documents of an index a query finds, and the coverage that Vespa reports.

    Raises:
        VespaError: If Vespa does not answer.
        UsageError: If the URL is not valid.
    """
    body = {
        "yql": f"select * from {settings.schema} where true",  # noqa: S608 - a checked name
        "model.restrict": settings.schema,
        "ranking.profile": "unranked",
        "hits": 0,
        "timeout": f"{0.8 * http.timeout:.3f}s",
        **({"streaming.selection": "true"} if settings.mode == "streaming" else {}),
    }
    root = checked_answer(http.get(url, "/search/", body=body), url)["root"]
    return int(root["fields"]["totalCount"]), coverage_of(root, None)


def _searched(http: HttpClient, url: str, settings: AppSettings, most: MutableMapping[str, int]) -> Section:
    name = settings.schema
    try:
        count, coverage = counted(http, url, settings)
    except VespaError as error:
        return Section((CheckRow(AREA, name, WRONG, str(error)),))
    before = most.get(name, count)
    most[name] = max(before, count)
    says, state = f"{count:,} are searched", OK
    if coverage.degraded:
        state, says = WRONG, f"{says}, {coverage.share:.1%} of all: {'; '.join(coverage.degraded)}"
    elif count < before:
        state, says = WARNING, f"{says}, {before:,} were: some were deleted, or a node is lost"
    samples = Sample("documents", float(count), {"index": name}), Sample("coverage_ratio", coverage.share, {"index": name})
    return Section((CheckRow(AREA, name, state, says),), samples)
