"""Self-hosted clusters on three real hosts: deployed from our settings, fed, queried; a host dies and is replaced.

COLBERT_VESPA_CLUSTER_TOOL names a script with the commands up N, kill I, replace I, down; its hosts are node1, node2, ...,
whose containers answer at 10.99.0.(10 + I):8080. The reference is the same application on the first host alone.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from feeder import FeedOptions, start_feed
from feeder.feeding.survey import survey
from feeder.outcomes import StoredDigest
from feeder.targets import EncodedDocument
from feeder.targets.vespa import open_vespa
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.errors import UsageError, VespaError
from late_interaction.maxsim import maxsim
from query import Client, ClientSettings
from vespa_app import build_package, default_settings
from vespa_app.changes import package_changes
from vespa_app.deploying import deploy
from vespa_app.package.cd_tests import cd_tests
from vespa_app.running import Application
from vespa_app.settings import ClusterSettings

TOOL = os.environ.get("COLBERT_VESPA_CLUSTER_TOOL", "")
pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.skipif(not TOOL, reason="COLBERT_VESPA_CLUSTER_TOOL names no tool that makes hosts"),
]

QUERIES = ("parse command line options", "wait for a thread to finish", "the arithmetic mean of numbers", "delete a file")
STRATEGIES = ("exhaustive", "centroid", "pooled", "bm25")
NODES = ("node1", "node2", "node3")
ROOMY = ClusterSettings(disk_limit=0.97)  # others fill this machine's disk, too
ONE = dataclasses.replace(ROOMY, content=NODES[:1], redundancy=1, searchable_copies=1)
THREE = dataclasses.replace(ROOMY, config=NODES[:1], container=NODES[:2], content=NODES)
GROUPS = dataclasses.replace(ROOMY, config=NODES[:1], container=NODES[:2], content=NODES[1:], groups=2)
PATIENCE_S = 600
TIE = 1e-4


def run(*arguments: str) -> str:
    done = subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def container(number: int) -> str:
    return f"http://10.99.0.{10 + number}:8080"


@pytest.fixture(scope="module")
def hosts(minilm_bundle, minilm_encoder, stdlib_sample, tmp_path_factory):
    lines = run("up", "3").replace("export ", "").split()
    names = dict(line.split("=", 1) for line in lines)
    folder = tmp_path_factory.mktemp("cluster")
    bundle = Bundle.open(shutil.copytree(minilm_bundle.path, folder / "bundle"))  # the cache is not this test's alone
    base = default_settings(bundle, survey(stdlib_sample).schema, candidates=STRATEGIES)
    made = SimpleNamespace(
        config=names["COLBERT_VESPA_CONFIG_URL"], bundle=bundle, encoder=minilm_encoder, documents=stdlib_sample,
        base=base, folder=folder, answers={}, packages={},
    )  # fmt: skip
    yield made
    run("down")


def install(hosts, name: str, cluster: ClusterSettings):
    settings = dataclasses.replace(hosts.base, cluster=cluster)
    package = hosts.packages[name] = build_package(hosts.bundle, settings).write(hosts.folder / name)
    return deploy(package, hosts.config, query_url=container(1), timeout=PATIENCE_S)


def feed(hosts) -> None:
    options = FeedOptions(to=container(1), bundle=hosts.bundle, encoder=hosts.encoder, journal=hosts.folder / "journal")
    with start_feed([hosts.documents], options) as running:
        summary = running.go()
    assert (summary.acknowledged + summary.already_there, summary.pending) == (
        len(hosts.documents),
        0,
    )  # hosts keep what they have


def covered(url: str) -> tuple[int, int]:
    """Documents that a query reads, and those that it finds."""
    body = {"yql": "select * from passage where true", "hits": 0, "timeout": "5s", "ranking.profile": "unranked"}
    root = httpx.post(f"{url}/search/", json=body, timeout=10).json()["root"]
    return root["coverage"]["documents"], root["fields"]["totalCount"]


def wait_until(what: str, done) -> None:
    deadline, last = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        try:
            last = done()
            if last is True:
                return
        except (httpx.HTTPError, VespaError, KeyError, ValueError) as error:
            last = error
        time.sleep(1)
    pytest.fail(f"{what}: not after {PATIENCE_S} s, the last was {last}")


def wait_for_all(hosts, url: str) -> None:
    """After a host has died, a get may wait for it until the others have noticed; a query may miss what it held."""
    wait_until(f"the description at {url}", lambda: bool(Application.read(url)))
    wanted = len({d.id for d in hosts.documents})
    wait_until(f"{wanted} documents at {url}", lambda: (found := covered(url)) == (wanted, wanted) or found)


def ask(hosts, url: str):
    """Query, strategy -> id -> score of the best ten."""
    retriever = Client(url, hosts.bundle.path)
    try:
        return {
            (query, name): {hit.id: hit.score for hit in retriever.search(query, 10, candidates=name, rerank=400).hits}
            for query in QUERIES
            for name in STRATEGIES
        }
    finally:
        retriever.close()


def assert_same_answers(hosts, url: str) -> None:
    """As on one host: the same scores, and the same passages but for ties with the tenth."""
    for key, found in ask(hosts, url).items():
        wanted = hosts.answers[key]
        assert np.allclose(sorted(found.values()), sorted(wanted.values()), atol=TIE), key
        last = min(wanted.values())
        for id_ in set(found) ^ set(wanted):
            assert {**wanted, **found}[id_] <= last + TIE, (key, id_)


def test_one_host_answers_exactly(hosts):
    """The reference for all that follows."""
    report = install(hosts, "one", ONE)
    assert report.query_url == container(1)
    feed(hosts)
    wait_for_all(hosts, container(1))
    hosts.answers = ask(hosts, container(1))
    vectors = dict(
        zip((d.id for d in hosts.documents), hosts.encoder.encode_documents([f"{d.title} {d.text}" for d in hosts.documents]),
            strict=True)
    )  # fmt: skip
    for query in QUERIES:
        rows = hosts.encoder.encode_queries([query])[0]
        for id_, score in hosts.answers[query, "exhaustive"].items():
            assert score == pytest.approx(maxsim(rows, vectors[id_]), abs=0.02)


def test_tests_for_vespa_cloud_pass_on_a_real_application(hosts):
    """`vespa test` runs what a package for Vespa Cloud carries."""
    command = shutil.which("vespa") or "/opt/vespa/bin/vespa"
    if not Path(command).exists():
        pytest.skip("no vespa command line client")
    description = Application.read(container(1)).description
    for name, text in cd_tests(description).items():
        file = hosts.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        done = subprocess.run(
            [command, "test", str(file), "-t", container(1)],
            capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(hosts.folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    for number in (1, 2):
        httpx.delete(f"{container(1)}/document/v1/colbert/passage/docid/cd-test-{number}%230").raise_for_status()


def test_three_hosts_with_two_copies(hosts):
    report = install(hosts, "three", THREE)
    foreseen = {change.kind for change in package_changes(hosts.packages["one"], hosts.packages["three"]) if change.vespa}
    assert bool(report.restart) == ("restart" in foreseen)
    feed(hosts)
    for number in (1, 2):
        wait_for_all(hosts, container(number))
        assert_same_answers(hosts, container(number))


def assert_honest_until_whole(hosts, url: str) -> None:
    """Every answer that the client calls full has the scores of one host, while Vespa calls all of them full; an error is
    honest too. Until all is there."""
    query, strategy = QUERIES[0], "exhaustive"
    wanted = sorted(hosts.answers[query, strategy].values())
    many = len({d.id for d in hosts.documents})
    settings = ClientSettings(timeout=5.0, expected={"passage": many})
    with Client(url, hosts.bundle, settings=settings) as client:

        def whole():
            found = client.search(query, 10, candidates=strategy)
            scores = sorted(hit.score for hit in found.hits)
            same = len(scores) == len(wanted) and np.allclose(scores, wanted, atol=TIE)
            assert same or not found.full, found
            return found.full or found.degraded

        wait_until(f"a full answer at {url}", whole)


def test_a_host_dies_and_is_replaced(hosts):
    """Nothing is lost, nobody has to feed again, and the new host really holds copies: without another one all is there."""
    run("kill", "3")
    assert_honest_until_whole(hosts, container(1))
    wait_for_all(hosts, container(1))
    assert_same_answers(hosts, container(1))
    run("replace", "3")
    wait_for_copies(hosts)
    wait_for_all(hosts, container(2))
    assert_same_answers(hosts, container(2))
    run("kill", "2")
    wait_for_all(hosts, container(1))
    assert_same_answers(hosts, container(1))
    run("boot", "2")
    wait_for_all(hosts, container(2))


def test_a_feed_goes_on_while_hosts_are_cut_off_and_die(hosts):
    """Documents that are there in an older form are fed anew; afterwards each is there once, as it was fed last."""
    ids = [f"fed{number}" for number in range(4000)]
    target = open_vespa(container(1), hosts.bundle)

    def hand_over(some, text):
        documents = [Document(id_, "title", text, {}) for id_ in some]
        rows = np.eye(3, hosts.bundle.manifest.dim, dtype=np.float32)
        target.put([EncodedDocument(d, (Passage.of(d),), (rows,), digest=text) for d in documents])

    def harm():
        for command in (("cut", "3"), ("join", "3"), ("kill", "2"), ("boot", "2")):
            run(*command)
            time.sleep(15)

    try:
        hand_over(ids[::2], "old")
        assert not any(done.failure for done in target.settled(wait=True))
        harming = threading.Thread(target=harm)
        harming.start()
        place = 0
        while harming.is_alive() or place < len(ids):
            hand_over(ids[place : place + 20] if place < len(ids) else ids[:20], "new")
            place += 20
            time.sleep(0.2)
        harming.join()
        assert not any(done.failure for done in target.settled(wait=True))
        wanted = len({d.id for d in hosts.documents}) + len(ids)
        wait_until(f"{wanted} documents", lambda: (found := covered(container(1))) == (wanted, wanted) or found)
        assert target.stored(ids) == {id_: StoredDigest("new", (f"{id_}#0",)) for id_ in ids}
    finally:
        target.delete(ids)
        target.settled(wait=True)
        target.close()
    wait_for_all(hosts, container(2))


def _copies(hosts) -> dict[str, tuple[str, int]]:
    """State and number of documents of each content node, as the cluster controller knows them."""
    url = f"{hosts.config.rpartition(':')[0]}:19050/cluster/v2/content/storage?recursive=true"
    nodes = httpx.get(url, timeout=5).json()["node"]
    return {
        key: (node["state"]["generated"]["state"], int(node.get("metrics", {}).get("unique-document-count", 0)))
        for key, node in nodes.items()
    }


def wait_for_copies(hosts) -> None:
    """All nodes are up, and hold two copies of everything between them."""

    def made():
        found = _copies(hosts)
        complete = sum(count for _, count in found.values()) >= 2 * len(hosts.documents)
        return (complete and {state for state, _ in found.values()} == {"up"}) or found

    wait_until("two copies of everything", made)


def test_two_groups_each_with_everything(hosts):
    install(hosts, "groups", GROUPS)
    feed(hosts)
    for number in (1, 2):
        wait_for_all(hosts, container(number))
        for _ in range(4):  # whichever group is asked
            assert_same_answers(hosts, container(number))
    run("kill", "3")
    wait_for_all(hosts, container(1))
    assert_same_answers(hosts, container(1))


def test_streaming_mode_reads_one_group(hosts):
    """Last: Vespa changes the mode of an application only on request, and what was fed before is not needed again."""
    fields = hosts.base.metadata
    settings = dataclasses.replace(
        hosts.base, mode="streaming", group_field="module", schema="notes", candidates=("exhaustive", "bm25"), cluster=ONE
    )  # fmt: skip
    assert "module" in fields.fields
    run("down")
    run("up", "3")
    package = build_package(hosts.bundle, settings).write(hosts.folder / "streaming")
    deploy(package, hosts.config, query_url=container(1), timeout=PATIENCE_S)
    feed(hosts)
    retriever = Client(container(1), hosts.bundle.path)
    inside = {d.id for d in hosts.documents if d.metadata.get("module") == "pathlib"}
    for candidates in ("exhaustive", "bm25"):
        hits = retriever.search("delete a file", len(hosts.documents), where={"module": "pathlib"}, candidates=candidates).hits
        assert hits
        assert {hit.id for hit in hits} <= inside
    assert {h.id for h in retriever.search("file", 400, where={"module": "pathlib"}, candidates="exhaustive").hits} == inside
    with pytest.raises(UsageError, match="streams one group per query"):
        retriever.search("file")
    gone = next(iter(sorted(inside)))
    options = FeedOptions(
        to=container(1), bundle=hosts.bundle, encoder=hosts.encoder, operation="delete", journal=hosts.folder / "journal-delete"
    )  # fmt: skip
    with start_feed([[next(d for d in hosts.documents if d.id == gone)]], options) as running:
        assert running.go().dead_lettered == 0
    left = {h.id for h in retriever.search("file", 400, where={"module": "pathlib"}, candidates="exhaustive").hits}
    retriever.close()
    assert left == inside - {gone}
