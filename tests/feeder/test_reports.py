"""What a feed says about what it read otherwise than expected, or not at all."""

import json

import pytest

from feeder import FeedOptions, start_feed
from feeder.sources import FileSource, Note, SourceReport, SourceSettings, open_sources
from late_interaction.errors import CollectionError


@pytest.fixture
def go(tiny_bundle, tmp_path):
    def go(*sources, settings=SourceSettings(), **options):
        options = {"bundle": tiny_bundle, "journal": tmp_path / "j", "to": str(tmp_path / "index")} | options
        with start_feed(open_sources([str(source) for source in sources], settings), FeedOptions(**options)) as run:
            return run.go()

    return go


def test_notes_of_one_kind_become_one_with_the_first_examples():
    report = SourceReport(Note("left_out", "files left out", 1, (f"{n}.x",)) for n in range(7))
    report.add(Note("other", "things seen", 2000))
    assert [str(note) for note in report.notes] == ["7 files left out: 0.x, 1.x, 2.x, 3.x, 4.x, ...", "2,000 things seen"]


def test_a_reader_may_yield_notes_and_every_reading_begins_anew(tmp_path):
    def read(path, name, limits):
        yield 1, Note("left_out", "files left out", 1, ("a.x",))
        yield 2, {"id": "1", "text": "x"}

    source = FileSource(tmp_path, "source", read)
    assert [d.id for d in source] == [d.id for d in source] == ["1"]
    assert source.report.notes == (Note("left_out", "files left out", 1, ("a.x",)),)


@pytest.mark.parametrize("dry_run", [False, True])
def test_texts_that_are_empty_are_told(go, tmp_path, dry_run):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "title": "t", "text": "x" * (n > 6)}) + "\n" for n in range(9)))
    summary = go(path, dry_run=dry_run)
    assert [str(n) for n in summary.notes] == ["7 documents have only a title and no text: 0, 1, 2, 3, 4, ..."]
    assert json.loads(json.dumps(summary.to_json()))["notes"][0]["count"] == 7
    path.write_text('{"id": "1", "title": "t", "text": ""}\n{"id": "2"}\n')
    notes = go(path, to=str(tmp_path / "other")).notes
    assert [n.message for n in notes] == ["documents (all of them) have only a title and no text"]
    path.write_text('{"id": "1", "title": "t", "content": "x"}\n{"id": "2"}\n')
    with pytest.raises(CollectionError, match="no document has text: 2 records without a text column"):
        go(path, to=str(tmp_path / "other"))
