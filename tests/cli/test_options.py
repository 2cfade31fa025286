"""Every option of every command: numbers out of range, paths that cannot be, and one line of error for each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

import pytest
import typer

from colbert_vespa.cli.commands import app

BAD_NUMBERS = ("-1", "1e400", "nan", "-inf", "many", "", "9" * 5000)
ON_DEVICES = ("export", "feed", "search", "evaluate", "train", "parity", "serve")
# "0", where it is in range; "-1" likewise
ZERO = {
    "export --pool-protected", "export --least-fp32", "export --least-quantized", "plan --text-bytes", "feed --workers",
    "search --offset", "evaluate --recall-queries", "train --negatives", "train --margin", "train --keep-start", "train --seed",
    "candidates --seed",
    "train --hold-out", "serve --port", "serve --max-waiting", "serve --settle",
    *(f"{command} --device-id" for command in ON_DEVICES),
}  # fmt: skip
MINUS_ONE = {"export --least-fp32", "export --least-quantized", "train --margin"}
TEXTS = {
    "bundle --source", "candidates --goal", "export --candidates-goal",
    "export --quantize", "export --dense-dim", "export --rules", "export --query-length", "export --pool-method",
    "export --revision", "app --codec", "app --candidates", "deploy --target", "deploy --query-url", "deploy --allow",
    "plan --codec", "plan --candidates", "feed --split", "feed --codec", "feed --shard-by", "search --candidates",
    "search --index", "search --weight", "search --fusion", "search --scored", "evaluate --candidates",
    "evaluate --weight", "evaluate --fusion",
    "evaluate --metric", "evaluate --goal", "train --objective", "train --mine-by",
    "train --precision", "train --layout", "serve --candidates", "serve --url-field", "serve --host", "serve --cors",
    "serve --split",    "serve --trusted-proxy",
    "parity --threshold",
    *(f"{command} --device" for command in ON_DEVICES), "index name name", "index rollback to", "index pull --codec",
    "index restore --codec", "monitor check --config", "monitor check --prometheus", "monitor canaries --candidates",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """words: of its command. option: its longest name, '' of an argument. check: the name of what reads its value."""

    words: tuple[str, ...]
    name: str
    option: str
    check: str
    required: bool

    def given(self, value: str) -> list[str]:
        return [f"{self.option}={value}"] if self.option.startswith("--") else [self.option, value]


def commands(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for command in group.registered_commands:
        yield (*words, command.name or command.callback.__name__), command.callback
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance, (*words, inner.name))


def parameters(words: tuple[str, ...], command: Any) -> Iterator[Parameter]:
    """Those that take a value."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        base, info = hints[name].__origin__, hints[name].__metadata__[0]
        if base is not bool:
            option = max((info.default, *info.param_decls), key=len) if isinstance(info, typer.models.OptionInfo) else ""
            full = " ".join([*words, option or name])
            yield Parameter(words, full, option, getattr(info.parser, "__name__", ""), parameter.default is parameter.empty)


COMMANDS = {words: list(parameters(words, command)) for words, command in commands(app)}
ALL = {parameter.name: parameter for found in COMMANDS.values() for parameter in found}


def names(*checks: str) -> list[str]:
    return sorted(name for name, parameter in ALL.items() if parameter.check in checks)


def arguments(name: str, value: str) -> list[str]:
    """The command with `value` for one parameter, and something for those that it needs besides."""
    words, options, positional = ALL[name].words, [], []
    for other in COMMANDS[words]:
        if other.name == name or other.required:
            filler = value if other.name == name else "1" if other.check == "number" else "no-such-thing"
            (options if other.option else positional).extend(other.given(filler) if other.option else [filler])
    return [*words, *options, "--", *positional]


def refused(cli, name: str, value: str) -> str:
    done = cli(*arguments(name, value), code=2)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f"{name} {value[:20]}: {done.stderr}"
    assert lines[0].startswith("error: ")
    return lines[0]


def test_every_parameter_is_a_number_a_path_an_address_or_a_known_text():
    kinds = {"number", "path", "address", "source", "text", "file_to_write", "folder_to_write", "checkpoint"}
    assert {name for name, parameter in ALL.items() if parameter.check not in kinds} == TEXTS


def some(values: tuple[str, ...], name: str) -> list[str]:
    """Two of the values, others for the next option."""
    place = sorted(ALL).index(name)
    return [values[(2 * place + number) % len(values)] for number in range(2)]


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", names("number"))
def test_numbers_out_of_range_are_refused(cli, name, whole):
    for value in BAD_NUMBERS if whole else some(BAD_NUMBERS, name):
        if value != "-1" or name not in MINUS_ONE:
            assert f"'{ALL[name].option}'" in refused(cli, name, value)
    if name not in ZERO:
        refused(cli, name, "0")


@pytest.mark.parametrize("name", names("path", "address", "source", "checkpoint"))
def test_paths_that_cannot_be_are_refused(cli, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ("", " ", "http:/host", "~no-such-user/x"):
        refused(cli, name, value)
    if ALL[name].check == "address":
        for value in ("localhost:8080", " http://host", "vespa://host", "HTTP://", "host:8080/x", "file:///x"):
            refused(cli, name, value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", names("file_to_write", "folder_to_write"))
def test_what_cannot_be_written_is_refused_before_the_work(cli, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    values = ["", "file/x", "http://host/x"]
    values += ["no/such/folder/x", "folder"] if ALL[name].check == "file_to_write" else ["file"]
    for value in values:
        line = refused(cli, name, value)
        assert value in line
        assert not re.search(r"/\.[\w.]+", line), line
    assert (tmp_path / "file").read_text() == "kept"


def test_home_is_expanded(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"no index at {tmp_path}/index" in cli("search", "x", "--from=~/index", code=1).stderr.replace("\n", "")
