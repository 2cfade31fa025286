"""Dense models of an application: cells, requests, settings, what changes with them, and what an older package cannot do."""

import dataclasses
import json

import numpy as np
import pytest
from vespa_bundles import small_bundle, small_codebook

from late_interaction.bundle import DensePart, write_manifest
from late_interaction.documents import Passage
from late_interaction.errors import MetadataError, SettingsError, UsageError
from late_interaction.metadata import MetadataSchema
from query.options import ClientSettings, SearchOptions
from query.plans import VespaAnswer
from query.types import EncodedQuery
from query.vespa import VespaIndex
from vespa_app.candidates import StrategyRequest, strategies_of, strategy_of
from vespa_app.candidates.dense import bytes_of, decoded_dense, encoded_dense
from vespa_app.changes import package_changes
from vespa_app.changes.staleness import stale_documents
from vespa_app.codecs import Codebooks
from vespa_app.package import build_package, check_package, check_settings, default_settings
from vespa_app.planning import PlanRequest, make_plan
from vespa_app.running import Application, Description
from vespa_app.running.stored import stored_field_set, stored_passages
from vespa_app.settings import AppSettings, DenseSettings

DENSE = {"dense": DenseSettings(8), "e5": DenseSettings(16, cells="bits", links=8)}
SETTINGS = AppSettings(
    dim=4,
    query_rows=8,
    candidates=("bm25+dense", "centroid", "dense", "hybrid"),
    dense=DENSE,
    weights={"bm25": 0.5, "dense": 1.0},
)
ROWS = np.eye(2, 4, dtype=np.float32)
BOOKS = Codebooks(codebook=small_codebook(4))


def unit(dim, seed=0):
    row = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return row / np.linalg.norm(row)


def request(model="dense", **change):
    made = StrategyRequest(ROWS, "two words", 50, SETTINGS, BOOKS.codebook, model=model, dense=unit(DENSE[model].dim))
    return dataclasses.replace(made, **change)


@pytest.mark.parametrize(("cells", "angle"), [("float", 1e-7), ("bfloat16", 1e-5), ("int8", 1e-4), ("bits", 0.3)])
def test_cells_keep_the_direction(cells, angle):
    own, vector = DenseSettings(384, cells=cells), unit(384)
    stored = encoded_dense(vector, own)
    assert len(stored) == 2 * bytes_of(own)
    assert float(decoded_dense(stored, own) @ vector) == pytest.approx(1, abs=angle)
    if cells != "bits":
        numbers = decoded_dense(stored, own)
        given = np.rint(numbers * 127 / np.abs(numbers).max()) if cells == "int8" else numbers
        assert np.allclose(decoded_dense(given.tolist(), own), numbers, atol=1e-6)  # as document/v1 may give them


def test_products_keep_their_length():
    own = DenseSettings(8, cells="float", distance="dotproduct")
    assert np.array_equal(decoded_dense(encoded_dense(3 * unit(8), own), own), 3 * unit(8))
    own = dataclasses.replace(own, distance="angular")
    assert np.allclose(decoded_dense(encoded_dense(3 * unit(8), own), own), unit(8), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "distance", "why"),
    [
        ({}, "angular", "no vector of dense model 'dense'"),
        ({"dense": unit(7)}, "angular", "must be 8 finite numbers, got shape \\[7\\]"),
        ({"dense": unit(8) * np.nan}, "angular", "must be 8 finite numbers"),
        ({"dense": 3 * unit(8)}, "prenormalized-angular", "length 3, .* set it to angular or dotproduct"),
        ({"dense": 0 * unit(8)}, "angular", "length 0"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(given, distance, why):
    settings = dataclasses.replace(SETTINGS, candidates=("dense",), dense={"dense": DenseSettings(8, distance=distance)})
    application = Application("http://node", Description(settings, "", None))
    unit_ = ((Passage("a#0", "a", "", "text", {}),), ((ROWS, None),))
    with pytest.raises(MetadataError, match=why):
        application.units([unit_], small_bundle_of(settings), [[given]])


def small_bundle_of(settings):
    return type("Bundle", (), {"manifest": type("Manifest", (), {"codebooks": {}})(), "path": "b", "sha256": ""})()


def test_documents_are_fed_and_read_back(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", dim=4, dense={name: own.dim for name, own in DENSE.items()})
    application = Application("http://node", Description(SETTINGS, bundle.sha256, None))
    vectors = {name: unit(own.dim) for name, own in DENSE.items()}
    passages = [Passage(f"a#{n}", "a", "", "text", {}) for n in range(2)]
    ((first, second),) = application.units([(passages, [(ROWS, None)] * 2)], bundle, [[vectors, vectors]])
    assert first["dense"] == second["dense"] and {"dense", "dense_e5"} <= set(first)
    assert {"dense", "dense_e5"} <= set(stored_field_set(SETTINGS).partition(":")[2].split(","))
    (stored,) = stored_passages({**first, "digest": ""}, SETTINGS, BOOKS)
    assert np.allclose(stored.dense["dense"], vectors["dense"], atol=0.01)
    assert np.array_equal(stored.dense["e5"] > 0, vectors["e5"] > 0)
    plain = dataclasses.replace(SETTINGS, candidates=("centroid",), dense={}, weights={})
    without = Application("http://node", Description(plain, bundle.sha256, None))
    assert "dense" not in without.digest_basis(bundle) and "bits" in application.digest_basis(bundle)


def test_a_search_asks_the_model_that_it_names():
    parts = strategy_of("dense").query(request())
    assert parts.yql_where == "({totalTargetHits:400}nearestNeighbor(dense, q_dense))" and parts.profile == "dense"
    assert set(parts.parameters) == {"input.query(qt)", "input.query(q_dense)", "ranking.secondPhase.totalRerankCount"}
    bits = strategy_of("dense").query(request("e5"))
    assert bits.yql_where == "({totalTargetHits:400}nearestNeighbor(dense_e5, b_dense_e5))" and bits.profile == "dense_e5"
    assert bits.parameters["input.query(b_dense_e5)"] == {"values": np.packbits(unit(16) > 0).tobytes().hex()}


def test_a_query_of_int8_cells_is_sent_in_such_cells_for_the_graph():
    """Vespa casts a query to the field's cells, which makes zeros of a unit vector's numbers."""
    own = dataclasses.replace(SETTINGS, dense={"dense": DenseSettings(8, cells="int8")})
    parts = strategy_of("dense").query(request(settings=own))
    assert "nearestNeighbor(dense, b_dense)" in parts.yql_where
    cells = np.frombuffer(bytes.fromhex(parts.parameters["input.query(b_dense)"]["values"]), np.int8)
    assert np.abs(cells).max() == 127 and float(unit(8) @ cells) / np.linalg.norm(cells) > 0.999
    assert "input.query(q_dense)" in parts.parameters
    with pytest.raises(UsageError, match="the query's vector of a dense model"):
        strategy_of("dense").query(request(dense=None))


def test_joined_candidates_match_what_either_finds():
    parts = strategy_of("bm25+dense").query(request())
    words, near = strategy_of("bm25").query(request()), strategy_of("dense").query(request())
    assert parts.yql_where == f"({words.yql_where} or {near.yql_where})" and parts.profile == "joined_dense"
    assert {parts.parameters[f"input.query(by_{name})"] for name in ("bm25", "dense")} == {1.0}
    assert strategy_of("bm25+centroid").query(request()).profile == "joined"
    with pytest.raises(UsageError, match="token cannot be combined"):
        strategy_of("token+dense").query(request())


@pytest.mark.parametrize(
    ("weights", "profile", "asked"),
    [
        ({"maxsim": 1.0, "bm25": 1.0}, "hybrid", "weightedSet tokenize"),
        ({"maxsim": 1.0, "dense": 1.0}, "hybrid_dense", "weightedSet nearest"),
        ({"bm25": 1.0, "dense": 1.0}, "fused_dense", "tokenize nearest"),
        ({"bm25": 1.0}, "fused", "tokenize"),
        ({"dense": 1.0}, "fused_dense", "nearest"),
    ],
)
def test_hybrid_asks_for_what_has_a_weight(weights, profile, asked):
    parts = strategy_of("hybrid").query(request(weights=weights, fusion="sum"))
    assert parts.profile == profile
    for word in ("weightedSet", "tokenize", "nearest"):
        assert (word in parts.yql_where) == (word in asked.split())
    assert parts.parameters["input.query(by_sum)"] == 1.0
    assert ("ranking.secondPhase.totalRerankCount" in parts.parameters) == ("maxsim" in weights)
    assert "input.query(by_sum)" not in strategy_of("hybrid").query(request(weights=weights)).parameters


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dense": {}}, "candidates: dense needs a dense model"),
        ({"candidates": ("centroid",)}, "dense.dense: no candidates use it"),
        ({"candidates": ("centroid+exhaustive",)}, "candidates: centroid\\+exhaustive: \\+ joins no 'exhaustive'"),
        ({"candidates": ("dense+dense",)}, "joins a strategy with itself"),
        ({"candidates": ("dense+near",)}, "'near' is unknown"),
        ({"dense": {"Dense": DenseSettings(8)}}, "dense.Dense: the name must be"),
        ({"dense": {"x_explained": DenseSettings(8)}}, "dense.x_explained: the name must"),
        ({"dense": {"dense": DenseSettings(0)}}, "dense.dense.dim: must be from 1"),
        ({"dense": {"dense": DenseSettings(8, links=1)}}, "dense.dense.links: must be from 2"),
        ({"dense": {"dense": DenseSettings(8, cells="half")}}, "dense.dense.cells: 'half' is unknown"),
        ({"dense": {"dense": DenseSettings(8, distance="euclidean")}}, "dense.dense.distance: 'euclidean' is unknown"),
        ({"dense": {"dense": DenseSettings(9, cells="bits")}}, "dense.dense.cells: bits packs 8"),
        (
            {"dense": {"dense": DenseSettings(8, cells="int8", distance="dotproduct")}},
            "dense.dense.cells: int8",
        ),
        ({"fusion": "max"}, "fusion: 'max' is unknown; known: rrf, sum"),
        ({"weights": {"words": 1.0}}, "weights: 'words' is unknown"),
        ({"weights": {"bm25": -1.0}}, "weights.bm25: must be a number"),
        ({"weights": {"bm25": 1e300}}, "weights.bm25: must be a number from 0 to 1,000,000"),
        ({"weights": {"bm25": 0.0}}, "weights: all are 0"),
        ({"dense": {}, "candidates": ("hybrid",)}, "weights.dense: there is no dense model"),
        ({"layout": "chunks", "candidates": ("dense",)}, "layout: chunks cannot have candidates 'dense'"),
        ({"layout": "chunks", "candidates": ("hybrid",)}, "layout: chunks cannot store dense vectors"),
        ({"mode": "streaming", "candidates": ("bm25+dense",)}, "mode: streaming .* 'dense'"),
        ({"encoding": "embedder", "candidates": ("bm25+dense",)}, "encoding: embedder .* 'dense'"),
        ({"metadata": MetadataSchema.from_json({"dense_e5": "long"})}, "metadata.dense_e5: the name is used"),
    ],
)
def test_settings_that_cannot_work_are_named(change, why):
    check_settings(SETTINGS)
    with pytest.raises(SettingsError, match=why):
        check_settings(dataclasses.replace(SETTINGS, **change))


def test_a_bundle_must_have_the_model(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", dim=4, dense={"dense": 8})
    for change, why in (
        ({"dense": DENSE}, "dense.e5: .* has no dense model of that name; it has: dense"),
        ({"dense": {"dense": DenseSettings(9)}}, "dense.dense.dim: is 9, but the vectors of .* have 8"),
    ):
        with pytest.raises(SettingsError, match=why):
            build_package(bundle, dataclasses.replace(SETTINGS, **change))


def test_a_bundle_with_dense_models_sets_them(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", dense={"dense": 8})
    parts = {**bundle.manifest.dense, "product": DensePart("ready-made", 4, normalized=False)}
    bundle = write_manifest(bundle.path, dataclasses.replace(bundle.manifest, dense=parts))
    settings = default_settings(bundle, MetadataSchema({}))
    assert settings.candidates == ("centroid", "bm25", "dense", "hybrid", "exhaustive")
    assert settings.dense == {"dense": DenseSettings(8), "product": DenseSettings(4, distance="dotproduct")}
    assert settings.weights == {"maxsim": 1.0, "bm25": 1.0, "dense": 1.0}
    assert default_settings(bundle, MetadataSchema({}), candidates=("bm25",)).dense == {}
    folder = build_package(bundle, settings).explained().write(tmp_path / "app")
    assert check_package(folder).settings == settings == AppSettings.from_toml(folder / "app.toml")
    readme = (folder / "README.md").read_text()
    assert "| `dense_product` | for candidates dense, hybrid |" in readme and "added by hand" not in readme
    assert "| `joined_dense_product` | candidates of several kinds, as queries name them; MaxSim over the best; with" in readme


def test_another_dense_model_means_a_refeed(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", dim=4, dense={name: own.dim for name, own in DENSE.items()})
    old = Description(SETTINGS, bundle.sha256, None)
    other = dataclasses.replace(SETTINGS, dense={**DENSE, "dense": DenseSettings(8, cells="float")})
    reasons = list(stale_documents(old, Description(other, bundle.sha256, None)))
    assert reasons == [
        "dense model dense 8 bfloat16 prenormalized-angular -> 8 float prenormalized-angular, which changes the "
        "meaning of its stored vectors"
    ]
    graph = dataclasses.replace(SETTINGS, dense={**DENSE, "dense": DenseSettings(8, links=32)})
    assert list(stale_documents(old, Description(graph, bundle.sha256, None))) == []
    one = dataclasses.replace(SETTINGS, dense={"dense": DENSE["dense"]})
    before, after = (build_package(bundle, own).write(tmp_path / str(n)) for n, own in enumerate((one, SETTINGS)))
    kinds = {(change.kind, change.what) for change in package_changes(before, after)}
    assert ("refeed", "candidates dense need dense_e5, and will find only documents fed after the change") in kinds
    back = {(change.kind, change.what) for change in package_changes(after, before)}
    assert ("breaks", "dense model e5 of passage is removed: a query that names it is refused") in back


def test_other_weights_are_no_package_without_changes(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", dim=4, dense={name: own.dim for name, own in DENSE.items()})
    other = dataclasses.replace(SETTINGS, weights={"bm25": 2.0}, fusion="rrf" if SETTINGS.fusion == "sum" else "sum")
    before, after = (build_package(bundle, own).write(tmp_path / str(n)) for n, own in enumerate((SETTINGS, other)))
    (change,) = [change for change in package_changes(before, after) if change.where == "queries"]
    assert (change.kind, change.vespa) == ("live", False)
    was = f"{SETTINGS.fusion} of bm25 0.5, dense 1 -> {other.fusion} of bm25 2"
    assert change.what == f"defaults of hybrid in passage: {was}"


def test_a_plan_counts_each_model():
    plan = make_plan(PlanRequest(1e6, 80, candidates=("bm25+dense", "hybrid"), dense=tuple(DENSE.items()), weights=("dense",)))
    assert plan.value("dense vector and HNSW") == 2 * 8 + 2 * 16 * 4 + 12
    assert plan.value("dense_e5 vector and HNSW") == 2 + 2 * 8 * 4 + 12
    assert plan.value("query, bm25+dense") > plan.value("query, hybrid") > 0
    with pytest.raises(SettingsError, match="candidates 'token' are unknown|candidates"):
        make_plan(PlanRequest(1e6, 80, candidates=("bm25+token",)))


def index_of(description):
    return VespaIndex(Application("http://node", description), None, ClientSettings())


def test_the_application_has_weights_and_fusion_of_its_own():
    index = index_of(Description(dataclasses.replace(SETTINGS, fusion="sum"), "", None))
    settled = index.settled(SearchOptions(candidates="hybrid", dense="e5"))
    assert (settled.fusion, settled.fusion_weights) == ("sum", {"bm25": 0.5, "dense": 1.0})
    assert index.dense_needed(SearchOptions(candidates="hybrid", dense="e5")) == {"e5": 16}
    assert index.dense_needed(SearchOptions()) == {"dense": 8}  # the first of its candidates
    assert index.dense_needed(SearchOptions(candidates="centroid")) == {}
    with pytest.raises(UsageError, match="dense model 'bge' is unknown at http://node#passage; it has: dense, e5"):
        index.dense_needed(SearchOptions(candidates="dense", dense="bge"))


def test_a_package_of_an_earlier_release_is_asked_what_it_can():
    plain = AppSettings(dim=4, query_rows=8, candidates=("centroid", "bm25", "hybrid"))
    text = json.loads(json.dumps(Description(plain, "f" * 64, None).to_json()))
    for gone in ("dense", "weights", "fusion"):
        text["settings"].pop(gone, None)
    assert text.pop("joins") is True
    old = Description.from_json(json.dumps(text), "node")
    assert old.settings == plain and not old.joins
    index, query = index_of(old), EncodedQuery(ROWS, "two words")
    assert index.strategy(query, SearchOptions(candidates="hybrid"))[0] == "hybrid"
    for asked in ({"candidates": "hybrid", "fusion": "sum"}, {"candidates": "hybrid", "weights": {"bm25": 1.0}},
                  {"candidates": "bm25+centroid"}):  # fmt: skip
        with pytest.raises(UsageError, match="generated by an earlier release"):
            index.strategy(query, SearchOptions(**asked))
    with pytest.raises(UsageError, match="has no dense model"):
        index.dense_needed(SearchOptions(candidates="hybrid", weights={"dense": 1.0}))


def test_an_application_without_joinable_candidates_has_no_profile_for_them():
    assert [s.name for s in strategies_of(dataclasses.replace(SETTINGS, candidates=("dense", "exhaustive")))] == [
        "dense", "exhaustive",
    ]  # fmt: skip
    assert [s.name for s in strategies_of(SETTINGS)] == ["bm25", "dense", "centroid", "hybrid", "joined"]


@pytest.mark.parametrize(
    ("asked", "stages"),
    [
        ({"candidates": "dense"}, {"maxsim", "dense"}),
        ({"candidates": "bm25"}, {"maxsim", "bm25"}),
        ({"candidates": "centroid+dense"}, {"maxsim", "dense"}),
        ({"candidates": "hybrid", "weights": {"dense": 1.0, "bm25": 2.0}}, {"bm25", "dense"}),
        ({"candidates": "hybrid", "weights": {"maxsim": 1.0, "dense": 2.0}}, {"maxsim", "dense"}),
        ({"candidates": "hybrid"}, {"bm25", "dense"}),  # as the settings say
    ],
)
def test_stages_are_those_that_took_part(tmp_path, asked, stages):
    bundle = small_bundle(tmp_path / "bundle", dim=4, dense={name: own.dim for name, own in DENSE.items()})
    index = VespaIndex(Application("http://node", Description(SETTINGS, bundle.sha256, None)), bundle, ClientSettings())
    plan = index.search(EncodedQuery(ROWS, "two words", dense={"dense": unit(8)}), SearchOptions(dense="dense", **asked), 1e9)
    (ask,) = next(plan)
    features = {"firstPhase": 0.5, "max_sim": 3.0, "words": 2.0, "dense_similarity": 0.7}
    if not ask.body["ranking.profile"].startswith("hybrid"):
        del features["max_sim"]
    hit = {"relevance": 1.5, "fields": {"id": "a#0", "document_id": "a", "text": "x", "matchfeatures": features}}
    with pytest.raises(StopIteration) as done:
        plan.send([VespaAnswer({"root": {"fields": {"totalCount": 1}, "children": [hit]}}, 0.1)])
    (found,) = done.value.value.hits
    assert set(found.stages) == {"candidates", *stages} and found.score == 1.5
    assert done.value.value.reranked == (1 if "maxsim" in stages else 0)
