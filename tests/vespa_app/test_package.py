import io
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden.make_packages import CASES, PACKAGES, golden_package, texts
from vespa_bundles import DENSE, dense_for, small_bundle, with_thresholds

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import SettingsError, UsageError
from late_interaction.kmeans import unit_rows
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS
from vespa_app.package import Package, build_package, check_package, default_settings
from vespa_app.package.zips import zip_folder
from vespa_app.running.layouts import embedder_of
from vespa_app.settings import AppSettings

SUBSETS = [subset for n in (1, 2, len(STRATEGIES)) for subset in itertools.combinations(STRATEGIES, n)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small", dense=DENSE)


@pytest.mark.parametrize("case", CASES)
def test_golden_packages(case, tmp_path):
    written = texts(golden_package(case, tmp_path))
    files = {file.relative_to(PACKAGES / case).as_posix() for file in (PACKAGES / case).rglob("*") if file.is_file()}
    assert set(written) == files
    for name, text in written.items():
        assert text == (PACKAGES / case / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("candidates", SUBSETS, ids="+".join)
def test_every_combination_passes_our_checks(bundle, tmp_path, codec, candidates):
    settings = AppSettings(dim=16, query_rows=8, codec=codec, candidates=candidates, dense=dense_for(candidates))
    folder = build_package(bundle, settings).write(tmp_path / "app")
    assert check_package(folder).settings == settings


FORMS = (
    ("bfloat16", {"paged": True}),
    ("residual", {"paged": True}),
    ("binary", {"thresholds": True}),
    ("residual", {"residual_bits": 1}),
    ("residual", {"residual_bits": 2}),
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """By bits of the codebook; all with thresholds."""
    folder = tmp_path_factory.mktemp("forms")
    rows = unit_rows(np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32))
    found = {}
    for bits in (1, 2, 4):
        bundle = small_bundle(folder / str(bits), dense=DENSE)
        train_codebook(rows, bits=bits, centroids=16).save(bundle.file("codebooks/residual.npz"))
        found[bits] = with_thresholds(bundle)
    return found


@pytest.mark.parametrize(("codec", "form"), FORMS)
@pytest.mark.parametrize("candidates", [subset for subset in SUBSETS if len(subset) != 2], ids="+".join)
def test_every_form_of_a_codec_passes_our_checks(bundles, tmp_path, codec, form, candidates):
    dense = dense_for(candidates)
    settings = AppSettings(dim=16, query_rows=8, codec=codec, candidates=candidates, embedder=False, dense=dense, **form)
    if settings.paged and "token" in candidates and codec != "residual":  # a graph over vectors that are not in memory
        with pytest.raises(SettingsError, match="setting paged: candidates token"):
            build_package(bundles[settings.residual_bits], settings)
        return
    folder = build_package(bundles[settings.residual_bits], settings).write(tmp_path / "app")
    assert check_package(folder).settings == settings


def test_the_zip_is_the_same_bytes_each_time_and_holds_the_folder(bundle, tmp_path):
    folder, again = (
        build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / name) for name in ("app", "again")
    )
    assert zip_folder(folder) == zip_folder(again)
    with zipfile.ZipFile(io.BytesIO(zip_folder(folder))) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert archive.read(name) == (folder / name).read_bytes()
        assert set(archive.namelist()) == {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("precision", [None, "int8", "int8-tensor"])
def test_names_of_models_begin_with_a_letter(precision):
    """1634523f is a number to much that reads names."""
    made = embedder_of("1634523f" * 8, AppSettings(dim=16, query_rows=8, precision=precision))
    for name in (made.id, Path(made.model).stem, Path(made.tokenizer).stem):
        assert name[0].isalpha() and name.isascii()


def test_the_package_holds_model_and_tokenizer_of_the_bundle(bundle, tmp_path):
    folder = build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / "app")
    name = bundle.sha256[:8]
    assert (folder / f"embedder/colbert_{name}.onnx").read_bytes() == bundle.model_path("fp32").read_bytes()
    assert (folder / f"embedder/colbert_{name}.tokenizer.json").read_bytes() == bundle.file("tokenizer.json").read_bytes()


def test_vespa_imports_no_model_for_ranking(bundle, tmp_path):
    """What lies in models/ is parsed for ranking in the config server, which ran out of its 512 MB over a model of 90 MB."""
    folder = build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / "app")
    assert not (folder / "models").exists()


def test_the_description_says_what_the_application_is(bundle, tmp_path):
    settings = AppSettings(dim=16, query_rows=8, candidates=("centroid",))
    folder = build_package(bundle, settings).write(tmp_path / "app")
    said = json.loads((folder / "colbert-vespa.json").read_text())
    assert said["bundle_sha256"] == bundle.sha256
    assert said["codebook_sha256"] == bundle.manifest.files["codebooks/residual.npz"].sha256
    assert said["settings"]["candidates"] == ["centroid"]
    assert said["embedder_differences"] == ["document: Vespa drops punctuation before encoding, but the bundle after"]


def test_defaults_follow_the_bundle(bundle, tmp_path):
    metadata = MetadataSchema({"year": FieldType.LONG})
    assert default_settings(bundle, metadata).candidates == ("centroid", "bm25", "dense", "hybrid", "exhaustive")
    plain = small_bundle(tmp_path / "plain", codebook=False)
    settings = default_settings(plain, metadata, codec="binary")
    assert (settings.candidates, settings.codec, settings.dim, settings.query_rows) == (
        ("pooled", "bm25", "exhaustive"), "binary", 16, 8,
    )  # fmt: skip


def test_settings_that_do_not_fit_the_bundle(bundle, tmp_path):
    plain = small_bundle(tmp_path / "plain", codebook=False)
    for used, settings, message in (
        (bundle, AppSettings(dim=32, query_rows=8), "dim: is 32"),
        (bundle, AppSettings(dim=16, query_rows=4), "query_rows: is 4"),
        (plain, AppSettings(dim=16, query_rows=8, candidates=("centroid",)), "needs a codebook"),
    ):
        with pytest.raises(SettingsError, match=message):
            build_package(used, settings)


def test_writing_replaces_a_package_and_nothing_else(bundle, tmp_path):
    package = build_package(bundle, AppSettings(dim=16, query_rows=8))
    target = tmp_path / "app"
    package.write(target)
    package.write(target)
    (target / "left.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        package.write(target)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        package.write(other)
    assert (other / "precious.txt").read_text() == "mine"


def test_a_package_that_fails_its_checks_is_not_left_behind(bundle, tmp_path):
    package = build_package(bundle, AppSettings(dim=16, query_rows=8))
    broken = Package({**package.files, "schemas/passage.sd": b"schema passage {"}, package.description)
    with pytest.raises(SettingsError, match="not closed"):
        broken.write(tmp_path / "app")
    assert list(Path(tmp_path).iterdir()) == []
