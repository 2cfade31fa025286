"""Interpret pickles that hold tables of tensors and ids.

Only the opcodes that such tables need are supported: none imports, calls or builds an object. The caller decides what a
name means, and what may be called.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["BROKEN", "Name", "RefusedPickle", "read_pickle"]

MAX_CONTAINERS = 1 << 16  # an empty list takes one byte in the file and sixty in memory
BROKEN = (ValueError, TypeError, LookupError, ArithmeticError)  # errors that a damaged pickle causes


class RefusedPickle(ValueError):
    """A name, an opcode or a size that no table needs."""


class Name(NamedTuple):
    """A global name in a pickle, as text; it is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def read_pickle(
    data: bytes,
    known: Mapping[Name, Callable[..., object] | None] | None = None,
    persistent: Callable[[object], object] | None = None,
) -> object:
    """Return the content of a pickle: numbers, texts, tuples, lists, dicts, and results of the functions in `known`.

    Args:
        data: the pickle.
        known: names that it may have, with the function for those that may be called.
        persistent: returns the object of a persistent id.

    Raises:
        RefusedPickle: if it contains anything else.
        Exception: one of BROKEN, if it is damaged.
    """
    return _Machine(known or {}, persistent).run(data)


class _Machine:
    """The state of the interpreter. marks: the stacks below the last marks."""

    def __init__(
        self, known: Mapping[Name, Callable[..., object] | None], persistent: Callable[[object], object] | None
    ) -> None:
        self._known, self._persistent = known, persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._left = MAX_CONTAINERS

    def run(self, data: bytes) -> object:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                (found,) = self._stack
                return found
            if opcode.name in _VALUES:
                self._stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise RefusedPickle(f"it has the pickle opcode {opcode.name}")
        raise ValueError("it is truncated")

    def _container(self, found: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise RefusedPickle(f"it has more than {MAX_CONTAINERS} lists and tables")
        self._stack.append(found)

    def _marked(self) -> list[Any]:
        """Return what was pushed since the last mark."""
        found, self._stack = self._stack, self._marks.pop()
        return found

    def mark(self, _: object) -> None:
        self._left -= 1
        if self._left < 0:
            raise RefusedPickle(f"it has more than {MAX_CONTAINERS} marks")
        self._marks.append(self._stack)
        self._stack = []

    def skip(self, _: object) -> None:
        pass

    def remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def recall(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def empty_tuple(self, _: object) -> None:
        self._stack.append(())

    def empty_list(self, _: object) -> None:
        self._container([])

    def empty_dict(self, _: object) -> None:
        self._container({})

    def tuple_of_marked(self, _: object) -> None:
        self._container(tuple(self._marked()))

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("its stack is empty too early")
        parts = self._stack[-count:]
        del self._stack[-count:]
        self._container(tuple(parts))

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("it appends to something that is not a list")
        self._stack[-1].extend(values)

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: object) -> None:
        self._set(self._marked())

    def _set(self, pairs: list[Any]) -> None:
        table = self._stack[-1]
        if type(table) is not dict:
            raise ValueError("it sets an item of something that is not a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (int, str):  # a tuple of tuples of tuples could take for ever to hash
                raise ValueError("a dict key is neither a number nor a text")
            table[key] = value

    def name(self, text: str) -> None:
        self._named(Name(*text.split(" ", 1)))

    def name_on_stack(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._named(Name(str(module)[:80], str(name)[:80]) if type(name) is type(module) is str else Name("?", "?"))

    def _named(self, name: Name) -> None:
        if name not in self._known:
            raise RefusedPickle(f"it refers to {str(name)[:80]}")
        self._stack.append(name)

    def call(self, _: object) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        function = self._known.get(name) if type(name) is Name else None
        if function is None or type(arguments) is not tuple:
            raise RefusedPickle("it calls something that is not a function")
        self._stack.append(function(*arguments))

    def refer(self, _: object) -> None:
        if self._persistent is None:
            raise RefusedPickle("it refers to an object outside itself")
        self._stack.append(self._persistent(self._stack.pop()))


_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)  # fmt: skip
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.skip,
    "FRAME": _Machine.skip,
    "MARK": _Machine.mark,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "TUPLE": _Machine.tuple_of_marked,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.call,
    "BINPERSID": _Machine.refer,
}
