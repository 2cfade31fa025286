"""Blue/green: a new bundle's index beside the one that runs, the switch, and the way back; and the page that explains it."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import pytest
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.beside import build_beside, next_version
from vespa_app.changes import package_changes
from vespa_app.checks import check_package
from vespa_app.package import build_package
from vespa_app.sections import ClusterSettings
from vespa_app.settings import AppSettings

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
    app = build_beside(bundles[1], BASE, old, switch=False).write(tmp_path / "both")
    description = check_package(app)
    assert description.schemas == ("passage", "passage_v2")
    assert [index.bundle_sha256 for index in description.all] == [bundle.sha256 for bundle in bundles]
    assert (app / "schemas/passage.sd").read_bytes() == (old / "schemas/passage.sd").read_bytes()
    assert description.index("passage_v2").settings.codec == BASE.codec
    with pytest.raises(UsageError, match="no index 'other'; it has: passage, passage_v2"):
        description.index("other")
    assert {(change.kind, change.where) for change in package_changes(old, app)} == {("live", "passage_v2")}


def test_the_switch_and_the_end(bundles, old, tmp_path):
    both = build_beside(bundles[1], BASE, old, switch=False).write(tmp_path / "both")
    switched = build_beside(bundles[1], BASE, old, switch=True).write(tmp_path / "switched")
    assert check_package(switched).schemas == ("passage_v2", "passage")
    changes = package_changes(both, switched)
    assert {change.kind for change in changes} == {"live"}
    assert any("asked by default" in change.what for change in changes)
    settings = AppSettings.from_toml(switched / "app.toml")
    assert settings.schema == "passage_v2"
    alone = build_package(bundles[1], settings).write(tmp_path / "alone")
    assert {change.allow for change in package_changes(switched, alone)} - {""} == {"schema-removal"}


def test_where_it_runs_follows_the_new_settings(bundles, old, tmp_path):
    cluster = ClusterSettings(content=("a", "b"))
    app = build_beside(bundles[1], dataclasses.replace(BASE, cluster=cluster), old, switch=False).write(tmp_path / "both")
    assert len(ET.parse(app / "services.xml").getroot().findall("content/nodes/node")) == 2
    assert (app / "hosts.xml").is_file()


def test_vespas_embedder_is_one_for_each_model(bundles, tmp_path):
    settings = dataclasses.replace(BASE, encoding="embedder", candidates=("bm25", "exhaustive"))
    old = build_package(bundles[0], settings).write(tmp_path / "old")
    app = build_beside(bundles[1], settings, old, switch=False).write(tmp_path / "both")
    names = [component.get("id") for component in ET.parse(app / "services.xml").getroot().iter("component")]
    assert sorted(names) == sorted(f"colbert_{bundle.sha256[:8]}" for bundle in bundles)
    for bundle, schema in zip(bundles, ("passage", "passage_v2"), strict=True):
        assert f"embed colbert_{bundle.sha256[:8]}" in (app / f"schemas/{schema}.sd").read_text()
        assert (app / f"models/{bundle.sha256[:8]}.onnx").is_file()


def test_a_package_carries_a_model_once(bundles, tmp_path):
    """The embedder of queries reads the file of the one that makes document vectors."""
    own = {"encoding": "embedder", "candidates": ["bm25", "exhaustive"]}
    app = build_package(bundles[0], dataclasses.replace(BASE, indexes={"made": own})).write(tmp_path / "app")
    components = list(ET.parse(app / "services.xml").getroot().iter("component"))
    assert len(components) == 2
    assert {component.find("transformer-model").get("path") for component in components} == {
        f"models/{bundles[0].sha256[:8]}.onnx"
    }
    assert len(list((app / "models").glob("*.onnx"))) == 1


def test_what_cannot_run_in_one_application(bundles, old):
    other = dataclasses.replace(BASE, mode="streaming", group_field="kind", candidates=("bm25",))
    with pytest.raises(SettingsError, match="one application has one mode"):
        build_beside(bundles[1], other, old, switch=False)
    with pytest.raises(SettingsError, match="setting namespace"):
        build_beside(bundles[1], dataclasses.replace(BASE, namespace="other"), old, switch=False)


def test_the_readme_names_every_file_field_and_profile(bundles, old, tmp_path):
    package = build_beside(bundles[1], BASE, old, switch=False).explained("http://node:8080")
    app = package.write(tmp_path / "app")
    text = (app / "README.md").read_text()
    for file in (path.relative_to(app).as_posix() for path in app.rglob("*") if path.is_file()):
        assert f"| `{file}` | " in text
    for schema in ("passage", "passage_v2"):
        assert f"## Index `{schema}`" in text
        for line in (app / f"schemas/{schema}.sd").read_text().splitlines():
            words = line.split()
            if words[:1] in (["field"], ["rank-profile"]):
                assert f"| `{words[1]}` | " in text
    assert "added by hand" not in text
    commands = [line.strip() for line in text.splitlines() if line.startswith("    curl ")]
    assert len(commands) == 3
    assert all("http://node:8080/" in command for command in commands)
    for command in commands[1:]:
        json.loads(command.partition(" -d '")[2].removesuffix("'"))


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
    assert "--to 'http://localhost:8080#passage_v2'" in done.stderr
    shown = cli(*new, "-o", switched, "--beside", old, "--switch").stdout
    assert "deploy ALONE --allow schema-removal" in shown
    shown = cli(*new, "-o", old, "--diff", old).stdout
    assert "refeed" in shown
    assert "--beside" in shown
    assert "nothing changes" in cli(*new, "-o", old, "--diff", old).stdout
    assert "--switch goes with --beside" in cli(*new, "-o", old, "--switch", code=2).stderr
