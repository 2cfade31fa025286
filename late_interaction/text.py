"""Clean texts and ids.

Files, calls, frameworks and the command line all pass them through here, so that one input is the same document, query or
id everywhere.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Mapping

from late_interaction.errors import UsageError

__all__ = [
    "MAX_ID_CHARACTERS",
    "checked_id",
    "checked_ids",
    "checked_text",
    "clean_text",
    "given_list",
    "printable",
    "without_surrogates",
]

MAX_ID_CHARACTERS = 1024
# code points that Vespa's text fields reject (com.yahoo.text.Text.isTextCharacter); both backends get the same text
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane * 0x10000 + 0xFFFE) + chr(plane * 0x10000 + 0xFFFF) for plane in range(17))
    + "]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # not tab, newline


def clean_text(text: str) -> str:
    """Return `text` as a plain `str`, with control characters and other code points that are not text replaced by a space."""
    return _NOT_TEXT.sub(" ", str.__str__(text))


def without_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which have no UTF-8, replaced by a space."""
    return text if text.isascii() else _SURROGATE.sub(" ", text)


def printable(text: str) -> str:
    r"""Return `text` with control characters, which a terminal obeys, and lone surrogates as escapes such as `\x1b`."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def checked_text(value: object, what: str) -> str:
    """Return `value` cleaned.

    Args:
        value: the text.
        what: the name of the value, for error messages.

    Raises:
        UsageError: if it is not text.
    """
    if not isinstance(value, str):
        raise UsageError(f"{what} must be text, got {type(value).__name__}")
    return clean_text(value)


def checked_id(value: object, what: str = "id") -> str:
    """Return an id as text; a whole number becomes its digits.

    Raises:
        UsageError: if it is neither, is blank, or has control characters, lone surrogates or noncharacters.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str):
        raise UsageError(f"{what} must be text or a whole number, got {type(value).__name__}")
    if not value.strip():
        raise UsageError(f"{what} is blank; an id must be a non-empty text")
    if _NOT_TEXT.search(value):
        raise UsageError(f"{what} {value[:60]!a} contains control characters or others that are not text; choose another id")
    return str.__str__(value)


def checked_ids(values: object, what: str = "ids") -> list[str]:
    """Return `values` as ids.

    Raises:
        UsageError: if `values` is a text, not a list of ids, or one of them is not an id.
    """
    return [checked_id(value, f"{what}[{place}]") for place, value in enumerate(given_list(values, what))]


def given_list(values: object, what: str) -> list[object]:
    """Return `values` as a list.

    Raises:
        UsageError: if `values` is a single text or not iterable.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise UsageError(f"{what} must be a list, got {type(values).__name__} {str(values)[:60]!a}")
    return list(values)
