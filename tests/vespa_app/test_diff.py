"""What a redeploy will do, said beforehand. tests/vespa/test_changes_model.py asks Vespa about the same pairs."""

import json

import pytest
from change_cases import CASES
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError
from vespa_app.changes import package_changes
from vespa_app.package import build_package
from vespa_app.settings import AppSettings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.mark.parametrize("name", CASES)
def test_changes(bundle, tmp_path, name):
    before, after, kinds, overrides = CASES[name]
    changes = package_changes(
        build_package(bundle, before).write(tmp_path / "old"), build_package(bundle, after).write(tmp_path / "new")
    )
    assert (changes == ()) == (name in ("the same", "embedder added"))
    assert {change.allow for change in changes if change.kind == "refused"} == set(overrides)
    if kinds is not None:
        assert {change.kind for change in changes if change.vespa} - {"live", "refused"} == set(kinds)
    for change in changes:
        assert change.kind in ("live", "restart", "reindex", "refeed", "refused")
        assert change.where
        assert change.what
        json.dumps(change.to_json())


def test_another_model_or_codebook_is_a_new_feed(bundle, tmp_path):
    settings = AppSettings(dim=16, query_rows=8, candidates=("centroid",))
    old = build_package(bundle, settings).write(tmp_path / "old")
    other = small_bundle(tmp_path / "other", trained=False)
    new = build_package(other, settings).write(tmp_path / "new")
    assert [(c.kind, c.vespa) for c in package_changes(old, new)] == [("refeed", False)]
    assert other.sha256[:12] in package_changes(old, new)[0].what
    said = json.loads((new / "colbert-vespa.json").read_text())
    said |= {"bundle_sha256": bundle.sha256, "codebook_sha256": "0" * 64}
    (new / "colbert-vespa.json").write_text(json.dumps(said))
    assert "codebook" in package_changes(old, new)[0].what


def test_added_candidates_need_a_feed_where_they_have_fields(bundle, tmp_path):
    old = build_package(bundle, AppSettings(dim=16, query_rows=8, candidates=("bm25",))).write(tmp_path / "old")
    for name, kinds in (("exhaustive", set()), ("pooled", {"refeed"})):
        new = build_package(bundle, AppSettings(dim=16, query_rows=8, candidates=("bm25", name))).write(tmp_path / name)
        assert {change.kind for change in package_changes(old, new)} - {"live"} == kinds


def test_what_is_no_package(bundle, tmp_path):
    good = build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / "good")
    for pair in ((tmp_path, good), (good, tmp_path / "absent")):
        with pytest.raises(SettingsError, match="no application package"):
            package_changes(*pair)
