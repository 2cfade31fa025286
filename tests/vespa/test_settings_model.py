"""Where an application runs and how its documents are laid out, against Vespa's own config model."""

import dataclasses
import itertools

import numpy as np
import pytest
from test_config_model import BOOKS, bundle, certificate, settings_for, warnings  # noqa: F401

from late_interaction.documents import Passage
from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS
from vespa_app.package import build_package, check_settings
from vespa_app.running.documents import document_fields
from vespa_app.settings import CloudSettings, ClusterSettings
from vespa_app.settings.application_settings import ENCODINGS, LAYOUTS, MODES

pytestmark = pytest.mark.oracle

CLUSTERS = {
    "three hosts": ClusterSettings(config=("node1",), container=("node1", "node2"), content=("node1", "node2", "node3")),
    "limits of one node": ClusterSettings(disk_limit=0.9, memory_limit=0.85),
    "two groups": ClusterSettings(container=("node1", "node2"), content=("node1", "node2"), groups=2),
    "two groups of two": ClusterSettings(content=("a", "b", "c", "d"), groups=2, redundancy=4, searchable_copies=2),
    "three groups, addresses": ClusterSettings(
        content=("10.0.0.1", "10.0.0.2", "10.0.0.3"), groups=3, redundancy=3, searchable_copies=3
    ),
}
CLOUD = CloudSettings(regions=("aws-us-east-1c",), read_tokens=("reader",), write_tokens=("feeder",))
CLOUDS = {
    "plain": CLOUD,
    "autoscaling": dataclasses.replace(CLOUD, content_nodes=(2, 8), content_vcpu=(2, 8), content_memory_gb=(16, 64)),
    "groups": dataclasses.replace(CLOUD, content_nodes=(4,), groups=2, read_tokens=(), write_tokens=()),
}


def loud(reply):
    """Warnings, but not advice about what several searchable copies cost."""
    return [line for line in warnings(reply) if line.startswith("WARNING")]


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters(vespa_oracle, bundle, tmp_path, name):  # noqa: F811
    app = build_package(bundle, settings_for(cluster=CLUSTERS[name])).write(tmp_path / "app")
    reply = vespa_oracle.validate(app)
    assert reply["ok"], reply
    assert loud(reply) == []


@pytest.mark.parametrize("zone", ["cloud-dev", "cloud-prod"])
@pytest.mark.parametrize("name", CLOUDS)
def test_vespa_cloud(vespa_oracle, bundle, tmp_path, name, zone):  # noqa: F811
    app = build_package(bundle, settings_for(cloud=CLOUDS[name])).write(tmp_path / "app")
    (app / "security").mkdir()
    (app / "security" / "clients.pem").write_bytes(certificate())
    reply = vespa_oracle.validate(app, zone)
    assert reply["ok"], reply
    assert loud(reply) == []


def combinations():
    """What our settings take, of every codec x candidates x layout x mode x encoding."""
    for codec, layout, mode, encoding in itertools.product(CODECS, LAYOUTS, MODES, ENCODINGS):
        for candidates in (tuple(STRATEGIES), *((name,) for name in STRATEGIES)):
            group = "kind" if mode == "streaming" else ""
            more = {"layout": layout, "mode": mode, "encoding": encoding, "group_field": group}
            settings = settings_for(codec, candidates, **more)
            try:
                check_settings(settings)
            except SettingsError as error:
                assert any(f"setting {name}" in str(error) for name in ("layout", "mode", "encoding")), error
            else:
                yield "-".join((codec, layout, mode, encoding, "+".join(candidates))), settings


COMBINATIONS = dict(combinations())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_combination_that_settings_take(vespa_oracle, bundle, tmp_path, name):  # noqa: F811
    reply = vespa_oracle.validate(build_package(bundle, COMBINATIONS[name]).write(tmp_path / "app"))
    assert reply["ok"], reply
    assert warnings(reply) == []


def test_the_combinations_are_many():
    seen = {name.rpartition("-")[0] for name in COMBINATIONS}
    assert len(COMBINATIONS) >= 60
    assert {"-".join(parts) for parts in itertools.product(("bfloat16", "binary"), LAYOUTS, MODES, ENCODINGS)} <= seen


def test_several_indexes_in_one_application(vespa_oracle, bundle, tmp_path):  # noqa: F811
    own = {"codec": "binary", "metadata": {"owner": "string"}, "candidates": ["bm25"], "layout": "chunks"}
    app = build_package(bundle, settings_for(indexes={"notes": own, "more": {}})).write(tmp_path / "app")
    reply = vespa_oracle.validate(app)
    assert reply["ok"], reply
    assert warnings(reply) == []
    assert set(reply["schemas"]) == {"content/passage", "content/notes", "content/more", "content/colbert_application"}


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "binary"])
def test_chunks_are_read_and_scored_as_they_were_meant(vespa_oracle, bundle, tmp_path, codec):  # noqa: F811
    settings = settings_for(codec, ("centroid", "pooled", "bm25", "exhaustive"), layout="chunks")
    app = build_package(bundle, settings).write(tmp_path / "app")
    random = np.random.default_rng(5)
    matrices = [random.standard_normal((rows, 16)).astype(np.float32) for rows in (3, 12)]
    passages = [Passage(f"d#{n}", "d", "Title", f"text {n}", {"kind": "x"}) for n in range(2)]
    fields = document_fields(passages, matrices, settings, BOOKS)
    reply = vespa_oracle.ask("feed", app=str(app), op={"fields": fields}, id="id:colbert:passage::d#0", method="PUT")
    assert reply["ok"], reply
    assert reply["fullyApplied"]
    assert reply["document"]["fields"]["text"] == ["text 0", "text 1"]
    query = random.standard_normal((4, 16)).astype(np.float32)
    reply = vespa_oracle.ask(
        "profile",
        app=str(app),
        schema="passage",
        profile="exhaustive",
        function="max_sim",
        inputs={
            "query(qt)": {"type": "tensor<float>(qt{}, x[16])", "value": {str(n): row.tolist() for n, row in enumerate(query)}},
            "attribute(vectors)": {"type": vectors_of(app), "value": fields["vectors"]},
        },
    )
    assert reply["ok"], reply
    stored = [CODECS[codec].decode(CODECS[codec].encode(rows, BOOKS), BOOKS) for rows in matrices]
    best = max(float((query @ rows.T).max(axis=1).sum()) for rows in stored)
    assert reply["result"] == pytest.approx(best, abs=1e-5)


def vectors_of(app):
    text = (app / "schemas/passage.sd").read_text()
    return text.partition("field vectors type ")[2].partition(" {\n")[0]
