"""Read the texts of a JSON list one after another: RAGatouille keeps a whole collection in one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.json_arrays import array_elements
from late_interaction.reading import open_regular

__all__ = ["iterate_texts"]


def iterate_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a JSON list.

    Memory use is the longest text and a block of a million characters.

    Raises:
        LocalIndexError: if the file is not a list of texts; the message names it.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            for text in array_elements(file.read):
                if not isinstance(text, str):
                    raise LocalIndexError(f"{path} must be a list of strings, but it contains {type(text).__name__}")
                yield text
    except (OSError, ValueError, RecursionError) as error:
        raise LocalIndexError(f"{path} cannot be read as a list of strings ({error})") from None
