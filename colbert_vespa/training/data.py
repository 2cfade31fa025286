"""Training data in one form, whatever it came as: pairs, labelled pairs, triplets, or documents with a teacher's scores."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from colbert_vespa.evaluation.collection import read_collection
from feeder.sources import open_sources
from feeder.sources.corpus import corpus_of
from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import Limits
from late_interaction.documents import Document, passage_text
from late_interaction.errors import CollectionError
from late_interaction.text import clean_text

__all__ = ["Example", "RawExample", "TrainingData", "examples_of", "read_training_data", "split_by_query"]

Texts: TypeAlias = "str | Sequence[str]"
RawExample: TypeAlias = "tuple[str, Texts] | tuple[str, Texts, Texts] | tuple[str, str, int]"
FORMS = (
    'a line is {"query", "positive", ["negative"]}, {"query", "passage", "label"}, or {"query", "documents", "scores"}, '
    "the positive first"
)


@dataclass(frozen=True, slots=True)
class Example:
    """scores: a teacher's, of the positive and then of each negative, or none. source: the document that the positive is a part
    of, where it is not one itself; it is what is searched, and as relevant."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    source: str = ""

    @property
    def documents(self) -> tuple[str, ...]:
        return (self.positive, *self.negatives)

    @property
    def whole(self) -> str:
        return self.source or self.positive


@dataclass(frozen=True)
class TrainingData:
    """documents: texts to mine negatives from; those of the examples count as well."""

    examples: Sequence[Example]
    documents: Sequence[str] = ()

    @property
    def pool(self) -> list[str]:
        """What negatives are looked for in: every document once, in the order it was first seen."""
        seen = dict.fromkeys(self.documents)
        seen |= dict.fromkeys(text for example in self.examples for text in (example.whole, *example.negatives))
        return list(seen)

    def positives(self) -> dict[str, set[str]]:
        """By query, everything that some example calls relevant."""
        found: dict[str, set[str]] = {}
        for example in self.examples:
            found.setdefault(example.query, set()).update((example.positive, example.whole))
        return found


def examples_of(
    raw: Iterable[RawExample], *, labelled: bool = False, positive_label: int = 1, negative_label: int = 0
) -> list[Example]:
    """(query, positive), (query, passage, label) where `labelled`, or (query, positives, negatives). An example for each
    positive, with all the negatives of its query.

    Raises: CollectionError naming the first tuple of another form.
    """
    positives: dict[str, dict[str, None]] = {}
    negatives: dict[str, dict[str, None]] = {}
    for place, item in enumerate(raw):
        query, good, bad = _parts(item, place, labelled, (positive_label, negative_label))
        positives.setdefault(query, {}).update(dict.fromkeys(good))
        negatives.setdefault(query, {}).update(dict.fromkeys(bad))
    return [
        Example(query, positive, tuple(text for text in negatives[query] if text not in good))
        for query, good in positives.items()
        for positive in good
    ]


def _parts(
    item: Sequence[object], place: int, labelled: bool, labels: tuple[int, int]
) -> tuple[str, Sequence[str], Sequence[str]]:
    where = f"training example {place}"
    wanted = 3 if labelled else len(item)
    if len(item) != wanted or wanted not in (2, 3) or not isinstance(item[0], str):
        form = "(query, passage, label)" if labelled else "(query, positive) or (query, positive, negative)"
        raise CollectionError(f"{where} must be {form}, got {len(item)} values")
    query = clean_text(item[0])
    if not labelled:
        return query, _texts(item[1], where), _texts(item[2], where) if len(item) == 3 else ()
    if item[2] not in labels:
        raise CollectionError(f"{where} has label {item[2]!r}: known are {labels[0]} (positive) and {labels[1]} (negative)")
    passage = _texts(item[1], where)
    return (query, passage, ()) if item[2] == labels[0] else (query, (), passage)


def _texts(value: object, where: str) -> list[str]:
    found = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if not found or not all(isinstance(text, str) for text in found):
        raise CollectionError(f"{where}: a passage must be text or a list of texts, got {value!r:.60}")
    return [clean_text(text) for text in found]


def read_training_data(source: str | Path) -> TrainingData:
    """A collection folder (corpus, queries, qrels), a JSONL of examples, or any source of bare documents, whose examples are
    then made (`synthetic_examples`).

    Raises: CollectionError where it is none of them, or a line is not as it should be.
    """
    path = Path(source)
    if path.is_dir() and corpus_of(path) is not None and (path / "queries.jsonl").is_file():
        return _collection(path)
    if path.is_file() and ".jsonl" in path.name and _has_queries(path):
        return TrainingData(_read_lines(path))
    from colbert_vespa.training.synthetic import synthetic_examples

    documents = [document for document in open_sources([str(path)])[0] if not document.blank]
    return TrainingData(synthetic_examples(documents), [text_of_document(d) for d in documents])


def text_of_document(document: Document) -> str:
    return passage_text(document.title, document.text)


def _collection(folder: Path) -> TrainingData:
    read = read_collection(folder)
    texts = {document.id: text_of_document(document) for document in read.corpus if not document.blank}
    examples = [
        Example(query.text, texts[id_])
        for query in read.queries
        for id_, relevance in read.qrels.get(query.id, {}).items()
        if relevance > 0 and id_ in texts
    ]
    if not examples:
        raise CollectionError(f"collection {folder} has no query with a relevant document in its corpus")
    return TrainingData(examples, list(texts.values()))


def _has_queries(path: Path) -> bool:
    first = next(iter(read_json_lines(path, str(path), Limits())), None)
    return first is not None and "query" in first[1]


def _read_lines(path: Path) -> list[Example]:
    plain: list[RawExample] = []
    labelled: list[RawExample] = []
    scored: list[Example] = []
    for number, record in read_json_lines(path, str(path), Limits()):
        where, query = f"{path}:{number}", record.get("query")
        if not isinstance(query, str):
            raise CollectionError(f"{where} has no query: {FORMS}")
        if "documents" in record:
            scored.append(_scored(record, clean_text(query), where))
        elif "passage" in record and "label" in record:
            labelled.append((query, _texts(record["passage"], where)[0], _label(record["label"], where)))
        elif "positive" in record:
            negative = record.get("negative")
            plain.append((query, _texts(record["positive"], where), [] if negative is None else _texts(negative, where)))
        else:
            raise CollectionError(f"{where} is no training example: {FORMS}")
    return [*examples_of(_checked(plain)), *examples_of(labelled, labelled=True), *scored]


def _label(value: object, where: str) -> int:
    if not isinstance(value, int):
        raise CollectionError(f"{where}: a label must be 1 (positive) or 0 (negative), got {value!r:.40}")
    return value


def _checked(items: list[RawExample]) -> Iterator[RawExample]:
    """Without the empty lists that stand for no negatives."""
    for item in items:
        yield item if len(item) == 3 and item[2] else (item[0], item[1])


def _scored(record: Mapping[str, object], query: str, where: str) -> Example:
    documents = _texts(record["documents"], where)
    scores = record.get("scores")
    numbers = isinstance(scores, list) and all(isinstance(value, int | float) and math.isfinite(value) for value in scores)
    if not isinstance(scores, list) or not numbers or len(scores) != len(documents) or len(documents) < 2:
        raise CollectionError(f"{where}: wanted a number in scores for each of at least two documents")
    return Example(query, documents[0], tuple(documents[1:]), tuple(float(value) for value in scores))


def split_by_query(data: TrainingData, share: float, seed: int) -> tuple[TrainingData, TrainingData]:
    """(training, held out): whole queries, and all that was made of one document, so that none is on both sides. The documents
    are the same.

    share: of the queries that are held out, in (0, 1).
    """
    queries = sorted({example.query for example in data.examples})
    held = set(random.Random(seed).sample(queries, max(1, round(share * len(queries)))))
    sources = {example.source for example in data.examples if example.query in held} - {""}
    chosen = [example.query in held or example.source in sources for example in data.examples]
    outside = [example for example, out in zip(data.examples, chosen, strict=True) if out]
    inside = [example for example, out in zip(data.examples, chosen, strict=True) if not out]
    return dataclasses.replace(data, examples=inside), dataclasses.replace(data, examples=outside)
