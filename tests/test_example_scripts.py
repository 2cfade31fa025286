"""The scripts of examples/ that need no framework, with small models; tests/frameworks/test_examples.py has the others."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import pytest
from animals import ANIMALS, QUERY
from fake_node import FakeNode

from colbert_vespa import Bundle, Client, FeedOptions, feed

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
CHECKPOINT = ROOT / "tests/golden/loaders/checkpoints/pylate-bert"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_script_is_short_and_says_how_it_is_run():
    pages = "".join(page.read_text("utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 8
    for script in scripts:
        text = script.read_text("utf-8")
        assert text.count("\n") <= 80, script
        assert f"python examples/{script.name}" in text.split('"""')[1], script
        assert f"examples/{script.name}" in pages, script


@pytest.fixture
def pages(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for animal in ANIMALS:
        (folder / f"{animal.id}.md").write_text(f"# {animal.title or animal.id}\n\n{animal.text}\n\n## More\n\nAn animal.\n")
    return folder


def test_a_folder_of_markdown_is_searched_and_read_again_where_it_changed(pages, tiny_bundle, tmp_path):
    script, index = example("search_markdown"), tmp_path / "notes"
    assert script.index_folder(str(pages), tiny_bundle.path, index) == 4
    (pages / "dog.md").write_text("# Dogs\n\na dog sleeps")
    assert script.index_folder(str(pages), tiny_bundle.path, index) == 1
    hits = script.search(index, QUERY).hits
    assert len({hit.id for hit in hits}) == 3
    assert hits[0].explanation.words
    with Client(index) as client:
        assert "sleeps" in " ".join(hit.text for hit in client.search("dog", 10).hits)


def test_a_bundle_is_made_for_a_folder_of_markdown(pages, tmp_path):
    pytest.importorskip("sentence_transformers", reason="the export extra is not installed")
    example("search_markdown").make_bundle(str(pages), tmp_path / "bundle", str(CHECKPOINT))
    assert Bundle.open(tmp_path / "bundle").file("model.int8.onnx").is_file()


def test_pairs_fine_tune_a_checkpoint(tmp_path):
    pytest.importorskip("datasets", reason="the train extra is not installed")
    script = example("fine_tune")
    words = ("thread", "lock", "capital", "france", "paris", "fox", "dog", "token", "vector", "score")
    pairs = [{"query": f"{a} {b}", "positive": f"{b} the {a} is of {a} and then {b}"} for a, b in pairwise(words)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = dataclasses.replace(script.SETTINGS, batch_size=4, steps=2, document_length=24)
    settings = dataclasses.replace(settings, mining=dataclasses.replace(settings.mining, first_rank=1))
    trained = script.fine_tune(tmp_path / "pairs.jsonl", str(CHECKPOINT), tmp_path / "out", settings, share=0.3)
    lines = script.compare(trained)
    assert any(line.startswith("trained ") for line in lines) and any(line.startswith("gain over start") for line in lines)
    assert trained.checkpoint.is_dir()


def test_a_beir_folder_is_measured(tiny_bundle, tmp_path):
    beir = tmp_path / "animals"
    (beir / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": animal.id, "title": animal.title, "text": animal.text}) for animal in ANIMALS]
    (beir / "corpus.jsonl").write_text("\n".join(lines))
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": QUERY}))
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tcat\t1\n")
    script = example("evaluate_beir")
    measured = script.measure(beir, tiny_bundle, tmp_path / "index")
    assert (measured.passages, measured.queries, measured.recall_at_10) == (4, 1, 1.0)
    lines = script.table(measured)
    assert lines[0] == "animals: 4 passages, 1 queries"
    assert any(line.startswith("ndcg_at_10") and "bm25" in line for line in lines)


@pytest.fixture
def animals(tmp_path):
    lines = (json.dumps({"id": a.id, "title": a.title, "text": a.text, "legs": a.metadata["legs"]}) for a in ANIMALS)
    path = tmp_path / "animals.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def test_an_application_is_deployed_fed_and_searched(animals, tiny_bundle, tmp_path, capsys):
    node = FakeNode()
    fields = {"id": "cat#0", "document_id": "cat", "text": ANIMALS[0].text, "title": "Cats", "legs": 4, "present": ["legs"]}
    hit = {"relevance": 7.5, "fields": fields | {"sddocname": "passage", "matchfeatures": {}}}
    node.search_answer = {"root": {"fields": {"totalCount": 1}, "coverage": {"coverage": 100}, "children": [hit]}}
    script = example("vespa_compose")
    try:
        found = script.main(animals, tiny_bundle, tmp_path / "package", QUERY, node.url, node.url)
        assert script.feed_into(animals, tiny_bundle, tmp_path / "again.journal", node.url) == 0
    finally:
        node.close()
    assert [hit.id for hit in found.hits] == ["cat"]
    assert {id_: stored["fields"]["legs"] for id_, stored in node.documents.items()} == {
        f"{a.id}#0": a.metadata["legs"] for a in ANIMALS
    }
    printed = capsys.readouterr().out
    assert "metadata: legs" in printed and "4 fed, 0 already there, 0 refused" in printed


@pytest.mark.live
def test_an_application_is_deployed_fed_and_searched_on_a_node(world, tmp_path, monkeypatch):
    """The tests' own application again, and four documents more in it for a while."""
    pages = tmp_path / "animals.jsonl"
    pages.write_text("\n".join(json.dumps({"id": a.id, "title": a.title, "text": a.text}) for a in ANIMALS))
    script = example("vespa_compose")
    monkeypatch.setattr(script, "default_settings", lambda bundle, fields: world.settings)
    try:
        found = script.main(str(pages), world.bundle, tmp_path / "package", QUERY, world.config_url, world.url)
    finally:
        feed(ANIMALS, FeedOptions(world.url, tmp_path / "gone.journal", world.bundle, operation="delete"))
    assert (len(found.hits), found.hits[0].id) == (3, "cat")
