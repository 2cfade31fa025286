"""The plan's figures against what codecs and feeder really make, against the measured node, and on the command line."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ready import ready_bundle
from vespa_bundles import WITHOUT_DENSE, small_bundle, small_codebook

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS, Codebooks
from vespa_app.package import check_settings
from vespa_app.planning import PlanRequest, make_plan, queries
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings

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
    values = CODECS[codec].encode(vectors, Codebooks(codebook=small_codebook(dim)))
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
    """Worked out by hand: a million passages of 80 tokens, bfloat16, two copies on two nodes of 64 GB."""
    plan = make_plan(change(candidates=WITHOUT_DENSE, queries_per_second=100))
    assert {figure.name: round(figure.value, 2) for figure in plan.figures if not figure.name.endswith(", shared")} == {
        "token vectors": 80 * 260,
        "centroid ids": 80 * 0.7 * 20,
        "pooled vector and HNSW": 512 + 140,
        "token HNSW": 80 * 140,
        "ids, metadata, bookkeeping": 45 + 2 * 74 + 5 * 16 + 43,
        "memory per passage": 34_088,
        "memory, all copies": 81.81,  # 34,088 B x 1e6 x 2 x 1.2
        "memory per node for them": 49.7,
        "content nodes": 2,
        "disk, all copies": 205.73,  # 2 x (34,088 + 300 + 68,176 + 300)
        "disk per node": 137.15,
        "container nodes": 2,
        "memory per container": 1.13,
        # of 500,000 passages on each node, with two threads
        "query, centroid": 33.0,  # 11.5 + 32 x 32 x 96 x 1.9 / 7.8e3 / 2 + 500 x 80 / 2.1e3 / 2
        "query, token": 68.01,  # 32 x 1.2 x ln(40e6) / ln(98,000) + 9.52
        "query, pooled": 14.89,  # 3.5 x ln(500,000) / ln(5,183) + 9.52
        "query, bm25": 32.62,  # 8 x sqrt(500,000 / 60,000) + 9.52
        "query, hybrid": 65.61,  # 23.47 + 23.09 + 2 x 9.52
        "query, exhaustive": 9523.81,  # 40e6 / 2.1e3 / 2
        "groups for these queries": 3,  # 100 x 52 ms / 1000 / (4 x .6)
    }
    for figure in plan.figures:
        assert figure.formula
        assert figure.source
    assert len({figure.name for figure in plan.figures}) == len(plan.figures)
    json.dumps(plan.to_json())


def test_filling_takes_machine_hours_by_the_rate_of_a_machine():
    """1e8 passages of 120 vectors at 25,000 a second, pooled by two, binary: 22 nodes."""
    asked = change(documents=1e8, tokens=120, codec="binary", encode_rate=25_000)
    plan = make_plan(asked)
    assert plan.value("encoding") == pytest.approx(1e8 * 120 / 25_000 / 3600)
    assert plan.value("bytes to send") == pytest.approx(1e8 * (2 * 120 * 20 + 600) / 1e9)
    assert plan.value("feeding, at least") == pytest.approx(1e8 * 2 / (plan.value("content nodes") * 1091) / 3600)
    pooled = make_plan(dataclasses.replace(asked, pooling=2))
    assert pooled.value("encoding") == plan.value("encoding")
    assert pooled.value("bytes to send") < plan.value("bytes to send")
    bare = make_plan(dataclasses.replace(asked, encode_rate=0))
    assert [figure.name for figure in plan.figures[len(bare.figures) :]] == ["encoding", "bytes to send", "feeding, at least"]
    with pytest.raises(SettingsError, match="encode_rate must be a number"):
        make_plan(dataclasses.replace(asked, encode_rate=-1))


def test_the_command_answers_in_machine_hours(cli):
    command = ("plan", "--documents", "1e9", "--tokens", "80", "--codec", "binary", "--encode-rate", "25e3")
    assert "machine-hours" in cli(*command).stdout
    figures = {figure["name"]: figure for figure in json.loads(cli(*command, "--json").stdout.splitlines()[-1])["figures"]}
    assert figures["encoding"]["value"] == pytest.approx(1e9 * 80 / 25e3 / 3600)
    assert figures["encoding"]["unit"] == "machine-hours"
    cli("plan", "--documents", "1e9", "--tokens", "80", "--encode-rate", "0", code=2)


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


@pytest.fixture
def kmeans_codebooks(monkeypatch):
    """What the node had when it was measured: a row's lists are .9 of the average length (benchmarks/centroids.py --plain)."""
    monkeypatch.setattr(queries, "LONGER", 0.9)


@pytest.mark.usefixtures("kmeans_codebooks")
def test_times_are_those_measured_on_the_node():
    """../shared/reference and docs/performance/notes.md: SciFact, one thread."""
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


@pytest.mark.parametrize(
    ("passages", "tokens", "rows", "table"),
    [
        (60_000, 49.2, 9, {
            ("bfloat16", "exhaustive", 32, 500): 340, ("residual", "exhaustive", 32, 500): 6776,
            ("bfloat16", "centroid", 16, 200): 21, ("residual", "centroid", 16, 200): 39,
            ("bfloat16", "centroid", 32, 500): 26, ("residual", "centroid", 32, 500): 86,
            ("bfloat16", "pooled", 32, 500): 8, ("residual", "pooled", 32, 500): 70,
            ("bfloat16", "bm25", 32, 500): 11, ("residual", "bm25", 32, 500): 64,
            ("bfloat16", "hybrid", 32, 500): 41, ("residual", "hybrid", 32, 500): 153,
        }),
        (5183, 235, 20, {
            ("residual", "exhaustive", 32, 500): 2997, ("residual", "centroid", 16, 200): 130,
            ("residual", "centroid", 32, 500): 326, ("residual", "pooled", 32, 500): 283,
            ("residual", "bm25", 32, 500): 291, ("residual", "hybrid", 32, 500): 616,
            ("bfloat16", "centroid", 32, 500): 53,
        }),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("kmeans_codebooks")
def test_residual_costs_what_performance_md_has_and_not_what_bfloat16_does(passages, tokens, rows, table):
    """The table of docs/performance/notes.md, and for bfloat16 on scifact the second run that it names."""
    for (codec, name, probes, rerank), measured in table.items():
        with_centroid = dict.fromkeys((name, "centroid"))  # hybrid takes it where it is
        plan = make_plan(
            PlanRequest(
                passages, tokens, codec=codec, candidates=tuple(with_centroid), query_rows=rows, probes=probes, rerank=rerank,
                threads=1, redundancy=1, searchable_copies=1, centroids=16_384,
            )
        )  # fmt: skip
        assert plan.value(f"query, {name}") == pytest.approx(measured, rel=0.3), (codec, name)


def test_token_costs_what_was_measured():
    plan = make_plan(
        PlanRequest(2000, 49, codec="binary", candidates=("token",), query_rows=9, threads=1, redundancy=1, searchable_copies=1)
    )
    assert plan.value("query, token") == pytest.approx(14, rel=0.1)


@pytest.mark.parametrize("documents", [1e8, 1e9])
@pytest.mark.parametrize("codec", ["bfloat16", "binary"])
def test_lists_hardly_grow_with_the_documents(documents, codec):
    """Formerly 2,053 ms for binary: lists of a codebook that did not grow."""
    plan = make_plan(PlanRequest(documents, 120, codec=codec))
    assert plan.value("query, centroid") <= 100
    assert plan.value("query, centroid") < 2.5 * make_plan(PlanRequest(1e6, 120, codec=codec)).value("query, centroid")


@pytest.mark.parametrize("documents", [1e8, 1e9])
def test_a_node_reranks_its_share(documents):
    """Vespa's RankProperties: ceil(totalRerankCount x the node's part of the group's active documents)."""
    plan = make_plan(PlanRequest(documents, 120, codec="residual"))
    whole, shared = plan.value("query, centroid"), plan.value("query, centroid, shared")
    share = math.ceil(500 / plan.value("content nodes"))
    assert whole - shared == pytest.approx((500 - share) * 120 * (1e6 / 2.1e6 + 2.3) / 1000 / 2, rel=0.01)
    assert shared <= 100
    names = [figure.name for figure in make_plan(PlanRequest(1e5, 120, redundancy=1, searchable_copies=1)).figures]
    assert "query, centroid" in names
    assert not any(name.endswith("shared") for name in names)  # a single node reranks all


def test_what_is_not_reranked_is_not_shared():
    """A hybrid whose weights leave out MaxSim costs the same whatever the rerank; and shares are exact."""
    plan = make_plan(PlanRequest(1e9, 120, codec="residual", candidates=("hybrid",), weights=("pooled", "bm25")))
    assert plan.value("content nodes") > 1
    assert not any(figure.name.endswith(", shared") for figure in plan.figures)
    assert queries.shared_cost(PlanRequest(1e8, 120, rerank=100), "pooled", 7e6).formula == "the same with rerank 7"


def test_fewer_bits_decode_faster():
    costs = [make_plan(change(codec="residual", residual_bits=bits)).value("query, centroid") for bits in (1, 2, 4)]
    reranked = 500 * 80 / 1000 / 2
    assert costs[1] - costs[0] == pytest.approx(reranked * (0.67 - 0.4))
    assert costs[2] - costs[1] == pytest.approx(reranked * (2.3 - 0.67))


def test_the_codebook_has_what_the_exporter_trains():
    """That grows with the collection, as `export --documents` has it; an export without has that of its sample."""
    assert [REQUEST.centroid_count(passages) for passages in (1e4, 1e5, 1e6, 1e9)] == [1 << 14, 1 << 17, 1 << 20, 1 << 20]
    notes = make_plan(change(documents=1e8)).notes
    assert any("codebook of 1,048,576 centroids, which `export --documents 1e+08`" in note for note in notes)
    assert not any("export --documents" in note for note in make_plan(change(centroids=77)).notes)
    vectors = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    assert len(train_codebook(vectors, centroids=None).centroids) == dataclasses.replace(REQUEST, tokens=10).centroid_count(300)
    assert change(centroids=77).centroid_count(1e6) == 77


NUMBERS = st.floats(1, 1e12)


@given(
    st.tuples(NUMBERS, NUMBERS).map(sorted),
    st.floats(1, 3000),
    st.sampled_from(["residual", "binary", "float32"]),
    st.sampled_from([2.0, 16.0, 400.0]),
    st.booleans(),
)
def test_no_estimate_falls_as_documents_grow(documents, tokens, codec, memory, paged):
    """Formerly 34, 15.7 and 12.6 ms at 1e6, 1e8 and 1e9 documents: more centroids than there are, and a shared rerank."""
    fewer, more = (
        make_plan(
            change(documents=count, tokens=tokens, codec=codec, node_memory_gb=memory, paged=paged,
                   candidates=tuple(STRATEGIES), queries_per_second=50)
        )
        for count in documents
    )  # fmt: skip
    less_on_each = ("disk per node", ", shared")  # of more nodes
    before, after = ([f for f in plan.figures if not f.name.endswith(less_on_each)] for plan in (fewer, more))
    for first, second in zip(before, after, strict=True):
        assert second.value >= first.value * (1 - 1e-9), first.name


def test_hybrid_without_centroid_has_the_pooled_vector():
    assert make_plan(change(candidates=("hybrid",))).value("pooled vector and HNSW") == 652
    with pytest.raises(StopIteration):
        make_plan(change(candidates=("hybrid", "centroid"))).value("pooled vector and HNSW")


def test_token_over_residual_keeps_bits_besides():
    plan = make_plan(change(candidates=("token",), codec="residual"))
    assert plan.value("token bits") == 80 * 20
    assert plan.value("ids, metadata, bookkeeping") == 45 + 2 * 74 + 5 * 16 + 3 * 43


def test_chunks_carry_another_label_and_share_the_ids():
    plan = make_plan(change(layout="chunks", passages_per_document=10, codec="binary"))
    assert plan.value("token vectors") == 80 * 24
    assert plan.value("ids, metadata, bookkeeping") == pytest.approx((45 + 2 * 74 + 5 * 16 + 43) / 10)
    assert any("layout chunks" in note for note in plan.notes)


def test_every_index_takes_memory():
    indexes = {"notes": {"codec": "binary", "candidates": ["bm25"], "metadata": {}}}
    settings = AppSettings(dim=128, query_rows=32, candidates=("bm25",), indexes=indexes)
    plan = make_plan(PlanRequest.of(settings, 1e6, 80))
    assert plan.value("notes: token vectors") == 80 * 20
    assert plan.value("memory per passage") == 80 * 260 + 80 * 20 + 2 * (45 + 2 * 74 + 16 + 43)
    assert plan.value("query, notes: bm25") == plan.value("query, bm25")
    assert any("[indexes]" in note for note in plan.notes)


def test_containers_are_those_that_are_set_or_that_queries_need():
    cluster = ClusterSettings(container=("a", "b", "c"), content=("a", "b"))
    settings = AppSettings(dim=128, query_rows=32, cluster=cluster, jvm_heap_mb=2048)
    plan = make_plan(PlanRequest.of(settings, 1e6, 80))
    assert (plan.value("container nodes"), plan.value("memory per container")) == (3, 2.048 + 0.615)
    assert make_plan(change(queries_per_second=2000)).value("container nodes") == 3  # 3.6 processors of 2 x .6
    assert make_plan(change(queries_per_second=2000, embedder=False)).value("container nodes") == 2


def test_groups_are_advised_for_a_number_of_queries():
    plan = make_plan(change(candidates=("pooled",), queries_per_second=500))
    # 5.37 + 19.05 ms of a processor; 500 x .0244 / (4 x .6)
    assert plan.value("groups for these queries") == 6
    assert any("set groups = 6 and redundancy = 6" in note for note in plan.notes)
    enough = make_plan(change(candidates=("pooled",), queries_per_second=500, groups=6, redundancy=6, searchable_copies=6))
    assert not any("groups =" in note for note in enough.notes)


def test_a_cloud_table_that_app_refuses_is_not_given(cli):
    """Formerly [cloud] with content_nodes = [20000000, 40000000]."""
    plan = make_plan(change(documents=1e12))
    assert plan.cloud() is None
    assert plan.cloud_toml() == ""
    assert "limit of one application (1,000)" in plan.notes[0]
    assert "[cloud]" not in cli("plan", "--documents", "1e12", "--tokens", "80").stdout
    nearly = make_plan(change(documents=6e8))
    assert 500 < nearly.value("content nodes") < 1000
    check_settings(AppSettings(dim=128, query_rows=32, cloud=nearly.cloud()))
    assert nearly.cloud().content_nodes[1] == 1000


def test_the_bundle_says_what_it_has(tmp_path):
    found = PlanRequest(1e6, 80).with_bundle(small_bundle(tmp_path / "bundle"))
    assert (found.dim, found.query_rows, found.centroids, found.residual_bits, found.pooling) == (16, 8, 16, 4, 1)
    plain = PlanRequest(1e6, 80).with_bundle(small_bundle(tmp_path / "plain", codebook=False))
    assert (plain.dim, plain.centroids) == (16, 0)


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
        ({"dim": 1_000_000}, "dim must be a number from 1 to 4096, got 1000000"),
        ({"threads": 1000}, "threads must be a number from 1 to 64"),
        ({"residual_bits": 3}, "residual_bits must be 1, 2 or 4"),
        ({"layout": "pages"}, "layout 'pages'"),
        ({"centroids": 10**8}, "centroids must be at most"),
        ({"indexes": (("notes", PlanRequest(1, 1, codec="zip")),)}, "indexes.notes.codec 'zip'"),
        ({"codec": "zip"}, "codec 'zip'"),
        ({"codec": "binary", "dim": 12}, "packs 8 dimensions"),
        ({"candidates": ("magic",)}, "candidates 'magic'"),
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
    failed = cli("plan", "--documents", "1e6", "--tokens", "0", code=2)
    assert "--tokens" in failed.stderr


@pytest.mark.parametrize("codec", ["bfloat16", "binary"])
def test_pages_of_2000_rows_without_a_model(tmp_path, codec):
    """A million page images: what the codec makes of 2,000 rows, and containers without an embedder."""
    request = change(tokens=2000, codec=codec, candidates=("pooled",)).with_bundle(ready_bundle(tmp_path / "bundle", dim=128))
    assert (request.dim, request.query_rows, request.embedder) == (128, 32, False)
    plan, texts = make_plan(request), make_plan(dataclasses.replace(request, tokens=80))
    assert plan.value("token vectors") == 2000 * CODECS[codec].bytes_per_token(128)
    both_copies_gb = 2 * 2000e6 * CODECS[codec].bytes_per_token(128) / 1e9
    assert both_copies_gb < plan.value("memory, all copies") < 1.5 * both_copies_gb
    assert plan.value("query, pooled") > 10 * texts.value("query, pooled")
