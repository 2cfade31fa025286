"""What is deployed over a running application must leave its documents their meaning, or be told otherwise."""

import dataclasses

import pytest
from fake_config_server import Clock, Starting, deploy_to
from vespa_bundles import small_bundle

from late_interaction.errors import UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.changes.staleness import stale_documents, stale_indexes
from vespa_app.deploying.config_server import HEALTH_PATH
from vespa_app.package import build_package
from vespa_app.running import Description
from vespa_app.running.description import DESCRIPTION_PATH
from vespa_app.settings import AppSettings

BASE = AppSettings(dim=16, query_rows=8, codec="binary", candidates=("bm25", "exhaustive"))


def described(sha="0" * 64, **change):
    return Description(dataclasses.replace(BASE, **change), sha, None)


@pytest.fixture
def packages(tmp_path):
    bundles = small_bundle(tmp_path / "a"), small_bundle(tmp_path / "b", trained=False)
    return [build_package(bundle, BASE).write(tmp_path / f"app{n}") for n, bundle in enumerate(bundles)]


def test_another_bundle_over_a_running_index_is_refused_before_anything_is_sent(server, packages):
    deploy_to(server, packages[0])
    server.package = b""
    with pytest.raises(UsageError, match=r"running index passage: another bundle.*--beside OLD.*--allow refeed"):
        deploy_to(server, packages[1])
    assert server.package == b""
    said = []
    report = deploy_to(server, packages[1], allow=("refeed",), progress=said.append)
    assert server.package
    assert report.refeed[0].startswith("feed the documents of index passage again: another bundle")
    assert said[-1] == report.refeed[0]
    assert deploy_to(server, packages[1]).refeed == ()


def test_an_application_that_starts_with_its_config_server_is_compared_too(server, packages):
    deploy_to(server, packages[0])
    server.package, server.application, clock = b"", True, Clock()
    with pytest.raises(UsageError, match="another bundle"):
        deploy_to(server, packages[1], clock=clock, transport=Starting({HEALTH_PATH: 2, DESCRIPTION_PATH: 2}))
    assert (server.package, clock.now) == (b"", 1.5)
    deploy_to(server, packages[1], timeout=20, clock=clock, transport=Starting({HEALTH_PATH: 2, DESCRIPTION_PATH: 43}))
    assert server.package  # an application that does not come up may be replaced


def test_what_cannot_be_compared_is_refused(server, packages):
    server.description = {"fields": {"description": '{"version": 99}'}}
    with pytest.raises(UsageError, match="cannot be compared.*version 99.*--allow refeed"):
        deploy_to(server, packages[0])
    assert "cannot be compared" in deploy_to(server, packages[0], allow=("refeed",)).refeed[0]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (described(), described(), ()),
        (described(), described("1" * 64), ("another bundle (000000000000 -> 111111111111)",)),
        (described(), described(thresholds=True), ("thresholds false -> true",)),
        (described(), described(codec="bfloat16"), ("codec binary -> bfloat16",)),
        (described(), described(namespace="other"), ("namespace colbert -> other",)),
        (described(), described(layout="chunks"), ("layout passages -> chunks",)),
        (described(), described(rerank=7, search_threads=1, candidates=("bm25",)), ()),
        (described(residual_bits=4), described(residual_bits=2), ()),
        (described(codec="residual", residual_bits=4), described(codec="residual", residual_bits=2), ("residual_bits 4 -> 2",)),
        (described(mode="streaming", group_field="a"), described(mode="streaming", group_field="b"), ("group_field a -> b",)),
        (described(encoding="embedder"), described("1" * 64, encoding="embedder"), ()),
        (described(), described("1" * 64, encoding="embedder"), ()),
        (described(encoding="embedder"), described(), ("encoding embedder -> client",)),
    ],
)
def test_reasons(old, new, wanted):
    reasons = tuple(stale_documents(old, new))
    assert len(reasons) == len(wanted)
    assert all(reason.startswith(start) for reason, start in zip(reasons, wanted, strict=True))


def test_only_indexes_of_one_name_are_compared():
    metadata = MetadataSchema({"kind": FieldType.STRING})
    new = dataclasses.replace(described("1" * 64, schema="passage_v2"), beside=(described(metadata=metadata),))
    assert stale_indexes(described(), new) == {}
    assert set(stale_indexes(new, dataclasses.replace(new, beside=(described("2" * 64),)))) == {"passage"}
