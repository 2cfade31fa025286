"""The queries and documents on which stages are compared."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.collection import read_collection
from exporter.verification import verification_texts
from feeder.sources import open_sources
from late_interaction.array_types import Matrix
from late_interaction.documents import Document, Passage, passage_text
from late_interaction.errors import UsageError
from late_interaction.ready_rows import RowRules

__all__ = ["Texts", "sample_texts"]

SEED = 13
POOL = 5_000  # documents of a source that a sample is drawn from


@dataclass(frozen=True)
class Texts:
    """Queries and documents to compare with, by id.

    Attributes:
        rows: Rows of queries that were encoded elsewhere.
        source: The documents, which may have vectors of their own.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    rows: Mapping[str, Matrix] = field(default_factory=dict)
    source: Iterable[Document] = ()

    def ready_rows(self, passage_ids: Collection[str], rules: RowRules) -> dict[str, Matrix]:
        """Return the rows of the passages whose documents have vectors of their own.

        Raises:
            UsageError: If vectors do not fit.
        """
        found: dict[str, Matrix] = {}
        for document in islice(self.source, POOL):
            for number, rows in enumerate(document.vectors):
                if (id_ := Passage.id_of(document.id, number)) in passage_ids:
                    found[id_] = rules.checked(rows)
        return found

    @property
    def sides(self) -> dict[str, list[str]]:
        """As exporter.verification takes them."""
        return {"query": list(self.queries.values()), "document": list(self.documents.values())}

    @property
    def labels(self) -> dict[str, list[str]]:
        """Return a label for each text, by kind, as errors name it."""
        return {"query": [f"query {id_}" for id_ in self.queries], "document": [f"document {id_}" for id_ in self.documents]}


def sample_texts(collection: Path | None, documents: Path | None, queries: Path | None, count: int, query_count: int) -> Texts:
    """Return a seeded sample of queries and documents; without sources, built-in texts.

    Args:
        collection: Collection folder.
        documents: Source of documents.
        queries: Source whose texts are queries.
        count: Number of documents.
        query_count: Number of queries.

    Raises:
        CollectionError: If a source is not valid.
        UsageError: If the sample is empty.
    """
    own = verification_texts(None)
    asked, texts = (_numbered(own["query"]), _numbered(own["document"]))
    rows: dict[str, Matrix] = {}
    source: Iterable[Document] = ()
    if collection is not None:
        read = read_collection(collection)
        asked = {query.id: query.text for query in read.queries if not query.blank}
        rows = {query.id: query.vectors for query in read.queries if query.vectors is not None}
        texts, source = {d.id: passage_text(d.title, d.text) for d in islice(read.corpus, POOL) if not d.blank}, read.corpus
    if documents is not None:
        texts, source = _texts_of(documents), open_sources([str(documents)])[0]
    if queries is not None:
        found = list(islice(open_sources([str(queries)])[0], POOL))
        asked = {d.id: passage_text(d.title, d.text) for d in found if not d.blank}
        rows = {d.id: np.asarray(d.vectors[0], np.float32) for d in found if d.vectors}
    if not asked or not texts:
        raise UsageError("parity needs at least one query and one document, but the sample has none")
    return Texts(_sampled(asked, query_count), _sampled(texts, count), rows, source)


def _numbered(texts: Sequence[str]) -> dict[str, str]:
    return {f"own{number}": text for number, text in enumerate(texts)}


def _texts_of(source: Path) -> dict[str, str]:
    documents = islice(open_sources([str(source)])[0], POOL)
    return {d.id: passage_text(d.title, d.text) for d in documents if not d.blank}


def _sampled(texts: Mapping[str, str], count: int) -> dict[str, str]:
    chosen = random.Random(SEED).sample(sorted(texts), min(count, len(texts)))
    return {id_: texts[id_] for id_ in chosen}
