"""The files of Prometheus and Grafana are as generated, and every expression in them is PromQL over metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from colbert_vespa.monitor.dashboard import PANELS, dashboard_file
from colbert_vespa.monitor.files import monitoring_files
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import METRICS, PREFIX
from colbert_vespa.monitor.rules import rules, rules_file

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "monitoring"
RULES_TEST = Path(__file__).parent / "rules_test.yml"
EXPRESSIONS = {rule.name: rule.expression for rule in rules(WarningLimits())} | {
    f"{panel.title} {number}": expression for panel in PANELS for number, (expression, _) in enumerate(panel.queries)
}


def test_the_files_are_as_generated():
    """Made anew by: colbert-vespa monitor files"""
    there = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
    assert there == dict(monitoring_files(WarningLimits()))


def test_the_command_writes_them(cli, tmp_path):
    done = cli("monitor", "files", str(tmp_path / "made"), "--p99", "250", "--json")
    assert len(json.loads(done.stdout)["files"]) == len(monitoring_files(WarningLimits()))
    assert 'quantile=\\"0.99\\"} > 0.25' in (tmp_path / "made/prometheus/rules.yml").read_text()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_promql_over_our_metrics_and_labels(name):
    expression = EXPRESSIONS[name]
    parsed = promql_parser.parse(expression)
    assert parsed.prettify() if hasattr(parsed, "prettify") else str(parsed)
    selectors = re.findall(r"(colbert_vespa_\w+)(?:\{([^}]*)\})?", expression)
    assert selectors
    for metric, matchers in selectors:
        labels = METRICS[metric.removeprefix(PREFIX)][1]
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers)) <= set(labels), metric


def test_the_rules_are_a_file_of_prometheus():
    """Its fields, names that are unique, times that it can read, and labels in texts that the expressions keep."""
    read = yaml.safe_load(rules_file(WarningLimits()))
    assert set(read) == {"groups"}
    written = read["groups"][0]["rules"]
    assert [item["alert"] for item in written] == [rule.name for rule in rules(WarningLimits())]
    assert len({item["alert"] for item in written}) == len(written)
    for item, rule in zip(written, rules(WarningLimits()), strict=True):
        assert set(item) == {"alert", "expr", "for", "labels", "annotations"}
        assert item["expr"] == rule.expression
        assert promql_parser.parse_duration(item["for"])
        assert item["labels"]["severity"] in ("critical", "warning")
        for label in re.findall(r"\$labels\.(\w+)", item["annotations"]["summary"]):
            assert any(label in labels for _, labels in METRICS.values())


def test_limits_of_table_and_rules_are_the_same():
    changed = rules_file(WarningLimits(feed_share=0.5, degraded=0.25, distance=0.75, p99_s=3.0))
    for wanted in ("> 0.5", "> 0.25", "> 0.75", "> 3"):
        assert wanted in changed


def promtool(*arguments):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool on PATH: it comes with Prometheus")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration():
    promtool("check", "config", str(FOLDER / "prometheus/prometheus.yml"))


def test_the_rules_fire_when_they_should():
    promtool("test", "rules", str(RULES_TEST))


def test_each_rule_is_tested_both_ways():
    """In promtool's format: an alert that fires, and one that does not."""
    read = yaml.safe_load(RULES_TEST.read_text())
    assert (RULES_TEST.parent / read["rule_files"][0]).resolve() == FOLDER / "prometheus/rules.yml"
    fired, silent = set(), set()
    for test in read["tests"]:
        for case in test["alert_rule_test"]:
            (fired if case["exp_alerts"] else silent).add(case["alertname"])
    names = {rule.name for rule in rules(WarningLimits())}
    assert fired == names
    assert silent == names


def test_the_dashboard_is_one():
    made = json.loads(dashboard_file())
    places = [panel["gridPos"] for panel in made["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in made["panels"]}) == len(PANELS)
    sources = yaml.safe_load(monitoring_files(WarningLimits())["grafana/provisioning/datasources/prometheus.yml"])
    assert {panel["datasource"]["uid"] for panel in made["panels"]} == {sources["datasources"][0]["uid"]}


def test_docker_compose_mounts_what_there_is():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        mounts = [volume.split(":")[0] for volume in services[name]["volumes"] if volume.startswith("./")]
        assert mounts
        assert all((ROOT / mount).is_dir() for mount in mounts)
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    assert "profiles" not in services["vespa"]
