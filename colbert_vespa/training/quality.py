"""Drop examples before training: blanks, noise, duplicates, contradictions, and overlaps with the test set."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from colbert_vespa.training.data import Example, TrainingData
from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["DataReport", "QualitySettings", "clean"]

PERMUTATIONS, SHINGLE = 64, 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class QualitySettings:
    """Limits for the examples that are kept.

    Attributes:
        least_query_words: Words of a query, at least.
        most_query_words: Words of a query, at most.
        least_document_words: Words of a document, at least.
        near: Estimated Jaccard similarity of five-word shingles from which two documents count as the same; 1.0 for exact
            duplicates only.
        keep_duplicates: Keep examples that occur more than once.
    """

    least_query_words: int = 1
    most_query_words: int = 200
    least_document_words: int = 3
    near: float = 0.9
    keep_duplicates: bool = False


@dataclass
class DataReport:
    """Counts of kept and dropped examples.

    Attributes:
        dropped: Number of dropped examples by reason.
        merged: Number of documents that are represented by a near-duplicate.
    """

    given: int = 0
    kept: int = 0
    queries: int = 0
    documents: int = 0
    with_negatives: int = 0
    with_scores: int = 0
    query_words: float = 0.0
    document_words: float = 0.0
    merged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        """Return the report as it is written to JSON."""
        return dataclasses.asdict(self) | {"dropped": dict(self.dropped)}

    def rows(self) -> dict[str, object]:
        """Return the rows of a table."""
        rows: dict[str, object] = {
            "examples": f"{self.kept:,} of {self.given:,} kept, {self.queries:,} queries",
            "documents": f"{self.documents:,}, {self.merged:,} of them near-duplicates of another",
            "words": f"{self.query_words:.1f} a query, {self.document_words:.1f} a document on average",
            "negatives": f"{self.with_negatives:,} examples have some, {self.with_scores:,} have a teacher's scores",
        }
        return rows | {f"dropped: {why}": f"{count:,}" for why, count in sorted(self.dropped.items())}


def clean(
    data: TrainingData, settings: QualitySettings | None = None, *, test: TrainingData | None = None
) -> tuple[TrainingData, DataReport]:
    """Drop examples that are faulty, duplicates, or leaks from the test set.

    Args:
        data: Examples and documents.
        settings: Limits for the examples that are kept.
        test: The data to be evaluated on. Examples with a query or positive of the test data, exact or near, are leaks and are
            dropped, and its documents leave the pool.

    Returns:
        The remaining data and a report.

    Raises:
        CollectionError: If no example remains.
    """
    settings = settings or QualitySettings()
    pool = data.pool
    held = [*test.pool, *(example.positive for example in test.examples)] if test else []
    same = _representatives([*held, *pool, *(example.positive for example in data.examples)], settings.near)
    tested = {same[text] for text in held}
    asked = {_plain(example.query) for example in test.examples} if test else set()
    report = DataReport(given=len(data.examples), documents=len(pool))
    report.merged = len(pool) - len({same[text] for text in pool})
    relevant: dict[str, set[str]] = {}
    for example in data.examples:
        relevant.setdefault(_plain(example.query), set()).update((same[example.positive], same[example.whole]))
    kept: list[Example] = []
    seen: set[tuple[str, str]] = set()
    for example in data.examples:
        why = _fault(example, settings)
        key = (_plain(example.query), same[example.positive])
        if why is None and (key[0] in asked or key[1] in tested or same[example.whole] in tested):
            why = "leak: in the test set"
        if why is None and key in seen and not settings.keep_duplicates:
            why = "duplicate"
        if why is not None:
            report.dropped[why] += 1
            continue
        seen.add(key)
        kept.append(_without_contradictions(example, relevant[key[0]] | tested, same, report))
    if not kept:
        raise CollectionError(f"no training example is left of {report.given}: {dict(report.dropped)}")
    _describe(report, kept)
    documents = [text for text in data.documents if same[text] not in tested]
    return TrainingData(kept, documents), report


def _fault(example: Example, settings: QualitySettings) -> str | None:
    query, document = _plain(example.query), _plain(example.positive)
    if not query or not document:
        return "blank"
    words = len(query.split())
    if words < settings.least_query_words or words > settings.most_query_words:
        return "length of the query"
    if len(document.split()) < settings.least_document_words:
        return "document too short"
    return "query is the document" if query == document else None


def _without_contradictions(example: Example, forbidden: set[str], same: dict[str, str], report: DataReport) -> Example:
    """Remove negatives that are relevant to the query elsewhere, blank, or in the test set."""
    good = [n for n, text in enumerate(example.negatives) if _plain(text) and same[text] not in forbidden]
    if len(good) == len(example.negatives):
        return example
    report.dropped["negatives that are positives, blank or in the test set"] += len(example.negatives) - len(good)
    scores = (example.scores[0], *(example.scores[n + 1] for n in good)) if example.scores and good else ()
    return dataclasses.replace(example, negatives=tuple(example.negatives[n] for n in good), scores=scores)


def _describe(report: DataReport, examples: Sequence[Example]) -> None:
    report.kept = len(examples)
    report.queries = len({example.query for example in examples})
    report.with_negatives = sum(bool(example.negatives) for example in examples)
    report.with_scores = sum(bool(example.scores) for example in examples)
    report.query_words = _mean(len(example.query.split()) for example in examples)
    report.document_words = _mean(len(example.positive.split()) for example in examples)


def _mean(values: Iterable[int]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _plain(text: str) -> str:
    """Return the words of a text, without case, spaces and punctuation."""
    return " ".join(_WORD.findall(text.lower()))


def _representatives(texts: Sequence[str], near: float) -> dict[str, str]:
    """Map each text to the first text that it duplicates, or to itself."""
    exact: dict[str, str] = {}
    first = {text: exact.setdefault(_plain(text), text) for text in texts}
    if near >= 1:
        return first
    closest = _near_duplicates(list(dict.fromkeys(first.values())), near)
    return {text: closest(kept) for text, kept in first.items()}


def _near_duplicates(texts: Sequence[str], near: float) -> Callable[[str], str]:
    with required("train", "the search for near-duplicates"):
        from datasketch import MinHash, MinHashLSH
    index = MinHashLSH(threshold=near, num_perm=PERMUTATIONS)
    hashes = MinHash.bulk([_shingles(text) for text in texts], num_perm=PERMUTATIONS, seed=1)
    representative: dict[str, str] = {}
    for place, (text, hashed) in enumerate(zip(texts, hashes, strict=True)):
        # the index answers with what shares a band; the estimate decides
        candidates = sorted(int(key) for key in index.query(hashed))
        same = next((n for n in candidates if hashes[n].jaccard(hashed) >= near), None)
        if same is None:
            index.insert(str(place), hashed)
        representative[text] = text if same is None else texts[same]
    return representative.__getitem__


def _shingles(text: str) -> list[bytes]:
    words = _plain(text).split()
    if len(words) <= SHINGLE:
        return [" ".join(words).encode()]
    return [" ".join(words[n : n + SHINGLE]).encode() for n in range(len(words) - SHINGLE + 1)]
