"""Texts of a JSON list, one after the other: RAGatouille keeps a whole collection in one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.json_arrays import array_elements
from late_interaction.reading import open_regular

__all__ = ["iterate_texts"]


def iterate_texts(path: Path) -> Iterator[str]:
    """Memory: the longest text and a block of a million characters.

    Raises: LocalIndexError naming the file where it is no list of texts.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            for text in array_elements(file.read):
                if not isinstance(text, str):
                    raise LocalIndexError(f"{path} holds {type(text).__name__}, a list of texts is wanted")
                yield text
    except (OSError, ValueError, RecursionError) as error:
        raise LocalIndexError(f"{path} cannot be read as a list of texts ({error})") from None
