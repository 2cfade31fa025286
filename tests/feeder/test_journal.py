import contextlib
import errno
import json
import os
from pathlib import Path

import pytest
from power_loss import Disk

from feeder.copying.journal import CopyJournal
from feeder.digests import Digests
from feeder.feeding.dead_letters import DeadLetters, read_letters
from feeder.feeding.id_table import DigestTableBuilder, last_places, short_hash
from feeder.feeding.journal import Journal
from feeder.outcomes import Failure
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError


@contextlib.contextmanager
def opened(path, target="target", *, resume=True):
    """A journal that is closed, but not completed, at the end: as after a kill."""
    journal = Journal(path, target, resume=resume)
    try:
        yield journal
    finally:
        journal.close(remove=False)


A, B = ("a", "digest of a"), ("b", "digest of b")


@pytest.fixture
def path(tmp_path):
    """A journal that has acknowledged both documents."""
    with opened(tmp_path / "j", resume=False) as journal:
        journal.acknowledge([A])
        journal.acknowledge([B])
    return tmp_path / "j"


def test_acknowledged_documents_are_there_after_a_kill(path):
    with opened(path) as again:
        assert again.brought == 2
        assert again.has(*A) and again.has(*B)
        assert not again.has("a", "digest of b") and not again.has("c", "digest of b")


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_line_is_cut_off_and_the_journal_goes_on(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with opened(path) as again:
        assert not again.has(*B)
        again.acknowledge([B])
    with opened(path) as again:
        assert again.has(*B)


@pytest.mark.parametrize("size", [1, 5, 16, 1000])
def test_blocks_of_zeros_that_a_power_failure_left_in_the_last_line_are_cut_off(path, size):
    """The file has grown and some of its blocks were never written, in whatever order."""
    data = path.read_bytes()
    begin = data.index(b"\n", data.index(b"\n") + 1) + 1
    for start in range(begin, len(data), 3):
        count = min(size, len(data) - start)
        path.write_bytes(data[:start] + bytes(count) + data[start + count :])
        with opened(path) as again:
            assert again.has(*A) and not again.has(*B)
            again.acknowledge([B])
        assert path.read_bytes() == data


def test_what_is_acknowledged_survives_power_loss_with_the_folders_above_it(tmp_path, monkeypatch):
    """At every moment of writing the journal has all that was acknowledged by then, and dead letters are whole."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", monkeypatch)
    acknowledged, moments = [], []

    def keeping(act):
        def call(*args):
            left = disk.after_power_loss(tmp_path / f"left {len(moments)}")
            moments.append((left / "new" / "deeper", list(acknowledged)))
            return act(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", keeping(os.fsync))
        patch.setattr(os, "pwrite", keeping(os.pwrite))
        journal = Journal(disk.root / "new" / "deeper" / "j", "target", resume=False)
        letters = DeadLetters(disk.root / "new" / "deeper" / "dead", "put")
        for number in range(5):
            journal.acknowledge([(f"d{number}", "digest"), (f"e{number}", "digest")])
            acknowledged += [f"d{number}", f"e{number}"]
            letters.add([(Failure(f"x{number}", 400, "no"), Document(f"x{number}"))])
        os.fsync(letters._file._descriptor)  # once more, to look at the end
        journal.close(remove=False)
        letters.close(complete=False)
    assert len(moments) > 20
    for folder, ids in moments:
        if ids:
            with opened(folder / "j") as again:
                assert all(again.has(id_, "digest") for id_ in ids)
    assert [letter["id"] for letter in read_letters(folder / "dead")] == [f"x{n}" for n in range(5)]


DOCUMENTS = b'{"id": "a", "title": "t", "text": "x"}\n'


@pytest.mark.parametrize("content", [b"precious", DOCUMENTS, b"\n", b"{}", b'{"colbert-vespa": "feed journal 2"}\n', b"\0\1"])
@pytest.mark.parametrize("resume", [False, True])
def test_what_has_not_our_first_line_is_neither_written_nor_removed(tmp_path, content, resume):
    (tmp_path / "mine").write_bytes(content)
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "hard").hardlink_to(tmp_path / "mine")
    (tmp_path / "folder").mkdir()
    for name in ("mine", "link", "hard", "folder"):
        for begin in (
            lambda path: Journal(path, "target", resume=resume), lambda path: DeadLetters(path, "put"),
            lambda path: CopyJournal(path, "copy", resume=resume),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=f"{name} is not a file of "):
                begin(tmp_path / name)
    letters = DeadLetters(tmp_path / "late", "put")
    (tmp_path / "late").write_bytes(content)
    with pytest.raises(UsageError, match="late is not a file of dead letters"):
        letters.add([(Failure("a", 400, "no"), Document("a"))])
    letters.close(complete=True)
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "late").read_bytes() == content


def test_devices_and_pipes_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        for begin in (lambda path: Journal(path, "target", resume=False), lambda path: DeadLetters(path, "put")):
            with pytest.raises(UsageError, match=f"{path} is not a file of"):
                begin(path)


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_first_line_that_was_torn_is_written_again(path, cut):
    whole = path.read_bytes().splitlines(keepends=True)[0]
    for rest in (b"", b"\0" * 10):
        path.write_bytes(whole[:cut] + rest)
        with opened(path) as journal:
            assert not journal.has(*A)
        assert path.read_bytes() == whole


def test_a_journal_of_another_feed_is_refused(path):
    with pytest.raises(CollectionError, match="another feed"):
        Journal(path, "two", resume=True)


def test_damage_in_the_middle_is_an_error(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(CollectionError, match="j:2 is damaged"):
        Journal(path, "target", resume=True)


def test_without_resume_it_starts_anew(path):
    with opened(path, resume=False) as journal:
        assert journal.brought == 0 and not journal.has(*A)


def test_a_complete_feed_leaves_no_journal(path):
    Journal(path, "target", resume=True).close(remove=True)
    assert not path.exists()


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", "target", resume=False)


def test_the_digest_covers_everything_that_is_fed_and_what_vectors_depend_on():
    variants = [
        Document("a", "t", "x", {"n": 1}),
        Document("a2", "t", "x", {"n": 1}),
        Document("a", "u", "x", {"n": 1}),
        Document("a", "t", "y", {"n": 1}),
        Document("a", "t", "x", {"n": 2}),
        Document("a", "tx", "", {"n": 1}),
    ]
    found = {
        Digests(made, kept).of(document, document.metadata)
        for document in variants
        for made in ("one", "two")
        for kept in ("one", "two")
    }
    assert len(found) == 4 * len(variants)


@pytest.mark.parametrize("name", ["journal", "dead letters"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_one_line_and_leaves_the_file_whole(path, tmp_path, monkeypatch, name, error):
    failure = Failure("a", 400, "no"), Document("a", "t", "x")
    letters = DeadLetters(tmp_path / "dead", "put")
    letters.add([failure])
    before = (tmp_path / "dead").read_bytes()
    real = os.pwrite

    def refusing(descriptor, data, place):
        if len(data) < 30:
            raise OSError(error, os.strerror(error))
        return real(descriptor, data[:5], place)  # some of it is written before the disk is full

    with opened(path) as journal, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refusing)
        with pytest.raises(CollectionError, match=r"cannot be written .*--resume") as caught:
            journal.acknowledge([("c", "digest of c")]) if name == "journal" else letters.add([failure])
        assert "\n" not in str(caught.value)
    letters.close(complete=False)
    assert (tmp_path / "dead").read_bytes() == before
    with opened(path) as again:
        assert again.brought == 2 and not again.has("c", "digest of c")


def test_a_journal_is_of_one_feed_at_a_time(path):
    with opened(path), pytest.raises(CollectionError, match="in use by another run"):
        Journal(path, "target", resume=True)


def test_the_last_of_an_id_counts_and_a_hundred_thousand_need_little(tmp_path):
    builder = DigestTableBuilder()
    for number in range(100_000):
        builder.add(f"id {number % 70_000}", f"digest {number}")
    table = builder.table()
    assert len(table) == 70_000
    assert table.has("id 5", "digest 70005") and not table.has("id 5", "digest 5")
    assert table.has("id 69999", "digest 69999")


@pytest.mark.parametrize("ids", ["", "a", "ab", "aba", "abcabcaa", "zzzz"])
def test_last_places(ids):
    last, again = last_places(b"".join(short_hash(id_) for id_ in ids))
    assert last == {short_hash(id_): ids.rindex(id_) for id_ in ids if ids.count(id_) > 1}
    assert again == len(ids) - len(set(ids))


def test_dead_letters_hold_the_whole_document(tmp_path):
    letters = DeadLetters(tmp_path / "dead", "update")
    letters.add([(Failure("a", 400, "Vespa's words"), Document("a", "t", "x", {"n": [1]}))])
    letters.close(complete=True)
    assert json.loads((tmp_path / "dead").read_text().splitlines()[0]) == {"colbert-vespa": "dead letters", "format_version": 1}
    [letter] = read_letters(tmp_path / "dead")
    assert letter == {
        "id": "a", "status": 400, "message": "Vespa's words", "operation": "update",
        "document": {"id": "a", "title": "t", "text": "x", "metadata": {"n": [1]}},
    }  # fmt: skip
    DeadLetters(tmp_path / "dead", "update").close(complete=False)
    assert (tmp_path / "dead").exists()
    DeadLetters(tmp_path / "dead", "update").close(complete=True)
    assert not (tmp_path / "dead").exists()
