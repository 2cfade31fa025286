"""services.xml, hosts.xml, deployment.xml, validation-overrides.xml and CD tests, by where the application runs."""

import dataclasses
import datetime
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError
from late_interaction.thresholds import Thresholds
from vespa_app.codecs import Codebooks
from vespa_app.package import build_package, check_settings
from vespa_app.package.cd_tests import cd_tests
from vespa_app.running import Description
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings

ONE = np.full((1, 16), 0.25, np.float32)
BASE = AppSettings(dim=16, query_rows=8, embedder=False)
HOSTS = ClusterSettings(config=("a.example",), container=("a.example", "10.0.0.2"), content=("a.example", "10.0.0.2", "c"))
CLOUD = CloudSettings(
    regions=("aws-us-east-1c", "aws-eu-west-1a"), content_nodes=(2, 4), content_memory_gb=(16, 32.5),
    read_tokens=("reader",), write_tokens=("feeder", "other"),
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


def files(bundle, **change):
    return build_package(bundle, dataclasses.replace(BASE, **change)).files


def services(found):
    return ET.fromstring(found["services.xml"])


def hosts_of(nodes):
    return [node.get("hostalias") for node in nodes.iter("node")]


def test_one_node_needs_no_hosts(bundle):
    found = files(bundle)
    root = services(found)
    assert {node.get("count") for node in root.iter("nodes")} == {"1"}
    assert root.findtext("content/min-redundancy") == "1"
    assert not {"hosts.xml", "deployment.xml", "validation-overrides.xml"} & set(found)


def test_a_cluster_names_its_hosts(bundle):
    found = files(bundle, cluster=HOSTS, search_threads=4)
    root = services(found)
    hosts = {host.get("name"): host.findtext("alias") for host in ET.fromstring(found["hosts.xml"])}
    assert hosts == {"a.example": "a.example", "10.0.0.2": "host-10.0.0.2", "c": "c"}
    assert [e.get("hostalias") for e in root.iter("configserver")] == ["a.example"]
    assert hosts_of(root.find("container/nodes")) == ["a.example", "host-10.0.0.2"]
    assert hosts_of(root.find("content/nodes")) == ["a.example", "host-10.0.0.2", "c"]
    assert [node.get("distribution-key") for node in root.find("content/nodes")] == ["0", "1", "2"]
    assert root.findtext("content/min-redundancy") == "2"
    assert root.findtext("content/engine/proton/searchable-copies") == "2"
    assert root.findtext(".//persearch") == "4"


def test_a_node_takes_documents_up_to_the_limits_that_are_set(bundle):
    assert services(files(bundle)).find("content/tuning") is None
    content = services(files(bundle, cluster=ClusterSettings(disk_limit=0.9, memory_limit=0.85))).find("content")
    (limits,) = content.findall("tuning/resource-limits")
    assert {limit.tag: limit.text for limit in limits} == {"disk": "0.9", "memory": "0.85"}


def test_groups_each_have_a_whole_copy(bundle):
    cluster = ClusterSettings(content=("a", "b", "c", "d"), groups=2, redundancy=4, searchable_copies=2)
    content = services(files(bundle, cluster=cluster)).find("content")
    groups = content.findall("group/group")
    assert [hosts_of(group) for group in groups] == [["a", "c"], ["b", "d"]]
    assert content.find("group/distribution").get("partitions") == "2|*"
    keys = [node.get("distribution-key") for group in groups for node in group]
    assert sorted(keys) == ["0", "1", "2", "3"]


def test_the_cloud_gets_resources_regions_and_clients(bundle):
    found = files(bundle, cloud=CLOUD)
    root = services(found)
    nodes = root.find("content/nodes")
    assert (nodes.get("count"), nodes.find("resources").get("memory")) == ("[2, 4]", "[16Gb, 32.5Gb]")
    clients = {client.get("id"): client for client in root.find("container/clients")}
    assert clients["mtls"].find("certificate").get("file") == "security/clients.pem"
    assert {name: client.get("permissions") for name, client in clients.items()} == {
        "mtls": "read,write", "token-read": "read", "token-write": "write",
    }  # fmt: skip
    assert [token.get("id") for token in clients["token-write"]] == ["feeder", "other"]
    regions = [region.text for region in ET.fromstring(found["deployment.xml"]).iter("region")]
    assert regions == ["aws-us-east-1c", "aws-eu-west-1a"]
    assert "hosts.xml" not in found


def test_the_dev_zone_alone_needs_no_deployment_file(bundle):
    assert "deployment.xml" not in files(bundle, cloud=CloudSettings())


@pytest.mark.parametrize("candidates", ["centroid", "pooled", "bm25", "exhaustive"])
def test_cd_tests_feed_and_query(bundle, candidates):
    found = files(bundle, cloud=CLOUD, candidates=(candidates,))
    steps = json.loads(found["tests/system-test/feed-and-search.json"])["steps"]
    assert [step["request"]["uri"].rpartition("/")[2] for step in steps] == ["cd-test-1%230", "cd-test-2%230", ""]
    body = steps[2]["request"]["body"]
    assert body["ranking.profile"] == candidates
    assert set(steps[0]["request"]["body"]["fields"]) >= {"id", "document_id", "text", "vectors"}
    staged = json.loads(found["tests/staging-setup/feed.json"])["steps"]
    assert [step["request"]["uri"] for step in staged] == [step["request"]["uri"] for step in steps[:2]]
    for step in staged:  # what any application of ours has, whatever its strategies
        assert set(step["request"]["body"]["fields"]) == {"id", "document_id", "title", "text", "present", "vectors"}
    [asked] = json.loads(found["tests/staging-test/search.json"])["steps"]
    assert asked["request"]["body"]["ranking.profile"] == ("exhaustive" if candidates == "exhaustive" else "late_interaction")
    assert asked["response"] == steps[2]["response"]


def test_cd_tests_ask_with_the_thresholds_that_they_feed_with():
    cuts = np.linspace(-0.6, 0.6, 16, dtype=np.float32)
    books = Codebooks(thresholds=Thresholds(cuts, np.full(16, 0.1, np.float32)))
    settings = dataclasses.replace(BASE, codec="binary", thresholds=True, candidates=("token",))
    found = cd_tests(Description(settings, "0" * 64, None), books)
    fed, other, asked = json.loads(found["tests/system-test/feed-and-search.json"])["steps"]
    rows = [step["request"]["body"]["fields"]["vectors"]["blocks"]["0"] for step in (fed, other)]
    assert asked["request"]["body"]["input.query(b0)"]["values"] == rows[0] == books.thresholds.encode(ONE).tobytes().hex()
    assert rows[0] != rows[1]


def test_overrides_are_written_only_on_request_and_with_a_date(bundle):
    day = (datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=7)).isoformat()
    text = files(bundle, allow={"schema-removal": day})["validation-overrides.xml"].decode()
    assert f'<allow until="{day}">schema-removal</allow>' in text


def cluster(**change):
    return {"cluster": dataclasses.replace(HOSTS, **change)}


def cloud(**change):
    return {"cloud": dataclasses.replace(CLOUD, **change)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster": HOSTS, "cloud": CLOUD}, r"\[cluster\] and \[cloud\] exclude"),
        ({"cluster": ClusterSettings(container=("a",))}, "cluster.content: is empty"),
        (cluster(content=("a", "b", "a")), "cluster.content: contains a host twice"),
        (cluster(content=("a b", "c")), "'a b' is not a host name"),
        (cluster(config=("a", "b")), "cluster.config: lists 2 hosts"),
        (cluster(content=("a", "A")), "'a' and 'A', which Vespa cannot tell apart"),
        (cluster(container=("Node",), content=("node", "b", "c")), "'Node' and 'node', which"),
        (cluster(content=("10.0.0.1", "host-10.0.0.1")), "'10.0.0.1' and 'host-10.0.0.1', which"),
        (cluster(disk_limit=80.0), "cluster.disk_limit: must be from 0.1 to 0.98, or 0 for Vespa's own, got 80"),
        ({"cluster": ClusterSettings(memory_limit=0.7), "cloud": CLOUD}, r"\[cluster\] and \[cloud\] exclude"),
        (cluster(redundancy=4), r"cluster.redundancy: must be from 1 to the content nodes \(3\)"),
        (cluster(redundancy=1, searchable_copies=2), "cluster.searchable_copies: must be from 1 to redundancy"),
        (cluster(groups=2), "cluster.groups: is 2, but 3 content hosts"),
        (cluster(groups=3), "cluster.redundancy: is 2, but each of 3 groups"),
        (cluster(groups=3, redundancy=3), "cluster.searchable_copies: is 2, but each of 3 groups"),
        (cloud(regions=("us east",)), "cloud.regions: 'us east'"),
        (cloud(read_tokens=("vespa cloud secret",)), "names of tokens"),
        (cloud(read_tokens=("vespa_cloud_abc123",)), "names of tokens .* never their values$"),
        (cloud(write_tokens=("VESPA_CLOUD_abc123",)), "names of tokens"),
        (cloud(regions=("aws-us-east-1c", "aws-eu-west-1a", "aws-us-east-1c")), "cloud.regions: contains a region twice"),
        (
            {**cloud(content_vcpu=(2, 8)), "search_threads": 3},
            "search_threads: is 3, but a content node has cloud.content_vcpu 2",
        ),
        (cloud(content_nodes=(4, 2)), r"cloud.content_nodes: must be \[number\] or \[least, most\]"),
        (cloud(content_nodes=()), "cloud.content_nodes: must be"),
        (cloud(content_nodes=(2.5,)), "cloud.content_nodes: must be whole"),
        (cloud(container_vcpu=(0,)), "cloud.container_vcpu: must be"),
        (cloud(groups=3), "cloud.groups: is 3"),
        (cloud(redundancy=1), "at least 2 in production"),
        (cloud(redundancy=3), r"cloud.redundancy: must be from 1 to the content nodes \(2\)"),
        ({"allow": {"everything": "2026-12-24"}}, "'everything' is not a change"),
        ({"allow": {"schema-removal": "soon"}}, "allow.schema-removal: must be a day"),
        ({"allow": {"schema-removal": "2026-12-24"}}, "at most 30 days ahead"),
    ],
)
def test_places_that_cannot_work(change, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(dataclasses.replace(BASE, **change), today=datetime.date(2026, 11, 1))


def test_an_allowance_that_is_past_is_refused_for_a_new_package_alone(bundle, tmp_path):
    """A package of last month can still be read, compared and deployed: Vespa ignores what is past."""
    yesterday = (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=1)).isoformat()
    settings = dataclasses.replace(BASE, allow={"schema-removal": yesterday})
    with pytest.raises(SettingsError, match=f"allow.schema-removal: {yesterday} is in the past"):
        build_package(bundle, settings)
    check_settings(settings)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    build_package(bundle, dataclasses.replace(BASE, allow={"schema-removal": today})).write(tmp_path / "app")


@pytest.mark.parametrize("embedder", [False, True])
def test_a_precision_that_the_bundle_lacks_is_named_with_or_without_embedder(bundle, embedder):
    with pytest.raises(SettingsError, match="setting precision: .* has no model 'int9'; it has: fp32"):
        build_package(bundle, dataclasses.replace(BASE, precision="int9", embedder=embedder))
