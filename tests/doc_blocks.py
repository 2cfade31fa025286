"""Fenced blocks of documentation pages: found, checked, and run.

A block of bash runs in bash, where `colbert-vespa` is a small script that asks the test's own process to do the command: that
spares each command the time of its imports. A block whose title begins with `Not run in CI` has its syntax checked, and each
`colbert-vespa` in it is given to the command line's own parser.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

__all__ = ["Block", "blocks_of", "check_commands", "commands_of", "indented_code", "run_bash"]

NOT_RUN = "Not run in CI: "
FENCE = re.compile(r'^```(\w*)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
OPERATORS = {"|", "||", "&&", ";", "&", "(", ")"}
SHIM = """#!{python} -SE
import json, os, socket, sys
asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": {{
    name: value for name, value in os.environ.items() if name.startswith("COLBERT_VESPA")}}}}
asked["stdin"] = "" if sys.stdin.isatty() else sys.stdin.read()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    connection.sendall(json.dumps(asked).encode() + b"\\n")
    done = json.loads(connection.makefile().read())
sys.stdout.write(done["stdout"])
sys.stderr.write(done["stderr"])
sys.exit(done["code"])
"""


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return not self.title.startswith(NOT_RUN)


def blocks_of(page: str) -> list[Block]:
    return [Block(m[1], m[2] or "", m[3], page.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(page)]


def indented_code(page: str) -> list[str]:
    """Lines that Markdown reads as code without a fence."""
    outside = FENCE.sub("", page).split("\n")
    return [line for before, line in itertools.pairwise(outside) if not before.strip() and re.match(r" {4}\S", line)]


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each simple command, without its redirections, in a text without control structures."""
    lines = iter(text.replace("\\\n", " ").split("\n"))
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        if "<<" in words:
            end = words[words.index("<<") + 1]
            while next(lines, end) != end:
                pass
        command: list[str] = []
        words_left = iter(words)
        for word in words_left:
            if word in OPERATORS:
                yield command
                command = []
            elif word in (">", ">>", "<", "<<"):
                next(words_left, "")
            else:
                command.append(word)
        yield command


def check_commands(text: str) -> None:
    """Raises what the parser of the command line does where an option or command is unknown."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)
    for command in commands_of(text):
        words = list(itertools.dropwhile(re.compile(r"[A-Z_]+=").match, command))
        if words[:1] == ["colbert-vespa"]:
            _parse(words[1:])


def _parse(words: list[str]) -> None:
    command, keys = _commands()
    while hasattr(command, "commands"):
        known = words and words[0] in command.commands
        assert known or "check" in command.commands, f"no command {' '.join(words)}"
        command, words = command.commands[words[0] if known else "check"], words[1:] if known else words
        if words[:1] == ["keys"] and command.name == "serve":
            command, words = keys, words[1:]
    if "--help" not in words:
        context = command.make_context(command.name, [], resilient_parsing=True)
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        assert not rest, f"{command.name} does not take {' '.join(rest)}"


@functools.cache
def _commands() -> tuple[Any, Any]:
    """That of the command line, and that of `serve keys`."""
    from colbert_vespa.cli.commands import app
    from colbert_vespa.cli.keys_commands import keys_app

    return typer.main.get_command(app), typer.main.get_command(keys_app)


def run_bash(text: str, folder: Path, tools: Path, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a block in `folder`, where every command must succeed. tools: a folder for the script."""
    address = str(tools / "commands")
    shim = tools / "colbert-vespa"
    shim.write_text(SHIM.format(python=sys.executable, address=address))
    shim.chmod(0o755)
    done: list[subprocess.CompletedProcess[str]] = []

    def block() -> None:
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, **(environment or {}), "PATH": path}
        command = ["bash", "-euo", "pipefail", "-c", text]
        done.append(
            subprocess.run(
                command, cwd=folder, env=variables, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        )
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=block)
        thread.start()
        while not done:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as both:
                if line := both.readline():
                    json.dump(_answer(json.loads(line)), both)
        thread.join()
    Path(address).unlink()
    assert done[0].returncode == 0, f"{text}\n{done[0].stdout}\n{done[0].stderr}"
    return done[0].stdout


def _answer(asked: Mapping[str, object]) -> dict[str, object]:
    """One command, done in this process: signals and all are those of the command line."""
    from colbert_vespa.cli.commands import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(str(asked["folder"]))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(str(asked["stdin"]).encode())))
        for name, value in {**asked["environment"], "COLUMNS": "80"}.items():
            patch.setenv(name, value)
        try:
            main(asked["arguments"])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return {"stdout": out.getvalue(), "stderr": err.getvalue(), "code": code}
