"""The collections of the benchmarks: documents, queries, a bundle, and token vectors kept in the user's cache folder.

A collection is one of those below, or the path of a folder as `colbert-vespa evaluate` takes it (whole, first 100 queries).
`docs` is a seeded sample of 60,000 passages of technical documentation, cut at 64 tokens; its queries are 200 seeded headings
of at least four words; `docs-100k` has 40,000 more, and the same bundle. `scifact` and `cranfield` are whole (300 tokens) with
their first 100 queries; `medquad-test` is the part of medquad that `benchmarks.train` tests on. `NAME:N` is the first N
documents of one, with its queries and its codebook: how a cost grows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.train import part_of
from colbert_vespa.evaluation.collection import CollectionQuery, read_collection
from colbert_vespa.evaluation.evaluating import Judged
from exporter import ExportOptions, export
from exporter.codebooks import add_codebook
from exporter.hub import minilm_folder
from feeder.sources import open_sources
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle, is_bundle_folder
from late_interaction.bundle_cache import cache_folder
from late_interaction.documents import Document, passage_text
from late_interaction.encoder import Encoder
from late_interaction.files import replace_folder
from late_interaction.tokenizing import Tokenizing
from late_interaction.vector_cache import CachedEncoder, VectorCache

__all__ = ["COLLECTIONS", "DATA", "Benched", "open_collection"]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEED = 13
SAMPLE = 4_000  # texts that the projection is fitted on
CODEBOOK_SAMPLE = 20_000
FIRST = 60_000  # passages of a sample that a larger one begins with
BLOCK = 512


@dataclass(frozen=True)
class Spec:
    """passages: a seeded sample of so many, 0 for all. length: tokens of a passage at most. queries: at most so many.
    source: the collection whose documents and bundle it has, where that is another. folder: of the data, where it has another
    name. part: of the data, as `benchmarks.train.part_of` says; all of it where it is empty."""

    name: str
    passages: int
    length: int
    queries: int
    source: str = ""
    folder: str = ""
    part: str = ""

    @property
    def data(self) -> Path:
        return DATA / (self.source or self.folder or self.name)


COLLECTIONS = {
    spec.name: spec
    for spec in (
        Spec("scifact", 0, 300, 100),
        Spec("docs", 60_000, 64, 200),
        Spec("docs-100k", 100_000, 64, 200, "docs"),
        Spec("cranfield", 0, 300, 100),
        Spec("medquad-test", 0, 300, 100, folder="medquad", part="test"),
    )
}


@dataclass(frozen=True)
class Benched:
    """queries: text and rows `[q, d]` of each."""

    name: str
    bundle: Bundle
    documents: Sequence[Document]
    queries: Sequence[tuple[str, Matrix]]
    encoder: CachedEncoder
    cache: VectorCache

    def __enter__(self) -> Benched:
        return self

    def __exit__(self, *_: object) -> None:
        """Another collection of the same source has the same cache."""
        self.cache.close()

    def blocks(self) -> Iterator[tuple[Sequence[Document], list[Matrix]]]:
        """Documents with their vectors `[t, d]`, some hundred at a time."""
        for first in range(0, len(self.documents), BLOCK):
            part = self.documents[first : first + BLOCK]
            yield part, self.encoder.encode_documents([passage_text(d.title, d.text) for d in part])

    def token_ids(self) -> tuple[list[NDArray[np.uint32]], list[NDArray[np.uint32]]]:
        """The vocabulary id of every row: `[t]` of each document, `[q]` of each query."""
        tokenizing = Tokenizing(self.bundle)
        documents = tokenizing.documents([passage_text(d.title, d.text) for d in self.documents])
        queries = tokenizing.queries([text for text, _ in self.queries])
        return tuple([rows.ids[rows.keep].astype(np.uint32) for rows in side] for side in (documents, queries))


def open_collection(name: str, *, quick: bool = False) -> Benched:
    """Makes the bundle and encodes (int8) what is not in the cache; `quick`: 2,000 passages and 20 queries."""
    whole, _, first = name.partition(":")
    spec = COLLECTIONS.get(whole) or Spec(str(Path(whole).resolve()), 0, 300, 100)
    documents, queries = _documents(spec)
    documents = documents[: int(first)] if first else documents
    if quick:
        documents, queries = documents[:2_000], queries[:20]
    owner = COLLECTIONS.get(spec.source, spec)
    folder = cache_folder() / "benchmarks" / f"{_folder_name(owner.name)}-{spec.length}"
    texts = [passage_text(d.title, d.text) for d in _documents(owner)[0]]
    if not folder.is_dir():
        _make_bundle(spec, texts, folder)
    bundle = Bundle.open(folder)
    cache = VectorCache(folder.with_name(folder.name + "-vectors"), bundle.manifest.dim)
    encoder = CachedEncoder(Encoder(bundle, precision="int8"), cache)
    if "residual" not in bundle.manifest.codebooks:
        bundle = add_codebook(bundle, random.Random(SEED).sample(texts, min(len(texts), CODEBOOK_SAMPLE)), encoder)
    rows = Encoder(bundle, precision="int8").encode_queries([query.text for query in queries])
    return Benched(name, bundle, documents, [(q.text, r) for q, r in zip(queries, rows, strict=True)], encoder, cache)


def _folder_name(name: str) -> str:
    """Of what is cached: a path's last part is not enough."""
    if name in COLLECTIONS:
        return name
    return f"{Path(name).name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _documents(spec: Spec) -> tuple[list[Document], list[CollectionQuery]]:
    documents = [d for d in open_sources([str(spec.data)])[0] if not d.blank and spec.part in ("", part_of(d))]
    if spec.passages:
        documents = _sample(documents, spec.passages)
        return documents, _heading_queries(documents, spec.queries)
    read = read_collection(spec.data)
    return documents, list(Judged.of(spec.name, documents, read.queries, read.qrels).queries)[: spec.queries]


def _sample(documents: list[Document], count: int) -> list[Document]:
    chosen = random.Random(SEED).sample(documents, min(count, FIRST))
    known = {document.id for document in chosen}
    rest = [document for document in documents if document.id not in known]
    return chosen + random.Random(SEED).sample(rest, count - len(chosen))


def _heading_queries(documents: Sequence[Document], count: int) -> list[CollectionQuery]:
    """Different headings of at least four words, a seeded sample."""
    headings = sorted({str(d.metadata.get("heading", "")) for d in documents})
    asked = [heading for heading in headings if len(heading.split()) >= 4]
    return [CollectionQuery(f"q{number}", text) for number, text in enumerate(random.Random(SEED).sample(asked, count))]


def _make_bundle(spec: Spec, texts: Sequence[str], folder: Path) -> None:
    sample = random.Random(SEED).sample(texts, min(len(texts), SAMPLE))
    with replace_folder(folder, owned=is_bundle_folder) as staging:
        export(
            minilm_folder(), staging / "bundle", ExportOptions(quantize=("int8",), sample=sample, document_length=spec.length)
        )
        for item in (staging / "bundle").iterdir():
            item.rename(staging / item.name)
        (staging / "bundle").rmdir()
