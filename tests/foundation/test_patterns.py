"""No regular expression of the tree takes more than linear time on any text: found by reading the source, tried on texts that
are made to send it back and forth."""

import ast
import re
import signal
from collections import deque
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("colbert_vespa", "exporter", "feeder", "late_interaction", "query", "vespa_app")
LENGTH = 50_000
CPU_S = 2.0  # linear: a thousandth of that; quadratic: several times that
UNITS = [
    *"a .,#\"'(){}<>=1_-/\\:`\t\n&;|[]*!", "e.g. A", "# ", ". ", "\n ", "a b", "a\n", "a.", ". A", "a(", "<a ", "a:", "'a",
    "#a#", "1.", "\n\n", " #", "a_v1", "query(", "tensor(", "  ,", "{a:", "charset", "encoding ", "。", "\r\n", "\u2028",
]  # fmt: skip
PREFIXES = ("", "# a", ".", "\n", "query(a)", "tensor(", "<?xml ")
METHODS = {"match", "search", "fullmatch", "finditer", "findall", "sub", "split"}


def patterns():
    """Of each module: pattern, its flags, and the methods that are called on it."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            used: dict[str, set[str]] = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                    for name in ast.walk(node.func.value):
                        if isinstance(name, ast.Name):
                            used.setdefault(name.id, set()).add(node.func.attr)
            names = {
                id(node.value): target.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(tree):
                if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args):
                    continue
                method = ast.unparse(node.func)[3:]
                if method not in METHODS | {"compile"} or not isinstance(node.args[0], ast.Constant):
                    continue
                flags = eval(ast.unparse(node.args[1]), {"re": re}) if method == "compile" and len(node.args) > 1 else 0
                methods = used.get(names.get(id(node), ""), METHODS) if method == "compile" else {method}
                yield pytest.param(re.compile(node.args[0].value, flags), methods, id=f"{path.relative_to(ROOT)}:{node.lineno}")


class TooSlow(Exception):
    pass


def alarm(*_):
    raise TooSlow


def hurried(pattern, method, text):
    if isinstance(pattern.pattern, bytes):
        text = text.encode()
    call = getattr(pattern, method)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        if method == "finditer":
            deque(call(text), maxlen=0)
        elif method == "sub":
            call(text[:0], text)
        else:
            call(text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def hostile():
    return (prefix + (unit * LENGTH)[:LENGTH] + "!" for prefix in PREFIXES for unit in UNITS)


@pytest.fixture(autouse=True)
def timer():
    before = signal.signal(signal.SIGVTALRM, alarm)
    yield
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(("pattern", "methods"), list(patterns()))
def test_every_pattern_is_linear(pattern, methods):
    for text in hostile():
        for method in methods:
            hurried(pattern, method, text)


def test_a_pattern_that_is_not_is_found():
    for slow in (r" {0,3}#{1,6}\s+(.+?)\s*#*\s*$", r"\s+$", r"(a|b|ab)*c"):
        with pytest.raises(TooSlow):
            for text in hostile():
                hurried(re.compile(slow), "search", text)
