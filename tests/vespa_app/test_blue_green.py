"""Blue/green: a new bundle's index beside the one that runs, the switch, and the way back."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import pytest
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.changes import build_beside, package_changes
from vespa_app.changes.blue_green import next_version
from vespa_app.package import build_package, check_package
from vespa_app.settings import AppSettings, ClusterSettings

BASE = AppSettings(
    dim=16, query_rows=8, candidates=("centroid", "bm25", "exhaustive"), metadata=MetadataSchema({"kind": FieldType.STRING})
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return small_bundle(folder / "old"), small_bundle(folder / "new", trained=False)


@pytest.fixture
def old(bundles, tmp_path):
    return build_package(bundles[0], BASE).write(tmp_path / "old")


def test_versions_of_a_name():
    assert next_version("passage", ()) == "passage"
    assert next_version("passage", ("passage",)) == "passage_v2"
    assert next_version("passage", ("passage", "passage_v2")) == "passage_v3"
    assert next_version("passage_v2", ("passage_v2",)) == "passage_v3"


def test_old_and_new_answer_side_by_side(bundles, old, tmp_path):
    app = build_beside(bundles[1], BASE, old, switch=False).package.write(tmp_path / "both")
    description = check_package(app)
    assert description.schemas == ("passage", "passage_v2")
    assert [index.bundle_sha256 for index in description.all] == [bundle.sha256 for bundle in bundles]
    assert (app / "schemas/passage.sd").read_bytes() == (old / "schemas/passage.sd").read_bytes()
    assert description.index("passage_v2").settings.codec == BASE.codec
    with pytest.raises(UsageError, match="no index 'other'; it has: passage, passage_v2"):
        description.index("other")
    assert {(change.kind, change.where) for change in package_changes(old, app)} == {
        ("live", "passage_v2"),
        ("live", "queries"),
    }


def test_the_switch_and_the_end(bundles, old, tmp_path):
    both = build_beside(bundles[1], BASE, old, switch=False).package.write(tmp_path / "both")
    switched = build_beside(bundles[1], BASE, old, switch=True).package.write(tmp_path / "switched")
    assert check_package(switched).schemas == ("passage_v2", "passage")
    changes = package_changes(both, switched)
    assert {change.kind for change in changes} == {"live"}
    assert any("the default index" in change.what for change in changes)
    settings = AppSettings.from_toml(switched / "app.toml")
    assert settings.schema == "passage_v2"
    alone = build_package(bundles[1], settings).write(tmp_path / "alone")
    assert {change.allow for change in package_changes(switched, alone)} - {""} == {"schema-removal"}


def test_where_it_runs_follows_the_new_settings(bundles, old, tmp_path):
    cluster = ClusterSettings(content=("a", "b"))
    app = build_beside(bundles[1], dataclasses.replace(BASE, cluster=cluster), old, switch=False).package.write(
        tmp_path / "both"
    )
    assert len(ET.parse(app / "services.xml").getroot().findall("content/nodes/node")) == 2
    assert (app / "hosts.xml").is_file()


def test_vespas_embedder_is_one_for_each_model(bundles, tmp_path):
    settings = dataclasses.replace(BASE, encoding="embedder", candidates=("bm25", "exhaustive"))
    old = build_package(bundles[0], settings).write(tmp_path / "old")
    app = build_beside(bundles[1], settings, old, switch=False).package.write(tmp_path / "both")
    names = [component.get("id") for component in ET.parse(app / "services.xml").getroot().iter("component")]
    assert sorted(names) == sorted(f"colbert_{bundle.sha256[:8]}" for bundle in bundles)
    for bundle, schema in zip(bundles, ("passage", "passage_v2"), strict=True):
        assert f"embed colbert_{bundle.sha256[:8]}" in (app / f"schemas/{schema}.sd").read_text()
        assert (app / f"embedder/colbert_{bundle.sha256[:8]}.onnx").is_file()


def test_a_package_carries_a_model_once(bundles, tmp_path):
    """One embedder for queries and for the vectors of documents."""
    own = {"encoding": "embedder", "candidates": ["bm25", "exhaustive"]}
    app = build_package(bundles[0], dataclasses.replace(BASE, indexes={"made": own})).write(tmp_path / "app")
    assert embedders(app) == {f"colbert_{bundles[0].sha256[:8]}": f"embedder/colbert_{bundles[0].sha256[:8]}.onnx"}
    assert len(list((app / "embedder").glob("*.onnx"))) == 1


def embedders(app):
    """Id -> model, of those whose files are there."""
    components = ET.parse(app / "services.xml").getroot().iter("component")
    found = {component.get("id"): component.find("transformer-model").get("path") for component in components}
    assert all((app / path).is_file() for path in found.values())
    return found


@pytest.mark.parametrize("switch", [False, True])
def test_the_old_query_embedder_stays_with_its_model(bundles, old, tmp_path, switch):
    both = build_beside(bundles[1], BASE, old, switch=switch).package.explained()
    app = both.write(tmp_path / "both")
    names = [f"colbert_{bundle.sha256[:8]}" for bundle in bundles]
    assert embedders(app) == {name: f"embedder/{name}.onnx" for name in names}
    assert {name: embedders(app)[name] for name in embedders(old)} == embedders(old)
    assert f"embed({names[switch]}, @text)" in (app / "README.md").read_text()
    assert not any(change.kind in ("breaks", "refused", "refeed") for change in package_changes(old, app))


def test_an_index_keeps_its_embedder_whatever_the_new_settings_say(bundles, old, tmp_path):
    none = dataclasses.replace(BASE, embedder=False)
    app = build_beside(bundles[1], none, old, switch=False).package.write(tmp_path / "both")
    assert [index.settings.embedder for index in check_package(app).all] == [True, False]
    assert embedders(app) == embedders(old)


def test_the_switch_is_to_the_index_that_is_there(bundles, old, tmp_path):
    """It has the documents: another version of it would be empty."""
    both = build_beside(bundles[1], BASE, old, switch=False).package.write(tmp_path / "both")
    settings = AppSettings.from_toml(both / "app.toml")
    pair = build_beside(bundles[1], settings, both, switch=True)
    assert (pair.new, pair.old) == (("passage_v2",), ("passage",))
    switched = pair.package.write(tmp_path / "switched")
    assert check_package(switched).schemas == ("passage_v2", "passage")
    assert [change.kind for change in package_changes(both, switched)] == ["live"]
    assert build_beside(bundles[1], BASE, both, switch=True).new == ("passage_v2",)  # by whatever name it was asked for
    with pytest.raises(SettingsError, match="has passage_v2 of this bundle .* already; .*--switch"):
        build_beside(bundles[1], BASE, both, switch=False)
    other = dataclasses.replace(BASE, codec="binary")
    assert build_beside(bundles[1], other, both, switch=False).new == ("passage_v3",)
    more = dataclasses.replace(BASE, indexes={"notes": {"codec": "binary"}})
    with pytest.raises(SettingsError, match="has passage_v2 of this bundle .* remove it"):
        build_beside(bundles[1], more, both, switch=True)


def test_new_indexes_have_names_apart(bundles, old):
    settings = dataclasses.replace(BASE, indexes={"passage_v2": {"codec": "binary"}})
    assert build_beside(bundles[1], settings, old, switch=False).new == ("passage_v2", "passage_v3")


def test_what_cannot_run_in_one_application(bundles, old):
    other = dataclasses.replace(BASE, mode="streaming", group_field="kind", candidates=("bm25",))
    with pytest.raises(SettingsError, match="only one mode"):
        build_beside(bundles[1], other, old, switch=False)
    with pytest.raises(SettingsError, match="setting namespace"):
        build_beside(bundles[1], dataclasses.replace(BASE, namespace="other"), old, switch=False)


def test_the_command_line_says_the_way(cli, bundles, tmp_path):
    settings = tmp_path / "app.toml"
    settings.write_text(BASE.to_toml())
    old, both, switched = (str(tmp_path / name) for name in ("old", "both", "switched"))
    cli("app", str(bundles[0].path), "-o", old, "--settings", str(settings), "--explain")
    assert (tmp_path / "old" / "README.md").is_file()
    new = ("app", str(bundles[1].path), "--settings", str(settings))
    done = cli(*new, "-o", both, "--beside", old, "--diff", old, "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["indexes"] == ["passage", "passage_v2"]
    assert {change["kind"] for change in answer["changes"]} == {"live"}
    steps = [line.strip() for line in done.stderr.splitlines()]
    for command in (
        f"deploy {both}", "--to 'http://localhost:8080#passage_v2'", f"-o SWITCHED --settings {both}/app.toml --beside {both} "
        "--switch", "deploy SWITCHED", f"-o ALONE --settings {both}/app.toml", "deploy ALONE --allow schema-removal",
    ):  # fmt: skip
        assert any(command in step for step in steps), command
    shown = cli(*new, "-o", switched, "--beside", both, "--switch").stdout
    assert "passage_v2" in shown
    assert "passage_v3" not in shown
    assert "deploy ALONE --allow schema-removal" in shown
    shown = cli(*new, "-o", old, "--diff", old).stdout
    assert "refeed" in shown
    assert "--beside" in shown
    assert "nothing changes" in cli(*new, "-o", old, "--diff", old).stdout
    assert "--switch works only with --beside" in cli(*new, "-o", old, "--switch", code=2).stderr


def test_a_diff_with_what_is_no_package_writes_nothing(cli, bundles, tmp_path):
    settings = tmp_path / "app.toml"
    settings.write_text(BASE.to_toml())
    for absent in (tmp_path / "absent", tmp_path):
        done = cli(
            "app", str(bundles[0].path), "-o", str(tmp_path / "out"), "--settings", str(settings), "--diff", str(absent), code=1
        )
        assert f"{absent} is not an application package" in done.stderr.replace("\n", "")
    assert not (tmp_path / "out").exists()
