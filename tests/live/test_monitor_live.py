"""What goes wrong on a real node is shown for what it is: a stopped content node, a feed block, a broken canary."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time

import httpx
import pytest

from colbert_vespa.monitor.baseline import drift_rows, measure
from colbert_vespa.monitor.canaries import make_canaries
from colbert_vespa.monitor.checks import Monitor, Watched
from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import OK, WARNING, WRONG
from query import Client
from vespa_app.deploying import deploy
from vespa_app.deploying.config_server import SESSION_PATH
from vespa_app.package.zips import zip_folder

pytestmark = pytest.mark.live

NODE = os.environ.get("COLBERT_VESPA_NODE_TOOL", "")
CLUSTER = os.environ.get("COLBERT_VESPA_CLUSTER_TOOL", "")
NODES = ("node1", "node2", "node3")
QUERIES = ("parse command line options", "wait for a thread to finish", "the arithmetic mean of numbers", "delete a file")
PATIENCE_S = 300  # metrics are of the last whole minute, and kept for half another


def target(world, **changes):
    return Watched(world.url, (world.config_url,), world.bundle.path, **changes)


def rows_of(report):
    return {(row.area, row.name): row for row in report.found.rows}


def wait_for_rows(monitor, wanted):
    """Until `wanted` of the rows holds; a row that is not there yet is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rows = rows_of(monitor.look())
        with contextlib.suppress(KeyError):
            if wanted(rows):
                return rows
        assert time.monotonic() < deadline, "\n".join(f"{key}: {row.state} {row.says}" for key, row in rows.items())
        time.sleep(2)


def is_stopped(rows):
    """The searchnode and nothing else of its host; the content node is not up."""
    host = next(row.says for (area, _), row in rows.items() if area == "services")
    stopped = (
        host.startswith("searchnode (port") and "does not answer; " in host and "other services of the host are up" in host
    )
    return stopped and ("content", "node 0") in rows


def run(*arguments):
    subprocess.run([NODE, *arguments], check=True, capture_output=True, timeout=120)


def test_a_node_that_is_well(world):
    canaries = make_canaries(world.vespa, QUERIES, k=10, candidates="exhaustive")
    with Monitor(target(world, canaries=canaries)) as monitor:
        rows = wait_for_rows(monitor, lambda rows: fine_but(rows, "room", "queries"))
    host = next(name for area, name in rows if area == "services")
    assert rows["services", host].says.startswith("all ")
    assert rows["documents", "passage"].says == f"{len(world.documents):,} are searched"
    assert "1 of 1 nodes up" in rows["content", "cluster"].says
    assert rows["canaries", "all"].says.startswith(f"{len(QUERIES)} of {len(QUERIES)} answer as they did")


def test_drift_of_what_has_not_moved_is_none_and_other_scores_are(world):
    http = HttpClient(10.0)
    with contextlib.closing(http):
        before = measure(world.vespa, http)
        now = measure(world.vespa, http, before.queries)
    assert (before.passages, len(before.lengths)) == (len(world.documents), 256)
    assert all(row.state == OK for row in drift_rows(before, now, WarningLimits()).rows)
    moved = dataclasses.replace(now, scores=tuple(score / 2 for score in now.scores), unknown=0.2)
    states = {row.name: row.state for row in drift_rows(before, moved, WarningLimits()).rows}
    assert (states["scores"], states["unknown tokens"], states["lengths"]) == (WARNING, WARNING, OK)


def test_a_broken_canary_is_one(world):
    """A passage that it expects is deleted, and put back."""
    canaries = make_canaries(world.vespa, QUERIES, k=10, candidates="exhaustive")
    lost = canaries.canaries[0].expected[0][0]
    path = f"{world.url}/document/v1/colbert/passage/docid/{lost.replace('#', '%23')}"
    fields = httpx.get(path, params={"format.tensors": "short-value"}, timeout=30).raise_for_status().json()["fields"]
    with Monitor(target(world, canaries=canaries)) as monitor:
        httpx.delete(path, timeout=30).raise_for_status()
        try:
            rows = rows_of(monitor.look())
        finally:
            httpx.post(path, json={"fields": fields}, timeout=30).raise_for_status()
        assert rows["canaries", "all"].state == WRONG
        assert f"{lost} is no longer found" in rows["canaries", QUERIES[0]].says
        assert rows_of(monitor.look())["canaries", "all"].state == OK


@pytest.mark.slow
def test_a_stopped_content_node_is_one(world):
    if not NODE:
        pytest.skip("COLBERT_VESPA_NODE_TOOL names no tool that stops services")
    with Monitor(target(world)) as monitor:
        monitor.look()
        run("stop", "searchnode")
        try:
            rows = wait_for_rows(monitor, lambda rows: is_stopped(rows) and rows["documents", "passage"].state == WRONG)
        finally:
            run("start", "searchnode")
        assert "0 of 1 nodes up" in rows["content", "cluster"].says
        wait_for_rows(
            monitor, lambda rows: all(r.state == OK for (a, _), r in rows.items() if a in ("services", "content", "documents"))
        )


@pytest.mark.slow
def test_a_feed_block_is_one(world, tmp_path):
    """A limit below what is used already. `deploy` would wait until the description is stored, which is refused as well."""
    package = shutil.copytree(world.package, tmp_path / "package")
    services = package / "services.xml"
    text = services.read_text()
    assert text.count("</resource-limits>") == 1
    services.write_text(text.replace("</resource-limits>", "<memory>0.001</memory></resource-limits>"))
    with Monitor(target(world)) as monitor:
        wait_for_rows(monitor, lambda rows: rows["room", "feeding"].state == OK)
        try:
            activate(package, world.config_url)
            rows = wait_for_rows(monitor, lambda rows: rows["room", "feeding"].state == WRONG)
        finally:
            activate(world.package, world.config_url)
        assert rows["room", "feeding"].says.startswith("BLOCKED")
        rows = wait_for_rows(monitor, lambda rows: rows["room", "feeding"].state == OK)
        assert rows["room", "memory"].state == OK


def activate(package, config_url):
    headers = {"Content-Type": "application/zip"}
    httpx.post(config_url + SESSION_PATH, content=zip_folder(package), headers=headers, timeout=120).raise_for_status()


@pytest.fixture
def hosts(minilm_bundle, minilm_encoder, stdlib_sample, tmp_path):
    """Three hosts with two copies of the sample, seen from outside their network: their names mean nothing to the monitor."""
    from feeder import FeedOptions, start_feed
    from feeder.feeding.survey import survey
    from vespa_app import build_package, default_settings
    from vespa_app.settings import ClusterSettings

    if not CLUSTER:
        pytest.skip("COLBERT_VESPA_CLUSTER_TOOL names no tool that makes hosts")
    on_cluster("up", "3")
    try:
        cluster = ClusterSettings(config=NODES[:1], container=NODES[:2], content=NODES, disk_limit=0.97)
        settings = default_settings(minilm_bundle, survey(stdlib_sample).schema, candidates=("exhaustive",))
        package = build_package(minilm_bundle, dataclasses.replace(settings, cluster=cluster)).write(tmp_path / "package")
        deploy(package, "http://10.99.0.11:19071", query_url="http://10.99.0.11:8080", timeout=600)
        options = FeedOptions(
            to="http://10.99.0.11:8080", bundle=minilm_bundle, encoder=minilm_encoder, journal=tmp_path / "journal"
        )
        with start_feed([stdlib_sample], options) as running:
            assert running.go().pending == 0
        yield
    finally:
        on_cluster("down")


def on_cluster(*arguments):
    done = subprocess.run([CLUSTER, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_host_that_is_cut_off_is_one_and_comes_back(hosts, minilm_bundle):
    url = "http://10.99.0.11:8080"
    with Client(url, minilm_bundle) as client:
        canaries = make_canaries(client, QUERIES, k=10, candidates="exhaustive")
    what = Watched(url, ("http://10.99.0.11:19071",), minilm_bundle.path, canaries=canaries)
    with Monitor(what) as monitor:
        rows = wait_for_rows(monitor, lambda rows: fine_but(rows, "room", "queries"))
        assert {name for area, name in rows if area == "services"} == set(NODES)
        set_node_state(1, "maintenance")
        kept = wait_for_rows(monitor, lambda rows: ("content", "node 1") in rows)["content", "node 1"]
        assert (kept.state, kept.says) == (WARNING, "maintenance: disk is replaced")
        set_node_state(1, "up")
        wait_for_rows(monitor, lambda rows: ("content", "node 1") not in rows)
        on_cluster("cut", "3")
        try:
            rows = wait_for_rows(monitor, is_cut_off)
            assert rows["services", "node1"].state == rows["services", "node2"].state == OK
            assert rows["application", "container"].state == OK
            told = wait_for_rows(monitor, lambda rows: rows["metrics", "hosts"].state == WARNING)
            assert "none from node3" in told["metrics", "hosts"].says
            wait_for_rows(monitor, lambda rows: rows["canaries", "all"].state == OK)  # the other copies have taken over
        finally:
            on_cluster("join", "3")
        wait_for_rows(monitor, lambda rows: fine_but(rows, "room", "queries"))


def set_node_state(key, state):
    """As docs/how-to/monitoring.md says."""
    url = f"http://10.99.0.11:19050/cluster/v2/content/storage/{key}"
    body = {"state": {"user": {"state": state, "reason": "disk is replaced"}}}
    httpx.put(url, json=body, timeout=10).raise_for_status()


def is_cut_off(rows):
    gone = (
        "none of its" in rows["services", "node3"].says and "the host is down or unreachable" in rows["services", "node3"].says
    )
    return gone and "2 of 3 nodes up" in rows["content", "cluster"].says


def fine_but(rows, *areas):
    return all(row.state == OK for (area, _), row in rows.items() if area not in areas)
