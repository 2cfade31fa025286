"""Run all checks, once or repeatedly. A part that fails or cannot be reached becomes a row, never an exception."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from colbert_vespa.monitor.baseline import Profile, drift_rows, measure
from colbert_vespa.monitor.canaries import Canaries, ask_canaries
from colbert_vespa.monitor.content import look_at_content
from colbert_vespa.monitor.documents import EarlierLooks, look_at_application
from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.metrics import look_at_metrics
from colbert_vespa.monitor.report import OK, UNKNOWN, CheckRow, HealthReport, Section, joined
from colbert_vespa.monitor.services import look_at_services
from late_interaction.addresses import locate, vespa_url
from late_interaction.errors import ColbertVespaError, UsageError
from query import Client, ClientSettings
from vespa_app.deploying.targets import CONFIG_PORT
from vespa_app.running.credentials import tls_context, token_header
from vespa_app.running.http import parse_address
from vespa_app.settings.application_settings import QUERY_PORT

__all__ = ["Monitor", "Watched", "config_urls"]

SELDOM_S = 3600.0  # between two looks at what costs seconds of processor time: drift, and checksums of a local index


@dataclass(frozen=True)
class Watched:
    """What to monitor.

    Attributes:
        config: Addresses of config servers; empty if none can be asked, as on Vespa Cloud.
    """

    address: str
    config: tuple[str, ...] = ()
    bundle: Path | None = None
    canaries: Canaries | None = None
    baseline: Profile | None = None
    timeout: float = 5.0
    limits: WarningLimits = field(default_factory=WarningLimits)

    def __post_init__(self) -> None:
        """Check the addresses.

        Raises:
            UsageError: If an address is not valid, or the credentials cannot be used for it.
        """
        if self.folder is not None:
            if self.config:
                raise UsageError("--config applies to Vespa; a local index has no config server")
            return
        for parsed in (parse_address(self.url), *(parse_address(url, "--config") for url in self.config)):
            token_header(parsed)
            if parsed.scheme == "https":
                tls_context()

    @property
    def folder(self) -> Path | None:
        """Return the folder of a local index; None for Vespa."""
        place = locate(self.address)
        return place if isinstance(place, Path) else None

    @property
    def url(self) -> str:
        """Return the URL of the container without the name of an index; '' for a local index."""
        place = locate(self.address)
        return "" if isinstance(place, Path) else place.url


def config_urls(address: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of the config servers to ask.

    These are the given ones, or else the one on the container's host at the usual port. With https or a container at another
    port there is no such default: the usual port of that host may belong to another application.
    """
    place = locate(address)
    if given or isinstance(place, Path):
        return tuple(vespa_url(url, "--config").url for url in given)
    parsed = parse_address(place.url)
    if parsed.scheme != "http" or parsed.port != QUERY_PORT:
        return ()
    return (str(parsed.copy_with(port=CONFIG_PORT)).rstrip("/"),)


class Monitor:
    """Runs the checks. Close it after use, or use it in `with`.

    Args:
        clock: Replaces the clock in tests.
        now: Replaces the time, in seconds since the epoch, in tests.
    """

    def __init__(
        self,
        target: Watched,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self._ask = HttpClient(target.timeout)
        self._clock, self._now = clock, now
        self._seen = EarlierLooks()
        self._client: Client | None = None
        self._seldom: tuple[float, Section] | None = None

    def look(self) -> HealthReport:
        """Run every check once and return the report."""
        start, folder = self._clock(), self.target.folder
        parts: list[tuple[str, Callable[[], Section]]]
        if folder is None:
            parts = [("services", self._cluster), ("application", self._application), ("metrics", self._metrics)]
        else:
            from colbert_vespa.monitor.local import look_at_index

            parts = [("index", lambda: look_at_index(folder, self.target.limits))]
        if self.target.canaries is not None:
            parts.append(("canaries", self._canaries))
        with ThreadPoolExecutor(len(parts), thread_name_prefix="monitor") as threads:
            found = list(threads.map(lambda part: guarded(*part), parts))
        found.append(self._at_times())  # alone: it takes all cores
        return HealthReport(self.target.address, joined(found), self._now(), self._clock() - start)

    def close(self) -> None:
        """Close the connections and the client."""
        self._ask.close()
        self._forget()

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cluster(self) -> Section:
        if not self.target.config:
            return Section()
        told, services = look_at_services(self._ask, self.target.config)
        content = guarded("content", lambda: look_at_content(self._ask, self.target.config, services))
        return joined((told, content))

    def _application(self) -> Section:
        return look_at_application(self._ask, self.target.url, self._seen)

    def _metrics(self) -> Section:
        return look_at_metrics(self._ask, self.target.url, self.target.limits)

    def _canaries(self) -> Section:
        assert self.target.canaries is not None
        found = ask_canaries(self._opened(), self.target.canaries, self.target.timeout)
        if any(row.state != OK for row in found.rows):
            self._forget()  # another application may have been deployed since it was opened
        return found

    def _at_times(self) -> Section:
        """Return the last result of the expensive checks, or run them again if it is too old."""
        if self._seldom is not None and self._clock() - self._seldom[0] < SELDOM_S:
            return self._seldom[1]
        found, folder = [], self.target.folder
        if folder is not None:
            from colbert_vespa.monitor.local import look_at_files

            found.append(guarded("index", lambda: look_at_files(folder)))
        if self.target.baseline is not None:
            found.append(guarded("drift", self._drift))
        section = joined(found)
        if all(row.state != UNKNOWN for row in section.rows):  # else again at the next look
            self._seldom = self._clock(), section
        return section

    def _drift(self) -> Section:
        before = self.target.baseline
        assert before is not None
        return drift_rows(before, measure(self._opened(), self._ask, before.queries), self.target.limits)

    def _opened(self) -> Client:
        """Return the client, opened when it is needed: its application may be down now and up at the next check."""
        if self._client is None:
            settings = ClientSettings(timeout=self.target.timeout, retries=0)
            self._client = Client(self.target.address, self.target.bundle, settings=settings)
        return self._client


def guarded(area: str, look: Callable[[], Section]) -> Section:
    """Run a check; if it fails, return a row with the reason."""
    try:
        return look()
    except ColbertVespaError as error:
        return Section((CheckRow(area, "all", UNKNOWN, str(error)),))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Section((CheckRow(area, "all", UNKNOWN, f"an answer that is not Vespa's: {error!r}"),))
