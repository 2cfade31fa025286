"""The plan's figures against what codecs and feeder really make, against the measured node, and on the command line."""

import dataclasses
import json

import numpy as np
import pytest
from vespa_bundles import small_codebook

from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS, Books
from vespa_app.planning import PlanRequest, make_plan
from vespa_app.sections import CloudSettings, ClusterSettings
from vespa_app.settings import AppSettings

REQUEST = PlanRequest(documents=1e6, tokens=80)


def change(**more):
    return dataclasses.replace(REQUEST, **more)


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("codec", CODECS)
def test_token_vectors_take_the_bytes_that_the_codec_makes(codec, dim):
    """Cells as the codec feeds them, and the 4 bytes that Vespa keeps for each label of each."""
    tokens = 37
    vectors = np.random.default_rng(0).standard_normal((tokens, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = CODECS[codec].encode(vectors, Books(codebook=small_codebook(dim)))
    plan = make_plan(change(codec=codec, dim=dim, tokens=tokens))
    assert plan.value("token vectors") == sum(bytes_of(value) for value in values.values())
    assert str(CODECS[codec].bytes_per_token(dim)) in plan.figures[0].formula


def bytes_of(value):
    """Of a tensor's cells, fed as hex in blocks or as single cells of one byte, and of its labels."""
    blocks = value.get("blocks")
    if isinstance(blocks, dict):
        return sum(len(cells) // 2 + 4 for cells in blocks.values())
    return sum(1 + 4 * len(cell["address"]) for cell in value["cells"])


def test_every_figure_says_how_and_from_where():
    plan = make_plan(change(candidates=tuple(STRATEGIES)))
    assert len({figure.name for figure in plan.figures}) == len(plan.figures)
    for figure in plan.figures:
        assert figure.formula
        assert figure.source
        assert figure.value > 0
    assert {f"query, {name}" for name in STRATEGIES} <= {figure.name for figure in plan.figures}
    json.dumps(plan.to_json())


def test_the_sum_is_the_sum():
    plan = make_plan(change(candidates=("centroid", "pooled")))
    parts = [figure.value for figure in plan.figures if figure.unit == "B" and figure.name != "memory per passage"]
    assert plan.value("memory per passage") == pytest.approx(sum(parts))
    assert plan.value("memory, all copies") == pytest.approx(1e6 * sum(parts) * 2 * 1.2 / 1e9)


def test_pooling_halves_the_vectors():
    assert make_plan(change(pooling=2)).value("token vectors") == make_plan(REQUEST).value("token vectors") / 2


def test_paged_vectors_take_disk_and_no_memory():
    held, paged = make_plan(REQUEST), make_plan(change(paged=True))
    assert held.value("memory per passage") - paged.value("memory per passage") == held.value("token vectors")
    assert paged.value("disk, all copies") == held.value("disk, all copies")
    assert any("page cache" in note for note in paged.notes)


def test_bits_of_the_residual_codec_count():
    sizes = [make_plan(change(codec="residual", residual_bits=bits)).value("token vectors") for bits in (1, 2, 4)]
    assert (sizes[1] - sizes[0], sizes[2] - sizes[1]) == (80 * 16, 80 * 32)


def test_nodes_hold_the_memory_and_make_equal_groups():
    plan = make_plan(change(documents=1e8, groups=2, redundancy=4, searchable_copies=4, node_memory_gb=100))
    nodes = plan.value("content nodes")
    assert nodes % 2 == 0
    assert nodes * plan.value("memory per node for them") >= plan.value("memory, all copies")
    assert (nodes - 2) * plan.value("memory per node for them") < plan.value("memory, all copies")
    assert make_plan(change(documents=10)).value("content nodes") == 2


def test_bytes_are_those_that_a_node_says_it_uses():
    """Of /state/v1/custom/component/documentdb/NAME/subdb/ready: 128 dimensions, 8,192 centroids, ids of 46 characters."""
    passages = 23_553
    attributes = {
        "id": 2_405_064, "document_id": 2_369_880, "present": 425_328, "vectors": 77_877_712, "codes": 11_185_388,
        "centroids": 16_214_980, "pooled": 14_365_332,
    }  # fmt: skip
    meta_store = 1_476_764 * passages / 26_550
    plan = make_plan(
        PlanRequest(documents=passages, tokens=1_130_380 / passages, codec="residual", candidates=("centroid", "pooled"),
                    fields=0, id_bytes=46)
    )  # fmt: skip
    measured = (sum(attributes.values()) + meta_store) / passages
    assert plan.value("memory per passage") == pytest.approx(measured, rel=0.05)
    assert plan.value("token vectors") * passages == pytest.approx(77_877_712 + 11_185_388, rel=0.05)
    assert plan.value("centroid ids") * passages == pytest.approx(16_214_980, rel=0.05)
    assert plan.value("pooled vector and HNSW") * passages == pytest.approx(14_365_332, rel=0.1)


def test_times_are_those_measured_on_the_node():
    """../shared/reference and docs/performance.md: SciFact, one thread."""
    scifact = PlanRequest(
        documents=5183, tokens=157, centroids=8192, threads=1, redundancy=1, searchable_copies=1,
        candidates=("centroid", "pooled", "exhaustive"),
    )  # fmt: skip
    for more, name, measured in (
        ({}, "exhaustive", 390),
        ({"probes": 8, "rerank": 100}, "centroid", 21),
        ({"probes": 16, "rerank": 200}, "centroid", 33),
        ({"probes": 16, "rerank": 400}, "centroid", 48),
        ({"probes": 64, "rerank": 400}, "centroid", 76),
        ({"rerank": 100}, "pooled", 11),
        ({"rerank": 1000}, "pooled", 79),
    ):
        assert make_plan(dataclasses.replace(scifact, **more)).value(f"query, {name}") == pytest.approx(measured, rel=0.2)


def test_settings_say_what_is_planned():
    settings = AppSettings(dim=64, query_rows=16, codec="binary", cluster=ClusterSettings(content=("a", "b"), groups=2))
    request = PlanRequest.of(settings, 1e6, 50)
    assert (request.dim, request.codec, request.redundancy, request.groups, request.query_rows) == (64, "binary", 2, 2, 16)
    assert PlanRequest.of(AppSettings(dim=64, query_rows=16), 1e6, 50).redundancy == 1
    cloud = CloudSettings(content_memory_gb=(32, 64), redundancy=3)
    request = PlanRequest.of(AppSettings(dim=64, query_rows=16, cloud=cloud), 1e6, 50)
    assert (request.node_memory_gb, request.redundancy, request.searchable_copies) == (32, 3, 3)


def test_the_cloud_table_is_read_back(tmp_path):
    plan = make_plan(change(documents=1e8, codec="binary"))
    (tmp_path / "app.toml").write_text("dim = 128\nquery_rows = 32\n" + plan.cloud_toml())
    assert AppSettings.from_toml(tmp_path / "app.toml").cloud == plan.cloud()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"documents": 0}, "documents must be a number from 1"),
        ({"tokens": float("nan")}, "tokens must be a number"),
        ({"documents": 1e300}, "documents must be"),
        ({"codec": "zip"}, "codec 'zip' unknown"),
        ({"codec": "binary", "dim": 12}, "packs 8 dimensions"),
        ({"candidates": ("magic",)}, "candidates 'magic' unknown"),
        ({"searchable_copies": 3}, "must not exceed redundancy"),
        ({"groups": 3}, "multiples of groups"),
        ({"node_memory_gb": 1.5}, "node_memory_gb must be more than"),
    ],
)
def test_numbers_that_make_no_sense(more, message):
    with pytest.raises(SettingsError, match=message):
        make_plan(change(**more))


def test_the_command(cli, tmp_path):
    (tmp_path / "app.toml").write_text(AppSettings(dim=128, query_rows=32, codec="binary").to_toml())
    shown = cli("plan", "--documents", "1e9", "--tokens", "80", "--settings", str(tmp_path / "app.toml"), "--redundancy", "2")
    assert "80 tokens x 20 B (binary)" in shown.stdout
    assert "[cloud]" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    done = cli("plan", "--documents", "1e6", "--tokens", "80", "--codec", "float32", "--candidates", "centroid", "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    figures = {figure["name"]: figure for figure in answer["figures"]}
    assert figures["token vectors"]["value"] == 80 * 516
    assert answer["request"]["codec"] == "float32"
    failed = cli("plan", "--documents", "1e6", "--tokens", "0", code=1)
    assert "tokens must be" in failed.stderr
