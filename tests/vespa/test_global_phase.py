"""What Vespa's search container makes of our requests: hits of a fake search node, ordered by the package's own global phase,
against our fusion of the same scores; and every profile's request taken."""

import dataclasses

import numpy as np
import pytest
from vespa_bundles import small_bundle, small_codebook

from query.fusion import fused
from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_answer import hits_of
from query.vespa_request import search_request
from vespa_app.codecs import Codebooks
from vespa_app.package import build_package
from vespa_app.settings import AppSettings, DenseSettings

pytestmark = pytest.mark.oracle

DENSE = {"dense": DenseSettings(24), "e5": DenseSettings(16, cells="bits"), "small": DenseSettings(8, cells="int8")}
SETTINGS = AppSettings(
    dim=16, query_rows=8, embedder=False, dense=DENSE,
    candidates=("bm25+dense", "centroid", "pooled", "token", "bm25", "dense", "hybrid", "exhaustive"),
)  # fmt: skip
BOOKS = Codebooks(codebook=small_codebook(16))
RANDOM = np.random.default_rng(4)
QUERY = EncodedQuery(
    np.eye(2, 16, dtype=np.float32), "two words",
    dense={name: RANDOM.standard_normal(own.dim).astype(np.float32) for name, own in DENSE.items()},
)  # fmt: skip
COUNT = 12
SCORES = {
    "maxsim": {f"{n}#0": float(score) for n, score in enumerate(RANDOM.uniform(0, 8, COUNT))},
    "bm25": {f"{n}#0": float(score) for n, score in enumerate(RANDOM.uniform(0.1, 9, COUNT)) if n % 3},
    "dense": {f"{n}#0": float(score) for n, score in enumerate(RANDOM.uniform(-1, 1, COUNT))},
}
FEATURES = {"maxsim": "max_sim", "bm25": "words", "dense": "dense_similarity"}
WEIGHTS = [
    {"maxsim": 1.0, "bm25": 1.0},
    {"maxsim": 1.0, "bm25": 0.3, "dense": 0.7},
    {"maxsim": 0.5, "dense": 2.0},
    {"bm25": 1.0, "dense": 0.5},
    {"bm25": 1.0},
    {"dense": 1.0},
    {"maxsim": 1.0},
]


@pytest.fixture(scope="module")
def served(vespa_oracle, tmp_path_factory):
    """The container, and the description of the package that it runs."""
    folder = tmp_path_factory.mktemp("served")
    bundle = small_bundle(folder / "bundle", dense={name: own.dim for name, own in DENSE.items()})
    package = build_package(bundle, SETTINGS)
    reply = vespa_oracle.ask("serve", app=str(package.write(folder / "app")))
    assert reply["ok"], reply
    yield vespa_oracle, package.description
    vespa_oracle.ask("stop")


def asked(served, options, strategy, hits=()):
    oracle, description = served
    body = search_request(description, BOOKS, QUERY, options, strategy).body(["passage"])
    reply = oracle.ask("search", body={**body, "timeout": "20s"}, hits=list(hits))
    assert reply["ok"] and reply["status"] == 200, reply
    assert "errors" not in reply["body"]["root"], reply["body"]
    return reply


def found(weights):
    """Hits as the content node gives them: by MaxSim, or by the first phase where there is none."""
    order = sorted(SCORES["maxsim"], key=lambda id_: -SCORES["maxsim"][id_])
    named = [name for name in FEATURES if name in ("bm25", *weights)]
    for place, id_ in enumerate(order):
        features = {FEATURES[name]: SCORES[name].get(id_, 0.0) for name in named}
        summary = {"id": id_, "document_id": id_[:-2], "title": "", "text": "x", "present": [], "sddocname": "passage"}
        yield {"relevance": float(COUNT - place), "features": {"firstPhase": 0.5, **features}, "summary": summary}


@pytest.mark.parametrize("fusion", ["rrf", "sum"])
@pytest.mark.parametrize("weights", WEIGHTS, ids="+".join)
def test_the_global_phase_fuses_as_we_do(served, weights, fusion):
    options = SearchOptions(COUNT, candidates="hybrid", weights=weights, fusion=fusion, dense="dense")
    reply = asked(served, options, "hybrid", found(weights))
    expected = fused(SCORES, weights, fusion)
    hits = hits_of(reply["body"]["root"], {"passage": SETTINGS.metadata}, 1, by_maxsim=False)
    assert {hit.passage_id: hit.score for hit in hits} == {
        id_: pytest.approx(expected.get(id_, 0.0), abs=1e-6) for id_ in SCORES["maxsim"]
    }
    ranked = [hit.passage_id for hit in hits if hit.passage_id in expected]
    assert ranked == sorted(expected, key=lambda id_: -expected[id_])
    for hit in hits:
        assert set(hit.stages) == {"candidates", "bm25", *weights}
        assert all(hit.stages[name] == pytest.approx(SCORES[name].get(hit.passage_id, 0.0)) for name in ("bm25", *weights))
    profile = reply["backend"][0]["profile"]
    assert profile.startswith("hybrid" if "maxsim" in weights else "fused") and profile.endswith("dense") == (
        "dense" in weights
    )


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("model", DENSE)
def test_every_request_with_a_dense_model_is_taken(served, model, explain):
    """Each names what the node has to find, and brings the vector of that model alone."""
    own = DENSE[model]
    field = "dense" if model == "dense" else f"dense_{model}"
    for strategy in ("dense", "bm25+dense", "centroid+pooled+bm25+dense", "hybrid"):
        weights = {"maxsim": 1.0, "dense": 0.5} if strategy == "hybrid" else None
        options = SearchOptions(candidates=strategy, weights=weights, dense=model, explain=explain)
        backend = asked(served, options, strategy)["backend"][0]
        names = {"dense": field, "hybrid": f"hybrid_{field}"}
        assert backend["profile"] == names.get(strategy, f"joined_{field}") + ("_explained" if explain else "")
        sent = {name.removeprefix("query(").removesuffix(")"): tensor for name, tensor in backend["tensors"].items()}
        assert sent[f"q_{field}"]["type"] == f"tensor<float>(x[{own.dim}])"
        unit = QUERY.dense[model] / np.linalg.norm(QUERY.dense[model])
        assert np.allclose(sent[f"q_{field}"]["value"]["values"], unit, atol=1e-6)
        assert (f"b_{field}" in sent) == (own.cells in ("bits", "int8"))
        assert {name for name in sent if name.startswith(("q_", "b_"))} <= {f"q_{field}", f"b_{field}"}
        assert f'"{"b" if own.cells in ("bits", "int8") else "q"}_{field}"' in backend["query"].replace("\\", "")


def test_candidates_without_a_dense_model_join_too(served):
    for strategy in ("bm25+centroid", "bm25+pooled"):
        assert asked(served, SearchOptions(candidates=strategy), strategy)["backend"][0]["profile"] == "joined"


@pytest.mark.parametrize("model", DENSE)
def test_the_similarity_of_a_dense_model_means_what_numpy_says(vespa_oracle, tmp_path, model):
    from vespa_app.candidates.dense import decoded_dense, dense_field, dense_type, encoded_dense

    own, name = DENSE[model], dense_field(model)
    bundle = small_bundle(tmp_path / "bundle", dense={model: own.dim})
    settings = dataclasses.replace(SETTINGS, candidates=("dense",), dense={model: own})
    app = build_package(bundle, settings).write(tmp_path / "app")
    q, stored = (RANDOM.standard_normal(own.dim).astype(np.float32) for _ in range(2))
    q, stored = q / np.linalg.norm(q), stored / np.linalg.norm(stored)
    cells = encoded_dense(stored, own)
    inputs = {
        f"query(q_{name})": {"type": f"tensor<float>(x[{own.dim}])", "value": {"values": q.tolist()}},
        f"attribute({name})": {"type": dense_type(own), "value": {"values": cells}},
    }
    reply = vespa_oracle.ask(
        "profile", app=str(app), schema="passage", profile=name, function="dense_similarity", inputs=inputs
    )
    assert reply["ok"], reply
    assert reply["result"] == pytest.approx(float(q @ decoded_dense(cells, own)), abs=1e-5)
    tolerance = {"bfloat16": 0.005, "int8": 0.02, "bits": 0.6}[own.cells]
    assert reply["result"] == pytest.approx(float(q @ stored), abs=tolerance)
