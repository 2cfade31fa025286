"""A new codec is one file and one line of CODECS, a new candidate strategy one file and one line of STRATEGIES: everything else
asks the tables. The two classes here are such files, for toys."""

import dataclasses

import numpy as np
import pytest
from vespa_bundles import small_bundle

from late_interaction.documents import Passage
from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES, StrategyRequest
from vespa_app.candidates.base import BASE_PROFILE, QueryParts, Strategy, first_phase, rerank_parameters, second_phase
from vespa_app.codecs import CODECS, NO_CODEBOOKS, VECTORS
from vespa_app.codecs.base import TensorCodec, blocks, rows_of, token_matrix
from vespa_app.package import build_package, check_package, check_settings, default_settings
from vespa_app.package.schema_reader import read_blocks
from vespa_app.planning import PlanRequest, make_plan
from vespa_app.running.documents import document_fields
from vespa_app.running.request_features import query_body
from vespa_app.running.stored import stored_field_set, stored_passages
from vespa_app.settings import AppSettings

SETTINGS = AppSettings(dim=16, query_rows=8, codec="halves", candidates=("length", "token", "exhaustive"))
ROWS = np.eye(16, dtype=np.float32)[[3, 0, 3]]


class HalvesTensors(TensorCodec):
    """Cells of a half, with a second field that says so."""

    name = "halves"
    own_fields = ("halving",)
    distance = "prenormalized-angular"
    dims_per_cell = 2

    def field_type(self, settings):
        return f"tensor<float>(dt{{}}, x[{settings.dim}])"

    def more_fields(self, settings):
        return {"halving": "tensor<float>(h[1])"}

    def best(self, settings):
        return f"reduce(sum(query(qt) * attribute({VECTORS}), x), max, dt) * 2"

    def bytes_per_token(self, dim, bits=4):
        return 4 * dim + 4

    def encode(self, vectors, books=NO_CODEBOOKS, codes=None):
        return {VECTORS: blocks((token_matrix(vectors) / 2).astype(">f4")), "halving": {"values": [0.5]}}

    def decode(self, values, books=NO_CODEBOOKS):
        return 2 * np.stack([np.frombuffer(bytes.fromhex(row), ">f4") for row in rows_of(values[VECTORS])]).astype(np.float32)


class LengthCandidates(Strategy):
    """The longest passages."""

    name = "length"
    about = "candidates with many token vectors; MaxSim over the best"
    own_fields = ("row_count",)
    of_chunks = False
    phases = ("first", "second")

    def fields(self, settings):
        return "        field row_count type int {\n            indexing: attribute\n        }\n"

    def profile(self, settings):
        phases = first_phase(settings, self.name, "attribute(row_count)") + second_phase(settings, self.name)
        return f"    rank-profile {self.name} inherits {BASE_PROFILE} {{\n{phases}    }}\n"

    def document_fields(self, vectors, context):
        return {"row_count": len(vectors)}

    def query(self, request):
        return QueryParts("row_count > 0", rerank_parameters(request), self.name)


@pytest.fixture
def bundle(tmp_path):
    return small_bundle(tmp_path / "bundle", codebook=False)


@pytest.fixture(autouse=True)
def table_lines(monkeypatch):
    monkeypatch.setitem(CODECS, "halves", HalvesTensors())
    monkeypatch.setitem(STRATEGIES, "length", LengthCandidates())


def test_a_package_has_the_fields_and_profiles_of_both(bundle, tmp_path):
    folder = build_package(bundle, SETTINGS).explained().write(tmp_path / "app")
    assert check_package(folder).settings == SETTINGS
    schema = next(read_blocks((folder / "schemas/passage.sd").read_text(), "passage.sd").named("schema"))
    fields = {block.head for document in schema.named("document") for block in document.named("field")}
    assert {
        "field vectors type tensor<float>(dt{}, x[16])", "field halving type tensor<float>(h[1])", "field row_count type int",
    } <= fields  # fmt: skip
    profiles = {block.head: block for block in schema.named("rank-profile")}
    assert {"rank-profile length inherits late_interaction", "rank-profile length_explained inherits length"} <= set(profiles)
    (max_sim,) = (f for f in profiles["rank-profile late_interaction"].named("function") if f.head == "function max_sim()")
    assert max_sim.value("expression") == f"sum({HalvesTensors().best(SETTINGS)}, qt)"
    readme = (folder / "README.md").read_text()
    assert LengthCandidates.about in readme and "| `row_count` | for candidates length |" in readme
    assert "part of the token vectors as codec halves stores them" in readme


def test_documents_are_fed_read_back_and_asked_for():
    passage = Passage("a#0", "a", "Title", "text", {})
    fields = document_fields([passage], [ROWS], SETTINGS)
    assert fields["row_count"] == 3 and fields["halving"] == {"values": [0.5]}
    assert "halving" in stored_field_set(SETTINGS)
    assert np.array_equal(stored_passages(fields, SETTINGS, NO_CODEBOOKS)[0].vectors, ROWS)
    parts = STRATEGIES["length"].query(StrategyRequest(ROWS, None, 10, SETTINGS))
    assert query_body(SETTINGS, parts.yql_where, parts.profile, 3)["ranking.profile"] == "length"


def test_settings_know_both(bundle):
    assert default_settings(bundle, SETTINGS.metadata, codec="halves", candidates=("length",)).codec == "halves"
    check_settings(dataclasses.replace(SETTINGS, drop_limits={"length": {"second": 1}}))
    for change, message in (
        ({"dim": 15}, "codec: halves packs 2 dimensions"),
        ({"layout": "chunks", "candidates": ("length",)}, "layout: chunks cannot have candidates 'length'"),
        ({"drop_limits": {"length": {"global": 1}}}, "drop_limits.length: 'global' is unknown"),
        ({"thresholds": True}, "thresholds: applies only to codec binary"),
        ({"metadata": type(SETTINGS.metadata).from_json({"row_count": "long"})}, "metadata.row_count: the name is used"),
    ):
        with pytest.raises(SettingsError, match=message):
            check_settings(dataclasses.replace(SETTINGS, **change))


def test_a_plan_counts_the_codec_and_says_that_the_strategy_was_not_measured():
    plan = make_plan(PlanRequest(1e6, 80, codec="halves", candidates=("length",)))
    assert plan.value("token vectors") == 80 * (4 * 128 + 4)
    assert "length: not measured" in next(figure.source for figure in plan.figures if figure.name == "query, length")
