"""Parts of the reference that the program itself states. `build_docs.py` puts each where a page says `<!-- made: NAME -->`."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import griffe
import prometheus_client
import typer

MODULES = (
    "colbert_vespa",
    "colbert_vespa.rag",
    "colbert_vespa.langchain",
    "colbert_vespa.llamaindex",
    "colbert_vespa.haystack",
    "colbert_vespa.training",
    "colbert_vespa.ray",
    "feeder",
    "feeder.copying",
)
SHOWN_DUNDERS = ("__init__", "__enter__", "__aenter__")


def cell(text: object) -> str:
    """Inside a table: one line, no bars."""
    return code(text).replace("|", "\\|")


def code(text: object) -> str:
    """Inside backticks in a table: one line; a bar there does not end the cell, and a backslash would be shown."""
    return " ".join(str(text).split())


# ---------------------------------------------------------------- command line


def command_line() -> str:
    from colbert_vespa.cli.commands import app
    from colbert_vespa.cli.keys_commands import keys_app

    top = typer.main.get_command(app)
    named = dict(top.commands) | {"serve keys": typer.main.get_command(keys_app)}
    return "\n\n".join(part for name in sorted(named) for part in _commands(named[name], name, "##"))


def _commands(command: Any, name: str, heading: str) -> Iterator[str]:
    """A command, or a group and its commands."""
    if not hasattr(command, "commands"):
        yield _command(command, name, heading)
        return
    yield f"{heading} {name}\n\n{_paragraphs(command.help or '')}"
    for inner in sorted(command.commands):
        yield from _commands(command.commands[inner], f"{name} {inner}", f"{heading}#")


def _command(command: Any, name: str, heading: str) -> str:
    context = command.make_context(f"colbert-vespa {name}", [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = [one.get_help_record(context) for one in command.params if not getattr(one, "hidden", False)]
    rows = [f"| `{cell(names)}` | {_bracketed(cell(text))} |" for names, text in filter(None, records)]
    parts = [f"{heading} {name}", _paragraphs(command.help or ""), f"```text\n{usage}\n```"]
    return "\n\n".join([*parts, *(["\n".join(["| | |", "|---|---|", *rows])] if rows else [])])


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text).replace("\b\n", "").replace("<", "&lt;")


def _bracketed(text: str) -> str:
    """`[default: 10]` is no link."""
    return text.replace("[", "\\[").replace("<", "&lt;")


# ---------------------------------------------------------------- Python


def python() -> str:
    return "\n\n".join(part for name in MODULES for part in _module(importlib.import_module(name)))


def _module(module: ModuleType) -> Iterator[str]:
    yield f"## {module.__name__}\n\n{_docstring(module.__doc__ or '')}"
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if module.__name__ != "colbert_vespa" and name in _front_door():
            yield f"### {name} {{ #{module.__name__}.{name} }}\n\nSee [`colbert_vespa.{name}`](#colbert_vespa.{name})."
        elif inspect.isclass(thing):
            yield from _class(module.__name__, name, thing)
        elif callable(thing):
            yield _callable(f"### {name} {{ #{module.__name__}.{name} }}", name, thing)


def _front_door() -> set[str]:
    return set(importlib.import_module("colbert_vespa").__all__)


def _class(module: str, name: str, kind: type) -> Iterator[str]:
    head = f"### {name} {{ #{module}.{name} }}"
    if issubclass(kind, BaseException):
        yield f"{head}\n\nSee [errors](errors.md)."
        return
    yield _callable(head, name, kind)
    if dataclasses.is_dataclass(kind):
        rows = [f"| `{f.name}` | `{code(f.type)}` | {_default(f)} |" for f in dataclasses.fields(kind) if f.name[0] != "_"]
        yield "\n".join(["| field | type | default |", "|---|---|---|", *rows])
    for method, value in inspect.getmembers(kind):
        if method[0] == "_" or not (inspect.isfunction(value) or inspect.ismethod(value) or isinstance(value, property)):
            continue
        if getattr(value, "__module__", module).partition(".")[0] not in _ours() and not isinstance(value, property):
            continue
        if isinstance(value, property):
            if (text := inspect.getdoc(value)) and _is_ours(value.fget):
                yield f"#### {name}.{method} {{ #{module}.{name}.{method} }}\n\n{_docstring(text)}"
        else:
            yield _callable(f"#### {name}.{method}() {{ #{module}.{name}.{method} }}", method, value)


def _ours() -> tuple[str, ...]:
    return ("colbert_vespa", "exporter", "feeder", "late_interaction", "query", "vespa_app")


def _is_ours(function: Any) -> bool:
    return getattr(function, "__module__", "").partition(".")[0] in _ours()


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        plain = not dataclasses.is_dataclass(field.default)
        return f"`{code(repr(field.default)) if plain else f'{type(field.default).__name__}()'}`"
    factory = field.default_factory
    if factory is dataclasses.MISSING:
        return ""
    name = factory.__name__
    return f"`{field.type if name == '<lambda>' else name}()`"


def _callable(head: str, name: str, thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        shown = f"{name}(...)"
    else:
        shown = name + _signature(signature)
    own = thing.__doc__ if inspect.isclass(thing) else inspect.getdoc(thing)
    if own and own.startswith(f"{name}("):  # what dataclasses write
        own = ""
    return "\n\n".join(part for part in (head, f"```python\n{shown}\n```", _docstring(own or "")) if part)


def _signature(signature: inspect.Signature) -> str:
    """One line if it is short, else a line for each parameter."""
    parts, keyword = [], False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword:
            parts, keyword = [*parts, "*"], True
        keyword = keyword or parameter.kind is inspect.Parameter.VAR_POSITIONAL
        parts.append(_plain(str(parameter)))
    back = "" if signature.return_annotation is inspect.Signature.empty else f" -> {_plain(_annotation(signature))}"
    line = f"({', '.join(parts)}){back}"
    return line if len(line) < 90 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){back}"


def _annotation(signature: inspect.Signature) -> str:
    return inspect.formatannotation(signature.return_annotation)


def _plain(text: str) -> str:
    """Without quotes around annotations and addresses of objects."""
    text = re.sub(r"<(?:function|class|object) ?'?([\w.]+).*?>", r"\1", text)
    return re.sub(r"(: |^)'([^']*)'", r"\1\2", text).replace("\n", " ")


def _docstring(text: str) -> str:
    """Google's sections as lists; the rest as it is."""
    parts = []
    for section in griffe.Docstring(inspect.cleandoc(text)).parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            parts.append(_prose(section.value))
        elif isinstance(section.value, list):
            title = section.title or section.kind.value.capitalize()
            parts.append("\n".join([f"**{title}**", "", *(_item(item) for item in section.value)]))
    return "\n\n".join(parts)


def _item(item: Any) -> str:
    name = getattr(item, "name", "") or (getattr(item, "annotation", "") if not getattr(item, "value", "") else "")
    text = _prose(item.description).replace("\n", " ")
    return f"- `{name}`: {text}" if name else f"- {text}"


def _prose(text: str) -> str:
    """Brackets of shapes and `<` are no markup."""
    blocks = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    return "".join(
        b if n % 2 else re.sub(r"(?<!\])\[([^\]\n]*)\](?!\()", r"\\[\1\\]", b.replace("<", "&lt;"))
        for n, b in enumerate(blocks)
    )


# ---------------------------------------------------------------- errors, metrics, settings


def errors() -> str:
    module = importlib.import_module("late_interaction.errors")
    problems = importlib.import_module("late_interaction.problems").PROBLEMS
    says = dict(re.findall(r"^[ │├└─]*([A-Z]\w+)  +(.+)$", module.__doc__, re.MULTILINE))
    rows = ["| error | exit code | HTTP | when |", "|---|---|---|---|"]

    def add(kind: type, depth: int) -> None:
        status = next((problems[k][0] for k in kind.__mro__ if k in problems), "")
        indent = "&emsp;" * depth
        rows.append(f"| {indent}`{kind.__name__}` | {kind.exit_code} | {status} | {cell(says.get(kind.__name__, ''))} |")
        for child in kind.__subclasses__():
            if child.__name__ in module.__all__:
                add(child, depth + 1)

    add(module.ColbertVespaError, 0)
    missing = set(module.__all__) - set(says)
    if missing:
        raise SystemExit(f"the tree in late_interaction/errors.py does not name {', '.join(sorted(missing))}")
    return "\n".join(rows)


def metrics() -> str:
    from colbert_vespa.monitor.report import METRICS, PREFIX
    from colbert_vespa.server.metrics import ServerMetrics
    from feeder.feeding.ledger import FeedProgress
    from feeder.feeding.metrics import FeedMetrics
    from feeder.sending.statistics import FeedStatistics

    rows = [f"| `{PREFIX}{name}` | {', '.join(labels)} | {cell(text)} |" for name, (text, labels) in METRICS.items()]
    sending = FeedStatistics(0, 0, 0, "closed", {}, {}, 0, {})
    with FeedMetrics(0, lambda: FeedProgress(0, sending=sending)) as feed:
        feed_rows = _exposed(prometheus_client.generate_latest(feed))
    server = ServerMetrics(lambda: 0, lambda: 0).text()
    return "\n\n".join(
        [
            "## colbert-vespa monitor { #monitor }",
            "\n".join(["| metric | labels | |", "|---|---|---|", *rows]),
            "## colbert-vespa feed --metrics { #feed }",
            "\n".join(feed_rows),
            "## colbert-vespa serve { #serve }",
            "\n".join(_exposed(server)),
        ]
    )


def _exposed(text: bytes) -> list[str]:
    """Metrics as their `# HELP` and `# TYPE` lines name them."""
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text.decode(), re.MULTILINE))
    kinds = dict(re.findall(r"^# TYPE (\S+) (.*)$", text.decode(), re.MULTILINE))
    rows = [f"| `{name}` | {kinds[name]} | {cell(says)} |" for name, says in helps.items() if not name.endswith("_created")]
    return ["| metric | type | |", "|---|---|---|", *rows]


def settings() -> str:
    """Every key of app.toml: its type, its default and its meaning."""
    from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings, DenseSettings, OneVectorSettings

    parts = []
    for title, kind in (
        ("app.toml", AppSettings),
        ("[cluster]", ClusterSettings),
        ("[cloud]", CloudSettings),
        ("[dense.NAME]", DenseSettings),
        ("[one_vector]", OneVectorSettings),
    ):
        meanings = _attributes(kind)
        rows = [
            f"| `{f.name}` | `{code(f.type)}` | {_default(f)} | {cell(meanings[f.name])} |"
            for f in dataclasses.fields(kind)
            if f.name[0] != "_"
        ]
        parts.append("\n".join([f"### `{title}`", "", "| key | type | default | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _attributes(kind: type) -> dict[str, str]:
    """The section Attributes of a class's docstring, by name."""
    sections = griffe.Docstring(inspect.cleandoc(kind.__doc__ or "")).parse("google", warnings=False)
    listed = (section.value for section in sections if section.kind is griffe.DocstringSectionKind.attributes)
    return {item.name: _prose(item.description) for items in listed for item in items}


PARTS: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "python": python,
    "errors": errors,
    "metrics": metrics,
    "settings": settings,
}


@functools.cache
def part(name: str) -> str:
    return PARTS[name]()
