"""Indexes that RAGatouille wrote open as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colbert_vespa import RAGPretrainedModel
from late_interaction.errors import LocalIndexError

GOLDEN = Path(__file__).resolve().parents[1] / "golden/indexes/ragatouille-2"


@pytest.fixture
def theirs(tmp_path):
    """RAGatouille's own place for an index named `old`."""
    place = tmp_path / ".ragatouille/colbert/indexes/old"
    shutil.copytree(GOLDEN, place)
    return place


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def passages(found):
    return {hit["document_id"]: hit["content"] for hit in found}


def wanted():
    ids = json.loads((GOLDEN / "pid_docid_map.json").read_text())
    texts = json.loads((GOLDEN / "collection.json").read_text())
    return {ids[pid]: text for pid, text in zip(sorted(ids, key=int), texts, strict=True)}


def test_their_index_opens_with_texts_ids_and_metadata(theirs, tiny32_bundle):
    before = files(theirs)
    old = RAGPretrainedModel.from_index(theirs, checkpoint=tiny32_bundle.path)
    found = old.search("anything", k=100)
    count = len(json.loads((GOLDEN / "pid_docid_map.json").read_text()))
    assert len(found) == count
    known = json.loads((GOLDEN / "docid_metadata_map.json").read_text())
    for hit in found:
        assert hit.get("document_metadata", {}) == {
            k: v for k, v in (known.get(hit["document_id"]) or {}).items() if v is not None
        }
    assert passages(found).keys() == wanted().keys()
    assert {hit["content"] for hit in found} == set(json.loads((GOLDEN / "collection.json").read_text()))
    assert files(theirs) == before


def test_it_is_imported_once_and_can_be_changed(theirs, tiny32_bundle, monkeypatch):
    RAGPretrainedModel.from_index(theirs, checkpoint=tiny32_bundle.path).add_to_index(["a new document"], ["new"])
    monkeypatch.setattr("colbert_vespa.rag.index_locations.import_index", None)
    again = RAGPretrainedModel.from_index(theirs)
    assert passages(again.search("new", k=100))["new"] == "a new document"
    assert {hit["index_name"] for hit in again.search("new", index_names=["old"])} == {"old"}
    again.delete_from_index("new")
    assert "new" not in passages(again.search("new", k=100))


def test_the_checkpoint_is_the_one_that_it_names(theirs, tiny32_bundle):
    with pytest.raises(LocalIndexError, match="checkpoint="):
        RAGPretrainedModel.from_index(theirs)
    described = json.loads((theirs / "metadata.json").read_text())
    described["config"]["checkpoint"] = str(tiny32_bundle.path)
    (theirs / "metadata.json").write_text(json.dumps(described))
    old = RAGPretrainedModel.from_index(theirs)
    assert old.search("anything", k=1)
    assert old._bundle.manifest.document.length == described["config"]["doc_maxlen"] == 220


@pytest.mark.parametrize("overwrite", [True, False, "resume", "force_silent_overwrite"])
def test_it_is_found_by_its_name_and_never_replaced(theirs, tiny32_bundle, tmp_path, overwrite):
    rag = RAGPretrainedModel.from_pretrained(tiny32_bundle.path, index_root=str(tmp_path / ".ragatouille"))
    assert passages(rag.search("anything", index_name="old", k=100)).keys() == wanted().keys()
    before = {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()}
    with pytest.raises(LocalIndexError, match="written by RAGatouille .* another index_name"):
        rag.index(["one text"], ["mine"], index_name="old", overwrite_index=overwrite)
    rag.index(["one text"], ["mine"], index_name="old", overwrite_index="reuse")
    assert {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()} == before
    assert passages(rag.search("anything", index_name="old", k=100)).keys() == wanted().keys()
