"""README.md of a package: everything that is in it, commands for where it runs, and where Vespa's embedder differs."""

import dataclasses
import json
import shlex

import pytest
from vespa_bundles import small_bundle

from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.changes import build_beside
from vespa_app.package import build_package
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings

BASE = AppSettings(
    dim=16, query_rows=8, candidates=("centroid", "bm25", "exhaustive"), metadata=MetadataSchema({"kind": FieldType.STRING})
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return small_bundle(folder / "old"), small_bundle(folder / "new", trained=False)


def readme(package):
    return package.explained().files["README.md"].decode()


def test_the_readme_names_every_file_field_and_profile(bundles, tmp_path):
    old = build_package(bundles[0], BASE).write(tmp_path / "old")
    package = build_beside(bundles[1], BASE, old, switch=False).package.explained("http://node:8080")
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


def commands(bundle, **place):
    text = readme(build_package(bundle, dataclasses.replace(BASE, **place)))
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    curl ")]


def test_commands_are_for_where_it_runs(bundles):
    """Hosts that the settings name; on Vespa Cloud an endpoint to fill in, and the files with certificate and key."""
    one = ClusterSettings(container=("front.example.com",), content=("a", "b"))
    first = ClusterSettings(content=("a", "b"))
    assert [command[1].partition("/search")[0] for command in commands(bundles[0])][1:] == ["http://localhost:8080"] * 2
    assert all(command[1].startswith("http://front.example.com:8080/") for command in commands(bundles[0], cluster=one))
    assert all(command[1].startswith("http://a:8080/") for command in commands(bundles[0], cluster=first))
    for command in commands(bundles[0], cloud=CloudSettings()):
        assert command[1:5] == ["--cert", "$COLBERT_VESPA_CERT", "--key", "$COLBERT_VESPA_KEY"]
        assert command[5].startswith("https://ENDPOINT/")


def test_where_vespas_embedder_differs_is_said(bundles, cli, tmp_path):
    trained, plain = bundles
    package = build_package(plain, BASE)
    differences = package.description.embedder_differences
    assert differences
    text = readme(package)
    assert f"`colbert_{plain.sha256[:8]}` makes vectors that differ from those of the bundle's encoder:" in text
    assert all(f"- {difference}\n" in text for difference in differences)
    assert "makes vectors that differ" not in readme(build_package(plain, dataclasses.replace(BASE, embedder=False)))
    assert f"- {build_package(trained, BASE).description.embedder_differences[0]}" in readme(build_package(trained, BASE))
    settings = tmp_path / "app.toml"
    settings.write_text(BASE.to_toml())
    done = cli("app", str(plain.path), "-o", str(tmp_path / "app"), "--settings", str(settings), "--json")
    assert json.loads(done.stdout.splitlines()[-1])["embedder_differences"] == list(differences)
    shown = " ".join(done.stderr.split())
    assert all(difference in shown for difference in differences)
