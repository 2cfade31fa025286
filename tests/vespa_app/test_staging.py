"""Vespa Cloud's staging feeds the application that is in production: only what that one takes."""

import dataclasses
import json

import pytest
from vespa_bundles import DENSE, dense_for, small_bundle

from late_interaction.errors import UsageError
from vespa_app.candidates import STRATEGIES
from vespa_app.changes import build_beside, package_changes
from vespa_app.changes.staging import check_staging, staging_fault
from vespa_app.package import build_package, check_package
from vespa_app.settings import AppSettings, CloudSettings

BASE = AppSettings(dim=16, query_rows=8, candidates=("bm25",), embedder=False, cloud=CloudSettings(regions=("aws-us-east-1c",)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small", dense=DENSE)


@pytest.fixture
def write(bundle, tmp_path):
    return lambda name, **change: build_package(bundle, dataclasses.replace(BASE, **change)).write(tmp_path / name)


def test_new_strategies_are_no_hindrance(write):
    running = check_package(write("old"))
    for name in STRATEGIES:
        assert staging_fault(write(name, candidates=(name,), dense=dense_for((name,))), running) is None


def test_another_index_is_refused_before_anything_is_sent(write, bundle, tmp_path):
    old, new = write("old"), write("new", schema="other")
    fault = "tests/staging-setup/feed.json feeds index other, but the running application has passage"
    assert staging_fault(new, check_package(old)) == fault
    assert fault in [change.what for change in package_changes(old, new) if change.kind == "breaks"]
    with pytest.raises(UsageError, match=f"nothing was sent: {fault}.*app --beside"):
        check_staging(new, [check_package(old)])
    both = build_beside(bundle, dataclasses.replace(BASE, codec="binary"), old, switch=False).package.write(tmp_path / "both")
    assert staging_fault(both, check_package(old)) is None


def test_a_field_that_was_added_by_hand_is_named(write):
    old, new = write("old"), write("new")
    file = new / "tests/staging-setup/feed.json"
    test = json.loads(file.read_text())
    test["steps"][0]["request"]["body"]["fields"]["colour"] = "red"
    file.write_text(json.dumps(test))
    assert "feeds field colour, which index passage of the running application lacks" in staging_fault(new, check_package(old))
    for text in ("no JSON", "[]", '{"steps": [{"request": {"uri": "/", "body": {"fields": {}}}}]}'):
        file.write_text(text)
        assert staging_fault(new, check_package(old)) is None
