"""A pickle machine for tables of tensors and ids. It has the opcodes that such tables need and no other: none that imports,
calls or builds an object. What a name means, and what may be called, its caller says.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["BROKEN", "Name", "RefusedPickle", "read_pickle"]

MAX_CONTAINERS = 1 << 16  # an empty list takes a byte in the file and sixty in memory
BROKEN = (ValueError, TypeError, LookupError, ArithmeticError)  # what a damaged pickle ends in


class RefusedPickle(ValueError):
    """A name, an opcode or a size that no table needs."""


class Name(NamedTuple):
    """What a pickle names, as a text: nothing is looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def read_pickle(
    data: bytes,
    known: Mapping[Name, Callable[..., object] | None] | None = None,
    persistent: Callable[[object], object] | None = None,
) -> object:
    """What the pickle holds: numbers, texts, tuples, lists, dicts, and what the functions of `known` give for their arguments.

    known: names that it may have, with the function of those that may be called. persistent: gives the object of a reference.

    Raises: RefusedPickle where it has anything else; one of BROKEN where it is damaged.
    """
    return _Machine(known or {}, persistent).run(data)


class _Machine:
    """marks: the stacks below the last marks."""

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
        raise ValueError("it is cut off")

    def _container(self, found: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise RefusedPickle(f"it has more than {MAX_CONTAINERS} lists and tables")
        self._stack.append(found)

    def _marked(self) -> list[Any]:
        """What was put on the stack since the last mark."""
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
            raise ValueError("its stack is too short")
        parts = self._stack[-count:]
        del self._stack[-count:]
        self._container(tuple(parts))

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("it adds to what is no list")
        self._stack[-1].extend(values)

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: object) -> None:
        self._set(self._marked())

    def _set(self, pairs: list[Any]) -> None:
        table = self._stack[-1]
        if type(table) is not dict:
            raise ValueError("it sets an item of what is no table")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (int, str):  # a tuple of tuples of tuples could take for ever to hash
                raise ValueError("a key of a table is no number and no text")
            table[key] = value

    def name(self, text: str) -> None:
        self._named(Name(*text.split(" ", 1)))

    def name_on_stack(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._named(Name(str(module)[:80], str(name)[:80]) if type(name) is type(module) is str else Name("?", "?"))

    def _named(self, name: Name) -> None:
        if name not in self._known:
            raise RefusedPickle(f"it names {str(name)[:80]}")
        self._stack.append(name)

    def call(self, _: object) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        function = self._known.get(name) if type(name) is Name else None
        if function is None or type(arguments) is not tuple:
            raise RefusedPickle("it calls what is no function")
        self._stack.append(function(*arguments))

    def refer(self, _: object) -> None:
        if self._persistent is None:
            raise RefusedPickle("it refers to something outside itself")
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
