"""`monitor`: check once, repeatedly or for Prometheus; create canaries, baselines, and files for Prometheus and Grafana."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.index_commands import question_lines
from colbert_vespa.cli.option_types import COUNT, MILLISECONDS, SECONDS, address, file_to_write, folder_to_write, path

if TYPE_CHECKING:
    from colbert_vespa.monitor.checks import Monitor
    from colbert_vespa.monitor.report import HealthReport

__all__ = ["monitor_app"]

CHECK = "check"


class _CheckByDefault(TyperGroup):
    """`monitor ADDRESS` is `monitor check ADDRESS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [CHECK, *args]
        return super().parse_args(ctx, args)


monitor_app = typer.Typer(
    cls=_CheckByDefault,
    no_args_is_help=True,
    help="Check health, capacity, latency, canaries and drift: monitor ADDRESS. Exit code 1 if anything is wrong.",
)
Address = Annotated[str, typer.Argument(help="Vespa URL, or local index folder.", parser=address)]
Bundle = Annotated[
    Path | None, typer.Option("--bundle", help="Bundle folder; default: the index's, or one known here.", parser=path)
]
Queries = Annotated[
    Path | None, typer.Option("--queries", help="Queries, one per line; default: beginnings of passages.", parser=path)
]
Timeout = Annotated[float, typer.Option("--timeout", help="Timeout of each request in seconds.", parser=SECONDS)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per check, on a line of stdout.")]


@monitor_app.command(CHECK)
def check(
    address: Address,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", help="URL of a config server. Repeatable. Default: port 19071 beside http://HOST:8080."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Check repeatedly, until Ctrl-C.")] = False,
    prometheus: Annotated[str | None, typer.Option("--prometheus", help="PORT or HOST:PORT that Prometheus scrapes.")] = None,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two checks.", parser=SECONDS)] = 30.0,
    canaries: Annotated[Path | None, typer.Option("--canaries", help="File of `monitor canaries`.", parser=path)] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="File of `monitor baseline`.", parser=path)] = None,
    p99: Annotated[
        float, typer.Option("--p99", help="Milliseconds; slower queries cause a warning.", parser=MILLISECONDS)
    ] = 1000.0,
    bundle: Bundle = None,
    timeout: Timeout = 5.0,
    json_output: Json = False,
) -> None:
    """Check the whole application or index (the default command)."""
    from colbert_vespa.monitor.baseline import Profile
    from colbert_vespa.monitor.canaries import Canaries
    from colbert_vespa.monitor.checks import Monitor, Watched, config_urls
    from colbert_vespa.monitor.limits import WarningLimits
    from query.options import check_seconds

    target = Watched(
        address, config_urls(address, config or []), bundle,
        canaries=None if canaries is None else Canaries.read(canaries),
        baseline=None if baseline is None else Profile.read(baseline),
        timeout=check_seconds("--timeout", timeout), limits=WarningLimits(p99_s=check_seconds("--p99", p99 / 1000)),
    )  # fmt: skip
    listen = None
    if prometheus is not None:
        from colbert_vespa.monitor.exporter import parse_listen

        listen = parse_listen(prometheus)
    out = Output(json_output=json_output)
    if target.folder is None and not config:
        asked = f"{target.config[0]} is used, the usual port beside 8080" if target.config else "none is used"
        out.say(f"config server: {asked}; set one with --config URL")
    with Monitor(target) as monitor:
        if watch or listen is not None:
            go_on(out, monitor, check_seconds("--interval", interval), show=watch, listen=listen)
        report = _looked(out, monitor)
    raise typer.Exit(report.exit_code)


def _looked(out: Output, monitor: Monitor) -> HealthReport:
    from colbert_vespa.monitor.table import render

    report = monitor.look()
    out.console.print(render(report))
    out.result(report.to_json())
    return report


def go_on(
    out: Output,
    monitor: Monitor,
    interval: float,
    *,
    show: bool,
    listen: tuple[str, int] | None,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Check repeatedly until the process is interrupted.

    Args:
        out: Where reports are shown.
        monitor: The monitor.
        interval: Seconds between two checks.
        show: Whether to print the reports.
        listen: Host and port for Prometheus, if any.
        wait: Sleeps for a number of seconds.

    Raises:
        UsageError: If the port is not available.
    """
    from rich.live import Live

    from colbert_vespa.monitor.table import render

    with contextlib.ExitStack() as stack:
        exporter = None
        if listen is not None:
            from colbert_vespa.monitor.exporter import serving

            exporter, url = stack.enter_context(serving(listen))
            out.say(f"metrics at {url}, every {interval:g} s; press Ctrl-C to stop")
        live = None
        if show and out.console.is_terminal:
            # its redirection would take the JSON away from stdout
            live = stack.enter_context(Live(console=out.console, auto_refresh=False, redirect_stdout=False))
        while True:
            report = monitor.look()
            if exporter is not None:
                exporter.show(report)
            if live is not None:
                live.update(render(report), refresh=True)
            elif show:
                out.console.print(render(report))
            out.result(report.to_json())
            wait(interval)


@monitor_app.command("canaries")
def canaries_(
    address: Address,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", parser=file_to_write)],
    queries: Queries = None,
    k: Annotated[int, typer.Option("-k", help="Hits of each query.", parser=COUNT)] = 10,
    candidates: Annotated[str, typer.Option("--candidates", help="How candidates are found.")] = "auto",
    bundle: Bundle = None,
    timeout: Timeout = 10.0,
    json_output: Json = False,
) -> None:
    """Record the ids and scores that queries find now, to compare later results with them."""
    from colbert_vespa.monitor.canaries import make_canaries
    from colbert_vespa.monitor.http_client import HttpClient
    from colbert_vespa.monitor.sampling import beginnings, sample_of
    from query import Client, ClientSettings

    out = Output(json_output=json_output)
    with contextlib.closing(HttpClient(timeout)) as http:
        texts = question_lines(queries) if queries else beginnings(sample_of(address, http)[1])
    with Client(address, bundle, settings=ClientSettings(timeout=timeout)) as client:
        made = make_canaries(client, texts, k=k, candidates=candidates)
    made.write(output)
    out.say(f"{len(made.canaries)} canaries in {output}; check their hits, then run colbert-vespa monitor {address} --canaries")
    out.result({"canaries": len(made.canaries), "file": str(output)})


@monitor_app.command("baseline")
def baseline_(
    address: Address,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", parser=file_to_write)],
    queries: Queries = None,
    bundle: Bundle = None,
    timeout: Timeout = 10.0,
    json_output: Json = False,
) -> None:
    """Record statistics of passages and scores, so that later checks detect drift."""
    from colbert_vespa.monitor.baseline import measure
    from colbert_vespa.monitor.http_client import HttpClient
    from query import Client, ClientSettings

    out = Output(json_output=json_output)
    asked = question_lines(queries) if queries else ()
    settings = ClientSettings(timeout=timeout)
    with Client(address, bundle, settings=settings) as client, contextlib.closing(HttpClient(timeout)) as http:
        profile = measure(client, http, asked)
    profile.write(output)
    out.say(f"{len(profile.lengths)} passages and {len(profile.queries)} queries measured, in {output}")
    out.result({"passages": profile.passages, "sampled": len(profile.lengths), "file": str(output)})


@monitor_app.command("files")
def files(
    output: Annotated[
        Path, typer.Argument(help="Folder to write, mounted by docker-compose.yml.", parser=folder_to_write)
    ] = Path("monitoring"),
    p99: Annotated[
        float, typer.Option("--p99", help="Milliseconds; slower queries raise an alert.", parser=MILLISECONDS)
    ] = 1000.0,
    json_output: Json = False,
) -> None:
    """Write the configuration, alert rules and dashboard for Prometheus and Grafana."""
    from colbert_vespa.monitor.files import write_files
    from colbert_vespa.monitor.limits import WarningLimits
    from query.options import check_seconds

    out = Output(json_output=json_output)
    written = write_files(output, WarningLimits(p99_s=check_seconds("--p99", p99 / 1000)))
    for name in written:
        out.say(f"{output / name}")
    out.result({"folder": str(output), "files": list(written)})
