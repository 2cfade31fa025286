"""Where a package can be sent: docker, a config server, Vespa Cloud's dev and prod zones."""

from __future__ import annotations

from pathlib import Path

import httpx

from late_interaction.errors import UsageError
from vespa_app.running.http import parse_address
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import QUERY_PORT

__all__ = [
    "CLOUD_TARGETS",
    "CONFIG_PORT",
    "DOCKER_CONFIG_URL",
    "check_named",
    "check_target",
    "choose_timeout",
    "choose_urls",
    "start_command",
]

CLOUD_TARGETS = {"cloud": "dev", "cloud-prod": "prod"}  # --target -> environment
CONFIG_PORT = 19071
DOCKER_CONFIG_URL = f"http://localhost:{CONFIG_PORT}"
_COMPOSE = "docker compose up -d --wait"
_RUN = f"docker run -d -p 127.0.0.1:{QUERY_PORT}:{QUERY_PORT} -p 127.0.0.1:{CONFIG_PORT}:{CONFIG_PORT} vespaengine/vespa:8"
# nodes are allocated first, and production runs the tests and one region after another
_TIMEOUTS_S = {"cloud": 1800.0, "cloud-prod": 7200.0}
_TIMEOUT_S = 300.0


def check_target(settings: AppSettings, target: str, query_url: str | None) -> None:
    """Check that a package with these settings can run at the target.

    Raises:
        UsageError: if it cannot.
    """
    if target not in CLOUD_TARGETS:
        if settings.cloud is not None:
            raise UsageError(
                "the package has a table [cloud]; deploy it to --target cloud or cloud-prod, or generate it without"
            )
        return
    if settings.cluster.hosts:
        raise UsageError("the package has a table [cluster]; deploy it to the URL of its config server, or generate it without")
    if query_url is not None:
        raise UsageError(f"--query-url does not apply to --target {target}; Vespa Cloud assigns the URL")


def choose_timeout(target: str, timeout: float | None) -> float:
    """Return the timeout in seconds; by default what suits the target.

    Raises:
        UsageError: if it is not a number above 0.
    """
    if timeout is None:
        return _TIMEOUTS_S.get(target, _TIMEOUT_S)
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout must be a number of seconds above 0, got {timeout:g}")
    return timeout


def choose_urls(target: str, query_url: str | None) -> tuple[str, str]:
    """Return the URLs of the config server and of the container.

    Raises:
        UsageError: if the target or the query URL is not valid.
    """
    if target != "docker" and "://" not in target:
        shown = "" if "@" in target else f" {target!r}"
        raise UsageError(
            f"deploy target{shown} is unknown; use docker, cloud, cloud-prod, or the http(s) URL of a config server"
        )
    address = parse_address(DOCKER_CONFIG_URL if target == "docker" else target, "--target")
    if query_url is not None:
        return _text(address), _text(parse_address(query_url, "--query-url"))
    return _text(address), _text(address.copy_with(port=QUERY_PORT))


def check_named(target: str, query_url: str | None) -> None:
    """Check that the container is named if its usual port may belong to another application.

    Raises:
        UsageError: if it is not.
    """
    if query_url is None and target != "docker" and parse_address(target, "--target").port != CONFIG_PORT:
        raise UsageError(
            f"--target {target} does not have the usual port {CONFIG_PORT} of a config server; give the container's "
            f"URL too, with --query-url http(s)://host:port"
        )


def _text(address: httpx.URL) -> str:
    return str(address).rstrip("/")


def start_command() -> str:
    """Return the command that starts Vespa on this machine: docker compose if its file is in the current folder."""
    return _COMPOSE if Path("docker-compose.yml").is_file() else _RUN
