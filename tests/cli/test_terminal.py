"""What a terminal gets of texts that are not ours, and what a feed says of its sources."""

import io
import json
import logging
import sys

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from colbert_vespa.cli.console import Output, announce_compiling
from colbert_vespa.cli.terminal import Terminal
from feeder.feeding.ledger import FeedSummary
from feeder.sources import Note

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\x7fe\rf\x08g"
ESCAPED = "\\x1b]0;title"


def controls(text):
    return {character for character in text if character != "\n" and (character < " " or "\x7f" <= character <= "\x9f")}


@pytest.mark.parametrize("wrapped", [str, Text, lambda text: Text(text, style="bold"), lambda text: {"x": text}])
def test_no_control_character_reaches_a_terminal(wrapped):
    out = io.StringIO()
    console = Terminal(file=out, width=200, highlight=False)
    shown = wrapped(HOSTILE)
    table = Table(HOSTILE)
    table.add_row(shown if isinstance(shown, (str, Text)) else str(shown))
    console.print(table)
    console.print(shown)
    assert not controls(out.getvalue()) and "title" in out.getvalue()


@pytest.mark.parametrize("watched", [True, False])
def test_a_person_is_told_that_kernels_are_compiled(watched, monkeypatch):
    logger = logging.getLogger("late_interaction.compiling")
    for name, value in (("handlers", []), ("level", logger.level)):
        monkeypatch.setattr(logger, name, value)
    error = io.StringIO()
    error.isatty = lambda: watched
    monkeypatch.setattr(sys, "stderr", error)
    announce_compiling()
    announce_compiling()
    logger.info("compiling kernels")
    assert error.getvalue().count("compiling kernels") == watched


def test_the_line_about_compiling_stands_above_a_progress_bar(monkeypatch):
    logger = logging.getLogger("late_interaction.compiling")
    for name, value in (("handlers", []), ("level", logger.level)):
        monkeypatch.setattr(logger, name, value)
    error = io.StringIO()
    error.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", error)
    announce_compiling()
    with Live("bar", console=Terminal(stderr=True, force_terminal=True), auto_refresh=False):
        logger.info("compiling kernels")
    assert "compiling kernels\nbar" in error.getvalue() and "barcompiling" not in error.getvalue()


def test_styles_are_still_there():
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard", highlight=False).print("[bold]a\x1b[31m[/bold]")
    assert out.getvalue() == "\x1b[1ma\\x1b[31m\x1b[0m\n"


def test_json_has_no_control_characters_either(capsys):
    Output(json_output=True).result({"text": HOSTILE})
    line = capsys.readouterr().out
    assert not controls(line) and json.loads(line) == {"text": HOSTILE}


def test_a_summary_names_what_was_left_out(capsys):
    notes = (Note("left_out", "files left out, of no known kind", 7, ("a.docx", "b\x1b[31m.xlsx")),)
    for outcome in ("complete", "dry run"):
        Output(json_output=False).feed_summary(FeedSummary("index", 1, outcome=outcome, notes=notes))
        assert "7 files left out, of no known kind: a.docx, b\\x1b[31m.xlsx, ..." in " ".join(capsys.readouterr().out.split())


def test_a_feed_without_any_text_is_no_success(cli, minilm_bundle, tmp_path):
    folder, index = tmp_path / "docs", tmp_path / "index"
    folder.mkdir()
    (folder / "a.txt").write_text(" \n")
    (tmp_path / "nothing.jsonl").touch()
    (tmp_path / "text.jsonl").write_text('{"id": "a", "text": "Wait for a thread."}')
    feed = ("feed", "--bundle", str(minilm_bundle.path), "--to", str(index), "--json")
    assert "1 documents were read, but none has text" in " ".join(cli(*feed, str(folder), code=1).stderr.split())
    (folder / "a.txt").write_bytes(b"caf\xe9")
    said = " ".join(cli(*feed, str(folder), "--skip-bad", code=1).stderr.split())
    assert "0 documents were read, and 1 files or records were skipped, but none has text" in said
    assert not index.exists()
    assert "fed 0 documents" in cli(*feed, str(tmp_path / "nothing.jsonl")).stderr
    cli(*feed, str(tmp_path / "text.jsonl"))
    again = cli(*feed, str(folder), "--skip-bad", code=1)
    assert "nothing was fed: 0 documents" in " ".join(again.stderr.split())
    assert json.loads(again.stdout.splitlines()[-1])["documents"] == 0


def test_a_folder_with_a_bad_file_can_be_fed_without_it(cli, minilm_bundle, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("---\ntitle: Threads\n---\nWait for a thread.")
    (folder / "b.txt").write_bytes(b"caf\xe9")
    (folder / "c.docx").write_text("?")
    feed = ("feed", str(folder), "--bundle", str(minilm_bundle.path), "--to", str(tmp_path / "index"), "--json")
    stopped = cli(*feed, code=1)
    assert "b.txt is not UTF-8" in " ".join(stopped.stderr.split()) and "--skip-bad" in stopped.stderr
    fed = json.loads(cli(*feed, "--skip-bad").stdout.splitlines()[-1])
    assert fed["acknowledged"] == 1 and [(note["kind"], note["count"]) for note in fed["notes"]] == [
        ("skipped", 1),
        ("left_out", 1),
    ]
    assert fed["notes"][1]["examples"] == [f"{folder}/c.docx"]
