"""Folders and files of pages: what is read whole, what is told of the rest, whose ids they have."""

import gzip
import io
import os
import socket
import subprocess
from pathlib import Path

import pytest

from feeder.sources import ColumnMapping, SourceSettings, open_sources
from feeder.sources.charset import decode_html, decode_text
from feeder.sources.front_matter import split_front_matter
from feeder.sources.html_text import html_text
from feeder.sources.pages import PAGES
from late_interaction.documents import Document
from late_interaction.errors import CollectionError


def read(*sources, **settings):
    return [d for source in open_sources([str(s) for s in sources], SourceSettings(**settings)) for d in source]


def noted(source, **settings):
    """Documents, and notes by their text."""
    (opened,) = open_sources([str(source)], SourceSettings(**settings))
    documents = list(opened)
    return documents, [str(note).replace(f"{source}/", "") for note in opened.report.notes]


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def pdf(*pages, title=""):
    pypdf = pytest.importorskip("pypdf")
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    for text in pages:
        page = writer.add_blank_page(200, 200)
        font = DictionaryObject({
            NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        })  # fmt: skip
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F"): font})})
        content = DecodedStreamObject()
        content.set_data(f"BT /F 12 Tf 10 100 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(content)
    if title:
        writer.add_metadata({"/Title": title})
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


# -- HTML whole --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [300, 3000, 100_000])
def test_deep_html_is_read_whole(depth):
    for open_, close in (("<div>", "</div>"), ("<b>", ""), ("<ul><li>", ""), ("<span>", "</span>")):
        title, text = html_text(f"<title>T</title><p>head{open_ * depth}middle{close * depth}<p>tail", "a.html")
        assert (title, text) == ("T", "headmiddle\ntail" if open_ in ("<b>", "<span>") else "head\nmiddle\ntail")


@pytest.mark.parametrize(
    "page",
    [
        "<p>head<a href='" + "z" * 11_000_000 + "'>middle</a><p>tail",
        "<p>head<!--" + "z" * 11_000_000 + "-->middle<p>tail",
        "<p>head middle" + " z" * 6_000_000 + "<p>tail",
        "<p>head<" + "z" * 60_000 + ">middle<p>tail",
        "<p " + " ".join(f"a{n}=1" for n in range(50_000)) + ">head middle<p>tail",
        "<p>head &" + "a" * 100_000 + "; middle<p>tail",
    ],
    ids=["attribute", "comment", "text", "name", "attributes", "entity"],
)
def test_long_parts_of_html_are_read_whole(page):
    _, text = html_text(page, "a.html")
    assert all(word in text for word in ("head", "middle", "tail")) and text.endswith("tail")


def test_a_parser_that_stops_is_an_error(monkeypatch):
    etree = pytest.importorskip("lxml.etree")
    limited = etree.HTMLParser
    monkeypatch.setattr(etree, "HTMLParser", lambda **options: limited(**options | {"huge_tree": False}))
    with pytest.raises(CollectionError, match=r"a\.html: the HTML parser stopped at line 1: .*limit"):
        html_text("<p>head<!--" + "z" * 11_000_000 + "-->middle<p>tail", "a.html")


def test_nul_and_control_characters_do_not_end_a_page(tmp_path):
    write(tmp_path, a_html=b"<title>T\0t</title><p>head\0 \x01\x0b\x1b[31m middle<p>tail")
    (document,) = read(tmp_path)
    assert document == Document("a.html", "Tt", "head [31m middle\ntail")


def test_hidden_parts_of_html():
    page = (
        "<html><head><title>T</title><style>x{}</style></head><body><nav><ul><li>menu</nav><svg><title>S</title></svg><h2>Part</h2>"
        "<p>one <b>bold</b> word<script>evil()</script><p>two<br>three<template><p>no</template></body></html><p>late"
    )
    assert html_text(page, "a") == ("T", "## Part\none bold word\ntwo\nthree\nlate")


# -- encodings ---------------------------------------------------------------------------------------------------------------

WORDS = "héllo wörld"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbf<meta charset=latin1>" + WORDS.encode(), WORDS),
        (b"\xff\xfe" + f"<p>{WORDS}".encode("utf-16-le"), WORDS),
        (b"\xfe\xff" + f"<p>{WORDS}".encode("utf-16-be"), WORDS),
        (f'<?xml version="1.0"?><p>{WORDS}'.encode("utf-16-le"), WORDS),
        (f'<?xml version="1.0" encoding="iso-8859-2"?><p>{"łódź"}'.encode("iso-8859-2"), "łódź"),
        (f"<?xml version='1.0' encoding = 'windows-1251' ?><p>{'слово'}".encode("cp1251"), "слово"),
        (f'<?xml version="1.0" encoding="koi8-r"?><meta charset="cp1251"><p>{"слово"}'.encode("cp1251"), "слово"),
        (f"<p>{WORDS}".encode(), WORDS),
        (f"<p>{WORDS} “quoted” €".encode("cp1252"), f"{WORDS} “quoted” €"),
        (f"<meta charset=iso-8859-1><p>{WORDS} “quoted” €".encode("cp1252"), f"{WORDS} “quoted” €"),
        (f"<meta charset='us-ascii'><p>{WORDS}".encode("cp1252"), WORDS),
        (f"<META CHARSET = SHIFT_JIS ><p>{'日本語①'}".encode("cp932"), "日本語①"),
        (f"<meta charset=x-sjis><p>{'日本語'}".encode("cp932"), "日本語"),
        (f"<meta charset=gb2312><p>{'联通镕'}".encode("gb18030"), "联通镕"),
        (f"<meta charset=euc-kr><p>{'한국어 똠'}".encode("cp949"), "한국어 똠"),
        (f"<meta charset=big5><p>{'繁體中文'}".encode("big5hkscs"), "繁體中文"),
        (f"<meta charset=iso-8859-9><p>{'İstanbul €'}".encode("cp1254"), "İstanbul €"),
        (f"<meta charset=tis-620><p>{'ไทย'}".encode("cp874"), "ไทย"),
        (f"<meta charset=iso-2022-jp><p>{'日本語'}".encode("iso2022_jp"), "日本語"),
        (f"<p>{'日本語'}".encode("iso2022_jp"), "日本語"),
        (f"<meta http-equiv=Content-Type content='text/html; charset=koi8-r'><p>{'слово'}".encode("koi8-r"), "слово"),
        (f"<meta content='text/html;charset=\"koi8-r\"' http-equiv='content-type'/><p>{'слово'}".encode("koi8-r"), "слово"),
        (f"<!-- <meta charset=koi8-r> --><meta charset=cp1251><p>{'слово'}".encode("cp1251"), "слово"),
        (f"<meta name=x content='charset=koi8-r'><meta charset=cp1251><p>{'слово'}".encode("cp1251"), "слово"),
        (f"<script>{'x' * 5000}</script><meta charset=cp1251><p>{'слово'}".encode("cp1251"), "слово"),
        (f"<meta charset=utf-16><p>{WORDS}".encode(), WORDS),
        (f"<meta charset=latin1><p>{WORDS}".encode(), WORDS),  # converted, but for what it says of itself
        (b"<meta charset=utf-7><p>+AGE- b", "+AGE- b"),
        (b"<meta charset=rot13><p>uryyb", "uryyb"),
        (b"<meta charset=unicode_escape><p>\\u0041", "\\u0041"),
        (f"<meta charset=nonsense><p>{WORDS}".encode("cp1252"), WORDS),
    ],
)  # fmt: skip
def test_html_encodings_are_those_of_browsers(data, text):
    decoded, _ = decode_html(data, "a.html")
    assert html_text(decoded, "a.html")[1].replace("x" * 5000, "").strip() == text


@pytest.mark.parametrize("label", ["iso-2022-kr", "hz-gb-2312", "ISO-2022-CN"])
def test_encodings_that_browsers_refuse(label):
    with pytest.raises(CollectionError, match=rf"a\.html is in {label.lower()}, which browsers do not support"):
        decode_html(f"<meta charset={label}>x".encode(), "a.html")


def test_guesses_are_noted_and_what_is_not_text_is_refused(tmp_path):
    write(tmp_path, a_html="caf\xe9".encode("latin1"), b_html=b"<meta charset=utf-8>caf\xe9", c_html=b"<meta charset=klingon>x")
    documents, notes = noted(tmp_path)
    assert [d.text for d in documents] == ["café", "caf\ufffd", "x"]
    assert notes == [
        "1 pages in no declared encoding, read as windows-1252: a.html",
        "1 pages with bytes that are not utf-8, replaced by \ufffd: b.html",
        "1 pages with an encoding that does not exist: c.html (klingon)",
    ]
    with pytest.raises(CollectionError, match=r"a\.html is not HTML"):
        decode_html(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.html")


def test_plain_text_is_utf_8_or_says_so(tmp_path):
    assert decode_text(b"\xff\xfe" + WORDS.encode("utf-16-le"), "a") == WORDS == decode_text(WORDS.encode("utf-8-sig"), "a")
    assert decode_text("日本語".encode("iso2022_jp"), "a") == "日本語"
    for data in (b"caf\xe9", b"h\0e\0l\0l\0o\0", "한국어".encode("iso2022_kr")):
        with pytest.raises(CollectionError, match="a is not UTF-8|a is in an unsupported ISO 2022 encoding"):
            decode_text(data, "a")


def test_a_hostile_prescan_takes_no_time():
    for part in (b"<", b"<!--", b"<a ", b"<meta ", b"a='", b'a="', b"<?", b"</", b"<meta content=charset", b"=", b" "):
        decode_html(b"<meta http-equiv=content-type " + part * (30_000_000 // len(part)), "a.html")
    decode_html(b"<?xml " + b"encoding " * 3_000_000, "a.html")


# -- front matter ------------------------------------------------------------------------------------------------------------


def test_front_matter_is_title_and_metadata(tmp_path):
    write(
        tmp_path,
        a_md='---\ntitle: "The Title"\nyear: 2024\ndate: 2024-05-06\ntags: [x, y]\ndraft: false\nauthor: {name: A}\n'
        "empty:\n---\n# H\nbody\n",
        b_md="+++\ntitle = 'B'\nyear = 2023\ndate = 2024-05-06T07:08:09Z\n+++\nbody",
        c_md="---\r\nyear: 1\r\n...\r\n# C\r\n",
    )
    documents, notes = noted(tmp_path)
    assert documents == [
        Document("a.md", "The Title", "# H\nbody\n", {"year": 2024, "date": "2024-05-06", "tags": ["x", "y"], "draft": False}),
        Document("b.md", "B", "body", {"year": 2023, "date": "2024-05-06T07:08:09+00:00"}),
        Document("c.md", "C", "# C\r\n", {"year": 1}),
    ]
    assert notes == ["1 front matter fields that cannot be metadata: a.md (author)"]
    picked = read(tmp_path, columns=ColumnMapping(metadata=("year",)))
    assert [d.metadata for d in picked] == [{"year": 2024}, {"year": 2023}, {"year": 1}]


def test_a_field_of_front_matter_has_one_type_in_a_folder(tmp_path):
    write(
        tmp_path,
        a_md="---\nversion: 1\ntags: one\nrank: 1\nflag: true\nflags: [true]\n---\na",
        b_md="---\nversion: 1.0.1\ntags: [two, 3]\nrank: 1.5\nflag: maybe\n---\nb",
    )
    assert [d.metadata for d in read(tmp_path)] == [
        {"version": "1", "tags": ["one"], "rank": 1, "flag": "true", "flags": ["true"]},
        {"version": "1.0.1", "tags": ["two", "3"], "rank": 1.5, "flag": "maybe"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "---\nno end",
        "---\n- a list\n---\nx",
        "---\na: [\n---\nx",
        "---\nplain words\n---\nx",
        "----\na: 1\n---\nx",
        " ---\na: 1\n---\n",
        "---\na: &a [x]\nb: *a\n---\nx",
        "---\na: !!python/object/apply:os.system [ls]\n---\nx",
        "---\n" + "[" * 60_000 + "\n---\nx",
        "+++\na = \n+++\nx",
        "---\n" + "a: 1\n" * 100_000 + "---\nx",
    ],
    ids=range(11),
)
def test_what_is_not_front_matter_stays_text(text):
    assert split_front_matter(text) == ({}, text)


def test_the_first_heading_is_the_title():
    title = lambda text: PAGES[".md"](text.encode(), "a.md", None).title  # noqa: E731
    assert title("intro\n\n# The Heading ##\nbody") == "The Heading" and title("# C#\n") == "C#"
    assert title("```sh\n# comment\n```\n## Real\n") == "Real" and title("#no\n#\n# ##\n   ### x \t \n") == "x"
    assert title("# a" + " " * 1_000_000 + "b\n") == "a" + " " * 1_000_000 + "b"
    assert title("# " + " " * 1_000_000 + "\n# x") == "x" and title("# " + "# " * 500_000 + "x\n").endswith("# x")


# -- compressed pages, empty pages -------------------------------------------------------------------------------------------


def test_compressed_files_are_read_and_have_ids_of_their_own(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    table = arrow.table({"id": ["p"], "text": ["in parquet"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    arrow.feather.write_feather(table, str(tmp_path / "t.feather")) if hasattr(arrow, "feather") else None
    pages = {"x.txt": b"plain", "x.md": b"# H\nbody", "x.html": b"<title>T</title><p>body", "x.pdf": pdf("in pdf")}
    for name, data in pages.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress(data))
        plain = read(tmp_path / name)[0]
        for packed in (f"{name}.gz", f"{name}.zst"):
            assert read(tmp_path / packed) == [Document(packed, plain.title, plain.text)]
    for name in ("t.parquet.gz", "t.parquet.zst"):
        pack = gzip.compress if name.endswith("gz") else zstandard.compress
        (tmp_path / name).write_bytes(pack((tmp_path / "t.parquet").read_bytes()))
        assert read(tmp_path / name) == [Document("p", "", "in parquet")]
    ids = [d.id for d in read(tmp_path)]
    assert len(ids) == 12 + 3 and len(set(ids)) == 13
    (tmp_path / "bad.txt.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(CollectionError, match=r"bad\.txt\.gz cannot be read"):
        read(tmp_path / "bad.txt.gz")


def test_pages_without_text_are_not_found_by_their_names(tmp_path):
    write(tmp_path, a_txt="", b_md=" \n\t", c_html="<script>x</script>", d_pdf=pdf("", ""), e_pdf=pdf("", title="Title"))
    write(tmp_path, f_pdf=pdf("words", "", ""), g_txt="words")
    documents, notes = noted(tmp_path)
    assert [(d.id, d.title) for d in documents if not d.blank] == [("e.pdf", "Title"), ("f.pdf", "f"), ("g.txt", "g")]
    assert notes == [
        "2 empty files: a.txt, b.md",
        "1 HTML files without text: c.html",
        "2 PDF files without text (scans?): d.pdf, e.pdf",
        "1 PDF files with pages that have no text: f.pdf (2 of 3 pages)",
    ]


def test_a_damaged_pdf_is_an_error_or_noted(tmp_path):
    whole = pdf("some words", "more words")
    for cut in range(len(whole) - 1, 0, -40):
        (tmp_path / "a.pdf").write_bytes(whole[:cut])
        try:
            (document,), notes = noted(tmp_path / "a.pdf")
        except CollectionError as error:
            assert "a.pdf" in str(error)
        else:
            assert "more words" in document.text or notes
    (tmp_path / "a.pdf").write_bytes(whole.replace(b"Tj", b"T("))
    _, notes = noted(tmp_path / "a.pdf")
    assert notes


# -- folders -----------------------------------------------------------------------------------------------------------------


def test_a_folder_takes_what_can_be_taken_and_names_the_rest(tmp_path, monkeypatch):
    write(
        tmp_path, a_jsonl='{"id": "j", "text": "x"}\n', b_csv="id,text\nc,x\n", sub__c_txt="words", d_docx="?", e_xlsx="?",
        package_json='{"name": "x"}', tsconfig_json="{ // comment\n}", list_json='["a"]', f_csv="name,size\nx,1\n",
    )  # fmt: skip
    (tmp_path / "Makefile").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "fifo.txt")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        server.bind("socket.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).write_text('{"id": "own", "text": "x"}')
    (tmp_path / "a\x1bb.txt").write_text("x")
    documents, notes = noted(tmp_path)
    assert [d.id for d in documents] == ["j", "c", "own", "sub/c.txt"]
    assert set(notes) == {
        "1 hidden files and folders left out: .git",
        "3 files left out, of no known kind: Makefile, d.docx, e.xlsx",
        "2 files left out, whose names cannot be ids: a\\x1bb.txt, caf\\udce9.txt",
        "2 files left out, whose first record has no id: f.csv, package.json",
        "2 JSON files left out, that do not hold records: list.json, tsconfig.json",
        "2 pipes, sockets and devices left out: fifo.txt, socket.txt",
        "1 links left out: link.txt",
    }


@pytest.mark.parametrize("name", ["a_jsonl", "a_csv", "a_json"])
def test_a_folder_of_records_alone(tmp_path, name):
    content = {"a_jsonl": '{"id": "1", "text": "x"}', "a_csv": "id,text\n1,x\n", "a_json": '[{"id": "1", "text": "x"}]'}[name]
    assert read(write(tmp_path, **{name: content})) == [Document("1", "", "x")]
    write(tmp_path, **{name: content.replace("id", "key")})
    with pytest.raises(CollectionError, match="has no file that can be read"):
        read(tmp_path)
    assert [d.id for d in read(tmp_path, columns=ColumnMapping("key"))] == ["1"]
    assert len(read(tmp_path, columns=ColumnMapping("@row"))) == 1


def test_a_state_json_alone_is_not_a_data_set(tmp_path):
    write(tmp_path, a_md="words", state_json='{"window": [1, 2]}', dataset__dict_json="[]")
    assert [d.id for d in read(tmp_path)] == ["a.md"]
    write(tmp_path, state_json="{")
    assert [d.id for d in read(tmp_path)] == ["a.md"]


def test_bad_files_stop_a_folder_unless_they_may_be_skipped(tmp_path):
    write(
        tmp_path,
        a_txt="words",
        b_txt=b"caf\xe9",
        c_pdf=b"%PDF-1.4 no",
        d_jsonl='{"id": "1", "text": "x"}\n{\n{"id": "5"}',
        e_md="words",
    )
    write(tmp_path, f_jsonl='{"id": "2", "text": "x"}\n{"id": ""}\n{"id": "3", "text": 4}\n{"id": "4", "text": "x"}\n')
    with pytest.raises(CollectionError, match=r"b\.txt is not UTF-8.*--skip-bad"):
        read(tmp_path)
    documents, notes = noted(tmp_path, skip_bad=True)
    assert [d.id for d in documents] == ["a.txt", "1", "5", "e.md", "2", "4"]
    assert [note.partition(":")[0] for note in notes] == [
        "2 files skipped from where they cannot be read",
        "3 records skipped",
    ]
    assert (
        all(name in notes[0] for name in ("b.txt is not UTF-8", "c.pdf cannot be read as a PDF"))
        and "d.jsonl:2: not JSON" in notes[1]
    )
    assert [d.id for d in read(tmp_path / "d.jsonl", skip_bad=True)] == ["1", "5"]


def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    for path in (tmp_path / "a.jsonl", "/dev/null"):
        with pytest.raises(CollectionError, match="is a pipe or a device"):
            read(path)
    for path in ("", "a\0b", "x" * 5000):
        with pytest.raises(CollectionError):
            read(path)


def test_a_very_deep_folder(tmp_path, monkeypatch):
    write(tmp_path, a_txt="words")
    monkeypatch.chdir(tmp_path)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.txt").write_text("x")
        documents, (note,) = noted(tmp_path)
        assert [d.id for d in documents] == ["a.txt"] and note.startswith("1 files left out, whose names cannot be ids: d/d/d/")
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil.rmtree cannot


def test_a_collection_names_what_is_beside_it(tmp_path):
    write(tmp_path, corpus_jsonl='{"_id": "1", "text": "x"}', queries_jsonl="", qrels__test_tsv="", README_md="x", extra_pdf="")
    documents, notes = noted(tmp_path)
    assert [d.id for d in documents] == ["1"]
    assert notes == ["2 other files skipped beside corpus.jsonl: README.md, extra.pdf"]


# -- ids ---------------------------------------------------------------------------------------------------------------------


def test_pages_of_several_sources_have_ids_below_their_common_parent(tmp_path, monkeypatch):
    write(tmp_path, a__README_md="# A", b__README_md="# B", b__sub__x_txt="x", c__README_md="# C")
    a, b = tmp_path / "a", tmp_path / "b"
    assert [d.id for d in read(a)] == ["README.md"]
    assert [d.id for d in read(a, b)] == ["a/README.md", "b/README.md", "b/sub/x.txt"]
    assert [d.id for d in read(a / "README.md", b / "README.md")] == ["a/README.md", "b/README.md"]
    assert [d.id for d in read(a, b / "sub", tmp_path / "c/README.md")] == ["a/README.md", "b/sub/x.txt", "c/README.md"]
    assert [d.id for d in read(b, b / "sub/x.txt")] == ["b/README.md", "b/sub/x.txt", "b/sub/x.txt"]
    write(tmp_path, d_jsonl='{"id": "1"}')
    assert [d.id for d in read(a, tmp_path / "d.jsonl")] == ["README.md", "1"]
    monkeypatch.chdir(a)
    assert [d.id for d in read(".", "../b/README.md")] == ["a/README.md", "b/README.md"] and read(".")[0].id == "README.md"


def test_rows_of_several_sources_have_ids_of_their_own(tmp_path):
    write(tmp_path, a__x_csv="text\nx\n", b__x_csv="text\ny\n", b__y__x_csv="text\nz\n")
    row = ColumnMapping("@row")
    assert [d.id for d in read(tmp_path / "a/x.csv", columns=row)] == ["x.csv:2"]
    assert [d.id for d in read(tmp_path / "a/x.csv", tmp_path / "b/x.csv", columns=row)] == ["a/x.csv:2", "b/x.csv:2"]
    assert [d.id for d in read(tmp_path / "b", columns=row)] == ["b:x.csv:2", "b:y/x.csv:2"]
    for name in "ac":
        write(tmp_path, **{f"{name}__corpus_jsonl": '{"text": "x"}'})
    assert [d.id for d in read(tmp_path / "a", tmp_path / "c", columns=row)] == ["a/corpus.jsonl:1", "c/corpus.jsonl:1"]
