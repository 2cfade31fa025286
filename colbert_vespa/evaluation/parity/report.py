"""The report for CI (JUnit XML) and for people (one HTML page)."""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

from colbert_vespa.evaluation.parity.comparison import LAYERS, Comparison
from colbert_vespa.evaluation.parity.run import ParityReport
from colbert_vespa.evaluation.parity.thresholds import Check

__all__ = ["html_page", "junit_xml"]

_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; max-width: 90em; }
table { border-collapse: collapse; margin-bottom: 1.5em; } td, th { padding: .2em .8em .2em 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } p.how { color: #555; }
.failed { color: #b00020; font-weight: bold; } .passed { color: #006400; }
"""


def junit_xml(report: ParityReport) -> bytes:
    """Return JUnit XML with a suite for each comparison and a test case for each check."""
    root = ElementTree.Element("testsuites", name="parity", tests=str(len(report.checks)), failures=str(len(report.failed)))
    for comparison in report.comparisons:
        checks = [check for check in report.checks if check.comparison == comparison.name]
        failures = sum(not check.passed for check in checks)
        name = _clean(comparison.name)
        suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(len(checks)), failures=str(failures))
        for check in checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"parity.{comparison.layer}", name=f"{name} {check.measure}"
            )
            if not check.passed:
                failure = ElementTree.SubElement(case, "failure", message=_clean(check.said))
                failure.text = "\n".join(_clean(line) for line in _case_lines(comparison))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)


def _case_lines(comparison: Comparison) -> list[str]:
    return [
        f"{case.what}: {case.measure} {case.value:.5g}" + (f" ({case.reason})" if case.reason else "")
        for case in comparison.cases
    ]


def html_page(report: ParityReport) -> str:
    """Return an HTML page without scripts and without addresses to load."""
    verdict = f"failed in: {', '.join(report.guilty)}" if report.failed else "all thresholds are reached"
    kind = "failed" if report.failed else "passed"
    parts = [
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=generator content=colbert-vespa>",
        f"<title>Parity of {escape(report.bundle)}</title><style>{_STYLE}</style>",
        f"<h1>Parity of {escape(report.bundle)}</h1><p class={kind}>{escape(verdict)}</p>",
        f"<p class=how>{report.queries} queries, {report.documents} documents</p>",
        *(_comparison(comparison, report.checks) for comparison in report.comparisons),
        *(f"<p class=how>{escape(note)}</p>" for note in report.notes),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _comparison(comparison: Comparison, checks: tuple[Check, ...]) -> str:
    wanted = {check.measure: check for check in checks if check.comparison == comparison.name}
    rows = []
    for measure, value in comparison.measured.items():
        check = wanted.get(measure)
        threshold = "" if check is None else f"{check.threshold:.5g}"
        kind = "" if check is None else "passed" if check.passed else "failed"
        rows.append(
            f"<tr><td>{escape(measure)}<td class=number>{value:.5f}<td class=number>{threshold}<td class='{kind}'>{kind}"
        )
    lines = "".join(f"<li>{escape(line)}" for line in _case_lines(comparison))
    cases = f"<p class=how>Worst cases</p><ul>{lines}</ul>" if lines else ""
    return (
        f"<h2>{escape(comparison.name)}</h2><p class=how>{escape(LAYERS[comparison.layer])}</p>"
        f"<table><tr><th>measure<th>measured<th>wanted<th>{''.join(rows)}</table>{cases}"
    )
