"""Ready vectors on both backends: what Vespa is sent, copies and backups of it, page images of 2,000 rows."""

import dataclasses
import json

import numpy as np
import pytest
from ready import ready_bundle, unit_rows

from feeder import FeedOptions, feed
from feeder.copying import CopyOptions, backup_index, copy_index, restore_index
from late_interaction.bundle_cache import register_bundle
from late_interaction.documents import Document
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from query import Client
from vespa_app import default_settings
from vespa_app.codecs import CODECS
from vespa_app.running import Description

PAGES = [unit_rows(4, n) for n in range(3)]
DOCUMENTS = [
    Document("one", text="a page", metadata={"year": 1}, vectors=unit_rows(6, 9)),
    Document("three", metadata={"year": 3}, vectors=np.stack(PAGES)),
]


@pytest.fixture(autouse=True)
def _own_journals(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path):
    made = ready_bundle(tmp_path / "bundle")
    register_bundle(made)
    return made


@pytest.fixture
def application(vespa, bundle):
    def make(**changes):
        settings = default_settings(bundle, MetadataSchema.from_json({"year": "long"}), candidates=("exhaustive", "bm25"))
        settings = dataclasses.replace(settings, **{"codec": "float32", **changes})
        vespa.description = json.dumps(Description(settings, bundle.sha256, None).to_json())
        return vespa.url

    return make


def fed(documents, to, tmp_path, **options):
    return feed(documents, FeedOptions(to=to, journal=tmp_path / "journal", **options))


def test_vespa_gets_them_in_both_layouts(tmp_path, vespa, application):
    bad = Document("bad", vectors=unit_rows(1) * 2)
    summary = fed([*DOCUMENTS, bad], application(), tmp_path)
    assert (summary.acknowledged, summary.passages, summary.dead_lettered) == (2, 4, 1)
    stored = vespa.documents["three#1"]["fields"]
    np.testing.assert_array_equal(CODECS["float32"].decode({"vectors": stored["vectors"]}).reshape(-1, 16), PAGES[1])
    vespa.documents.clear()
    assert fed(DOCUMENTS, application(layout="chunks"), tmp_path).acknowledged == 2
    blocks = vespa.documents["three#0"]["fields"]["vectors"]["blocks"]
    assert {block["address"]["chunk"] for block in blocks} == {"0", "1", "2"}
    assert vespa.documents["three#0"]["fields"]["text"] == ["", "", ""]


def test_an_application_that_encodes_takes_no_vectors(tmp_path, vespa, tiny_bundle, application):
    register_bundle(tiny_bundle)
    settings = default_settings(tiny_bundle, MetadataSchema({}), candidates=("exhaustive", "bm25"))
    settings = dataclasses.replace(settings, encoding="embedder")
    vespa.description = json.dumps(Description(settings, tiny_bundle.sha256, None).to_json())
    summary = fed([Document("a", text="words", vectors=unit_rows(2)), Document("b", text="words")], vespa.url, tmp_path)
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)
    assert "its own vectors" in (tmp_path / "journal.dead.jsonl").read_text()


def test_copies_and_backups_keep_them(tmp_path, vespa, application, bundle):
    local, pulled, restored = (tmp_path / name for name in ("index", "pulled", "restored"))
    fed(DOCUMENTS, local, tmp_path, bundle=bundle, storage=Storage("float32"))
    url = application()
    copy_index(str(local), url, CopyOptions())
    copy_index(url, str(pulled), CopyOptions(storage=Storage("float32")))
    backup_index(str(local), tmp_path / "backup", CopyOptions())
    restore_index(tmp_path / "backup", str(restored), CopyOptions())
    for path in (pulled, restored):
        np.testing.assert_array_equal(LocalIndex.open(path).vectors("three#2"), PAGES[2])
    again = fed(DOCUMENTS, pulled, tmp_path)
    assert (again.already_there, again.acknowledged) == (2, 0)  # digests came along


def test_page_images_of_2000_rows_of_128(tmp_path):
    bundle = ready_bundle(tmp_path / "bundle", dim=128, rows=2000)
    pages = [unit_rows(2000, n, 128).astype(np.float16) for n in range(3)]
    documents = [Document(f"page-{n}", vectors=rows) for n, rows in enumerate(pages)]
    summary = fed(documents, tmp_path / "index", tmp_path, bundle=bundle, storage=Storage("binary"))
    assert (summary.acknowledged, summary.token_vectors) == (3, 6000)
    query = pages[1][700:716].astype(np.float32)
    with Client(tmp_path / "index") as client:
        for candidates in ("centroid", "exhaustive"):
            assert client.search(query, 3, candidates=candidates).hits[0].id == "page-1"
