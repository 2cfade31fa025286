"""Faults in the middle of a whole feed: each ends as feeding.md says, the ledger balances, and a resumed feed brings the
rest without sending again what was taken."""

from __future__ import annotations

import errno
import os
import shutil
import time

import pytest

import feeder.feeding.pipeline
from feeder import FeedOptions, feed, start_feed
from feeder.feeding.dead_letters import DeadLetterSource, read_letters
from feeder.sources import open_sources
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError, CollectionError, UsageError, VespaRefused

DOCUMENTS = [Document(f"d{n}", f"title {n}", "wait for a thread to finish", {"year": 2000 + n}) for n in range(20)]
PARTS = ("acknowledged", "already_there", "dead_lettered", "skipped_blank", "duplicates", "pending")


@pytest.fixture
def go(vespa, application, tiny_bundle, tmp_path, monkeypatch):
    """Feeds in batches of five; gives the summary and the error that ended the feed, if one did."""
    defaults = feeder.feeding.pipeline.Feed.__init__.__kwdefaults__ | {"batch_size": 5}
    monkeypatch.setattr(feeder.feeding.pipeline.Feed.__init__, "__kwdefaults__", defaults)

    def go(documents=DOCUMENTS, **options):
        options = {"to": vespa.url, "bundle": tiny_bundle, "journal": tmp_path / "j", "workers": 0} | options
        with start_feed([documents], FeedOptions(**options)) as run:
            found = None
            try:
                run.go()
            except (ColbertVespaError, RuntimeError) as error:
                found = error
            summary = run.summary
        assert sum(getattr(summary, part) for part in PARTS) == summary.documents
        assert (summary.outcome == "failed") is (found is not None) and summary.error == str(found or "")
        return summary, found

    return go


def puts(vespa):
    return [id_ for method, id_ in vespa.requests if method == "POST"]


def resumed(go, vespa):
    """What was taken is not sent again, and all is there in the end."""
    while vespa.open_connections:  # what was under way when the feed ended may still be taken
        time.sleep(0.01)
    there = set(vespa.documents)
    vespa.requests.clear()
    summary, error = go(resume=True)
    assert error is None and summary.pending == summary.dead_lettered == 0
    assert not set(puts(vespa)) & there
    assert set(vespa.documents) == {"current", *(f"{document.id}#0" for document in DOCUMENTS)}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("asked", ["put", "stored"])
def test_credentials_that_are_no_longer_accepted_end_the_feed_and_condemn_no_document(go, vespa, tmp_path, status, asked):
    if asked == "put":
        vespa.faults["d12#0"] = [status]
    else:
        searched = vespa.searched

        def expiring(body):
            vespa.search_faults = [status] if len(vespa.search_bodies) == 2 else []
            return searched(body)

        vespa.searched = expiring
    summary, error = go()
    assert isinstance(error, VespaRefused) and error.status == status
    assert "renew the token or the certificate" in str(error) and "\n" not in str(error)
    assert summary.dead_lettered == 0 and summary.pending > 0
    assert not (tmp_path / "j.dead.jsonl").exists()
    resumed(go, vespa)


def refusing(monkeypatch, begin, after, error):
    """The disk takes `after` lines that begin so, and then refuses."""
    real, left = os.pwrite, [after]

    def pwrite(descriptor, data, place):
        if bytes(data[: len(begin)]) == begin:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(error, os.strerror(error))
        return real(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_the_journal_ends_the_feed(go, vespa, monkeypatch, error):
    with monkeypatch.context() as patch:
        refusing(patch, b'[["', 1, error)
        summary, found = go()
    assert isinstance(found, CollectionError) and os.strerror(error) in str(found) and "--resume" in str(found)
    assert 0 < summary.acknowledged < 20 and summary.pending == 20 - summary.acknowledged
    resumed(go, vespa)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_the_dead_letters_ends_the_feed(go, vespa, monkeypatch, error):
    vespa.faults["d7#0"] = [400]
    with monkeypatch.context() as patch:
        refusing(patch, b'{"id"', 0, error)
        summary, found = go()
    assert isinstance(found, CollectionError) and "dead-letter file" in str(found) and os.strerror(error) in str(found)
    assert summary.dead_lettered == 0 and summary.pending > 0
    resumed(go, vespa)


def test_a_journal_that_cannot_be_begun_stops_the_feed_before_anything_is_sent(go, vespa, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be written"):
        go(journal=tmp_path / "file" / "j")
    assert puts(vespa) == []


def test_documents_of_a_program_that_raises_leave_a_resumable_state(go, vespa):
    class Breaks:
        reads = 0

        def __iter__(self):
            self.reads += 1
            for place, document in enumerate(DOCUMENTS):
                if self.reads == 2 and place == 13:
                    raise RuntimeError("the database went away")
                yield document

    summary, error = go(Breaks())
    assert isinstance(error, RuntimeError)
    assert 0 < summary.acknowledged < 20
    resumed(go, vespa)


def test_what_vespa_refuses_goes_to_the_file_that_was_named_and_is_fed_again_from_there(go, vespa, tmp_path):
    vespa.faults |= {"d3#0": [500], "d17#0": [413]}
    letters = tmp_path / "letters.jsonl"
    summary, error = go(dead_letters=letters)
    assert error is None and (summary.acknowledged, summary.dead_lettered) == (18, 2)
    assert (summary.dead_letter_file, summary.errors) == (str(letters), {"HTTP 500": 1, "HTTP 413": 1})
    kept = letters.read_text()
    assert [letter["status"] for letter in read_letters(letters)] == [500, 413]
    with pytest.raises(UsageError, match="are the same file"):
        go(DeadLetterSource(letters), journal=tmp_path / "again", dead_letters=letters)
    assert letters.read_text() == kept
    summary, _ = go(DeadLetterSource(letters), journal=tmp_path / "again")
    assert summary.acknowledged == 2 and {"d3#0", "d17#0"} < set(vespa.documents)


def test_no_path_of_a_feed_is_named_twice_or_in_the_index(go, vespa, tmp_path):
    source = tmp_path / "documents.jsonl"
    source.write_text('{"id": "a", "text": "one"}\n')
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "cache").mkdir()
    (tmp_path / "caches").symlink_to("cache")
    for options in (
        {"journal": source}, {"journal": tmp_path / "link"}, {"dead_letters": tmp_path / "hard"},
        {"journal": tmp_path / "x" / ".." / "documents.jsonl"}, {"journal": tmp_path / "d", "dead_letters": tmp_path / "d"},
        {"cache": source}, {"to": str(source)}, {"to": str(tmp_path / "cache"), "cache": tmp_path / "caches"},
        {"cache": tmp_path / "cache", "journal": tmp_path / "caches" / "j"},
        {"to": str(tmp_path / "new"), "dead_letters": tmp_path / "new" / "segments" / "d"},
    ):  # fmt: skip
        with pytest.raises(UsageError, match="are the same file or folder|lies inside"):
            go(open_sources([str(source)])[0], **options)
    assert vespa.requests == [] and source.read_text() == '{"id": "a", "text": "one"}\n'
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["j", "mine.txt"])
def test_dead_letters_are_not_written_over_a_file_of_something_else(go, vespa, tmp_path, name):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=name):
        go(dead_letters=tmp_path / name)
    assert vespa.requests == [] and (tmp_path / "mine.txt").read_text() == "precious"


def test_nothing_is_written_into_another_index_a_bundle_or_a_source(tiny_bundle, tmp_path):
    feed([Document("a", text="one")], FeedOptions(to=str(tmp_path / "index"), bundle=tiny_bundle, journal=tmp_path / "j"))
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.txt").write_text("text")
    for kind in ("index", "bundle"):
        for name in ("to", "cache", "journal", "dead_letters"):
            options = {"to": tmp_path / "new", "journal": tmp_path / "j", name: tmp_path / kind / "sub" / "x"}
            with pytest.raises(UsageError, match=f"/sub/x lies inside (the )?{kind} {tmp_path / kind}"):
                feed([Document("a", text="one")], FeedOptions(bundle=tiny_bundle, **options))
    for name in ("journal", "dead_letters"):
        options = {"to": tmp_path / "new", "journal": tmp_path / "j", name: tmp_path / "pages" / "j"}
        with (
            pytest.raises(UsageError, match="lies inside the source"),
            start_feed(open_sources([str(tmp_path / "pages")]), FeedOptions(bundle=tiny_bundle, **options)),
        ):
            pass
    assert not (tmp_path / "new").exists() and not (tmp_path / "index" / "sub").exists()
