"""Mine hard negatives: documents that a search ranks high for a query and that are not its positives.

BM25 finds documents that share the query's words; the model, through the local engine, finds documents that it considers
similar. Both also find relevant documents that were never judged. The rank window, the margin and ratio to the positive's
score, and a teacher that scores both, exclude these.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colbert_vespa.training.data import Example, TrainingData
from colbert_vespa.training.scorers import Scorer
from feeder import FeedOptions, start_feed
from late_interaction.bm25 import Bm25
from late_interaction.documents import Document
from late_interaction.errors import UsageError
from late_interaction.files import atomic_write
from late_interaction.progress import CountReport
from late_interaction.structured import parse, read
from query import Client

__all__ = ["Bm25Ranker", "MiningSettings", "ModelRanker", "Ranker", "mine", "mined_once"]

SOURCES = ("bm25", "model")


@dataclass(frozen=True)
class MiningSettings:
    """Settings of the search for negatives.

    Attributes:
        by: Rankers: bm25, model, or both, which then take turns.
        first_rank: First rank of the window, counted from 1 with positives included.
        last_rank: Last rank of the window.
        margin: A negative scores at least this much below the positive.
        ratio: A negative scores below this share of the positive's score (NV-Retriever's filter: Moreira et al. 2024, arXiv
            2407.15831).
        draw: Whether the negatives are drawn at random from the window, or are its first.
    """

    by: tuple[str, ...] = ("bm25",)
    first_rank: int = 1
    last_rank: int = 30
    margin: float | None = None
    ratio: float | None = None
    draw: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is not valid.
        """
        if not self.by or set(self.by) - set(SOURCES):
            raise UsageError(f"negatives are mined by {' or '.join(SOURCES)}, got {', '.join(self.by) or 'nothing'}")
        if not 1 <= self.first_rank <= self.last_rank:
            raise UsageError(f"ranks of negatives go from 1 up, got {self.first_rank} to {self.last_rank}")


class Ranker(Protocol):
    """A search over texts, which are identified by position."""

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the places and scores of the k best texts, best first."""
        ...

    def score(self, query: str, places: Sequence[int]) -> dict[int, float]:
        """Return the scores of those of these places that a search could find at all."""
        ...


class Bm25Ranker:
    """A ranker by BM25."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        self._index = Bm25([str(n) for n in range(len(texts))], texts)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the places and scores of the k best texts, best first."""
        return [(int(id_), score) for id_, score in self._index.search(query, k)]

    def score(self, query: str, places: Sequence[int]) -> dict[int, float]:
        """Return the score of each of these places; 0.0 where no word matches."""
        scores = dict(self.search(query, self._size))
        return {place: scores.get(place, 0.0) for place in places}


class ModelRanker:
    """A ranker by MaxSim with the local engine, which indexes the texts in `folder`."""

    def __init__(self, bundle: Path, texts: Sequence[str], folder: Path) -> None:
        documents = [Document(str(n), "", text) for n, text in enumerate(texts) if text.strip()]
        options = FeedOptions(to=str(folder), bundle=bundle, journal=folder.with_suffix(".journal"))
        with start_feed([documents], options) as run:
            run.go()
        self._client = Client(folder)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the places and scores of the k best texts, best first."""
        return [(int(hit.id), hit.score) for hit in self._client.search(query, k).hits]

    def score(self, query: str, places: Sequence[int]) -> dict[int, float]:
        """Return the scores of those of these places that are in the index."""
        scores = self._client.score(query, [f"{place}#0" for place in places])
        return {int(id_.partition("#")[0]): score for id_, score in scores.items()}

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def mine(
    data: TrainingData,
    rankers: Sequence[Ranker],
    settings: MiningSettings,
    count: int,
    *,
    further: bool = False,
    teacher: Scorer | None = None,
    progress: CountReport | None = None,
) -> list[Example]:
    """Return the examples with `count` negatives each.

    An example's own negatives come first, then mined ones, then, if a search found too few, random documents of the pool that
    it did not rank. An example that gets another negative loses its scores, since they no longer cover all of its documents.

    Args:
        data: Examples and documents.
        rankers: Rankers over `data.pool`.
        settings: Settings of the search.
        count: Number of negatives of each example.
        further: Mine `count` negatives in addition to an example's own.
        teacher: Its scores decide on margin and ratio. Without margin and ratio, a negative scores below the positive.
        progress: Called with the number of examples done, and of all.
    """
    pool = data.pool
    place_of = {text: place for place, text in enumerate(pool)}
    positives = data.positives()
    report = progress or (lambda _done, _total: None)
    mined = []
    for number, example in enumerate(data.examples):
        # a draw of its own for each example, so that one more example changes no other
        draw = random.Random(f"{settings.seed} {example.query} {example.positive}")
        wanted = count if further else count - len(example.negatives)
        if wanted > 0:
            barred = positives[example.query] | set(example.negatives)
            candidates = _candidates(example, pool, place_of, rankers, settings, barred, teacher)
            chosen = _choose(candidates, wanted, draw if settings.draw else None)
            chosen += _random(pool, wanted - len(chosen), barred | set(chosen), draw)
            example = dataclasses.replace(example, negatives=(*example.negatives, *chosen), scores=())  # noqa: PLW2901
        mined.append(example if further else _first(example, count))
        report(number + 1, len(data.examples))
    return mined


def mined_once(
    file: Path, data: TrainingData, settings: MiningSettings, count: int, models: str, make: Callable[[], list[Example]]
) -> list[Example]:
    """Return the examples that `make` mines, kept in `file`.

    The file is read again as long as data, settings and models (of rankers and teacher) are the same.
    """
    digest = _digest(data, settings, count, models)
    if file.is_file():
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        if head == json.dumps(digest):
            where, advice = f"{file} is damaged", "remove it, and it will be made again"
            return [read(Example, parse(line, UsageError, where, advice), UsageError, where) for line in lines]
    mined = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, "".join(json.dumps(item) + "\n" for item in (digest, *map(dataclasses.asdict, mined))).encode())
    return mined


def _first(example: Example, count: int) -> Example:
    """Return the example with at most `count` negatives."""
    if len(example.negatives) <= count:
        return example
    return dataclasses.replace(example, negatives=example.negatives[:count], scores=example.scores[: count + 1])


def _candidates(
    example: Example,
    pool: Sequence[str],
    place_of: dict[str, int],
    rankers: Sequence[Ranker],
    settings: MiningSettings,
    barred: set[str],
    teacher: Scorer | None,
) -> list[list[str]]:
    """Return the candidates of each ranker, best first.

    Documents that rank before the window or were rejected as too good are added to `barred`, so that they do not come back as
    random documents.
    """
    candidates = []
    rankings = [ranker.search(example.query, settings.last_rank) for ranker in rankers]
    for ranking in rankings:
        barred.update(pool[place] for place, _ in ranking[: settings.first_rank - 1])
    for ranker, ranking in zip(rankers, rankings, strict=True):
        scored = [(pool[place], score) for place, score in ranking[settings.first_rank - 1 :] if pool[place] not in barred]
        if teacher is not None and scored:
            scores = teacher([(example.query, example.positive), *((example.query, text) for text, _ in scored)])
            kept = zip((text for text, _ in scored), scores[1:], strict=True)
            candidates.append([text for text, score in kept if _below(score, scores[0], settings, strict=True)])
        elif settings.margin is not None or settings.ratio is not None:
            place = place_of[example.whole]
            best = ranker.score(example.query, [place]).get(place, 0.0)
            candidates.append([text for text, score in scored if _below(score, best, settings, strict=False)])
        else:
            candidates.append([text for text, _ in scored])
        barred.update({text for text, _ in scored} - set(candidates[-1]))
    return [[text for text in texts if text not in barred] for texts in candidates]


def _below(score: float, positive: float, settings: MiningSettings, *, strict: bool) -> bool:
    """Tell whether a score is far enough below the positive's; a ratio applies to its magnitude, for negative scores."""
    if settings.margin is None and settings.ratio is None:
        return score < positive or not strict
    under = settings.margin is None or score <= positive - settings.margin
    return under and (settings.ratio is None or score <= positive - (1 - settings.ratio) * abs(positive))


def _choose(candidates: Sequence[Sequence[str]], wanted: int, draw: random.Random | None) -> list[str]:
    """Choose negatives from each ranker in turn, at random with `draw`, else the first ones."""
    lists = [list(texts) for texts in candidates]
    if draw is not None:
        for texts in lists:
            draw.shuffle(texts)
    turns = [text for turn in range(max(map(len, lists), default=0)) for texts in lists for text in texts[turn : turn + 1]]
    return list(dict.fromkeys(turns))[:wanted]


def _random(pool: Sequence[str], wanted: int, barred: set[str], draw: random.Random) -> list[str]:
    chosen: dict[str, None] = {}
    for _ in range(wanted * 20):
        if len(chosen) == wanted:
            break
        text = draw.choice(pool)
        if text not in barred:
            chosen[text] = None
    return list(chosen)


def _digest(data: TrainingData, settings: MiningSettings, count: int, name: str) -> str:
    digest = hashlib.sha256(repr((settings, count, name)).encode())
    for example in data.examples:
        digest.update(repr(example).encode())
    for text in data.pool:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:16]
