"""Collections in BEIR's form: a folder with a corpus, queries and judgements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from feeder.sources.corpus import open_corpus
from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import SourceLimits, SourceSettings, id_of, text_of
from feeder.sources.source import FileSource
from late_interaction.array_types import Vector
from late_interaction.errors import CollectionError, UsageError
from late_interaction.ready_rows import ReadyRows, matrices_of
from late_interaction.text import checked_id, checked_text
from query.types import Query, QueryVectors

__all__ = ["BLANKS", "Collection", "CollectionQuery", "Qrels", "read_collection", "read_qrels", "text_lines"]

Qrels = Mapping[str, Mapping[str, float]]  # by query, documents and their relevance
BLANKS = " \t\r\n"  # ids may have other signs that Python takes for blanks
SPLITS = ("test", "dev", "train")  # of qrels/, the first that is there
WANTED = "a collection has corpus.jsonl, queries.jsonl and qrels.tsv (or BEIR's qrels/test.tsv)"


@dataclass(frozen=True, slots=True)
class CollectionQuery:
    """A query of a collection; id and text are cleaned and checked like those of documents.

    Attributes:
        vectors: Token vectors encoded earlier or elsewhere, `[q, d]`.
        dense: Dense vectors by name of the dense model, in addition to the token vectors.
    """

    id: str
    text: str
    vectors: ReadyRows | None = field(default=None, compare=False)
    dense: Mapping[str, Vector] = field(default_factory=dict, compare=False)

    @property
    def asked(self) -> Query:
        """Return the query to search with: its rows with the text for words, or the text alone."""
        return self.text if self.vectors is None else QueryVectors(self.vectors, self.dense, self.text or None)

    @property
    def blank(self) -> bool:
        """Return whether the query has neither vectors nor text."""
        return self.vectors is None and not self.text.strip()

    def __post_init__(self) -> None:
        """Check id and text.

        Raises:
            UsageError: If the id is not valid, or the text is not a string.
        """
        object.__setattr__(self, "id", checked_id(self.id, "query id"))
        object.__setattr__(self, "text", checked_text(self.text, f"query {self.id!r}"))


@dataclass(frozen=True)
class Collection:
    """corpus.jsonl[.gz], queries.jsonl, and qrels.tsv or BEIR's own qrels/test.tsv (else dev, train)."""

    name: str
    corpus: FileSource
    queries: tuple[CollectionQuery, ...]
    qrels: Qrels


def read_collection(folder: str | Path, qrels: Path | None = None) -> Collection:
    """Read a collection folder.

    Args:
        folder: Folder with corpus, queries and qrels.
        qrels: File of judgements to use instead of the folder's own.

    Raises:
        CollectionError: If the folder, a file or a line is not valid.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CollectionError(f"folder {root} does not exist: {WANTED}")
    corpus = open_corpus(root, SourceSettings())
    queries = root / "queries.jsonl"
    own = (root / "qrels.tsv", *(root / f"qrels/{split}.tsv" for split in SPLITS))
    judged = qrels or next((file for file in own if file.is_file()), None)
    if not queries.is_file() or judged is None:
        raise CollectionError(f"{root} has no {'qrels.tsv' if queries.is_file() else queries.name}: {WANTED}")
    found = read_qrels(judged)
    records = read_json_lines(queries, str(queries), SourceLimits())
    asked = tuple(
        CollectionQuery(
            id_of(record, f"{queries}:{number}"),
            text_of(record, "text", f"{queries}:{number}"),
            _rows_of(record.get("vectors"), f"{queries}:{number}: vectors"),
        )
        for number, record in records
    )
    if judged.parent != root:  # BEIR's queries are those of all splits
        asked = tuple(query for query in asked if query.id in found)
    return Collection(root.name, corpus, asked, found)


def _rows_of(given: object, where: str) -> ReadyRows | None:
    """Read the rows of one query; CollectionError if they have another shape."""
    try:
        found = matrices_of(given, where)
    except UsageError as error:
        raise CollectionError(str(error)) from None
    if len(found) > 1 or any(rows.ndim != 2 for rows in found):
        raise CollectionError(f"{where} must be rows [q, d]")
    return np.asarray(found[0], np.float32) if found else None


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """Return documents and their relevance by query.

    The file has BEIR's three columns separated by tabs, or TREC's four separated by tabs or blanks.

    Raises:
        CollectionError: If a line is not valid; the message names it.
    """
    judged: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text_lines(path), start=1):
        fields = line.split("\t") if "\t" in line else line.split(" ")
        fields = [field for field in (field.strip(BLANKS) for field in fields) if field]
        if not fields or (number == 1 and _number(fields[-1]) is None):
            continue
        if len(fields) == 4:  # TREC: query, iteration, document, relevance
            fields = [fields[0], fields[2], fields[3]]
        relevance = _number(fields[-1])
        if len(fields) != 3 or relevance is None or not math.isfinite(relevance):
            raise CollectionError(
                f"{path}:{number}: expected query-id, document-id and relevance, separated by tabs, or TREC's four columns"
            )
        judged.setdefault(fields[0], {})[fields[1]] = relevance
    return judged


def text_lines(path: Path) -> list[str]:
    """Return the lines of a file without their ends and without a byte order mark.

    Only line feeds end a line: other characters that Unicode calls line separators may be part of an id.

    Raises:
        CollectionError: If the file cannot be read as UTF-8.
    """
    try:
        return [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise CollectionError(f"{path} cannot be read: {error}") from None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
