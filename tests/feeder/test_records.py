"""Odd CSV, JSON, Parquet: read as they mean, or refused by file and line; nothing rounded, nothing left out unsaid."""

import copy
import json
import re
import shlex
import threading

import pytest

from colbert_vespa.evaluation.collection import read_qrels
from feeder import FeedOptions, feed, open_sources
from feeder.feeding.dead_letters import DeadLetterSource
from feeder.feeding.settings import read_feed_settings
from feeder.sources.opening import open_id_lists
from feeder.sources.records import Cell, ColumnMapping, SourceSettings
from feeder.sources.source import FileSource
from feeder.sources.tables import read_csv
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, MetadataError, UsageError
from late_interaction.metadata import SchemaInference


def read(path, settings=None):
    return list(open_sources([str(path)], settings)[0])


def table(tmp_path, text, name="a.csv", settings=None):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, settings)


def column(tmp_path, *cells):
    rows = "".join(f"{number},x,{cell}\n" for number, cell in enumerate(cells))
    return [document.metadata["n"] for document in table(tmp_path, "id,text,n\n" + rows)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", str(2**63 - 1)], [1, 2**63 - 1]),
        (["1", str(-(2**63) + 1)], [1, -(2**63) + 1]),
        (["1", str(2**63)], ["1", str(2**63)]),
        (["1234567890123456789"], [1234567890123456789]),
        (["1234567890123456789", "0.5"], ["1234567890123456789", "0.5"]),
        (["0.5", str(2**53 + 1)], ["0.5", str(2**53 + 1)]),
        (["0.5", str(2**53)], [0.5, 2.0**53]),
        (["9007199254740993.0"], ["9007199254740993.0"]),
        (["12345678901234567890.5"], [12345678901234567890.5]),
        (["1e5", "2"], [1e5, 2.0]),
        (["1e300"], [1e300]),
        (["1e400"], ["1e400"]),
        (["1e-400", "0.0"], ["1e-400", "0.0"]),
        (["9" * 5000], ["9" * 5000]),
        (["-0", "0"], [0, 0]),
        (["-0.0", "0e5"], [0.0, 0.0]),
        (["007"], ["007"]),
        (["nan", "1"], ["nan", "1"]),
        (["true", "1"], ["true", "1"]),
        (["TRUE", "", "False"], [True, None, False]),
        (["", ""], [None, None]),
        (["\u0661"], ["\u0661"]),
        (["1_000"], ["1_000"]),
    ],
)
def test_numbers_of_a_column_are_kept_or_text(tmp_path, cells, values):
    found = column(tmp_path, *cells)
    assert found == values and [type(value) for value in found] == [type(value) for value in values]


def test_whole_numbers_beside_fractions_in_json_are_never_rounded(tmp_path, tiny_bundle):
    lines = [{"id": "a", "text": "x", "n": 2**53 + 1}, {"id": "b", "text": "y", "n": 0.5}]
    for order in (lines, lines[::-1], [{"id": "c", "text": "z", "n": [0.5, 2**53 + 1]}]):
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, order)))
        with pytest.raises(MetadataError, match="double"):
            feed(
                read(tmp_path / "a.jsonl"), FeedOptions(to=str(tmp_path / "index"), journal=tmp_path / "j", bundle=tiny_bundle)
            )
        assert not (tmp_path / "index").exists()
    assert SchemaInference.of([("a", {"n": 2**53 + 1}), ("b", {"n": 2**60})]).to_json() == {"n": "long"}


def test_blank_rows_blank_headers_and_columns_without_a_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeff,id , title, text\n0,a, t,x\n\n,,,\n 1, b,t,\r\n")
    source = open_sources([str(path)])[0]
    assert list(source) == [Document("a", " t", "x"), Document(" b", "t", "")]
    assert {(note.kind, note.count) for note in source.report.notes} == {("blank_rows", 2), ("unnamed_columns", 1)}


def test_cells_can_be_copied_and_documents_have_none(tmp_path):
    cell = copy.deepcopy(Cell("a", 1))
    assert (cell, cell.typed) == ("a", 1)
    (document,) = table(tmp_path, "id,title,text,n\n1,,,2\n")
    assert {type(part) for part in (document.id, document.title, document.text)} == {str}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv:1: expected a header"),
        ("\n", r"a\.csv:1: expected a header"),
        ("id,text,id \n", r"a\.csv:1: column 'id' occurs twice"),
        ("id;text\n1;x\n", r"""a\.csv:1: the header has one column, 'id;text', .* ';'; set delimiter = ';' in feed\.toml"""),
        ("id\ttext\n", r"separated by a tab"),
        ("id,text\n1,x\n2,x,y\n", r"a\.csv:3: 3 cells, but the header has 2"),
        ('id,text\n1,x\n2,"open\n3,x\n4,y\n', r"a\.csv:3: a quoted cell .* no closing quote"),
        ('id,text\n1,x\n2,"open\n3,"x"\n4,y\n', r"a\.csv:3: a quoted cell .* after its closing quote"),
        ('id,text\n1,"x"y\n', r"a\.csv:2: a quoted cell"),
        ("id,text\r1,x\r", r"a\.csv:1: .*carriage return"),
        (b"id,text\n1,\xff\n", r"a\.csv:2: not UTF-8"),
    ],
)
def test_broken_tables_are_named_by_file_and_line(tmp_path, text, message):
    with pytest.raises(CollectionError, match=message):
        table(tmp_path, text)


def test_quoted_cells(tmp_path):
    text = 'id,text,"n"\r\n"1","a ""b"", c\r\nd\u2028e",5\r\n2,f"g,"6"\r\n3,"",7'
    assert table(tmp_path, text) == [
        Document("1", "", 'a "b", c\r\nd\u2028e', {"n": 5}),
        Document("2", "", 'f"g', {"n": 6}),
        Document("3", "", "", {"n": 7}),
    ]


def test_blanks_after_the_delimiter_of_a_header_are_those_of_cells_too(tmp_path):
    assert table(tmp_path, 'id, text, n\n1, "a, b", 5\n2, c, 6\n') == [
        Document("1", "", "a, b", {"n": 5}), Document("2", "", "c", {"n": 6}),
    ]  # fmt: skip


def test_a_delimiter_can_be_set(tmp_path):
    (tmp_path / "feed.toml").write_text('delimiter = ";"\n')
    settings = read_feed_settings(tmp_path / "feed.toml").source
    assert table(tmp_path, "id;text\n1;a, b\n", settings=settings) == [Document("1", "", "a, b")]
    assert table(tmp_path, "id;text\n1;a\n", "folder.csv", settings) == [Document("1", "", "a")]
    for delimiter in (";;", '"', "\n"):
        with pytest.raises(UsageError, match="delimiter must be one character"):
            SourceSettings(delimiter=delimiter)


def test_the_limit_of_cells_is_not_that_of_the_process(tmp_path):
    import csv

    before = csv.field_size_limit()
    text = "x" * (before + 1)
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.extend(table(tmp_path, f"id,text\n{n},{text}\n", f"{n}.csv"))) for n in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(document.text) for document in found] == [len(text)] * 2 and csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "text": "x", "text": "y"}', "'text' occurs twice"),
        ('{"id": "a", "m": {"k": 1, "k": 2}}', "'k' occurs twice"),
        ('{"id": "a", "n": NaN}', "NaN is not JSON"),
        ('{"id": "a", "n": -Infinity}', "-Infinity is not JSON"),
        ('{"id": "a", "n": 1e400}', "is inf"),
        ('{"id": "a", "n": ' + "9" * 5000 + "}", "not JSON"),
        ('{"id": 1.0}', "id must be text or a whole number, got float"),
        ('{"id": true}', "got bool"),
        ('{"id": ["a"]}', "got list"),
        ('{"id": "a", "text": true}', "text must be text, got bool"),
        ('{"id": "a"} {"id": "b"}', "not JSON"),
    ],
)
def test_odd_json_is_named_by_line(tmp_path, line, message):
    for name, text in (("a.jsonl", '{"id": "ok"}\n' + line), ("a.json", f'[{{"id": "ok"}},\n{line}]')):
        (tmp_path / name).write_text(text)
        with pytest.raises(CollectionError, match=message if name == "a.jsonl" else "a.json"):
            read(tmp_path / name)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c", "\u00a0", "\u3000"])
def test_ids_of_judgements_are_not_cut(tmp_path, separator):
    query, document = f"q{separator}1", f"d{separator}2"
    for line in (f"{query}\t{document}\t1", f"{query}\t0\t{document}\t1", f"{query} 0  {document} 1"):
        (tmp_path / "qrels.tsv").write_bytes(f"\ufeff{line}\r\n".encode())
        assert read_qrels(tmp_path / "qrels.tsv") == {query: {document: 1.0}}


@pytest.mark.parametrize("relevance", ["nan", "inf", "-inf"])
def test_a_relevance_is_a_finite_number(tmp_path, relevance):
    (tmp_path / "qrels.tsv").write_text(f"q\td\t1\nq\te\t{relevance}\n")
    with pytest.raises(CollectionError, match=r"qrels\.tsv:2"):
        read_qrels(tmp_path / "qrels.tsv")


@pytest.mark.parametrize("column", ["content", "page_content", "Text", "TEXT ", "body"])
def test_a_feed_without_a_text_column_is_refused_and_told_which_it_may_be(tmp_path, tiny_bundle, column):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "title": "t", column: "words"}))
    with pytest.raises(CollectionError, match=re.escape(shlex.quote(f"text={column}"))):
        feed(
            open_sources([str(tmp_path / "a.jsonl")])[0],
            FeedOptions(to=str(tmp_path / "i"), journal=tmp_path / "j", bundle=tiny_bundle),
        )
    assert not (tmp_path / "i").exists()


def test_misspelt_and_unused_columns_are_told_with_counts(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "Head": "t", "body": "x", "more": 1, "metadata": {"year": 1}}))
    columns = ColumnMapping(title=("head",), text=("body", "abstrct"), metadata=("yaer",), names={"lnag": "l"})
    source = open_sources([str(tmp_path / "a.jsonl")], SourceSettings(columns))[0]
    assert [document.text for document in source] == ["x"]
    notes = {note.kind: note for note in source.report.notes}
    assert notes["missing_columns"].count == 4 and "head (there is Head)" in notes["missing_columns"].examples
    assert notes["unused_columns"].examples == ("Head", "more", "year")


def test_ordinary_lines_are_not_dead_letters(tmp_path):
    for line in ('{"id": "a", "text": "x"}', '{"id": "a", "operation": "put", "document": {"id": "a"}}'):
        (tmp_path / "a.jsonl").write_text(line + "\n")
        with pytest.raises(CollectionError, match="not dead letters|not a dead letter"):
            list(DeadLetterSource(tmp_path / "a.jsonl"))


def test_odd_values_of_arrow(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    ids = pa.array(["a", "b"])
    broken = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    far = pa.array([0, 2**62], pa.timestamp("us"))
    for values in (broken, far):
        parquet.write_table(pa.table({"id": ids, "text": ["x", "y"], "v": values}), tmp_path / "a.parquet")
        with pytest.raises(CollectionError, match=r"a\.parquet:2: a value cannot be read"):
            read(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"id": ids, "v": pa.array([b"x", b"y"])}), tmp_path / "a.parquet")
    with pytest.raises(CollectionError, match=r"a\.parquet:1: .*'v' is bytes"):
        read(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"id": pa.array([1, 2]), "d": pa.array([1, 2], pa.date32())}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet") == [
        Document("1", metadata={"d": "1970-01-02"}),
        Document("2", metadata={"d": "1970-01-03"}),
    ]
    twice = pa.Table.from_arrays([ids, ids, ids], names=["id", "v", "v"])
    parquet.write_table(twice, tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match="'v' occurs twice"):
        read(tmp_path / "c.parquet")


def test_rows_after_a_broken_one_and_before_a_quote_without_end_are_fed(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("id,text,n\n1,one,1\n2,two,2,3\n3,three\n4,four,4\n")
    source = FileSource(file, "x.csv", read_csv, SourceSettings(skip_bad=True))
    assert [(d.id, d.metadata) for d in source] == [("1", {"n": 1}), ("4", {"n": 4})]
    assert [(note.message, note.count) for note in source.report.notes if note.kind == "skipped"] == [("records skipped", 2)]
    file.write_text('id,text\n1,one\n2,"two\n3,three\n')
    assert [d.id for d in source] == ["1"]


def test_a_column_like_id_is_named(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(" ID,text\n1,one\n")
    with pytest.raises(CollectionError, match=r"x\.csv:2 .*--column id=ID$"):
        list(FileSource(file, "x.csv", read_csv))


def test_a_deletion_says_nothing_of_columns(tmp_path):
    (tmp_path / "ids.txt").write_text("a\nb\n")
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "one", "year": 1}\n')
    for source in open_id_lists([str(tmp_path / "ids.txt"), str(tmp_path / "docs.jsonl")]):
        assert list(source)
        assert source.report.notes == ()


def test_standard_input_that_is_closed_is_told(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CollectionError, match="standard input is closed"):
        open_sources(["-"])


@pytest.mark.parametrize("given", [[0.5, 1], [[0.5, 1], [1, 0]]])
def test_a_dense_vector_without_a_name_is_that_of_the_model_dense(tmp_path, given):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": "a", "text": "one", "dense": given, "year": 1999}) + "\n")
    (document,) = read(file)
    assert (list(document.dense), dict(document.metadata)) == (["dense"], {"year": 1999})
    assert document.dense["dense"].tolist() == given
    (document,) = read(file, SourceSettings(columns=ColumnMapping(dense={"small": "dense"})))
    assert list(document.dense) == ["small"]
    if given[0] == 0.5:
        (document,) = read(file, SourceSettings(columns=ColumnMapping(metadata=("dense",))))
        assert (document.dense, list(document.metadata["dense"])) == ({}, given)


@pytest.mark.parametrize("given", [["thick", "heavy"], "thick", 7, True, [True]])
def test_a_column_dense_of_something_else_is_metadata(tmp_path, given):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": "a", "text": "one", "dense": given}) + "\n")
    try:
        (document,) = read(file)
    except CollectionError:
        assert given == [True]  # lists of metadata hold texts or numbers
    else:
        assert not document.dense and document.metadata["dense"] == given


def test_a_dense_vector_that_is_null_is_left_out(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(
        '{"id": "a", "text": "one", "dense": {"x": null, "y": [1.0]}}\n{"id": "b", "text": "two", "dense": {"x": null}}\n'
    )
    assert [list(document.dense) for document in read(file)] == [["y"], []]
