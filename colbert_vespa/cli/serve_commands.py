"""`serve`: serve indexes over HTTP, with a page and MCP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.keys_commands import keys_app
from colbert_vespa.cli.option_types import (
    BundleOption,
    Candidates,
    DeviceNumber,
    DeviceOption,
    RerankWith,
    chosen_device,
    path,
    real,
    text,
    whole,
)
from late_interaction.errors import UsageError
from late_interaction.extras import require

if TYPE_CHECKING:
    from late_interaction.devices import Device

__all__ = ["ServeCommand", "serve"]


class ServeCommand(TyperCommand):
    """`serve ADDRESS...`, and `serve keys ...`; a folder of that name is ./keys."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Pass `serve keys ...` on to the commands of keys."""
        if args[:1] == ["keys"]:
            return typer.main.get_command(keys_app).make_context(f"{info_name} keys", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def serve(
    address: Annotated[
        list[str],
        typer.Argument(
            help="Local index folder, or Vespa URL with #NAME for one of its indexes; NAME=ADDRESS names it.", parser=text
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; without keys it must be local.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 for any.", parser=whole(0, 65535))] = 8000,
    mcp: Annotated[bool, typer.Option("--mcp", help="Also serve agents at /mcp, with tools search and fetch.")] = False,
    stdio: Annotated[
        bool, typer.Option("--stdio", help="No HTTP: serve one agent over standard input and output, by MCP.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="File with callers' keys, written by `serve keys make`.", parser=path)
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file with certificates.", parser=path)] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file with their private key.", parser=path)] = None,
    cors: Annotated[
        list[str] | None, typer.Option("--cors", help="Origin whose pages may read answers, such as https://example.org.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option("--trusted-proxy", help="Address of a proxy whose X-Forwarded headers are trusted.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON, one object per line.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Default timeout of a request in seconds.", parser=real(0, 3600, above=True))
    ] = 10.0,
    max_body: Annotated[int, typer.Option("--max-body", help="Most bytes of a request's body.", parser=whole(1))] = 16
    * 1024
    * 1024,
    max_k: Annotated[int, typer.Option("--max-k", help="Most hits and reranked candidates.", parser=whole(1, 10_000))] = 1_000,
    max_text: Annotated[int, typer.Option("--max-text", help="Most characters of a text.", parser=whole(1))] = 100_000,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Most queries or texts in one request.", parser=whole(1))] = 256,
    max_running: Annotated[int, typer.Option("--max-running", help="Most concurrent requests.", parser=whole(1))] = 64,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", help="Most waiting requests; more get status 429.", parser=whole(0))
    ] = 256,
    drain: Annotated[
        float,
        typer.Option("--drain", help="Seconds for running requests to finish when the server stops.", parser=real(1, 3600)),
    ] = 20.0,
    settle: Annotated[
        float, typer.Option("--settle", help="Seconds to report not ready before stopping.", parser=real(0, 3600))
    ] = 0.0,
    split: Annotated[
        str, typer.Option("--split", help="Passages of a document that is put: none, sentences or markdown.")
    ] = "none",
    candidates: Candidates = "auto",
    rerank_with: RerankWith = None,
    url_field: Annotated[str, typer.Option("--url-field", help="For MCP: metadata field with a document's URL.")] = "url",
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
) -> None:
    """Serve indexes over HTTP, with a page to search them at /. `serve keys` makes, lists and revokes keys of callers."""
    on_device = chosen_device(device, device_id)
    if stdio:
        _over_stdio(address, bundle, candidates, url_field, timeout, rerank_with, on_device)
        return
    require(("fastapi", "uvicorn", "prometheus_client"), "serve", "the server")
    from colbert_vespa.server.app import create_app
    from colbert_vespa.server.door import KeyedDoor
    from colbert_vespa.server.engine import Engine
    from colbert_vespa.server.keys import KeyFile
    from colbert_vespa.server.logs import log_to_stderr
    from colbert_vespa.server.running import Listen, check_loopback, listening, run_server
    from colbert_vespa.server.settings import ServerSettings, served_address
    from feeder import Splitting

    settings = ServerSettings(
        timeout=timeout, max_timeout=max(60.0, timeout), max_body=max_body, max_k=max_k, max_text=max_text,
        max_batch=max_batch, running=max_running, waiting=max_waiting, drain=drain, cors=tuple(cors or ()),
        trusted_proxies=tuple(trusted_proxy or ()), mcp=mcp, candidates=candidates, url_field=url_field,
        splitting=Splitting(split), rerank_with=rerank_with,
    )  # fmt: skip
    listen = Listen(host, port, tls_cert, tls_key, settle)
    door = None if keys is None else KeyedDoor(KeyFile(keys))
    if door is None:
        check_loopback(host)
    served = [served_address(one) for one in address]
    with listening(listen) as on:
        engine = Engine(served, bundle, settings, device=on_device)
        log_to_stderr(as_json=log_json)
        names = ", ".join(engine.catalog.indexes)
        told = f"{names} at {listen.url(on.getsockname()[1])}"
        run_server(create_app(engine, door), listen, settings, on, lambda: Output(json_output=True).say(told))


def _over_stdio(
    addresses: list[str],
    bundle: Path | None,
    candidates: str,
    url_field: str,
    timeout: float,
    rerank_with: Path | None,
    device: Device,
) -> None:
    from colbert_vespa.mcp_server import build_server, serve_mcp
    from colbert_vespa.server.settings import served_address
    from query import Client

    if len(addresses) > 1:
        raise UsageError("--stdio serves one index; give one address")
    with Client(served_address(addresses[0]).address, bundle, device=device) as client:
        serve_mcp(build_server(client, candidates=candidates, url_field=url_field, timeout=timeout, rerank_with=rerank_with))
