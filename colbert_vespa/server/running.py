"""The server process: socket, uvicorn, and shutdown on SIGTERM."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from colbert_vespa.server.settings import ServerSettings
from late_interaction.errors import UsageError

__all__ = ["Listen", "check_loopback", "is_loopback", "listening", "run_server"]

KEEP_ALIVE = 75  # seconds that an idle connection stays open: with uvicorn's 5 a busy client's next request may meet its end


@dataclass(frozen=True)
class Listen:
    """Where the server listens.

    Attributes:
        port: Port; 0 for any free one.
        tls_cert: PEM file of the certificate. Certificate and key are given together or not at all.
        tls_key: PEM file of the private key.
        settle: Seconds after SIGTERM during which requests are still accepted while `/ready` is false, so that a load balancer
            notices.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    settle: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is not valid.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key belong together; give both, or neither")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise UsageError(f"{path} is not a file")

    def url(self, port: int) -> str:
        """Return the address of the server at this port."""
        scheme, host = "http" if self.tls_cert is None else "https", f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_loopback(host: str) -> None:
    """Check that only this machine can reach a server without keys.

    Raises:
        UsageError: If other machines could.
    """
    if not is_loopback(host):
        raise UsageError(
            f"--host {host} admits other machines, but there are no keys; create one with `colbert-vespa serve keys "
            f"make` and give its file with --keys, or listen on 127.0.0.1"
        )


def listening(listen: Listen) -> socket.socket:
    """Return a bound socket, which accepts connections once the server runs.

    Raises:
        UsageError: If the address is taken, or does not belong to this machine.
    """
    try:
        family, kind, tcp, _, address = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as opened:
            on = opened.enter_context(socket.socket(family, kind, tcp))  # TCP by name: or asyncio leaves Nagle on
            on.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            on.bind(address)
            opened.pop_all()
        return on
    except OSError as error:
        raise UsageError(f"{listen.host}:{listen.port} is not available: {error.strerror or error}") from None


class _Server(uvicorn.Server):
    """A uvicorn server that reports not ready as soon as it is stopped."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, settle: float, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._app, self._settle, self._started = app, settle, started
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.ready = False
        self._app.state.stopping = True
        if self._until is not None:  # told twice
            super().handle_exit(sig, frame)
            return
        self._until = time.monotonic() + self._settle  # not uvicorn's own way, which raises the signal again after a good end

    async def on_tick(self, counter: int) -> bool:
        if self._until is not None and time.monotonic() >= self._until:
            self.should_exit = True
        return await super().on_tick(counter)


def run_server(
    app: FastAPI, listen: Listen, settings: ServerSettings, on: socket.socket, started: Callable[[], object] = lambda: None
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests are answered first.

    Args:
        app: The application.
        listen: Where the server listens.
        settings: Settings of the server.
        on: Bound socket.
        started: Called once connections are accepted.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
    )
    _Server(config, app, listen.settle, started).run(sockets=[on])
