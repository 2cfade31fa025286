"""Documents of several passages in a Vespa that is a local server: what is written, in which order, and what is found again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_vespa import SkippedTime

from feeder.outcomes import StoredDigest
from feeder.targets import EncodedDocument
from feeder.targets.stored_rows import StoredRows, stored_query
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Document, Passage
from late_interaction.errors import VespaBusy, VespaRefused
from late_interaction.metadata import MetadataSchema
from vespa_app import default_settings
from vespa_app.running import Application, Description
from vespa_app.settings import DenseSettings

SCHEMA = MetadataSchema.from_json({"year": "long", "lang": "string", "tags": "array<string>"})


@pytest.fixture
def open_target(vespa, tiny_bundle):
    """A target of an application with some settings changed; pauses are skipped."""
    opened = []

    def open_(*, compression="auto", **changes):
        time = SkippedTime()
        settings = dataclasses.replace(default_settings(tiny_bundle, SCHEMA, candidates=("exhaustive",)), **changes)
        application = Application(vespa.url, Description(settings, tiny_bundle.sha256, None))
        opened.append(VespaTarget(application, tiny_bundle, compression=compression, clock=time.clock, sleep=time.sleep))
        opened[-1].time = time
        return opened[-1]

    yield open_
    for target in opened:
        target.close()


def encoded(id_, passages=1, *, digest="D1", stale=(), text="text", metadata=None, rows=None):
    document = Document(id_, "title", text, metadata or {})
    parts = tuple(dataclasses.replace(Passage.of(document, number), text=f"{text} {number}") for number in range(passages))
    vectors = tuple(np.eye(3, 16, dtype=np.float32) if rows is None else rows for _ in parts)
    return EncodedDocument(document, parts, vectors, digest, tuple(stale))


def outcomes(target):
    return {done.document_id: done.failure for done in target.settled(wait=True)}


def written(vespa):
    return [request for request in vespa.requests if request[0] != "GET"]


def test_passages_are_written_with_the_first_last_and_stale_ones_removed_after_that(vespa, open_target):
    target = open_target()
    target.put([encoded("a", 4, stale=["a#4", "a#5"])])
    assert outcomes(target) == {"a": None}
    order = written(vespa)
    assert sorted(order[:3]) == [("POST", f"a#{n}") for n in (1, 2, 3)]
    assert order[3] == ("POST", "a#0")
    assert sorted(order[4:]) == [("DELETE", "a#4"), ("DELETE", "a#5")]
    fields = vespa.documents["a#2"]["fields"]
    assert (fields["id"], fields["document_id"], fields["text"], fields["digest"]) == ("a#2", "a", "text 2", "D1")


def test_in_layout_chunks_a_document_is_one_of_vespas(vespa, open_target):
    target = open_target(layout="chunks")
    target.put([encoded("a", 3), encoded("b", 1)])
    assert outcomes(target) == {"a": None, "b": None}
    assert sorted(written(vespa)) == [("POST", "a#0"), ("POST", "b#0")]
    fields = vespa.documents["a#0"]["fields"]
    assert fields["text"] == ["text 0", "text 1", "text 2"]
    assert {block["address"]["chunk"] for block in fields["vectors"]["blocks"]} == {"0", "1", "2"}
    assert target.stored(["a"]) == {"a": StoredDigest("D1", ("a#0",))}


def test_what_is_stored_is_found_by_one_query_whose_ids_are_parameters(vespa, open_target):
    target = open_target()
    ids = ["plain", "it's", 'say "so"', """both "' """, "comma, and @ids) or true"]
    target.put([encoded(id_, 2) for id_ in ids])
    target.settled(wait=True)
    assert target.stored([*ids, "not there"]) == {id_: StoredDigest("D1", (f"{id_}#0", f"{id_}#1")) for id_ in ids}
    (body,) = vespa.search_bodies
    assert body["yql"].endswith("where document_id in (@ids) or document_id contains @id0 order by id")
    assert body["id0"] == ids[3]


def test_a_digest_counts_only_where_all_passages_have_it_and_the_first_is_there(vespa, open_target):
    target = open_target()
    target.put([encoded("a", 3), encoded("b", 3), encoded("c", 2)])
    target.settled(wait=True)
    vespa.documents["a#2"]["fields"]["digest"] = "other"
    del vespa.documents["b#0"], vespa.documents["c#1"]["fields"]["digest"]
    found = target.stored(["a", "b", "c"])
    assert [found[id_].digest for id_ in "abc"] == ["", "", ""]
    assert found["b"].passage_ids == ("b#1", "b#2")


def test_a_put_that_fails_half_way_is_not_taken_for_whole(vespa, open_target):
    target = open_target()
    vespa.faults["a#2"] = [400]
    target.put([encoded("a", 3)])
    assert outcomes(target)["a"].status == 400
    assert target.stored(["a"])["a"].digest == ""


def test_rows_of_many_documents_are_asked_in_parts(vespa, open_target):
    target = open_target()
    target.put([encoded("a", 5), encoded("b", 1), encoded("c", 4)])
    target.settled(wait=True)
    rows = StoredRows(target._application, most=4)
    found = rows.of(["a", "b", "c"])
    assert {id_: len(of) for id_, of in found.items()} == {"a": 5, "b": 1, "c": 4}
    target.put([encoded("d", 9)])
    target.settled(wait=True)
    with pytest.raises(VespaRefused, match="has 9 passages; the limit is 8"):
        rows.of(["d"])
    rows.close()


def test_an_answer_that_lacks_nodes_is_asked_again_and_never_believed(vespa, open_target):
    target = open_target()
    target.put([encoded("a")])
    target.settled(wait=True)
    vespa.search_faults = [503, 429, "reset", 504]
    with pytest.raises(VespaRefused):  # 504 of a query is Vespa's own time-out
        target.stored(["a"])
    vespa.search_faults = [503, 429, "reset"]
    assert list(target.stored(["a"])) == ["a"]
    vespa.search_faults = [503] * 10
    with pytest.raises(VespaBusy):
        target.stored(["a"])


def test_update_changes_the_given_fields_of_all_passages_and_forgets_the_digest(vespa, open_target):
    target = open_target()
    target.put([encoded("a", 2, metadata={"year": 2000, "lang": "en", "tags": [""]})])
    target.update([Document("a", metadata={"year": 2001, "lang": None}), Document("nobody", metadata={"year": 1})])
    failures = outcomes(target)
    assert failures["a"] is None
    assert (failures["nobody"].status, failures["nobody"].message) == (404, f"{vespa.url} has no document 'nobody' to update")
    for number in range(2):
        fields = vespa.documents[f"a#{number}"]["fields"]
        assert (fields["year"], fields["lang"], fields["tags"], fields["text"]) == (2001, None, [""], f"text {number}")
        assert (fields["present"], fields["digest"]) == (["tags", "tags=", "year"], "")
        assert "vectors" in fields


@pytest.mark.parametrize(("metadata", "message"), [({"year": "x"}, "year"), ({"other": None}, "'other' is not in the index")])
def test_an_update_that_does_not_fit_is_a_failure_of_its_document(vespa, open_target, metadata, message):
    target = open_target()
    target.put([encoded("a")])
    target.update([Document("a", metadata=metadata)])
    (put, updated) = target.settled(wait=True)
    failure = put.failure or updated.failure
    assert message in failure.message


def test_delete_removes_all_passages_the_first_one_first(vespa, open_target):
    target = open_target()
    target.put([encoded("a", 3), encoded("b", 1)])
    target.delete(["a", "not there"])
    assert outcomes(target) == {"a": None, "b": None, "not there": None}
    removed = [id_ for method, id_ in vespa.requests if method == "DELETE"]
    assert removed[0] == "a#0"
    assert sorted(removed) == ["a#0", "a#1", "a#2"]
    assert list(vespa.documents) == ["b#0"]


def test_the_same_document_again_is_written_in_order(vespa, open_target):
    target = open_target()
    vespa.faults["a#0"] = [503, 503]
    vespa.faults["a#1"] = [429]
    target.put([encoded("a", 3, text="old")])
    target.put([encoded("a", 1, text="new", digest="D2", stale=["a#1", "a#2"])])
    target.put([encoded("a", 2, text="newest", digest="D3")])
    assert [done.failure for done in target.settled(wait=True)] == [None] * 3
    assert {id_: d["fields"]["text"] for id_, d in vespa.documents.items()} == {"a#0": "newest 0", "a#1": "newest 1"}


STREAMING = {"mode": "streaming", "group_field": "lang"}


def test_in_mode_streaming_the_group_is_in_the_path_and_a_new_group_replaces_the_old(vespa, open_target):
    target = open_target(**STREAMING)
    target.put([encoded("a", 2, metadata={"lang": "en"}), encoded("b", 1)])
    failures = outcomes(target)
    assert failures["a"] is None
    assert "determines the document's group" in failures["b"].message
    assert sorted(vespa.documents) == ["en/a#0", "en/a#1"]
    assert target.stored(["a"]) == {"a": StoredDigest("D1", ("a#0", "a#1"))}
    target.put([encoded("a", 1, metadata={"lang": "de"}, stale=["a#1"])])
    assert outcomes(target) == {"a": None}
    assert sorted(vespa.documents) == ["de/a#0"]
    target.update([Document("a", metadata={"year": 7})])
    target.delete(["a"])
    assert [done.failure for done in target.settled(wait=True)] == [None, None]
    assert ("PUT", "de/a#0") in vespa.requests
    assert vespa.documents == {}
    assert all(body["streaming.selection"] == "true" for body in vespa.search_bodies)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_fail_their_document_alone(vespa, open_target, bad):
    target = open_target()
    target.put([encoded("a"), encoded("b", rows=np.full((2, 16), bad, np.float32)), encoded("c")])
    failures = outcomes(target)
    assert "NaN or infinity" in failures.pop("b").message
    assert failures == {"a": None, "c": None}
    assert sorted(vespa.documents) == ["a#0", "c#0"]


@pytest.mark.parametrize(("compression", "gzipped"), [("auto", False), ("none", False), ("gzip", True)])
def test_bodies_are_compressed_on_request_and_not_for_this_machine(vespa, open_target, compression, gzipped):
    target = open_target(compression=compression)
    target.put([encoded("a", text="word " * 200)])
    assert outcomes(target) == {"a": None}
    assert (vespa.headers[-1].get("content-encoding") == "gzip") is gzipped
    assert vespa.documents["a#0"]["fields"]["text"].startswith("word word")


def test_the_digest_basis_names_what_vectors_depend_on(open_target, tiny_bundle):
    plain, same = open_target()._application, open_target(rerank=500)._application
    others = [
        open_target(**changes)._application
        for changes in ({"codec": "float32"}, {"layout": "chunks"}, {"candidates": ("pooled", "exhaustive")})
    ]
    assert plain.digest_basis(tiny_bundle) == same.digest_basis(tiny_bundle)
    assert len({app.digest_basis(tiny_bundle) for app in [plain, *others]}) == 4


def test_the_query_for_rows_holds_nothing_of_a_user(open_target):
    settings = open_target()._application.settings
    ids = ['x" or true or "', "y' or true"]
    body = stored_query(settings, ids, 10)
    assert body["yql"] == f"select * from {settings.schema} where document_id in (@ids) order by id"


def test_dense_vectors_go_with_each_passage_and_a_document_without_is_refused(vespa, open_target):
    own = {"dense": DenseSettings(4, cells="float"), "e5": DenseSettings(8, cells="bits")}
    target = open_target(candidates=("dense", "exhaustive"), dense=own)
    vectors = {"dense": np.eye(1, 4, 2, dtype=np.float32)[0], "e5": np.eye(1, 8, dtype=np.float32)[0]}
    whole = dataclasses.replace(encoded("a", 2), dense=(vectors, vectors))
    lacking = dataclasses.replace(encoded("b", 2), dense=(vectors, {"dense": vectors["dense"]}))
    target.put([whole, lacking, encoded("c")])
    done = outcomes(target)
    assert done["a"] is None
    for id_, model in (("b", "e5"), ("c", "dense")):
        assert f"the document has no vector of dense model '{model}'" in done[id_].message
    for number in range(2):
        fields = vespa.documents[f"a#{number}"]["fields"]
        assert fields["dense"] == {"values": np.array([0, 0, 1, 0], ">f4").tobytes().hex()}
        assert fields["dense_e5"] == {"values": "80"}
    assert target.kept.key == "bfloat16, dense e5 bits" and not target.kept.exact
