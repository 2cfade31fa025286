"""Documents (what users have) and passages (what is indexed)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.bundle import check_dense_name
from late_interaction.errors import UsageError
from late_interaction.metadata import Value, plain_metadata
from late_interaction.ready_rows import ReadyRows, array_of, matrices_of, packed_array
from late_interaction.text import MAX_ID_CHARACTERS, checked_id, checked_text

__all__ = ["Document", "Passage", "Unusable", "passage_text"]


class Unusable(NamedTuple):
    """A dense vector of a source that is not numbers.

    Attributes:
        given: what was given, as JSON values.
        reason: why it cannot be used.
    """

    given: object
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """A user's document.

    Characters that are not text become spaces, and metadata follow `plain_metadata`, so a document has one digest however
    it was made. Documents are compared without `dense` and `vectors`.

    Attributes:
        id: any non-empty string, which is never parsed; a whole number becomes its digits.
        title: its title.
        text: its text.
        metadata: value by field.
        dense: ready-made vectors by name of a dense model, `[dim]`, or `[passages, dim]` for a document of several
            passages.
        vectors: token vectors that were made elsewhere, for each of its passages, in any form that `matrices_of` accepts.
            Without them the bundle's model makes them from title and text.
        unusable: dense vectors of a source that are not numbers, by name of the model; a feed rejects the document.
    """

    id: str
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)
    dense: Mapping[str, Vector | Matrix] = field(default_factory=dict, compare=False)
    vectors: Sequence[ReadyRows] = field(default=(), compare=False, repr=False)
    unusable: Mapping[str, Unusable] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of_source(cls, record: Mapping[str, object]) -> Document:
        """Make a document of its fields. Dense vectors that are not numbers become `unusable` and raise nothing.

        Raises:
            UsageError: if anything else is not valid.
            MetadataError: if the metadata are not valid.
        """
        given = record.get("dense") or {}
        if not isinstance(given, Mapping):
            return cls(**record)  # type: ignore[arg-type]  # raises
        usable: dict[str, object] = {}
        unusable: dict[str, Unusable] = {}
        for name, value in given.items():
            check_dense_name(str(name), UsageError, f"document {record['id']!r}: dense")
            try:
                usable[str(name)] = _dense_array(value, f"dense model {name!r}: its vector")
            except UsageError as error:
                unusable[str(name)] = Unusable(_as_json(value), str(error))
        return cls(**{**record, "dense": usable, "unusable": unusable})  # type: ignore[arg-type]  # checked there

    def __post_init__(self) -> None:
        """Check and clean the fields.

        Raises:
            UsageError: if the id is not valid, title or text is not text, or vectors are not numbers.
            MetadataError: if the metadata are not valid.
        """
        id_ = checked_id(self.id, "document id")
        if len(id_) > MAX_ID_CHARACTERS:
            raise UsageError(f"document id {id_[:20]!r}... is longer than {MAX_ID_CHARACTERS} characters")
        object.__setattr__(self, "id", id_)
        object.__setattr__(self, "title", checked_text(self.title, f"document {id_!r}: title"))
        object.__setattr__(self, "text", checked_text(self.text, f"document {id_!r}: text"))
        object.__setattr__(self, "metadata", plain_metadata(self.metadata, f"document {id_!r}: "))
        if self.dense:
            object.__setattr__(self, "dense", _checked_vectors(self.dense, f"document {id_!r}: dense"))
        object.__setattr__(self, "vectors", matrices_of(self.vectors, f"document {id_!r}: vectors"))

    def to_json(self) -> dict[str, object]:
        """Return the document as a line of a source."""
        data: dict[str, object] = {"id": self.id, "title": self.title, "text": self.text, "metadata": dict(self.metadata)}
        if self.dense or self.unusable:
            packed: dict[str, object] = {name: packed_array(vectors) for name, vectors in self.dense.items()}
            data["dense"] = packed | {name: refused.given for name, refused in self.unusable.items()}
        if self.vectors:
            data["vectors"] = [packed_array(rows) for rows in self.vectors]
        return data

    @property
    def blank(self) -> bool:
        """Tell whether title and text are empty."""
        return not self.title.strip() and not self.text.strip() and not self.vectors


def _checked_vectors(given: object, what: str) -> dict[str, Vector | Matrix]:
    """Check ready-made vectors. Numbers that are not finite pass: the feed rejects such a document on its own."""
    if not isinstance(given, Mapping):
        raise UsageError(f"{what} must map names of dense models to vectors, got {type(given).__name__}")
    found = {}
    for name, vectors in given.items():
        check_dense_name(str(name), UsageError, what)
        found[str(name)] = _dense_array(vectors, f"{what}.{name}")
    return found


def _dense_array(vectors: object, what: str) -> Vector | Matrix:
    rows = array_of(vectors, what, "numbers")
    if rows.ndim not in (1, 2) or not rows.size:
        raise UsageError(f"{what} must be numbers of shape [dim] or [passages, dim], got shape {list(rows.shape)}")
    return rows


def _as_json(value: object) -> object:
    """Return a value that JSON can hold: the value itself if possible, else its text."""
    try:
        return json.loads(json.dumps(value.tolist() if isinstance(value, np.ndarray) else value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)


@dataclass(frozen=True, slots=True)
class Passage:
    """What is indexed: one part of a document.

    Attributes:
        id: `document_id#n`.
        document_id: the document's id, stored beside it.
        title: the document's title.
        text: the passage's text.
        metadata: value by field.
        digest: digest of its document and of everything its vectors depend on, or empty. It tells whether the document must
            be fed again, and is ignored when passages are compared.
    """

    id: str
    document_id: str
    title: str
    text: str
    metadata: Mapping[str, Value]
    digest: str = field(default="", compare=False)

    @classmethod
    def of(cls, document: Document, number: int = 0) -> Passage:
        """Make the passage of a document with that number from the whole text."""
        id_ = cls.id_of(document.id, number)
        return cls(id_, document.id, document.title, document.text, document.metadata)

    @staticmethod
    def id_of(document_id: str, number: int) -> str:
        """Return the id of a document's passage of that number."""
        return f"{document_id}#{number}"

    @staticmethod
    def document_of(id_: str) -> str:
        """Return the document's id in a passage id."""
        return id_.rpartition("#")[0]

    def checked(self) -> Passage:
        """Return the passage with ids and texts cleaned by `late_interaction.text`.

        Raises:
            UsageError: if an id or a text is not valid.
        """
        id_ = checked_id(self.id, "passage id")
        title, text = (checked_text(part, f"passage {id_!r}") for part in (self.title, self.text))
        return replace(self, id=id_, document_id=checked_id(self.document_id, "document id"), title=title, text=text)

    def place(self) -> tuple[int, str]:
        """Return a sort key for the passages of one document, whose ids differ only in their numbers."""
        return len(self.id), self.id

    @property
    def encoded_text(self) -> str:
        """Return the text to encode."""
        return passage_text(self.title, self.text)


def passage_text(title: str, text: str) -> str:
    """Return the text to encode: title and text with a space between, as the BEIR collections are encoded."""
    return f"{title} {text}" if title.strip() and text.strip() else (title if title.strip() else text)
