import gzip
import io
import json

import pytest

from colbert_vespa.evaluation.collection import read_collection
from feeder.feeding.settings import read_feed_settings
from feeder.sources import ColumnMapping, SourceLimits, SourceSettings, open_sources, spooled
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, SettingsError, UsageError
from late_interaction.json_arrays import array_elements
from late_interaction.text import clean_text


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def read(path, settings=None):
    return [document for source in open_sources([str(path)], settings) for document in source]


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
        ("[1]", r"a\.jsonl:2: must be an object"),
        ('{"text": "x"}', r"a\.jsonl:2 has no id"),
        ('{"id": " ", "text": "x"}', r"a\.jsonl:2 has no id"),
        ('{"id": null, "text": "x"}', r"a\.jsonl:2 has no id(?!.*to use 'id')"),
        ('{"id": "a", "text": 5}', r"a\.jsonl:2: text must be text"),
        ('{"id": "a", "metadata": []}', None),
        ('{"id": "a", "metadata": [1]}', r"a\.jsonl:2: metadata must be an object"),
        ('{"id": "a", "metadata": {"k": 1}, "k": 2}', r"a\.jsonl:2: 'k' occurs both"),
        ('{"id": "a\\u0000"}', r"a\.jsonl:2: id .* control"),
        ('{"id": "' + "x" * 2000 + '"}', r"a\.jsonl:2: .*id .* longer"),
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
        file.truncate(100 << 20)
    with pytest.raises(CollectionError, match=r"a\.jsonl:1: .* 32 MiB"):
        read(path)


def test_a_truncated_gzip_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a"}\n' * 1000)[:-20])
    with pytest.raises(CollectionError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "folder", "a.exe"])
def test_wrong_paths(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.exe").write_text("x")
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
    (tmp_path / "qrels.tsv").write_text("q1\td1\t1\nq1 d1\n")
    with pytest.raises(CollectionError, match=r"qrels\.tsv:2"):
        read_collection(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    with pytest.raises(CollectionError, match=r"no qrels\.tsv"):
        read_collection(tmp_path)


def test_csv_and_tsv_have_types_by_column(tmp_path):
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"a{suffix}"
        rows = [["id", "text", "year", "score", "new", "code"], ["1", "one", "2020", "1", "true", "007"],
                ["2", "two", "", "2.5", "false", "8"]]  # fmt: skip
        path.write_text("\n".join(mark.join(row) for row in rows) + "\n")
        assert read(path) == [
            Document("1", "", "one", {"year": 2020, "score": 1.0, "new": True, "code": "007"}),
            Document("2", "", "two", {"year": None, "score": 2.5, "new": False, "code": "8"}),
        ]
    (tmp_path / "b.csv").write_text('id,text\n1,"a\nb, c"\n2\n')
    with pytest.raises(CollectionError, match=r"b\.csv:4: 1 cells, but the header has 2"):
        read(tmp_path / "b.csv")


def test_columns_are_mapped(tmp_path):
    path = write(tmp_path / "a.jsonl", {"url": "u", "head": "H", "abstract": "A", "body": "B", "lang": "en", "noise": 1})
    columns = ColumnMapping(
        id="url", title=("head",), text=("abstract", "body"), metadata=("lang",), names={"lang": "language"}
    )
    assert read(path, SourceSettings(columns)) == [Document("u", "H", "A\n\nB", {"language": "en"})]
    assert read(path, SourceSettings(ColumnMapping(id="@row")))[0].id == "a.jsonl:1"
    with pytest.raises(CollectionError, match=r"a\.jsonl:1 has no column 'key' for the id"):
        read(path, SourceSettings(ColumnMapping(id="key")))


def test_parquet_arrow_and_saved_data_sets(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    table = pa.table({"id": ["a", "b"], "text": ["x", "y"], "tags": [["t"], []], "year": [1, None]})
    wanted = [Document("a", "", "x", {"tags": ["t"], "year": 1}), Document("b", "", "y", {"tags": [], "year": None})]
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather")
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000.arrow"}]}')
    with pa.OSFile(str(folder / "data-00000.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for path in (tmp_path / "a.parquet", tmp_path / "a.feather", tmp_path / "set"):
        assert read(path) == wanted
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../a.parquet"}]}')
    with pytest.raises(CollectionError, match="file names"):
        read(tmp_path / "set")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(CollectionError, match=r"b\.parquet cannot be read"):
        read(tmp_path / "b.parquet")


def test_a_folder_of_pages(tmp_path):
    pytest.importorskip("lxml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("plain words")
    (tmp_path / "b.md").write_text("intro\n\n# The Heading\nbody\n")
    (tmp_path / "sub" / "c.html").write_text(
        "<html><head><title>T</title><style>x{}</style></head><body><h2>Part</h2><p>one <b>bold</b> word</p>"
        "<script>evil()</script><p>two</p></body></html>"
    )
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    assert read(tmp_path) == [
        Document("a.txt", "a", "plain words", {}),
        Document("b.md", "The Heading", "intro\n\n# The Heading\nbody\n", {}),
        Document("sub/c.html", "T", "## Part\none bold word\ntwo", {}),
    ]
    with pytest.raises(CollectionError, match=r"a\.txt is larger than 0 MiB"):
        read(tmp_path, SourceSettings(limits=SourceLimits(file_mb=0)))


def test_pdf(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(72, 72)
    writer.add_metadata({"/Title": "A scan"})
    with (tmp_path / "a.pdf").open("wb") as file:
        writer.write(file)
    assert read(tmp_path / "a.pdf") == [Document("a.pdf", "A scan", "", {})]
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 no more")
    with pytest.raises(CollectionError, match=r"b\.pdf cannot be read as a PDF"):
        read(tmp_path / "b.pdf")


def test_feed_json_of_vespa_itself(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"put": "id:ns:doc::a:1", "fields": {"title": "T", "text": "x", "year": 3}}]))
    assert read(path, SourceSettings(format="vespa")) == [Document("a:1", "T", "x", {"year": 3})]
    path.write_text(json.dumps([{"remove": "id:ns:doc::a"}]))
    with pytest.raises(CollectionError, match="'remove' cannot be fed"):
        read(path, SourceSettings(format="vespa"))
    with pytest.raises(UsageError, match="format 'xml' is unknown"):
        read(path, SourceSettings(format="xml"))


def test_one_array_of_objects(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": str(n), "text": "é" * 1000} for n in range(3000)]))
    assert [d.id for d in read(path)] == [str(n) for n in range(3000)]
    path.write_text('[{"id": "a"}, {"id": ')
    with pytest.raises(CollectionError, match="element 2 of the array"):
        read(path)
    for text in (
        '[{"id": "a"} {"id": "b"}]',
        '[{"id": "a"}, ]',
        '[{"id": "a"},, {"id": "b"}]',
        '[{"id": "a"}]]',
        '[{"id": "a"}] x',
    ):
        path.write_text(text)
        with pytest.raises(CollectionError, match="element 2 of the array|after the end"):
            read(path)
    path.write_text(" [ ] \n")
    assert read(path) == []


def test_numbers_of_an_array_are_not_cut_at_the_end_of_a_block(monkeypatch):
    monkeypatch.setattr("late_interaction.json_arrays.BLOCK", 3)
    assert list(array_elements(io.StringIO("[123456, -7.5, 8]").read)) == [123456, -7.5, 8]


def test_zstandard_and_files_that_unpack_to_far_too_much(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(b'{"id": "a", "text": "x"}\n'))
    assert [d.id for d in read(tmp_path / "a.jsonl.zst")] == ["a"]
    line = b'{"id": "a", "text": "' + b"x" * (1 << 20) + b'"}\n'
    for name, pack in (("b.jsonl.zst", zstandard.compress), ("b.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(line * 80))
        with pytest.raises(CollectionError, match="limits.unpacked"):
            read(tmp_path / name, SourceSettings(limits=SourceLimits(unpacked=1)))


def test_feed_settings(tmp_path):
    path = tmp_path / "feed.toml"
    path.write_text(
        'format = "csv"\n[columns]\nid = "url"\ntitle = "head"\ntext = ["a", "b"]\nnames = { lang = "language" }\n'
        '[passages]\nmethod = "sentences"\ntokens = 64\noverlap = 8\n[limits]\nline_mb = 1\n'
    )
    read_ = read_feed_settings(path)
    assert read_.source.format == "csv" and read_.source.limits == SourceLimits(line_mb=1)
    assert read_.source.columns == ColumnMapping("url", ("head",), ("a", "b"), None, {"lang": "language"})
    assert (read_.splitting.method, read_.splitting.tokens, read_.splitting.overlap) == ("sentences", 64, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[colums]\n", "setting colums: is unknown"),
        ("[columns]\nbody = 1\n", r"setting columns\.body: is unknown"),
        ("[columns]\nid = 1\n", r"columns\.id: must be str"),
        ("[columns]\ntext = [1]\n", r"columns\.text\[0\]: must be str"),
        ("[columns]\nmetadata = 'x'\n", r"columns\.metadata: must be a list"),
        ("[columns]\nnames = [1]\n", r"columns\.names: must be a table"),
        ("[limits]\nline_mb = -1\n", r"limits\.line_mb cannot be negative"),
        ("[limits]\nline_mb = true\n", r"limits\.line_mb: must be int"),
        ("columns = 1\n", "columns: must be a table"),
        ("format = 1\n", "format: must be str"),
        ("x = \n", "cannot be read"),
    ],
)
def test_feed_settings_that_are_wrong_are_named(tmp_path, text, message):
    path = tmp_path / "feed.toml"
    path.write_text(text)
    with pytest.raises((SettingsError, UsageError), match=message):
        read_feed_settings(path)
