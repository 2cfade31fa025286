"""What each thing that goes wrong looks like: against a server that answers as Vespa does."""

from __future__ import annotations

import httpx
import pytest

from colbert_vespa.monitor.checks import Monitor, Watched, config_urls
from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import METRICS, OK, UNKNOWN, WARNING, WRONG
from late_interaction.errors import UsageError, VespaRefused, VespaTimeout
from vespa_app.deploying.config_server import CONVERGE_PATH
from vespa_app.running.description import DESCRIPTION_PATH

PATIENT = 60.0  # seconds: a busy machine is no fault


def states(rows):
    """Of all rows that are not fine."""
    return {key: row.state for key, row in rows.items() if row.state != OK}


def test_a_cluster_that_is_well_is_fine(look):
    report, rows = look()
    assert states(rows) == {}
    assert report.exit_code == 0
    assert "1,200 are searched" in rows["documents", "passage"].says
    assert "3 of 3 nodes up, 2,400 copies" in rows["content", "cluster"].says
    assert "feeding stops at 75%" in rows["room", "disk"].says
    assert {sample.metric for sample in report.samples()} <= set(METRICS)


def test_a_stopped_content_node_is_a_process_that_is_down(cluster, look):
    cluster.down = {("node3", "searchnode")}
    report, rows = look()
    assert report.exit_code == 1
    assert rows["services", "node3"].state == WRONG
    assert "searchnode (port 19100) does not answer" in rows["services", "node3"].says
    assert "3 other services of the host are up" in rows["services", "node3"].says
    assert (rows["content", "node 2"].state, rows["content", "node 2"].says) == (WRONG, "down: node3 down")
    assert "2 of 3 nodes up" in rows["content", "cluster"].says


def test_a_host_that_is_cut_off_is_a_host(cluster, look):
    cluster.cut = {"node3"}
    _, rows = look()
    assert rows["services", "node3"].says == "none of its 4 services answers: the host is down or unreachable"
    assert rows["metrics", "hosts"].state == WARNING
    assert "none from node3" in rows["metrics", "hosts"].says
    assert {key for key in states(rows) if key[0] == "services"} == {("services", "node3")}


def test_metrics_of_a_host_that_are_old_are_none(cluster, look):
    """A container goes on telling the last ones that it had."""
    cluster.stale = {"node3"}
    report, rows = look()
    assert states(rows) == {("metrics", "hosts"): WARNING}
    assert rows["metrics", "hosts"].says == "none from node3: figures below lack them"
    assert not [s for s in report.samples() if s.metric == "disk_used_ratio" and s.labels["host"] == "node3"]


def test_a_service_that_answers_and_is_not_well(cluster, look):
    cluster.health["node2", "container"] = "initializing"
    _, rows = look()
    assert "container (port 19100) is initializing" in rows["services", "node2"].says


def test_a_service_with_an_old_configuration_is_a_warning(cluster, look):
    cluster.behind = {("node2", "distributor")}
    _, rows = look()
    assert states(rows) == {("services", "node2"): WARNING}
    assert rows["services", "node2"].says == "configuration 7 is active, distributor has 6"


@pytest.mark.parametrize("state", ["maintenance", "retired"])
def test_what_an_operator_has_set_is_a_warning(cluster, look, state):
    cluster.user = {"node2": state}
    _, rows = look()
    assert states(rows) == {("content", "node 1"): WARNING, ("content", "distributor 1"): WARNING}


def test_a_feed_block_is_shown_as_one(cluster, look):
    cluster.used["disk"], cluster.blocked = 0.76, True
    report, rows = look()
    assert states(rows) == {("room", "disk"): WRONG, ("room", "feeding"): WRONG}
    assert rows["room", "feeding"].says.startswith("BLOCKED, documents are refused with 507 (content nodes above a limit: 1)")
    assert ("feed_blocked", 1.0) in {(sample.metric, sample.value) for sample in report.samples()}


@pytest.mark.parametrize(("used", "state"), [(0.67, OK), (0.68, WARNING), (0.75, WRONG)])
def test_room_is_a_warning_before_feeding_stops(cluster, look, used, state):
    cluster.used["disk"] = used
    _, rows = look()
    assert rows["room", "disk"].state == state


def test_slow_degraded_and_failed_queries(cluster, look):
    cluster.p99_ms = 1500.0
    cluster.rates |= {"degraded_queries": 0.5, "failed_queries": 1.0}
    _, rows = look()
    assert rows["queries", "latency"].state == WARNING
    assert rows["queries", "degraded"].state == rows["queries", "failed"].state == WRONG
    assert rows["queries", "degraded"].says == "5.00% of them"
    _, rows = look(limits=WarningLimits(p99_s=2.0))
    assert rows["queries", "latency"].state == OK


def test_queries_that_all_fail_are_not_divided_by_none(cluster, look):
    cluster.rates = {"queries": 0.0, "degraded_queries": 0.0, "failed_queries": 1.0}
    _, rows = look()
    assert rows["queries", "failed"].says == "100.00% of them"


def test_answers_without_all_documents(cluster, look):
    cluster.coverage = {"coverage": 66, "documents": 800, "full": False, "degraded": {"timeout": True}}
    report, rows = look()
    assert rows["documents", "passage"].state == WRONG
    assert "66.0% of all: some nodes ran out of time" in rows["documents", "passage"].says
    assert ("coverage_ratio", 0.66) in {(sample.metric, sample.value) for sample in report.samples()}


def test_documents_that_vespa_does_not_miss_are_missed_by_who_has_seen_them(cluster):
    """A host that was cut off: `coverage: 100` and fewer documents."""
    with Monitor(Watched(cluster.url, (cluster.url,), timeout=PATIENT)) as monitor:
        monitor.look()
        cluster.documents = 700
        rows = {(row.area, row.name): row for row in monitor.look().found.rows}
    assert rows["documents", "passage"].state == WARNING
    assert "700 are searched, 1,200 were" in rows["documents", "passage"].says


def test_a_description_that_cannot_be_read_while_content_is_down(cluster):
    """It is a document like others. Whoever has read it goes on asking the indexes."""
    with (
        Monitor(Watched(cluster.url, (cluster.url,), timeout=PATIENT)) as monitor,
        Monitor(Watched(cluster.url, (cluster.url,), timeout=PATIENT)) as new,
    ):
        monitor.look()
        cluster.replies[DESCRIPTION_PATH] = cluster.replies["/search/"] = 503, {"message": "no backend"}
        rows = [{(row.area, row.name): row.state for row in each.look().found.rows} for each in (monitor, new)]
    assert rows[0]["application", "description"] == rows[1]["application", "description"] == UNKNOWN
    assert rows[0]["documents", "passage"] == WRONG
    assert ("documents", "passage") not in rows[1]


def test_parts_that_do_not_answer_are_said_to(cluster, look):
    for path in ("/cluster/v2/content", "/metrics/v2/values", "/search/"):
        cluster.replies[path] = 503, {"message": "overloaded"}
    report, rows = look()
    said = {key[0]: row.state for key, row in rows.items() if "overloaded" in row.says}
    assert said == {"content": UNKNOWN, "metrics": UNKNOWN, "documents": WRONG}
    assert report.exit_code == 1


def test_without_the_list_of_services_nobody_guesses_a_cluster_controller(cluster, look):
    cluster.replies[CONVERGE_PATH] = 503, {"message": "overloaded"}
    _, rows = look()
    assert rows["services", "hosts"].state == UNKNOWN
    assert rows["content", "cluster controller"].says == "no config server reports where it is"


@pytest.mark.parametrize("garbage", [b"<html>", b"[]", b"{}", b'{"nodes": 7}', b'{"services": [7], "nodes": [7], "root": 1}'])
def test_answers_that_are_not_vespas_are_no_traceback(cluster, look, garbage):
    for path in (CONVERGE_PATH, "/cluster/v2/content", "/metrics/v2/values", "/search/", "/state/v1/health"):
        cluster.replies[path] = 200, garbage
    report, _ = look()
    assert report.exit_code == 1


def test_nobody_at_home(look, cluster):
    cluster.close()
    report, rows = look()
    assert rows["config server", cluster.url].state == rows["application", "container"].state == WRONG
    assert rows["services", "hosts"].state == rows["content", "cluster controller"].state == UNKNOWN
    assert report.exit_code == 1
    cluster.thread.join()


def test_nothing_deployed(cluster, look):
    cluster.replies[CONVERGE_PATH] = 404, {"message": "Application not found"}
    _, rows = look()
    assert rows["services", "hosts"].says == "nothing is deployed there; run colbert-vespa deploy APP"


def test_a_config_server_that_passes_no_health_on_is_enough(cluster, look):
    """Older ones have no such path; that a service told its generation is then all that is known."""
    from vespa_app.deploying.config_server import APPLICATION_PATH

    for host, kind in cluster.services():
        cluster.replies[f"{APPLICATION_PATH}/service/{kind}/{host}/state/v1/health"] = 404, {}
    report, _ = look()
    assert report.exit_code == 0


def test_the_second_config_server_is_asked_where_the_first_is_down(cluster, look):
    report, rows = look(config=("http://127.0.0.1:1", cluster.url))
    assert states(rows) == {("config server", "http://127.0.0.1:1"): WRONG}
    assert report.exit_code == 1


def test_many_hosts_that_are_fine_are_one_line():
    from colbert_vespa.monitor.services import Service, service_rows

    services = [Service(f"node{n:03}", "searchnode", 19100, 7 if n else -1, "up" if n else "") for n in range(100)]
    rows = service_rows(services, 7).rows
    assert [(row.name, row.state) for row in rows] == [("hosts", OK), ("node000", WRONG)]
    assert rows[0].says == "99 of 100 are fine"


def test_without_a_config_server_nobody_asks_one(cluster, look):
    report, rows = look(config=())
    assert report.exit_code == 0
    assert {area for area, _ in rows}.isdisjoint({"services", "content", "config server"})


def test_which_config_server():
    assert config_urls("http://search1:8080#passage", []) == ("http://search1:19071",)
    assert config_urls("https://my.cloud.example", []) == ()
    assert config_urls("http://search1:1", []) == ()  # what answers at the usual port may be of another application
    assert config_urls("folder", []) == ()
    assert config_urls("http://search1:8080", ["http://a:1/", "http://b:1"]) == ("http://a:1", "http://b:1")


def test_a_token_goes_nowhere_readable_and_is_not_shown(cluster, look, monkeypatch, tmp_path):
    file = tmp_path / "token"
    file.write_text("secret-of-mine\n")
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(file))
    report, _ = look()  # to this machine
    assert cluster.tokens == {"Bearer secret-of-mine"}
    assert "secret" not in str(report.to_json())
    with pytest.raises(UsageError, match="over https only"):
        Watched("http://search1:8080", ())
    with pytest.raises(UsageError, match="not shown here"):
        Watched("http://me:secret@search1:8080", ())


def test_config_is_a_url_of_vespa():
    with pytest.raises(UsageError, match="--config: .* is not the address"):
        Watched("http://localhost:8080", ("localhost:19071",))
    with pytest.raises(UsageError, match="has no config server"):
        Watched("folder", ("http://localhost:19071",))


class Dripping(httpx.SyncByteStream):
    def __init__(self, tick, blocks):
        self.tick, self.blocks = tick, blocks

    def __iter__(self):
        for _ in range(self.blocks):
            self.tick()
            yield b" " * 1000


def test_an_answer_that_drips_ends_at_the_deadline():
    now = [0.0]

    def tick():
        now[0] += 0.5

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Dripping(tick, 100)))
    with pytest.raises(VespaTimeout, match="in 2 s"):
        HttpClient(2.0, transport=transport, clock=lambda: now[0]).json("http://localhost:1", "/x")
    assert now[0] == 2.5


def test_an_answer_without_end_is_not_read():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Dripping(lambda: None, 1 << 20)))
    with pytest.raises(VespaRefused, match="more than 64 MiB"):
        HttpClient(2.0, transport=transport, clock=lambda: 0.0).json("http://localhost:1", "/x")
