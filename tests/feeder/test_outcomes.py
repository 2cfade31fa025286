"""No outcome is dropped and none is made up: errors at every step of a feed, documents that become blank, deletions of what was
never there, journals of other targets."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil

import pytest

import feeder.feeding.pipeline
from feeder import FeedOptions, start_feed
from feeder.encoding.batches import HereEncoding
from feeder.feeding.dead_letters import DeadLetters
from feeder.feeding.journal import Journal
from feeder.feeding.survey import survey
from feeder.sources import open_id_lists
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, LocalIndexError, VespaBusy
from late_interaction.plaid import LocalIndex

DOCUMENTS = [Document(f"d{n}", f"title {n}", "wait for a thread to finish", {"year": 2000 + n}) for n in range(20)]
PARTS = ("acknowledged", "already_there", "absent", "dead_lettered", "skipped_blank", "duplicates", "pending")


@pytest.fixture(params=["vespa", "local"])
def to(request, vespa, application, tmp_path):
    """A target of each kind."""
    return vespa.url if request.param == "vespa" else str(tmp_path / "index")


@pytest.fixture
def go(to, tiny_bundle, tmp_path, monkeypatch):
    """Feeds in batches of four; gives the summary, which balances, and the error that ended the feed, if one did."""
    defaults = feeder.feeding.pipeline.Feed.__init__.__kwdefaults__ | {"batch_size": 4}
    monkeypatch.setattr(feeder.feeding.pipeline.Feed.__init__, "__kwdefaults__", defaults)

    def go(documents=DOCUMENTS, **options):
        options = {"to": to, "bundle": tiny_bundle, "journal": tmp_path / "j", "workers": 0} | options
        with start_feed([documents], FeedOptions(**options)) as run:
            found = None
            try:
                run.go()
            except BaseException as error:  # noqa: BLE001
                found = error
            summary = run.summary
        assert sum(getattr(summary, part) for part in PARTS) == summary.documents
        return summary, found

    return go


def texts(to, vespa, tmp_path):
    """What is stored, by document id."""
    if to == vespa.url:
        fields = [found["fields"] for id_, found in vespa.documents.items() if id_ != "current"]
        return {found["document_id"]: found["text"] for found in fields}
    return {passage.document_id: passage.text for passage in LocalIndex.open(to).iter_passages()}


STEPS = {
    "submit": (VespaTarget, "_submit"),
    "put": (VespaTarget, "put"),
    "delete": (VespaTarget, "delete"),
    "ask": (VespaTarget, "stored"),
    "settle": (VespaTarget, "settled"),
    "encode": (HereEncoding, "submit"),
    "journal": (Journal, "acknowledge"),
    "letters": (DeadLetters, "add"),
}
MOMENTS = [(step, "before") for step in STEPS] + [(step, "after") for step in ("submit", "put", "delete", "journal", "letters")]
ERRORS = [VespaBusy("busy", 503), RuntimeError("a fault"), KeyboardInterrupt()]
FAILURES = [  # every moment with one error, and with all of them in `make test-all`
    pytest.param(
        *moment,
        error,
        marks=() if place % len(ERRORS) == number else pytest.mark.slow,
        id=f"{type(error).__name__}-{'-'.join(moment)}",
    )
    for place, moment in enumerate(MOMENTS)
    for number, error in enumerate(ERRORS)
]


@pytest.mark.parametrize("to", ["vespa"], indirect=True)
@pytest.mark.parametrize(("step", "time", "error"), FAILURES)
def test_an_error_at_any_step_drops_no_outcome(go, vespa, tmp_path, monkeypatch, step, time, error):
    """Whatever Vespa took and we know of is in the journal, and whatever it refused is in the dead letters."""
    vespa.faults = {f"d{n}#0": [400] for n in (1, 6, 11, 16)}
    documents = DOCUMENTS if step != "delete" else [*DOCUMENTS[:10], Document("d3"), *DOCUMENTS[10:]]
    if step == "delete":
        go([DOCUMENTS[3]], journal=tmp_path / "first")
    owner, name = STEPS[step]
    real, calls, known = getattr(owner, name), [], []
    settled = VespaTarget.settled

    def noting(self, **options):
        found = settled(self, **options)
        known.extend(found)
        return found

    monkeypatch.setattr(VespaTarget, "settled", noting)
    if step == "settle":
        real = noting

    def failing(self, *args, **options):
        if (step == "journal" and not args[0]) or (step == "letters" and not list(args[0])):
            return real(self, *args, **options)
        calls.append(1)
        fails = len(calls) == (1 if step in ("delete", "letters", "journal") else 3)
        if fails and time == "before":
            raise error
        found = real(self, *args, **options)
        if fails:
            raise error
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        summary, found = go(documents)
    assert found is error
    lines = (tmp_path / "j").read_bytes().splitlines()[1:]
    noted = {id_ for line in lines for id_, _ in json.loads(line)}
    letters = tmp_path / "j.dead.jsonl"
    refused = (
        {json.loads(line)["id"] for line in letters.read_bytes().splitlines() if b'"document"' in line}
        if letters.exists()
        else set()
    )
    assert noted == {outcome.document_id for outcome in known if outcome.failure is None}
    assert refused == {outcome.document_id for outcome in known if outcome.failure is not None}
    assert summary.dead_lettered == len(refused) and summary.acknowledged + summary.removed_blank == len(noted)
    if isinstance(error, Exception):  # what was handed over was waited for
        assert {f"{id_}#0" for id_ in noted} | {"current", "d3#0"} >= set(vespa.documents)
    vespa.faults.clear()
    summary, found = go(documents, resume=True)
    assert found is None and summary.pending == summary.dead_lettered == 0


@pytest.mark.parametrize("to", ["vespa"], indirect=True)
def test_a_disk_that_refuses_one_file_does_not_keep_the_other_from_its_outcomes(go, vespa, tmp_path, monkeypatch):
    vespa.faults = {"d1#0": [400]}
    real = os.pwrite

    def pwrite(descriptor, data, place):
        if b"told to say" in bytes(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        summary, found = go()
    assert isinstance(found, CollectionError) and "dead-letter file" in str(found)
    assert summary.dead_lettered == 0 and summary.acknowledged == len(set(vespa.documents) - {"current"}) > 0
    assert not (tmp_path / "j.dead.jsonl").exists() or b"told to" not in (tmp_path / "j.dead.jsonl").read_bytes()


@pytest.mark.parametrize("part", ["title", "text"])
def test_a_document_that_is_blank_now_is_removed(go, to, vespa, tmp_path, part):
    go()
    blank = [Document("d3", " ", "\n"), Document("new"), Document("d5", **{part: "another"})]
    summary, error = go(blank)
    assert error is None
    assert (summary.skipped_blank, summary.removed_blank, summary.acknowledged) == (2, 1, 1)
    assert summary.skipped_blank_ids == ("d3", "new")
    assert set(texts(to, vespa, tmp_path)) == {document.id for document in DOCUMENTS} - {"d3"}
    again, _ = go(blank)
    assert (again.skipped_blank, again.removed_blank, again.already_there) == (2, 0, 1)


def test_the_last_counts_also_where_it_is_blank_or_another_is(go, to, vespa, tmp_path):
    versions = [Document("a", "", "old"), Document("b"), Document("a"), Document("b", "", "new"), Document("c")]
    summary, error = go(versions)
    assert error is None
    assert (summary.acknowledged, summary.skipped_blank, summary.duplicates, summary.skipped_blank_ids) == (1, 2, 2, ("a", "c"))
    assert texts(to, vespa, tmp_path) == {"b": "new"}


def test_blank_documents_of_a_survey():
    documents = [Document(f"d{n % 30}", "", "" if n % 2 else "text") for n in range(50)]
    found = survey(documents, named=100)
    assert (found.blank, found.duplicates) == (15, 20)
    assert found.blank_ids == tuple(f"d{n % 30}" for n in range(20, 50) if n % 2)
    assert survey(documents, named=3).blank_ids == found.blank_ids[:3]


def test_a_dry_run_says_that_a_blank_document_would_be_removed(go, to, vespa, tmp_path):
    go()
    summary, _ = go([Document("d3"), Document("new"), *DOCUMENTS[5:]], dry_run=True)
    assert (summary.pending, summary.skipped_blank, summary.already_there) == (1, 1, 15)
    assert len(texts(to, vespa, tmp_path)) == 20


def test_ids_that_were_never_there_do_not_count_as_deleted(go, to, vespa, tmp_path):
    go()
    ids = [Document(id_) for id_ in ("d3", "nobody", "d5", "d3", *(f"none{n}" for n in range(40)))]
    summary, error = go(ids, operation="delete", dry_run=True)
    assert (error, summary.pending, summary.absent) == (None, 2, 41)
    summary, error = go(ids, operation="delete")
    assert error is None
    assert (summary.acknowledged, summary.absent, summary.duplicates) == (2, 41, 1)
    assert summary.absent_ids == ("nobody", *(f"none{n}" for n in range(19)))
    assert set(texts(to, vespa, tmp_path)) == {document.id for document in DOCUMENTS} - {"d3", "d5"}
    again, _ = go(ids, operation="delete")
    assert (again.acknowledged, again.absent) == (0, 43)


@contextlib.contextmanager
def stopped(monkeypatch, after):
    """A feed that stops after so many looks."""
    looks = []
    with monkeypatch.context() as patch:
        patch.setattr(feeder.feeding.run.Stop, "__call__", lambda self: looks.append(1) or len(looks) > after)
        yield


def test_a_resumed_deletion_tells_what_the_interrupted_one_has_deleted(go, to, vespa, tmp_path, monkeypatch):
    go()
    ids = [*DOCUMENTS, Document("nobody")]
    with stopped(monkeypatch, 2):
        first, _ = go(ids, operation="delete")
    assert first.outcome == "interrupted" and first.acknowledged == 8
    second, _ = go(ids, operation="delete", resume=True)
    assert (second.acknowledged, second.already_there, second.absent) == (12, 8, 1)
    assert texts(to, vespa, tmp_path) == {}


@pytest.mark.parametrize("operation", ["put", "update", "delete"])
def test_nothing_is_taken_for_done_in_a_target_that_was_built_anew(go, to, vespa, tmp_path, monkeypatch, operation):
    go(journal=tmp_path / "first")
    changed = [Document(document.id, "", "other words", {"year": 1}) for document in DOCUMENTS]
    with stopped(monkeypatch, 2):
        first, _ = go(changed, operation=operation)
    assert first.outcome == "interrupted"
    if to == vespa.url:
        for id_ in set(vespa.documents) - {"current"}:
            del vespa.documents[id_]
    else:
        shutil.rmtree(to)
    go(journal=tmp_path / "second")
    second, error = go(changed, operation=operation, resume=True)
    assert (error, second.acknowledged, second.already_there) == (None, 20, 0)


def test_a_journal_of_a_relative_place_is_that_of_the_same_place_alone(go, to, vespa, tmp_path, monkeypatch):
    if to == vespa.url:
        pytest.skip("of folders")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        go(to="index", journal=tmp_path / f"{name} first")
    monkeypatch.chdir(tmp_path / "one")
    with stopped(monkeypatch, 2):
        go(to="index", operation="delete")
    monkeypatch.chdir(tmp_path / "two")
    _, error = go(to="index", operation="delete", resume=True)
    assert isinstance(error, CollectionError) and "another feed" in str(error)
    monkeypatch.chdir(tmp_path)
    summary, error = go(to="one/index", operation="delete", resume=True)
    assert (error, summary.acknowledged, summary.already_there) == (None, 12, 8)


def test_changes_that_were_left_are_looked_at_before_anything_is_read(go, to, vespa, monkeypatch):
    if to == vespa.url:
        pytest.skip("of local indexes")
    with stopped(monkeypatch, 6):
        go()

    class Unread:
        def __iter__(self):
            raise AssertionError("was read")

    with pytest.raises(LocalIndexError, match="an interrupted run.*--resume"):
        go(Unread())
    summary, error = go(resume=True)
    assert error is None and summary.pending == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "d3\r\n\r\nnobody\n d5\nd7"),
        ("ids.jsonl", '"d3"\n{"id": "nobody"}\n{"id": "d7", "text": 5, "metadata": {"year": "x"}}\n'),
        ("ids.json", '[{"id": "d3"}, {"_id": "nobody"}, {"id": "d7"}]'),
        ("ids.json", '["d3", "nobody", {"id": "d7"}]'),
        ("ids.csv", "id,title,year\nd3,,x\nnobody,1,y\nd7,,\n"),
    ],
)
def test_lists_of_ids(go, to, vespa, tmp_path, name, content):
    go()
    (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    [source] = open_id_lists([str(tmp_path / name)])
    found = [document.id for document in source]
    assert found == ["d3", "nobody", *([" d5"] if name == "ids.txt" else []), "d7"]
    summary, error = go(source, operation="delete")
    assert error is None
    assert (summary.acknowledged, summary.absent, summary.notes) == (2, len(found) - 2, ())
    assert set(texts(to, vespa, tmp_path)) == {document.id for document in DOCUMENTS} - {"d3", "d7"}
