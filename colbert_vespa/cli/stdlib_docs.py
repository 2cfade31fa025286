"""The demo's collection: the documentation of this machine's Python standard library.

One document per public module, class, function and method that has a docstring. Python sources are parsed, not imported;
built-in and compiled modules have no source, so they are imported and inspected.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

from late_interaction.documents import Document

__all__ = ["first_sentence", "stdlib_documents"]

_SKIPPED = {"antigravity", "idlelib", "lib2to3", "test", "this", "turtledemo", "site-packages", "dist-packages"}
_MAX_CHARACTERS = 4000


def stdlib_documents() -> Iterator[Document]:
    """Yield documents in a fixed order: id is the dotted name, metadata has module, kind and python (version)."""
    seen: set[str] = set()
    for name, kind, module, docstring in (*_from_sources(), *_from_compiled()):
        if name in seen or not docstring.strip():
            continue
        seen.add(name)
        metadata = {"module": module, "kind": kind, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
        yield Document(name, name, inspect.cleandoc(docstring)[:_MAX_CHARACTERS], metadata)


_Entry = tuple[str, str, str, str]


def _from_sources() -> Iterator[_Entry]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not parts or any(part in _SKIPPED or part.startswith("_") or not part.isidentifier() for part in parts):
            continue
        if parts[0] not in sys.stdlib_module_names or "tests" in parts or "test" in parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        module = ".".join(parts)
        yield module, "module", module, ast.get_docstring(tree) or ""
        yield from _members(tree.body, module, module, "function")


def _members(body: list[ast.stmt], prefix: str, module: str, function_kind: str) -> Iterator[_Entry]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", function_kind, module, ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            yield name, "class", module, ast.get_docstring(node) or ""
            yield from _members(node.body, name, module, "method")


def _from_compiled() -> Iterator[_Entry]:
    for module_name in sorted(sys.stdlib_module_names):
        if module_name.startswith("_") or module_name in _SKIPPED:
            continue
        module = _imported(module_name)
        if module is None or getattr(module, "__file__", "").endswith(".py"):
            continue
        yield module_name, "module", module_name, module.__doc__ or ""
        for name, member in sorted(vars(module).items()):
            if name.startswith("_"):
                continue
            if inspect.isclass(member) and member.__module__ == module_name:
                yield f"{module_name}.{name}", "class", module_name, _doc(member)
                yield from _class_members(member, f"{module_name}.{name}", module_name)
            elif inspect.isbuiltin(member):
                yield f"{module_name}.{name}", "function", module_name, _doc(member)


def _class_members(owner: type, prefix: str, module: str) -> Iterator[_Entry]:
    for name, member in sorted(vars(owner).items()):
        if not name.startswith("_") and callable(member):
            yield f"{prefix}.{name}", "method", module, _doc(member)


def _doc(member: object) -> str:
    documentation = getattr(member, "__doc__", None)
    return documentation if isinstance(documentation, str) else ""


def _imported(name: str) -> types.ModuleType | None:
    """Import a module that has no Python source, without its output and warnings; None for others."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or (spec.origin or "").endswith(".py"):
        return None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(`<*\[])|\n\s*\n")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|resp)\.$")


def first_sentence(text: str) -> tuple[str, str]:
    """Split `text` after its first sentence or paragraph into (sentence, rest); the rest may be empty."""
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text, max(0, match.start() - 8), match.start()):
            return " ".join(text[: match.start()].split()), text[match.end() :].strip()
    return " ".join(text.split()), ""
