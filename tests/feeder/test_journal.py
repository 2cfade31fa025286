import contextlib

import pytest

from feeder.journal import Journal, content_hash
from late_interaction.documents import Document
from late_interaction.errors import CollectionError


@contextlib.contextmanager
def opened(path, target="target", *, resume=True):
    """A journal that is closed, but not completed, at the end: as after a kill."""
    journal = Journal(path, target, resume=resume)
    try:
        yield journal
    finally:
        journal.close(remove=False)


A, B = Document("a", "t", "x", {"n": 1}), Document("b", "", "y")


@pytest.fixture
def path(tmp_path):
    """A journal that has acknowledged both documents."""
    with opened(tmp_path / "j", resume=False) as journal:
        journal.acknowledge([A, B])
    return tmp_path / "j"


def test_acknowledged_documents_are_there_after_a_kill(path):
    with opened(path) as again:
        assert again.acknowledged == {"a": content_hash(A), "b": content_hash(B)}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_line_is_cut_off_and_the_journal_goes_on(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with opened(path) as again:
        assert set(again.acknowledged) <= {"a", "b"}
        assert "b" not in again.acknowledged
        again.acknowledge([B])
    with opened(path) as again:
        assert "b" in again.acknowledged


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
        assert journal.acknowledged == {}


def test_a_complete_feed_leaves_no_journal(path):
    Journal(path, "target", resume=True).close(remove=True)
    assert not path.exists()


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", "target", resume=False)


def test_the_hash_covers_everything_that_is_fed():
    variants = [
        A,
        Document("a2", "t", "x", {"n": 1}),
        Document("a", "u", "x", {"n": 1}),
        Document("a", "t", "y", {"n": 1}),
        Document("a", "t", "x", {"n": 2}),
        Document("a", "tx", "", {"n": 1}),
    ]
    assert len({content_hash(document) for document in variants}) == len(variants)
