"""What `parity` does with its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from colbert_vespa.cli.console import Output
from colbert_vespa.evaluation.parity.report import html_page, junit_xml
from colbert_vespa.evaluation.parity.run import ParityReport, compare_all
from colbert_vespa.evaluation.parity.texts import Texts
from colbert_vespa.evaluation.parity.thresholds import parse_thresholds
from late_interaction.bundle import Bundle
from late_interaction.files import atomic_write

__all__ = ["run_parity"]


def run_parity(
    out: Output,
    bundle: Path,
    texts: Texts,
    addresses: Sequence[str],
    *,
    checkpoint: str | None,
    k: int,
    thresholds: Sequence[str],
    junit: Path | None,
    html: Path | None,
) -> bool:
    """Whether all thresholds are reached. Raises: as compare_all, and UsageError on thresholds."""
    wanted = parse_thresholds(thresholds)
    report = compare_all(Bundle.open(bundle), texts, addresses, checkpoint=checkpoint, k=k, thresholds=wanted, say=out.say)
    _show(out, report)
    if junit is not None:
        atomic_write(junit, junit_xml(report))
    if html is not None:
        atomic_write(html, html_page(report).encode())
    out.result(report.to_json())
    return not report.failed


def _show(out: Output, report: ParityReport) -> None:
    """A line for each comparison; below it what fails and the worst cases."""
    for comparison in report.comparisons:
        out.heading(comparison.name)
        table = Table(box=None, show_header=False, pad_edge=False)
        checks = {check.measure: check for check in report.checks if check.comparison == comparison.name}
        for measure, value in comparison.measured.items():
            check = checks.get(measure)
            verdict = "" if check is None else "passed" if check.passed else f"FAILED, wanted {check.threshold:.5g}"
            style = "bold red" if check is not None and not check.passed else ""
            table.add_row(measure, f"{value:.5f}", Text(verdict, style=style))
        out.console.print(table)
        for case in comparison.cases[:3]:
            out.say(f"  {case.what}: {case.measure} {case.value:.4g}" + (f" ({case.reason})" if case.reason else ""))
    for note in report.notes:
        out.say(f"note: {note}")
    out.say(f"differs in: {', '.join(report.guilty)}" if report.failed else "all thresholds are reached")
