"""What a redeploy will do, said beforehand. tests/vespa/test_changes_model.py asks Vespa about the same pairs."""

import json

import pytest
from change_cases import CASES
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError
from vespa_app.changes import package_changes
from vespa_app.changes.comparing import KINDS
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
    assert (changes == ()) == (name == "the same")
    assert {change.allow for change in changes if change.kind == "refused"} == set(overrides)
    if kinds is not None:
        assert {change.kind for change in changes if change.vespa} - {"live", "refused"} == set(kinds)
    for change in changes:
        assert change.kind in KINDS
        assert change.where
        assert change.what
        json.dumps(change.to_json())


def ours(old, new):
    """Kind, name of the override, and words, of what Vespa does not see."""
    return [(c.kind, c.allow, c.what) for c in package_changes(old, new) if not c.vespa]


@pytest.fixture
def write(tmp_path):
    def written(bundle, name, **settings):
        base = {"dim": 16, "query_rows": 8, "embedder": False, "candidates": ("bm25",)}
        return build_package(bundle, AppSettings(**{**base, **settings})).write(tmp_path / name)

    return written


def test_another_model_is_a_new_feed(bundle, tmp_path, write):
    other = small_bundle(tmp_path / "other", trained=False)
    [(kind, allow, what)] = ours(write(bundle, "old"), write(other, "new"))
    assert (kind, allow) == ("refeed", "refeed")
    assert f"another bundle ({bundle.sha256[:12]} -> {other.sha256[:12]})" in what


def test_another_codebook_is_another_bundle(bundle, tmp_path, write):
    other = small_bundle(tmp_path / "other", codebook=False)
    assert other.sha256 != bundle.sha256
    assert [what[:14] for _, _, what in ours(write(bundle, "old"), write(other, "new"))] == ["another bundle"]


def test_other_thresholds_are_a_new_feed(bundle, write):
    """Types, and everything else that Vespa sees, stay the same but for the rank profiles."""
    old, new = write(bundle, "old", codec="binary"), write(bundle, "new", codec="binary")
    file = new / "colbert-vespa.json"
    file.write_text(file.read_text().replace('"thresholds": false', '"thresholds": true'))
    assert [(kind, allow, what[:25]) for kind, allow, what in ours(old, new)] == [
        ("refeed", "refeed", "thresholds false -> true,")
    ]


def test_another_namespace_is_a_new_feed(bundle, write):
    [(kind, allow, what)] = ours(write(bundle, "old"), write(bundle, "new", namespace="other"))
    assert (kind, allow) == ("refeed", "refeed")
    assert "keep their old ids" in what


def test_an_embedder_that_goes_breaks_queries(bundle, write):
    with_it, without = write(bundle, "old", embedder=True), write(bundle, "new")
    name = f"colbert_{bundle.sha256[:8]}"
    assert ours(with_it, without) == [("breaks", "", f"{name} is removed: a query with embed({name}, ...) is refused")]
    assert ours(without, with_it) == [("live", "", f"queries may use embed({name}, ...)")]
    exact = write(bundle, "exact", embedder=True, precision="fp32")
    assert [kind for kind, _, _ in ours(with_it, exact)] == ["breaks", "live"]
    assert (exact / f"embedder/colbert_{bundle.sha256[:8]}_fp32.onnx").is_file()


def test_a_strategy_that_needs_a_new_field_is_a_new_feed(bundle, write):
    old = write(bundle, "old", candidates=("centroid", "hybrid"))
    [(kind, allow, what), *others] = ours(old, write(bundle, "new", candidates=("hybrid", "bm25")))
    assert (kind, allow) == ("refeed", "")  # what is stored means what it did
    assert what.startswith("candidates hybrid need pooled")
    gone = "candidates centroid of passage is removed: a query that names it is refused"
    assert others == [("breaks", "", gone), ("live", "", "candidates auto of passage now prefer hybrid instead of centroid")]
    less = ours(old, write(bundle, "less", candidates=("centroid",)))
    assert less == [("breaks", "", gone.replace("centroid", "hybrid"))]
    more = ours(old, write(bundle, "more", candidates=("hybrid", "centroid", "token")))
    assert [kind for kind, _, _ in more] == ["live"]  # an index over what is there


def test_added_candidates_need_a_feed_where_they_have_fields(bundle, tmp_path):
    old = build_package(bundle, AppSettings(dim=16, query_rows=8, candidates=("bm25",))).write(tmp_path / "old")
    for name, kinds in (("exhaustive", set()), ("pooled", {"refeed"})):
        new = build_package(bundle, AppSettings(dim=16, query_rows=8, candidates=("bm25", name))).write(tmp_path / name)
        assert {change.kind for change in package_changes(old, new)} - {"live"} == kinds


def test_what_is_no_package(bundle, tmp_path):
    good = build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / "good")
    for pair in ((tmp_path, good), (good, tmp_path / "absent")):
        with pytest.raises(SettingsError, match="not an application package"):
            package_changes(*pair)
