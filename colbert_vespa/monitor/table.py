"""Print a report as a table of at most 80 columns."""

from __future__ import annotations

import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, HealthReport

__all__ = ["render"]

STYLES = {OK: "green", WARNING: "yellow", WRONG: "bold red", UNKNOWN: "magenta"}


def render(report: HealthReport) -> RenderableType:
    """Return the report as a table, grouped by area."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=24, overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    area = ""
    for row in report.found.rows:
        if row.area != area:
            table.add_row("", Text(row.area, style="bold"), "")
            area = row.area
        table.add_row(Text(row.state, style=STYLES[row.state]), Text(row.name), Text(row.says))
    moment = datetime.datetime.fromtimestamp(report.moment, datetime.timezone.utc)
    end = Text.assemble((report.state, STYLES[report.state]), f": {report.address}, {moment:%Y-%m-%d %H:%M:%S} UTC, ")
    return Group(table, end + Text(f"{report.seconds:.1f} s"))
