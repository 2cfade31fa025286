import gzip
import json

import pytest

from feeder.sources import MAX_LINE_BYTES, clean_text, open_sources, read_collection, spooled
from late_interaction.documents import Document
from late_interaction.errors import CollectionError


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def read(path):
    return [document for source in open_sources([str(path)]) for document in source]


def test_beir_and_flat_lines(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"_id": "1", "title": "T", "text": "x", "metadata": {"year": 1}},
        "",
        {"id": 2, "text": "y", "lang": "en", "title": None},
    )
    assert read(path) == [Document("1", "T", "x", {"year": 1}), Document("2", "", "y", {"lang": "en"})]


def test_gzip_and_folder(tmp_path):
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write('{"id": "a", "text": "x"}\n')
    assert [document.id for document in read(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nope", r"a\.jsonl:2: not JSON"),
        ("[1]", r"a\.jsonl:2: a JSON object"),
        ('{"text": "x"}', r"a\.jsonl:2: no id"),
        ('{"id": " ", "text": "x"}', r"a\.jsonl:2: no id"),
        ('{"id": "a", "text": 5}', r"a\.jsonl:2: text must be text"),
        ('{"id": "a", "metadata": []}', None),
        ('{"id": "a", "metadata": [1]}', r"a\.jsonl:2: metadata must be an object"),
        ('{"id": "a", "metadata": {"k": 1}, "k": 2}', r"a\.jsonl:2: 'k' stands both"),
        ('{"id": "a\\u0000"}', r"a\.jsonl:2: id .* control"),
        ('{"id": "' + "x" * 2000 + '"}', r"a\.jsonl:2: id longer"),
        ("[" * 100_000, r"a\.jsonl:2: not JSON"),
    ],
)
def test_broken_lines_are_named_by_file_and_line(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", {"id": "ok", "text": "x"}, line)
    if message is None:
        assert len(read(path)) == 2
        return
    with pytest.raises(CollectionError, match=message):
        read(path)


def test_invalid_utf8_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"id": "\xff"}\n')
    with pytest.raises(CollectionError, match=r"a\.jsonl:2: not UTF-8"):
        read(path)


def test_a_line_of_100_mb_is_refused_without_reading_it_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"id": "a", "text": "')
        file.truncate(MAX_LINE_BYTES + 100)
    with pytest.raises(CollectionError, match=r"a\.jsonl:1: line longer than 32 MiB"):
        read(path)


def test_a_truncated_gzip_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a"}\n' * 1000)[:-20])
    with pytest.raises(CollectionError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "a.txt"])
def test_wrong_paths(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CollectionError, match=name.split(".")[0]):
        read(tmp_path / name)


def test_text_that_vespa_refuses_becomes_blanks():
    assert clean_text("a\x00b\x0cc\td\ne\ufffe\U0001ffff\ud800") == "a b c\td\ne   "


def test_an_iterator_is_spooled_so_that_it_can_be_read_twice():
    source = spooled(iter([Document("a", "t", "x", {"n": 1}), Document("b")]))
    assert list(source) == list(source) == [Document("a", "t", "x", {"n": 1}), Document("b")]


def test_collection_with_both_kinds_of_qrels(tmp_path):
    write(tmp_path / "corpus.jsonl", {"id": "d1", "text": "x"})
    write(tmp_path / "queries.jsonl", {"id": "q1", "text": "what"})
    for text in ("query-id\tcorpus-id\tscore\nq1\td1\t2\n", "q1\t0\td1\t2\n"):
        (tmp_path / "qrels.tsv").write_text(text)
        collection = read_collection(tmp_path)
        assert collection.qrels == {"q1": {"d1": 2.0}}
        assert collection.queries[0].text == "what"
    (tmp_path / "qrels.tsv").write_text("q1\td1\t1\nq1 d1 1\n")
    with pytest.raises(CollectionError, match=r"qrels\.tsv:2"):
        read_collection(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    with pytest.raises(CollectionError, match=r"no qrels\.tsv"):
        read_collection(tmp_path)
