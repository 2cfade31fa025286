"""Candidates pooled with an encoding of the bundle: settings, fields of documents and queries, and what must be fed again."""

import dataclasses

import numpy as np
import pytest
from vespa_bundles import small_bundle, small_lemur, with_lemur

from late_interaction.bundle import MeasuredCandidates
from late_interaction.documents import Passage
from late_interaction.errors import BundleError, SettingsError
from late_interaction.kmeans import unit_rows
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector.mean import MeanVector
from vespa_app.candidates import STRATEGIES, DocumentContext, StrategyRequest, needed_encoding
from vespa_app.candidates.base import int8_cells
from vespa_app.candidates.dense import encoded_dense
from vespa_app.changes.staleness import stale_documents
from vespa_app.codecs import Codebooks, bundle_codebooks
from vespa_app.package import build_package, check_settings, default_settings
from vespa_app.planning.memory import passage_bytes
from vespa_app.planning.request import PlanRequest
from vespa_app.running import Application, Description
from vespa_app.running.documents import document_fields
from vespa_app.settings import AppSettings, DenseSettings, OneVectorSettings

DIM = 16
LEMUR = small_lemur(DIM, 8)
RANDOM = np.random.default_rng(0)
D, Q = (unit_rows(RANDOM.standard_normal((rows, DIM)).astype(np.float32)) for rows in (30, 5))
SETTINGS = AppSettings(dim=DIM, query_rows=8, embedder=False, candidates=("pooled",))
WAYS = [OneVectorSettings("lemur", 8, cells) for cells in ("float", "bfloat16", "int8")]
WAYS += [OneVectorSettings(cells=cells) for cells in ("float", "bfloat16", "int8")]


def having(own, **more):
    return dataclasses.replace(SETTINGS, one_vector=own, **more)


def numbers(hexadecimal, cells):
    raw = bytes.fromhex(hexadecimal)
    if cells == "bfloat16":
        return (np.frombuffer(raw, ">u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, ">f4" if cells == "float" else ">i1").astype(np.float32)


def asked(settings):
    """The query's cells, their unit, and the YQL."""
    parts = STRATEGIES["pooled"].query(StrategyRequest(Q, None, 50, settings, one_vector=LEMUR))
    (name,) = [key for key in parts.parameters if key.startswith("input.query(qp") and "unit" not in key]
    assert f"nearestNeighbor(pooled, {name[len('input.query(') : -1]})" in parts.yql_where
    cells = "int8" if settings.one_vector.cells == "int8" else "float"
    return numbers(parts.parameters[name]["values"], cells), parts.parameters.get("input.query(qp_unit)", 1.0)


@pytest.mark.parametrize("own", WAYS, ids=lambda own: f"{own.encoding}-{own.cells}")
def test_the_score_of_the_cells_is_that_of_the_vectors(own):
    """As Vespa computes it: closeness is the product of dotproduct, and falls with the angle of the others."""
    settings, encoding = having(own), LEMUR if own.encoding == "lemur" else MeanVector(DIM)
    fields = document_fields([Passage("a#0", "a", "", "x", {})], [D], settings, Codebooks(one_vector=LEMUR))
    stored, (query, unit) = numbers(fields["pooled"]["values"], own.cells), asked(settings)
    exact = float(encoding.passage(D) @ encoding.query(Q))
    if encoding.normalized:
        found = float(stored @ query) / float(np.linalg.norm(stored) * np.linalg.norm(query))
    else:
        found = float(stored @ query) * unit
    assert found == pytest.approx(exact, abs=0.02 if own.cells != "float" else 1e-5)


def test_an_int8_query_is_of_whole_numbers_the_largest_127():
    query, unit = asked(having(WAYS[2]))
    assert np.abs(query).max() == 127 and unit == pytest.approx(float(np.abs(LEMUR.query(Q)).max()) / 127 / 64)


def test_cells_that_do_not_fit_are_cut_off():
    big = dataclasses.replace(LEMUR, step=1e-6)
    fields = STRATEGIES["pooled"].document_fields(D, DocumentContext(settings=having(WAYS[2]), one_vector=big))
    assert set(numbers(fields["pooled"]["values"], "int8").tolist()) <= {127.0, -127.0}


def test_int8_cells_of_a_mean_and_of_a_dense_vector_are_rounded_alike():
    cells = STRATEGIES["pooled"].document_fields(D, DocumentContext(settings=having(WAYS[5])))["pooled"]["values"]
    assert cells == encoded_dense(MeanVector(DIM).passage(D), DenseSettings(DIM, cells="int8", distance="dotproduct"))


@pytest.mark.parametrize("size", [0, 1e-45, 1e-38])
def test_a_vector_too_short_for_float32_is_int8_zeros_as_in_a_local_index(size):
    cells, step = int8_cells(np.full(DIM, size, np.float32))
    assert not cells.any() and 0 < step < 1e-20


def test_the_default_is_the_mean_and_says_nothing_of_it():
    assert "one_vector" not in SETTINGS.to_json() and "one_vector" not in SETTINGS.to_toml()
    assert needed_encoding(SETTINGS) == "mean"
    assert needed_encoding(dataclasses.replace(SETTINGS, candidates=("bm25",))) == ""
    assert needed_encoding(dataclasses.replace(SETTINGS, candidates=("hybrid",))) == "mean"
    assert needed_encoding(dataclasses.replace(SETTINGS, candidates=("centroid", "hybrid"))) == ""


def test_settings_are_read_as_they_were_written(tmp_path):
    settings = having(WAYS[2], indexes={"other": {"one_vector": {"cells": "int8"}}})
    (tmp_path / "app.toml").write_text(settings.to_toml())
    assert AppSettings.from_toml(tmp_path / "app.toml") == settings
    assert settings.index_settings["other"].one_vector == OneVectorSettings(cells="int8")


FAULTS = {
    "one_vector.encoding": having(OneVectorSettings("fde")),
    "one_vector.cells": having(OneVectorSettings(cells="int4")),
    "one_vector.dim": having(OneVectorSettings("lemur")),
    "one_vector.dim: is 8": having(OneVectorSettings("mean", 8)),
    "one_vector.dim: must be": having(OneVectorSettings("lemur", 100_000)),
    "one_vector: no candidates": having(WAYS[0], candidates=("bm25",)),
}


@pytest.mark.parametrize("message", FAULTS)
def test_settings_that_cannot_be(message):
    with pytest.raises(SettingsError, match=f"setting {message}"):
        check_settings(FAULTS[message])


def test_a_package_needs_the_bundle_that_was_fitted(tmp_path):
    bundle = small_bundle(tmp_path / "b")
    with pytest.raises(SettingsError, match=r"one_vector\.encoding: lemur"):
        build_package(bundle, having(WAYS[2]))
    with pytest.raises(SettingsError, match=r"one_vector\.dim: is 8, .* 4"):
        build_package(with_lemur(bundle, 4), having(WAYS[2]))
    fitted = with_lemur(bundle, 8)
    assert build_package(fitted, having(WAYS[2])).description.settings.one_vector == WAYS[2]


def test_documents_and_queries_without_the_parameters_are_refused():
    for books in (None, MeanVector(DIM), small_lemur(DIM, 4)):
        with pytest.raises(SettingsError, match="lemur of 8"):
            STRATEGIES["pooled"].document_fields(D, DocumentContext(settings=having(WAYS[2]), one_vector=books))
        with pytest.raises(SettingsError, match="lemur of 8"):
            STRATEGIES["pooled"].query(StrategyRequest(Q, None, 50, having(WAYS[2]), one_vector=books))


def test_an_application_reads_the_parameters_that_it_needs(tmp_path):
    plain = small_bundle(tmp_path / "b")
    sha256 = plain.sha256
    application = Application("http://x", Description(having(WAYS[2]), sha256, None))
    with pytest.raises(BundleError, match="lemur"):
        application.books(plain)
    assert Application("http://x", Description(SETTINGS, sha256, None)).books(plain).one_vector == MeanVector(DIM)
    fitted = with_lemur(plain)
    assert application.books(fitted).one_vector.sha256 == LEMUR.sha256
    assert bundle_codebooks(fitted).one_vector is None
    units = application.units([((Passage("a#0", "a", "", "x", {}),), ((D, None),))], fitted)
    assert len(bytes.fromhex(units[0][0]["pooled"]["values"])) == 8


def test_defaults_are_what_was_measured(tmp_path):
    bundle = small_bundle(tmp_path / "b")
    measured = MeasuredCandidates("pooled", 300, 0.985, 0.98, "lemur")
    settings = default_settings(with_lemur(bundle, 8, measured), MetadataSchema({}))
    assert settings.candidates[0] == "pooled" and settings.rerank == 300
    assert settings.one_vector == OneVectorSettings("lemur", 8, "int8")
    by_centroid = default_settings(
        with_lemur(bundle, 8, MeasuredCandidates("centroid", 200, 0.985, 0.98, probes=16)), MetadataSchema({})
    )
    assert (by_centroid.candidates[0], by_centroid.probes, by_centroid.rerank) == ("centroid", 16, 200)
    assert by_centroid.one_vector == OneVectorSettings()
    unmeasured = default_settings(with_lemur(bundle, 8), MetadataSchema({}), candidates=("centroid", "pooled"))
    assert unmeasured.one_vector == OneVectorSettings("lemur", 8, "int8") and unmeasured.rerank == 500


def test_another_encoding_means_that_documents_are_fed_again():
    def of(settings):
        return Description(settings, "same", None)

    old, new = of(SETTINGS), of(having(WAYS[2]))
    assert any("one vector" in reason for reason in stale_documents(old, new))
    without = of(dataclasses.replace(SETTINGS, candidates=("bm25",)))
    assert not list(stale_documents(without, new)) and not list(stale_documents(old, old))


def test_digests_change_with_the_encoding_alone(tmp_path):
    bundle = small_bundle(tmp_path / "b")
    basis = [
        Application("http://x", Description(settings, "same", None)).digest_basis(bundle)
        for settings in (SETTINGS, having(WAYS[1]), having(WAYS[2]))
    ]
    assert len(set(basis)) == 3 and "lemur" not in basis[0]


def test_a_plan_counts_the_cells():
    sizes = []
    for own in (OneVectorSettings(), OneVectorSettings("lemur", 512, "int8")):
        request = PlanRequest(1000, 50, dim=128, candidates=("pooled",), one_vector=own)
        sizes.append(next(figure.value for figure in passage_bytes(request).figures if "pooled" in figure.name))
    assert sizes[0] == sizes[1]  # 128 floats, or 512 bytes
