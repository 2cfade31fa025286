"""Arguments, names, overwriting, lengths, versions: what RAGatouille's callers give, and what is new."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from colbert_vespa import RAGPretrainedModel
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import find_bundle
from late_interaction.encoder import Encoder
from late_interaction.errors import ArgumentError, CheckpointError, FilterError, LocalIndexError, MetadataError, UsageError
from late_interaction.plaid import LocalIndex

TEXTS = ["the capital of france is paris", "a quick brown fox", "wait for a thread to finish"]
LONG = " ".join(f"Sentence number {n} is about the fox and the dog." for n in range(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"document_ids": ["a"]}, "document_ids must be the same length as collection"),
        ({"document_ids": ["a", "b", "a"]}, "document_ids must be unique"),
        ({"document_ids": ["a", " ", "c"]}, "document_ids must not contain empty strings"),
        ({"document_ids": ["a", 2, "c"]}, "All document_ids must be of the same type"),
        ({"document_ids": [1, 2, 3]}, "document_ids must be texts, got int"),
        ({"document_metadatas": [{}]}, "document_metadatas must be the same length as collection"),
        ({"max_document_length": 4}, "max_document_length must be a whole number of at least 16, got 4"),
        ({"overwrite_index": "always"}, "overwrite_index must be one of True, False, .*, got 'always'"),
        ({"overwrite_index": "resume"}, "needs document_ids"),
        ({"index_name": "../up"}, "index_name '../up' is not valid"),
        ({"index_name": ".hidden"}, "is not valid"),
        ({"collection": []}, "collection must be a list of at least one text"),
        ({"collection": "a text"}, "collection must be a list of at least one text"),
        ({"collection": ["a", 7, "c"]}, r"collection\[1\] must be text, got int"),
    ],
)
def test_arguments_are_checked_with_ragatouilles_messages_before_anything_is_written(rag, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        rag.index(**({"collection": TEXTS} | arguments))
    assert isinstance(raised.value, ArgumentError)
    assert not (tmp_path / ".ragatouille").exists()


def test_without_an_index_or_documents_that_is_said(rag, tmp_path):
    for call in (
        lambda: rag.search("fox"), lambda: rag.add_to_index(TEXTS), lambda: rag.delete_from_index("a"), rag.versions,
    ):  # fmt: skip
        with pytest.raises(UsageError, match="there is no index yet"):
            call()
    with pytest.raises(LocalIndexError, match=r"no index 'other' in .*; existing: none"):
        rag.search("fox", index_name="other")
    with pytest.raises(UsageError, match="no documents are encoded"):
        rag.search_encoded_docs("fox")
    rag.index(TEXTS, index_name="i")
    with pytest.raises(LocalIndexError, match="existing: i$"):
        rag.search("fox", index_name="other")
    with pytest.raises(UsageError, match="the query is blank"):
        rag.search(" ", index_name="i")
    with pytest.raises(UsageError, match="index_names must be a list"):
        rag.search("fox", index_names="i")
    with pytest.raises(LocalIndexError, match="no index 'gone'"):
        RAGPretrainedModel.from_index(tmp_path / "gone")


def test_k_is_a_number_of_results(rag):
    rag.index(TEXTS, index_name="i")
    rag.encode(TEXTS)
    for search in (rag.search, rag.search_encoded_docs, lambda query, k: rag.rerank(query, TEXTS, k)):
        for wrong in (0, -1, True, 2.5):
            with pytest.raises(UsageError, match="k must be a whole number"):
                search("fox", k=wrong)


def test_a_list_of_one_query_gives_a_flat_list(rag):
    rag.index(TEXTS, index_name="i")
    rag.encode(TEXTS)
    for search in (rag.search, rag.search_encoded_docs, lambda query: rag.rerank(query, TEXTS)):
        assert search(["fox"]) == search("fox")
        assert isinstance(search("fox")[0], dict)
        assert search(["fox", "fox"]) == [search("fox"), search("fox")]


def test_ids_are_made_where_none_are_given(rag):
    rag.index(TEXTS, index_name="i")
    assert {len(hit["document_id"]) for hit in rag.search("fox")} == {36}
    assert {hit["passage_id"] for hit in rag.search("fox")} == {0}
    assert all("document_metadata" not in hit for hit in rag.search("fox"))


def test_overwriting(rag, tmp_path):
    path = Path(rag.index(TEXTS[:1], ["a"], index_name="i"))

    def ids():
        return {hit["document_id"] for hit in rag.search("fox", index_name="i")}

    with pytest.raises(LocalIndexError, match="exists; choose another index_name"):
        rag.index(TEXTS[1:], ["b", "c"], index_name="i", overwrite_index=False)
    assert rag.index(TEXTS[1:], ["b", "c"], index_name="i", overwrite_index="reuse") == str(path)
    assert ids() == {"a"}
    for value in (True, "force_silent_overwrite"):
        rag.index(TEXTS[1:], ["b", "c"], index_name="i", overwrite_index=value)
        assert ids() == {"b", "c"}
    assert LocalIndex.open(path).version == 1
    rag.index(TEXTS, ["a", "b", "c"], index_name="i", overwrite_index="resume")
    assert ids() == {"a", "b", "c"}
    assert rag.index(TEXTS, index_name="new", overwrite_index=False) == str(path.with_name("new"))
    assert {entry.name for entry in path.parent.iterdir()} == {"i", "new"}
    assert find_bundle(LocalIndex.open(path).bundle.sha256).path == path.with_name("new").absolute() / "bundle"


def test_an_index_that_cannot_be_built_leaves_the_old_one(rag, tmp_path):
    path = Path(rag.index(TEXTS[:1], ["a"], index_name="i"))
    with pytest.raises(MetadataError, match="give it one type"):
        rag.index(TEXTS[:2], ["b", "c"], [{"n": 1}, {"n": "one"}], index_name="i")
    assert [hit["document_id"] for hit in rag.search("fox")] == ["a"]
    assert [entry.name for entry in path.parent.iterdir()] == ["i"]
    mine = tmp_path / ".ragatouille/colbert/indexes/mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("five years of work")
    with pytest.raises(LocalIndexError, match="exists and is not an index of ours"):
        rag.index(TEXTS, index_name="mine")
    assert (mine / "thesis.txt").read_text() == "five years of work"


def test_resume_goes_on_where_an_interrupted_run_stopped(rag, monkeypatch):
    ids = [f"d{n}" for n in range(len(TEXTS))]
    encode = Encoder.encode_documents
    with monkeypatch.context() as patch:
        patch.setattr("feeder.encoding.batches.BATCH_CHARACTERS", 1)  # batches of one document
        patch.setattr(Encoder, "encode_documents", _failing_after(2, encode))
        with pytest.raises(CheckpointError, match="the power failed"):
            rag.index(TEXTS, ids, index_name="i", overwrite_index="resume")
    encoded = []
    monkeypatch.setattr(
        Encoder, "encode_documents", lambda self, texts, rows: encoded.extend(texts) or encode(self, texts, rows)
    )
    rag.index(TEXTS, ids, index_name="i", overwrite_index="resume")
    assert encoded == TEXTS[2:]
    assert {hit["document_id"] for hit in rag.search("fox")} == set(ids)


def _failing_after(count, encode):
    calls = []

    def encode_documents(self, texts, rows):
        calls.append(texts)
        if len(calls) > count:
            raise CheckpointError("the power failed")
        return encode(self, texts, rows)

    return encode_documents


def test_passages_are_as_long_as_was_asked_also_when_documents_are_added(rag, tiny_bundle):
    path = rag.index([LONG], ["a"], index_name="i", max_document_length=80)
    rag.add_to_index([LONG], ["b"])
    RAGPretrainedModel.from_index(path).add_to_index([LONG], ["c"])
    found = {(hit["document_id"], hit["passage_id"]): hit["content"] for hit in rag.search("fox", k=1_000)}
    parts = {id_: [found[id_, n] for n in range(len(found) // 3)] for id_ in "abc"}
    assert parts["a"] == parts["b"] == parts["c"]
    assert len(parts["a"]) > 5
    rows = Encoder(tiny_bundle).tokenizing.documents(parts["a"])
    assert 60 < max(len(row.ids) for row in rows) <= 80
    assert all(text.endswith(".") and text.startswith("Sentence") for text in parts["a"])


def test_documents_that_are_not_split_are_cut_off(rag):
    for length in (20, 40):
        path = rag.index([LONG], ["a"], index_name="i", split_documents=False, max_document_length=length)
        assert rag.search("fox", k=10)[0]["content"] == LONG
        assert len(rag.search("fox", k=10)) == 1
        index = LocalIndex.open(path)
        assert 0.5 * length < len(index.vectors("a#0")) <= length
    assert LocalIndex.open(rag.index([LONG], index_name="i", max_document_length=9_999)).bundle.manifest.document.length == 512


def test_a_splitter_and_preprocessing_of_the_users_own(rag):
    seen = []

    def splitter(documents, document_ids, chunk_size=256):
        seen.append((documents, document_ids, chunk_size))
        pieces = ((id_, word) for text, id_ in zip(documents, document_ids, strict=True) for word in text.split()[:2])
        return [{"document_id": id_, "content": f" {word} "} for id_, word in pieces]

    def louder(documents, document_ids):
        assert document_ids == ["a", "b"]
        return [piece | {"content": piece["content"].upper()} for piece in documents]

    def marked(documents, document_ids):
        return [piece | {"content": piece["content"] + "!"} for piece in documents]

    rag.index(
        TEXTS[:2], ["a", "b"], index_name="i", document_splitter_fn=splitter, preprocessing_fn=[louder, marked],
        max_document_length=77,
    )  # fmt: skip
    assert seen == [(TEXTS[:2], ["a", "b"], 77)]
    found = {(hit["document_id"], hit["passage_id"]): hit["content"] for hit in rag.search("fox")}
    assert found == {("a", 0): " THE !", ("a", 1): " CAPITAL !", ("b", 0): " A !", ("b", 1): " QUICK !"}
    rag.index(
        TEXTS[:2],
        ["a", "b"],
        index_name="i",
        split_documents=False,
        preprocessing_fn=lambda texts, ids: [t.upper() for t in texts],
    )
    assert {hit["content"] for hit in rag.search("fox")} == {text.upper() for text in TEXTS[:2]}
    with pytest.raises(ArgumentError, match="a passage is a dict of document_id and content"):
        rag.index(TEXTS[:2], index_name="i", preprocessing_fn=lambda documents, ids: [1])
    with pytest.raises(ArgumentError, match="document_id 'c', which does not exist"):
        rag.index(TEXTS[:2], index_name="i", preprocessing_fn=lambda documents, ids: [{"document_id": "c", "content": "x"}])


def test_added_documents_may_have_metadata_fields_that_are_new(rag):
    path = rag.index(TEXTS[:2], ["a", "b"], [{"n": 1}, {"n": 2}], index_name="i", max_document_length=24)
    score = rag.search("fox", doc_ids=["a"])[0]["score"]
    rag.add_to_index(TEXTS[2:], ["c"], [{"lang": "en", "n": 3}])
    assert {hit["document_id"]: hit["document_metadata"] for hit in rag.search("fox")} == {
        "a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3, "lang": "en"},
    }  # fmt: skip
    assert [hit["document_id"] for hit in rag.search("fox", where={"lang": "en"})] == ["c"]
    assert rag.search("fox", doc_ids=["a"])[0]["score"] == score  # nothing was encoded again
    with pytest.raises(MetadataError, match="'n'"):
        rag.add_to_index(["more"], ["d"], [{"n": "text"}])
    with pytest.raises(FilterError, match="year"):
        rag.search("fox", where={"year": 1})
    LocalIndex.open(path).verify()


def test_documents_of_known_ids_are_replaced(rag):
    rag.index(TEXTS, ["a", "b", "c"], index_name="i")
    rag.add_to_index(["something else"], ["b"])
    assert {hit["document_id"]: hit["content"] for hit in rag.search("fox")} == {
        "a": TEXTS[0], "b": "something else", "c": TEXTS[2],
    }  # fmt: skip


def test_several_indexes_at_once(rag):
    rag.index(TEXTS[:1], ["a"], index_name="one", max_document_length=24)
    rag.index(TEXTS[1:], ["b", "c"], index_name="two", max_document_length=40)
    found = rag.search("fox", index_names=["one", "two"])
    assert {(hit["index_name"], hit["document_id"]) for hit in found} == {("one", "a"), ("two", "b"), ("two", "c")}
    assert [hit["rank"] for hit in found] == [1, 2, 3]
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert {hit["document_id"] for hit in rag.search("fox")} == {"b", "c"}  # the one that was named last
    assert "index_name" not in rag.search("fox")[0]


def test_explanations(rag):
    rag.index(TEXTS, ["a", "b", "c"], index_name="i")
    for hit in (rag.search("brown fox", k=1, explain=True)[0], rag.rerank("brown fox", TEXTS, k=1, explain=True)[0]):
        explanation = hit["explanation"]
        assert explanation["text"] == hit["content"]
        assert [match["query_word"] for match in explanation["matches"]] == ["brown", "fox"]
        for match in explanation["matches"]:
            assert hit["content"][match["start"] : match["end"]] == match["passage_word"]
        json.dumps(hit)


def test_versions(rag):
    path = rag.index(TEXTS[:1], ["a"], index_name="i")
    rag.add_to_index(TEXTS[1:2], ["b"])
    known = rag.versions()
    assert [(v["version"], v["passages"], v["current"]) for v in known] == [(1, 1, False), (2, 2, True)]
    old = RAGPretrainedModel.from_index(path, version=1)
    assert [hit["document_id"] for hit in old.search("fox")] == ["a"]
    rag.delete_from_index("b")
    assert [hit["document_id"] for hit in old.search("fox")] == ["a"]
    for change in (lambda: old.add_to_index(["x"]), lambda: old.delete_from_index("a"), lambda: old.index(["x"])):
        with pytest.raises(UsageError, match="at version 1"):
            change()
    with pytest.raises(UsageError, match="search it separately"):
        old.search("fox", index_names=["i", "j"])
    with pytest.raises(LocalIndexError, match="has no version 77"):
        RAGPretrainedModel.from_index(path, version=77)
    with pytest.raises(UsageError, match="at version 2"):
        LocalIndex.open(path, version=2).writer()


def test_a_checkpoint_is_exported_once(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exported = []

    def export(checkpoint, output, options, progress):
        exported.append((checkpoint, options.query_length))
        output.mkdir(parents=True)
        tiny_bundle.copy_to(output)

    monkeypatch.setattr("exporter.export", export)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    for _ in range(2):
        RAGPretrainedModel.from_pretrained("someone/colbert")
        RAGPretrainedModel.from_pretrained(folder)
    assert exported == [("someone/colbert", "auto"), (folder, "auto")]
    (folder / "weights").write_bytes(b"2")
    RAGPretrainedModel.from_pretrained(str(folder))
    assert len(exported) == 3
    assert Bundle.open(find_bundle(tiny_bundle.sha256).path).sha256 == tiny_bundle.sha256


def test_arguments_without_effect_are_taken(rag, tiny_bundle):
    made = RAGPretrainedModel.from_pretrained(tiny_bundle.path, 0, 0, "elsewhere")
    path = made.index(TEXTS, index_name="i", bsize=1, use_faiss=True)
    assert path == "elsewhere/colbert/indexes/i"
    made.add_to_index(["more"], bsize=1, use_faiss=True)
    assert made.rerank("fox", TEXTS, bsize=2) == made.rerank("fox", TEXTS)
    made.encode(TEXTS, 8, None, False, 32)
    assert made.search_encoded_docs("fox", 3, 8) == made.search_encoded_docs("fox", 3)
    made.clear_encoded_docs(force=True)
    assert len(RAGPretrainedModel.from_index(path, -1, 0).search("fox")) == 4


def test_nothing_of_it_needs_torch(rag, tiny_bundle):
    path = rag.index(TEXTS, index_name="i")
    code = (
        "import sys; from colbert_vespa import RAGPretrainedModel; "
        f"RAGPretrainedModel.from_pretrained({str(tiny_bundle.path)!r}).rerank('fox', ['fox']); "
        f"RAGPretrainedModel.from_index({path!r}).add_to_index(['more']); "
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'langchain_core'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("query", [None, 5, b"a", [None], [b"a"]])
def test_what_is_not_a_query_is_refused(rag, query):
    rag.index(TEXTS, index_name="i")
    for call in (rag.search, lambda q: rag.rerank(q, TEXTS), rag.search_encoded_docs):
        with pytest.raises(UsageError):
            call(query)


def test_control_characters_and_half_characters_are_blanks(rag):
    rag.index(["half \ud800 character", "two\x1eparts"], document_ids=["a", "b"], index_name="i")
    assert sorted(found["content"] for found in rag.search("parts \udc00", k=5)) == ["half   character", "two parts"]
    rag.delete_from_index(["a"])
    with pytest.raises(UsageError, match="are not text"):
        rag.delete_from_index(["\x00"])
