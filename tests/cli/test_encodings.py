"""Output in any encoding, control characters of others, a closed stream, and Ctrl-C while modules load."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from colbert_vespa.cli.console import Output, json_line, output_lost, prepare_streams, print_error
from colbert_vespa.cli.option_types import text

NASTY = "\x1b]0;owned\x07\x1b[31m red \x9b2J \u202egnp \r over \u2028 \u2603 caf\u00e9 \U0001f600"
ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8")


def written_to(monkeypatch, encoding):
    """What stdout and stderr of that encoding get from now on, by name."""
    raw = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in raw.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding))
    prepare_streams()

    def written(name):
        getattr(sys, name).flush()
        return raw[name].getvalue().decode(encoding)

    return written


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_and_errors_have_replacements_and_no_control_characters(encoding, monkeypatch):
    streams = written_to(monkeypatch, encoding)
    out = Output(json_output=False)
    out.say(NASTY)
    out.table({"id": NASTY})
    print_error(NASTY)
    for shown in (streams("stdout"), streams("stderr")):
        assert "red" in shown
        assert not set(shown) & set("\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_one_line_that_says_the_same_in_every_encoding(encoding, monkeypatch):
    streams = written_to(monkeypatch, encoding)
    Output(json_output=True).result({"title": NASTY, "lone": "\ud800"})
    shown = streams("stdout")
    assert json.loads(shown) == {"title": NASTY, "lone": "\ud800"}
    assert len(shown.splitlines()) == 1
    assert not set(shown) & set("\x1b\x07\x9b\u202e")


def test_json_is_readable_where_the_encoding_has_the_characters():
    assert json_line({"a": "caf\u00e9 \u2603"}, "utf-8") == '{"a": "caf\u00e9 \u2603"}\n'
    assert json_line({"a": "caf\u00e9 \u2603"}, "latin-1") == '{"a": "caf\\u00e9 \\u2603"}\n'


def test_a_closed_stream_takes_everything(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    prepare_streams()
    Output(json_output=True).result({"a": 1})
    assert output_lost()


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
def test_a_result_that_cannot_be_written_is_an_error(where):
    command = f"{sys.executable} -m colbert_vespa plan --documents 1e6 --tokens 80 --json {where}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


def test_a_query_is_utf_8_in_every_locale():
    assert text(os.fsdecode("caf\u00e9".encode())) == "caf\u00e9"
    code = "from colbert_vespa.cli.option_types import text; import sys; print(ascii(text(sys.argv[1])))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, "caf\u00e9"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ascii("caf\u00e9")


@pytest.mark.parametrize("wait", [0.3, 0.8])
def test_ctrl_c_while_modules_load_shows_no_traceback(wait):
    command = [sys.executable, "-m", "colbert_vespa", "search", "x", "--from", "/no/such/index"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert "site" in errors or "Traceback" not in errors  # Python's own start is not ours
    assert process.returncode in (1, 130, -signal.SIGINT)
