import pytest

from feeder.journal import Journal, content_hash
from late_interaction.documents import Document
from late_interaction.errors import CollectionError

A, B = Document("a", "t", "x", {"n": 1}), Document("b", "", "y")


def test_acknowledged_documents_are_there_after_a_kill(tmp_path):
    journal = Journal(tmp_path / "j", "target", resume=False)
    journal.acknowledge([A, B])
    again = Journal(tmp_path / "j", "target", resume=True)
    assert again.acknowledged == {"a": content_hash(A), "b": content_hash(B)}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_line_is_cut_off_and_the_journal_goes_on(tmp_path, cut):
    path = tmp_path / "j"
    journal = Journal(path, "target", resume=False)
    journal.acknowledge([A, B])
    journal.close(remove=False)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, "target", resume=True)
    assert set(again.acknowledged) <= {"a", "b"}
    assert "b" not in again.acknowledged
    again.acknowledge([B])
    assert "b" in Journal(path, "target", resume=True).acknowledged


def test_a_journal_of_another_feed_is_refused(tmp_path):
    Journal(tmp_path / "j", "one", resume=False).close(remove=False)
    with pytest.raises(CollectionError, match="another feed"):
        Journal(tmp_path / "j", "two", resume=True)


def test_damage_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, "target", resume=False)
    journal.acknowledge([A, B])
    journal.close(remove=False)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(CollectionError, match="j:2 is damaged"):
        Journal(path, "target", resume=True)


def test_without_resume_it_starts_anew(tmp_path):
    journal = Journal(tmp_path / "j", "target", resume=False)
    journal.acknowledge([A])
    assert Journal(tmp_path / "j", "target", resume=False).acknowledged == {}


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", "target", resume=False)


def test_the_hash_covers_everything_that_is_fed():
    variants = [A, Document("a2", "t", "x", {"n": 1}), Document("a", "u", "x", {"n": 1}), Document("a", "t", "y", {"n": 1}),
                Document("a", "t", "x", {"n": 2}), Document("a", "tx", "", {"n": 1})]  # fmt: skip
    assert len({content_hash(document) for document in variants}) == len(variants)
