"""The code of the documentation: what a page says runs here, each page in a folder of its own, top to bottom."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from doc_blocks import NOT_RUN, Block, blocks_of, check_commands, commands_of, indented_code, run_bash
from documented_vespa import DocumentedVespa

from late_interaction.bundle_cache import cache_folder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md"))}
LANGUAGES = {"bash", "python", "json", "toml", "text", "yaml"}
DOCUMENTS = [
    {
        "id": "keeper",
        "title": "The lighthouse",
        "text": "Ada Corwin kept the light for thirty years.",
        "metadata": {"year": 1871, "lang": "en"},
    },
    {
        "id": "bakery",
        "title": "The bakery",
        "text": "Rye bread rises for two days, and the oven is heated with beech wood.",
        "metadata": {"year": 1990, "lang": "en"},
    },
    {
        "id": "clock",
        "title": "The clock",
        "text": "A gear of pear wood runs without oil.",
        "metadata": {"year": 1920, "lang": "de"},
    },
]


@dataclass
class World:
    """Where a page's blocks run. replaced: addresses on the page, and what they are here."""

    folder: Path
    replaced: dict[str, str]

    def here(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text


def linked(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def another(bundle: Path, copy: Path) -> None:
    """The same model under another checksum."""
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "source": "another"}))


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_bundle, cli) -> Path:
    """documents.jsonl, a local index of it and an application package."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "documents.jsonl").write_text("".join(json.dumps(one) + "\n" for one in DOCUMENTS))
    files = [str(folder / name) for name in ("documents.jsonl", "index", "package")]
    cli("feed", files[0], "--bundle", str(tiny_bundle.path), "--to", files[1], "--workers", "0")
    cli("app", str(tiny_bundle.path), "-o", files[2], "--sample", files[0])
    return folder


@pytest.fixture
def world(name, tmp_path, kept, tiny_bundle, request, monkeypatch):
    vespa = DocumentedVespa()
    folder = tmp_path / "page"
    folder.mkdir()
    bundle = request.getfixturevalue("minilm_bundle") if name in JUDGED else tiny_bundle
    linked(bundle.path, folder / "bundle")
    linked(bundle.path, folder / "demo" / "bundle")
    another(tiny_bundle.path, folder / "new-bundle")
    shutil.copy(kept / "documents.jsonl", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("targets", "config_server"):
        monkeypatch.setattr(f"vespa_app.deploying.{module}.DOCKER_CONFIG_URL", vespa.url)
    monkeypatch.setattr("vespa_app.deploying.targets.QUERY_PORT", vespa.port)
    yield World(folder, {"http://localhost:8080": vespa.url, "http://localhost:19071": vespa.url})
    vespa.close()


def given(world: World, kept: Path) -> None:
    """A local index and a package, as if another page had made them."""
    shutil.copytree(kept / "index", world.folder / "index")
    shutil.copytree(kept / "package", world.folder / "package", copy_function=os.link)


def deployed(world: World, kept: Path) -> None:
    given(world, kept)
    run_bash(world.here("colbert-vespa deploy package --target docker"), world.folder, world.folder.parent)


def hub_model(world: World, kept: Path) -> None:
    """The export of the hub's model that the tutorial names."""
    linked((world.folder / "bundle").resolve(), cache_folder() / "checkpoints" / "colbert-ir--colbertv2.0-1")


def collection(world: World, kept: Path) -> None:
    given(world, kept)
    folder = world.folder / "collection"
    folder.mkdir()
    shutil.copy(world.folder / "documents.jsonl", folder / "corpus.jsonl")
    queries = {"q1": "who kept the light?", "q2": "which wood heats the oven?"}
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"id": id_, "text": text}) + "\n" for id_, text in queries.items())
    )
    (folder / "qrels.tsv").write_text("query-id\tdoc-id\trelevance\nq1\tkeeper\t1\nq2\tbakery\t1\n")


PREPARED: dict[str, Callable[[World, Path], None]] = {
    "how-to/backups.md": deployed,
    "how-to/evaluation.md": collection,
    "tutorials/laptop.md": lambda world, kept: None,
    "tutorials/ragatouille.md": hub_model,
}
JUDGED = {"tutorials/laptop.md", "tutorials/ragatouille.md"}  # say which document is found, so a model must be one
RUN_ELSEWHERE = {
    "how-to/devices.md": "tests/foundation/test_devices.py",
    "how-to/frameworks.md": "tests/frameworks/test_examples.py",
    "how-to/serving.md": "tests/server/test_serving_page.py",
    "how-to/scaling.md": "tests/cluster/test_docs.py",
}


def page_runs(name: str) -> bool:
    return name not in RUN_ELSEWHERE and any(b.runs and b.language in ("bash", "python") for b in blocks_of(PAGES[name]))


@pytest.mark.parametrize("name", [name for name in PAGES if page_runs(name)])
def test_the_code_of_a_page_runs(name, world, kept, tmp_path):
    PREPARED.get(name, given)(world, kept)
    names: dict[str, object] = {}
    for block in blocks_of(PAGES[name]):
        if not block.runs:
            continue
        text = world.here(block.text)
        if block.language == "bash":
            run_bash(text, world.folder, tmp_path)
        elif block.language == "python":
            exec(compile("\n" * block.line + text, name, "exec"), names)


README_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|^((?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
README_WORLD = {  # parsed by tests/test_project_files.py, and run by other pages
    "colbert-vespa export minilm -o bundle --quantize int8 --sample notes/": "test -d bundle",
    "colbert-vespa serve index": "test -d index",
}
PRODUCTS = """sku,name,description,price,added
P1,Kettle,A quiet kettle boils water,24.90,2025-03-01
P2,Old kettle,A quiet kettle,24.90,2024-03-01
"""


@pytest.mark.parametrize("name", ["README.md"])
def test_the_code_of_the_readme_runs(name, world, tmp_path, capsys):
    for tool in ("make", "pip", "docker"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    (world.folder / "products.csv").write_text(PRODUCTS)
    (world.folder / "notes").mkdir()
    (world.folder / "notes" / "search.md").write_text("# Late interaction\n\nWhat is it? A vector for each token.\n")
    text = (ROOT / name).read_text("utf-8")
    assert all(command in text for command in README_WORLD)
    world.replaced |= README_WORLD
    printed = []
    for language, fenced, indented in README_BLOCK.findall(text):
        if language == "python":
            exec(compile(world.here(fenced), name, "exec"), {})
            assert "Late interaction" in capsys.readouterr().out
        elif indented:
            printed.append(run_bash(world.here(indented), world.folder, tmp_path))
    assert [("A quiet kettle boils" in out, "Old kettle" in out) for out in printed if "kettle" in out] == [(True, False)]
    assert "fed 1 documents to http" in printed.pop()  # its search asks a stand-in
    assert not any("no passage matches" in out for out in printed)


@pytest.mark.parametrize("name", PAGES)
def test_what_does_not_run_is_checked(name):
    tomllib = pytest.importorskip("tomllib")
    assert indented_code(PAGES[name]) == []
    for block in blocks_of(PAGES[name]):
        assert block.language in LANGUAGES, (name, block.line)
        assert block.runs or len(block.title) > len(NOT_RUN)
        if block.language == "bash":
            check_commands(block.text)
        elif block.language == "python":
            compile(block.text, name, "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)


def test_a_wrong_command_is_found():
    for wrong in ("colbert-vespa serch x", "colbert-vespa search x --form index", "colbert-vespa index brake x", "if then"):
        with pytest.raises(Exception):  # the parser's own kinds, which typer does not name
            check_commands(wrong)
    check_commands("A=b colbert-vespa search x --from index | head -n 1 > out  # shown\ncolbert-vespa monitor http://a:8080")
    assert list(commands_of("a b > c | d 'e f' && g")) == [["a", "b"], ["d", "e f"], ["g"]]
    assert Block("bash", "", "x", 1).runs


def test_a_command_that_fails_is_found(tmp_path):
    assert run_bash("colbert-vespa --help | grep -c search", tmp_path, tmp_path) != ""
    with pytest.raises(AssertionError, match="no_such"):
        run_bash("colbert-vespa search x --from no_such | cat", tmp_path, tmp_path)
