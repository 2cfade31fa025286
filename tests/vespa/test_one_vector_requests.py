"""What Vespa's search container makes of requests for candidates pooled, of each encoding and kind of cells."""

import dataclasses

import numpy as np
import pytest
from golden.make_packages import CASES, golden_package
from vespa_bundles import small_codebook, small_lemur

from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_request import search_request
from vespa_app.codecs import Codebooks

pytestmark = pytest.mark.oracle

LEMUR = small_lemur(16, 8)
BOOKS = Codebooks(codebook=small_codebook(16), one_vector=LEMUR)
Q = np.random.default_rng(2).standard_normal((3, 16)).astype(np.float32)
QUERY = EncodedQuery(Q / np.linalg.norm(Q, axis=1, keepdims=True), "two words")
INPUTS = {"passage": ("qp_8_int8", "int8", 8), "halves": ("qp_8_float", "float", 8), "means": ("qp_16_int8", "int8", 16)}


@pytest.fixture(scope="module")
def served(vespa_oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    package = golden_package("one-vector", folder)
    reply = vespa_oracle.ask("serve", app=str(package.write(folder / "app")))
    assert reply["ok"], reply
    yield vespa_oracle, package.description
    vespa_oracle.ask("stop")


def sent(served, index, strategy, explain=False):
    oracle, description = served
    options = SearchOptions(candidates=strategy, explain=explain)
    body = search_request(description.index(index), BOOKS, QUERY, options, strategy).body([index])
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
    sent_tensors = {key.removeprefix("query(").removesuffix(")"): tensor for key, tensor in backend["tensors"].items()}
    tensor = sent_tensors[name]
    assert tensor["type"] == f"tensor<{cells}>(x[{dim}])" if cells == "int8" else f"tensor<float>(x[{dim}])"
    values = np.array(tensor["value"]["values"])
    if cells == "int8":
        assert np.abs(values).max() == 127 and (values == np.rint(values)).all()
    else:
        assert np.allclose(values, LEMUR.query(QUERY.rows), atol=1e-6)


@pytest.mark.parametrize("strategy", ["bm25+pooled", "hybrid"])
def test_joined_candidates_are_taken_too(served, strategy):
    assert sent(served, "passage", strategy)["profile"] == {"bm25+pooled": "joined", "hybrid": "hybrid"}[strategy]


def test_the_case_is_what_the_settings_say():
    assert dataclasses.astuple(CASES["one-vector"].one_vector) == ("lemur", 8, "int8")
