"""Read the parts of a schema file that our checks need: blocks and their lines, as a tree.

This is not Vespa's grammar: what is in braces is a block, except the `{}` of a tensor's dimension, which follows its name
directly, and a slice such as `{p:1}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from late_interaction.errors import SettingsError

__all__ = ["Block", "read_blocks"]

_COMMENT = re.compile(r"#[^\n]*")


@dataclass
class Block:
    """A block.

    Attributes:
        head: the text before the brace.
        lines: statements.
        blocks: nested blocks.
    """

    head: str
    lines: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def named(self, kind: str) -> Iterator[Block]:
        """Yield direct children whose head starts with the word `kind`."""
        return (block for block in self.blocks if block.head.split()[:1] == [kind])

    def value(self, key: str) -> str | None:
        """Return the rest of the line `key: ...`."""
        for line in self.lines:
            name, colon, rest = line.partition(":")
            if colon and name.strip() == key:
                return rest.strip()
        return None


def read_blocks(text: str, where: str) -> Block:
    """Parse a schema.

    Raises:
        SettingsError: if braces do not match.
    """
    root = Block("")
    stack = [root]
    pending = ""
    for part in re.findall(r"\{\s*\}|\{\w+:\w+\}|[{}\n]|[^{}\n]+", _COMMENT.sub("", text)):
        if part == "{":
            block = Block(" ".join(pending.split()))
            stack[-1].blocks.append(block)
            stack.append(block)
            pending = ""
        elif part == "}":
            _flush(stack[-1], pending)
            pending = ""
            stack.pop()
            if not stack:
                raise SettingsError(f"{where}: there is one closing brace too many")
        elif part.startswith("{") and pending[-1:].strip():
            pending += part if ":" in part else "{}"  # a tensor's dimension, or a slice of it
        elif part.startswith("{"):
            stack[-1].blocks.append(Block(" ".join(pending.split())))
            pending = ""
        elif part == "\n":
            _flush(stack[-1], pending)
            pending = ""
        else:
            pending += part
    if len(stack) > 1:
        raise SettingsError(f"{where}: block {stack[-1].head!r} is not closed")
    return root


def _flush(block: Block, text: str) -> None:
    if line := " ".join(text.split()):
        block.lines.append(line)
