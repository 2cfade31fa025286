"""Training data in one form: pairs, labelled pairs, triplets, or documents with a teacher's scores."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from colbert_vespa.evaluation.collection import CollectionQuery, Qrels
from late_interaction.documents import Document, passage_text
from late_interaction.errors import CollectionError
from late_interaction.text import clean_text

__all__ = [
    "Example",
    "RawExample",
    "TrainingData",
    "examples_of",
    "judged_examples",
    "split_by_query",
    "text_of_document",
    "texts_of",
]

Texts: TypeAlias = "str | Sequence[str]"
RawExample: TypeAlias = "tuple[str, Texts] | tuple[str, Texts, Texts] | tuple[str, str, int]"


@dataclass(frozen=True, slots=True)
class Example:
    """A query with a positive and negatives.

    Attributes:
        scores: A teacher's scores, of the positive and then of each negative, or none.
        source: The document that the positive is a part of, if it is not a document itself. It is searched, and as relevant as
            the positive.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    source: str = ""

    @property
    def documents(self) -> tuple[str, ...]:
        """Return the positive, then the negatives."""
        return (self.positive, *self.negatives)

    @property
    def whole(self) -> str:
        """Return the document of the positive: its source, or else the positive itself."""
        return self.source or self.positive


@dataclass(frozen=True)
class TrainingData:
    """Examples, with documents to mine negatives from.

    Attributes:
        documents: Texts to mine negatives from, in addition to those of the examples.
    """

    examples: Sequence[Example]
    documents: Sequence[str] = ()

    @property
    def pool(self) -> list[str]:
        """Return the texts to mine negatives from: every document once, in the order of first occurrence."""
        seen = dict.fromkeys(self.documents)
        seen |= dict.fromkeys(text for example in self.examples for text in (example.whole, *example.negatives))
        return list(seen)

    def positives(self) -> dict[str, set[str]]:
        """Return, by query, every text that an example marks as relevant."""
        relevant: dict[str, set[str]] = {}
        for example in self.examples:
            relevant.setdefault(example.query, set()).update((example.positive, example.whole))
        return relevant


def examples_of(
    raw: Iterable[RawExample], *, labelled: bool = False, positive_label: int = 1, negative_label: int = 0
) -> list[Example]:
    """Return an example for each positive, with all negatives of its query.

    Args:
        raw: Tuples (query, positive), (query, positives, negatives), or, if `labelled`, (query, passage, label).
        labelled: Whether the tuples have labels.
        positive_label: Label of a positive.
        negative_label: Label of a negative.

    Raises:
        CollectionError: If a tuple has another form; the message names the first one.
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
        return query, texts_of(item[1], where), texts_of(item[2], where) if len(item) == 3 else ()
    if item[2] not in labels:
        raise CollectionError(f"{where} has label {item[2]!r}: known are {labels[0]} (positive) and {labels[1]} (negative)")
    passage = texts_of(item[1], where)
    return (query, passage, ()) if item[2] == labels[0] else (query, (), passage)


def texts_of(value: object, where: str) -> list[str]:
    """Return the cleaned texts of a passage or a list of passages.

    Raises:
        CollectionError: If the value is neither; the message names `where`.
    """
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise CollectionError(f"{where}: a passage must be text or a list of texts, got {value!r:.60}")
    return [clean_text(text) for text in texts]


def judged_examples(texts: Mapping[str, str], queries: Iterable[CollectionQuery], qrels: Qrels) -> list[Example]:
    """Return an example for each query and each of its relevant documents; `texts` holds texts by document id."""
    return [
        Example(query.text, texts[id_])
        for query in queries
        for id_, relevance in qrels.get(query.id, {}).items()
        if relevance > 0 and id_ in texts
    ]


def text_of_document(document: Document) -> str:
    """Return the document as the model reads it: its title, then its text."""
    return passage_text(document.title, document.text)


def split_by_query(data: TrainingData, share: float, seed: int) -> tuple[TrainingData, TrainingData]:
    """Split the examples into a training and a held-out part by whole queries.

    All examples made from one document are on the same side. Both parts keep all the documents.

    Args:
        data: Examples and documents.
        share: Share of the queries that are held out, in (0, 1).
        seed: Seed of the random choice.

    Returns:
        The training part and the held-out part.
    """
    queries = sorted({example.query for example in data.examples})
    held = set(random.Random(seed).sample(queries, max(1, round(share * len(queries)))))
    sources = {example.source for example in data.examples if example.query in held} - {""}
    chosen = [example.query in held or example.source in sources for example in data.examples]
    outside = [example for example, out in zip(data.examples, chosen, strict=True) if out]
    inside = [example for example, out in zip(data.examples, chosen, strict=True) if not out]
    return dataclasses.replace(data, examples=inside), dataclasses.replace(data, examples=outside)
