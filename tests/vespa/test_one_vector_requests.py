"""What Vespa's search container makes of requests for candidates pooled, of each encoding and kind of cells."""

import dataclasses
import json

import numpy as np
import pytest
from golden.make_packages import CASES, golden_package
from golden.make_requests import CASES as REQUEST_CASES
from golden.make_requests import REQUESTS
from vespa_bundles import small_codebook, small_lemur

from late_interaction.one_vector.mean import MeanVector
from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_request import search_request
from vespa_app.codecs import Codebooks

pytestmark = pytest.mark.oracle

LEMUR = small_lemur(16, 8)
BOOKS = Codebooks(codebook=small_codebook(16), one_vector=LEMUR)
Q = np.random.default_rng(2).standard_normal((3, 16)).astype(np.float32)
QUERY = EncodedQuery(Q / np.linalg.norm(Q, axis=1, keepdims=True), "two words")
INPUTS = {
    "passage": ("qp_8_int8", "int8", 8), "halves": ("qp_8_float", "float", 8), "means": ("qp_16_int8", "int8", 16),
    "plain": ("qp", "float", 16),
}  # fmt: skip
GOLDEN = [name for name, (package, _) in REQUEST_CASES.items() if package.startswith("one-vector")]


@pytest.fixture(scope="module")
def served(vespa_oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    package = golden_package("one-vector", folder)
    reply = vespa_oracle.ask("serve", app=str(package.write(folder / "app")))
    assert reply["ok"], reply
    yield vespa_oracle, package.description
    vespa_oracle.ask("stop")


def sent(served, index, strategy, explain=False):
    options = SearchOptions(candidates=strategy, explain=explain)
    return backend_of(served, search_request(served[1].index(index), BOOKS, QUERY, options, strategy).body([index]))


def backend_of(served, body):
    """What the container asks the search node."""
    oracle, _ = served
    reply = oracle.ask("search", body={**body, "timeout": "20s"}, hits=[])
    assert reply["ok"] and reply["status"] == 200, reply
    assert "errors" not in reply["body"]["root"], reply["body"]
    return reply["backend"][0]


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("index", INPUTS)
def test_a_request_brings_the_vector_in_the_cells_of_the_field(served, index, explain):
    backend = sent(served, index, "pooled", explain)
    name, cells, dim = INPUTS[index]
    assert backend["profile"] == "pooled" + ("_explained" if explain else "")
    assert name in backend["query"] and "pooled" in backend["query"]
    tensor = backend["tensors"][name]
    assert tensor["type"] == f"tensor<{cells}>(x[{dim}])"
    values = np.array(tensor["value"]["values"])
    if cells == "int8":
        assert np.abs(values).max() == 127 and (values == np.rint(values)).all()
    else:
        encoding = MeanVector(16) if index == "plain" else LEMUR
        assert np.allclose(values, encoding.query(QUERY.rows), atol=1e-6)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_requests_are_taken(served, case):
    body = json.loads((REQUESTS / f"{case}.json").read_text(encoding="utf-8"))
    del body["(scored by MaxSim at most)"]
    backend = backend_of(served, body)
    name, cells, dim = INPUTS[body["model.restrict"]]
    assert backend["profile"] == body["ranking.profile"] and f"nearestNeighbor(pooled, {name})" in body["yql"]
    assert backend["tensors"][name]["type"] == f"tensor<{cells}>(x[{dim}])"


@pytest.mark.parametrize("strategy", ["bm25+pooled", "hybrid"])
def test_joined_candidates_are_taken_too(served, strategy):
    assert sent(served, "passage", strategy)["profile"] == {"bm25+pooled": "joined", "hybrid": "hybrid"}[strategy]


def test_the_case_is_what_the_settings_say():
    assert dataclasses.astuple(CASES["one-vector"].one_vector) == ("lemur", 8, "int8")
