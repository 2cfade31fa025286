"""Check arguments as RAGatouille does, with its messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from late_interaction.errors import ArgumentError, UsageError
from late_interaction.text import checked_ids as checked_ids_of
from late_interaction.text import checked_text, clean_text, given_list

__all__ = [
    "checked_count",
    "checked_ids",
    "checked_length",
    "checked_metadatas",
    "checked_name",
    "checked_texts",
    "listed",
    "listed_queries",
]

LEAST_LENGTH = 16  # tokens of a passage, special ones included


def listed(ids: str | Sequence[str]) -> list[str]:
    """Return one id, or several, as a list.

    Raises:
        UsageError: If an item is not an id.
    """
    return checked_ids_of([ids] if isinstance(ids, (str, int)) else ids)


def listed_queries(query: str | Sequence[str]) -> list[str]:
    """Return one query, or several, as a list.

    Raises:
        UsageError: If an item is not text.
    """
    queries = [query] if isinstance(query, str) else given_list(query, "query")
    return [checked_text(text, f"query[{place}]") for place, text in enumerate(queries)]


def checked_texts(texts: Sequence[str], what: str) -> list[str]:
    """Return the texts, cleaned.

    Raises:
        ArgumentError: If there are none, or an item is not text.
    """
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Collection) or not len(texts):
        raise ArgumentError(f"{what} must be a list of at least one text")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ArgumentError(f"{what}[{place}] must be text, got {type(text).__name__}")
    return [clean_text(text) for text in texts]


def checked_ids(ids: Sequence[str] | None, count: int) -> list[str]:
    """Return the ids of `count` documents, or new ones if none are given.

    Raises:
        ArgumentError: If the ids are not valid.
    """
    if ids is None:
        return [str(uuid4()) for _ in range(count)]
    if len(ids) != count:
        raise ArgumentError("document_ids must be the same length as collection")
    if len(set(ids)) != count:
        raise ArgumentError("document_ids must be unique")
    if not all(isinstance(id_, type(ids[0])) for id_ in ids):
        raise ArgumentError("All document_ids must be of the same type")
    if not isinstance(ids[0], str):
        raise ArgumentError(f"document_ids must be texts, got {type(ids[0]).__name__}")
    if not all(id_.strip() for id_ in ids):
        raise ArgumentError("document_ids must not contain empty strings")
    try:
        return checked_ids_of(ids, "document_ids")
    except UsageError as error:
        raise ArgumentError(str(error)) from None


def checked_metadatas(
    metadatas: Sequence[Mapping[str, Any] | None] | None, count: int, documents: str = "collection"
) -> list[Mapping[str, Any] | None]:
    """Return one metadata dict for each of `count` documents.

    Raises:
        ArgumentError: If the metadata are not valid.
    """
    if metadatas is None:
        return [None] * count
    if len(metadatas) != count:
        raise ArgumentError(f"document_metadatas must be the same length as {documents}")
    return list(metadatas)


def checked_length(length: int) -> int:
    """Return the number of tokens of a passage.

    Raises:
        ArgumentError: If it is too small, or not a whole number.
    """
    if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < LEAST_LENGTH:
        raise ArgumentError(f"max_document_length must be a whole number of at least {LEAST_LENGTH}, got {length!r}")
    return int(length)


def checked_count(k: int) -> int:
    """Return the number of results.

    Raises:
        ArgumentError: If it is not a whole number of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ArgumentError(f"k must be a whole number of at least 1, got {k!r}")
    return int(k)


def checked_name(name: str) -> str:
    """Return the name of an index.

    Raises:
        ArgumentError: If it cannot be the name of a folder in the folder of indexes.
    """
    if not isinstance(name, str) or not name or name.startswith(".") or any(sign in name for sign in "/\\\0#"):
        raise ArgumentError(f"index_name {name!r} is not valid; it must not contain / \\ # or start with a dot")
    return name
