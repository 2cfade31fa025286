"""Read training data: a file of examples, a collection, or unlabelled documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from colbert_vespa.evaluation.collection import read_collection
from colbert_vespa.training.data import (
    Example,
    RawExample,
    TrainingData,
    examples_of,
    judged_examples,
    text_of_document,
    texts_of,
)
from colbert_vespa.training.synthetic import synthetic_examples
from feeder.sources import open_sources
from feeder.sources.corpus import corpus_of
from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import SourceLimits
from late_interaction.errors import CollectionError
from late_interaction.text import clean_text

__all__ = ["read_training_data"]

FORMS = (
    'a line is {"query", "positive", ["negative"]}, {"query", "passage", "label"}, or {"query", "documents", "scores"}, '
    "the positive first"
)


def read_training_data(source: str | Path) -> TrainingData:
    """Read training data from a file or folder.

    The source is a collection folder (corpus, queries, qrels), a JSONL of examples, or any source of bare documents, from which
    examples are then made (`synthetic_examples`).

    Raises:
        CollectionError: If the source is none of these, or a line is not valid.
    """
    path = Path(source)
    if path.is_dir() and corpus_of(path) is not None and (path / "queries.jsonl").is_file():
        return _collection(path)
    if path.is_file() and ".jsonl" in path.name and _has_queries(path):
        return TrainingData(_read_lines(path))
    documents = [document for document in open_sources([str(path)])[0] if not document.blank]
    return TrainingData(synthetic_examples(documents), [text_of_document(d) for d in documents])


def _collection(folder: Path) -> TrainingData:
    read = read_collection(folder)
    texts = {document.id: text_of_document(document) for document in read.corpus if not document.blank}
    examples = judged_examples(texts, read.queries, read.qrels)
    if not examples:
        raise CollectionError(f"collection {folder} has no query with a relevant document in its corpus")
    return TrainingData(examples, list(texts.values()))


def _has_queries(path: Path) -> bool:
    first = next(iter(read_json_lines(path, str(path), SourceLimits())), None)
    return first is not None and "query" in first[1]


def _read_lines(path: Path) -> list[Example]:
    plain: list[RawExample] = []
    labelled: list[RawExample] = []
    scored: list[Example] = []
    for number, record in read_json_lines(path, str(path), SourceLimits()):
        where, query = f"{path}:{number}", record.get("query")
        if not isinstance(query, str):
            raise CollectionError(f"{where} has no query: {FORMS}")
        if "documents" in record:
            scored.append(_scored(record, clean_text(query), where))
        elif "passage" in record and "label" in record:
            labelled.append((query, texts_of(record["passage"], where)[0], _label(record["label"], where)))
        elif "positive" in record:
            negative = record.get("negative")
            plain.append((query, texts_of(record["positive"], where), [] if negative is None else texts_of(negative, where)))
        else:
            raise CollectionError(f"{where} is not a training example: {FORMS}")
    return [*examples_of(_checked(plain)), *examples_of(labelled, labelled=True), *scored]


def _label(value: object, where: str) -> int:
    if not isinstance(value, int):
        raise CollectionError(f"{where}: a label must be 1 (positive) or 0 (negative), got {value!r:.40}")
    return value


def _checked(items: list[RawExample]) -> Iterator[RawExample]:
    """Yield the examples without empty lists of negatives."""
    for item in items:
        yield item if len(item) == 3 and item[2] else (item[0], item[1])


def _scored(record: Mapping[str, object], query: str, where: str) -> Example:
    documents = texts_of(record["documents"], where)
    scores = record.get("scores")
    numbers = isinstance(scores, list) and all(isinstance(value, int | float) and math.isfinite(value) for value in scores)
    if not isinstance(scores, list) or not numbers or len(scores) != len(documents) or len(documents) < 2:
        raise CollectionError(f"{where}: expected a number in scores for each of at least two documents")
    return Example(query, documents[0], tuple(documents[1:]), tuple(float(value) for value in scores))
