"""What the strategies of a local index find for one query, and the scores of all of that."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

from late_interaction.array_types import Vector
from late_interaction.documents import Passage
from late_interaction.filters import Filter
from late_interaction.one_vector import one_vector
from late_interaction.plaid import ONE_VECTOR, LocalResult, PlaidIndex, SearchSettings
from query.bm25_candidates import WordScores
from query.fusion import fused
from query.options import SearchOptions
from query.types import EncodedQuery

__all__ = ["FINDS_BY", "Finds", "notes_of"]

FINDS_BY = {"centroid": "maxsim", "pooled": "candidates", "bm25": "bm25", "dense": "dense"}  # strategies, and their scores


class Finds:
    """Passages by id, each with its scores.

    coverage, missing, notes: as in SearchResult; they are updated by each request to the index, which is not refreshed
    meanwhile.
    """

    def __init__(
        self, index: PlaidIndex, query: EncodedQuery, options: SearchOptions, where: Filter | None, model: str
    ) -> None:
        """Start empty. where: the parsed filter of the options. model: the dense model."""
        self._index, self._query, self._options, self._where, self._model = index, query, options, where, model
        self._words: WordScores | None = None
        self._passages: dict[str, Passage] = {}
        self._scores: dict[str, dict[str, float]] = {name: {} for name in FINDS_BY.values()}
        self.found: dict[str, Mapping[str, float]] = {}
        self._silent: set[str] = set()  # from shards that did not answer a score request
        self.coverage = 1.0
        self.missing: set[str] = set()
        self.notes: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Return the ids found, without passages of shards that have not answered since."""
        return list(dict.fromkeys(id_ for scores in self.found.values() for id_ in scores if id_ not in self._silent))

    def find(self, score: str, count: int) -> None:
        """Find the best `count` by that score."""
        ids = self._options.ids
        if score == "bm25":
            self._cover(self._index.readable.share, self._index.readable.missing)
            found = self._by_words().best(count, self._where, ids)
        elif score == "dense":
            vector = self._query.dense[self._model]
            answer = self._index.dense_search(self._model, vector, count, where=self._where, ids=ids)
            self._cover(answer.coverage, answer.missing)
            found = dict(answer.scores)
        elif score == "candidates":
            answer = self._index.dense_search(ONE_VECTOR, self._one_vector, count, where=self._where, ids=ids)
            self._cover(answer.coverage, answer.missing)
            found = dict(answer.scores)
        else:
            probes = self._options.probes
            settings = None if probes is None else SearchSettings(probes)
            result = self._index.search(self._query.rows, count, where=self._where, ids=ids, settings=settings)
            self._cover(result.coverage, result.missing)
            self.notes = notes_of(result)
            self._passages |= {hit.passage.id: hit.passage for hit in result.hits}
            found = {hit.passage.id: hit.score for hit in result.hits}
        self.found[score] = found
        self._scores[score] |= found

    def scores(self, score: str) -> Mapping[str, float]:
        """Return that score of everything found."""
        known, ids = self._scores[score], self.ids
        lacking = [id_ for id_ in ids if id_ not in known]
        if score == "bm25":
            known |= self._by_words().of(lacking)
        elif lacking:
            if score == "dense":
                answer = self._index.dense_scores(self._model, self._query.dense[self._model], lacking)
            elif score == "candidates":
                answer = self._index.dense_scores(ONE_VECTOR, self._one_vector, lacking)
            else:
                answer = self._index.scores(self._query.rows, lacking)
            self._cover(answer.coverage, answer.missing)
            known |= answer.scores
            self._silent |= {id_ for id_ in lacking if id_ not in known}
        return {id_: known[id_] for id_ in ids if id_ in known and math.isfinite(known[id_])}

    def first_order(self) -> dict[str, float]:
        """Return the order without MaxSim: by the score of the only strategy, or by the ranks of several."""
        quick = {name: scores for name, scores in self.found.items() if name != "maxsim"} or self.found
        return dict(next(iter(quick.values()))) if len(quick) == 1 else fused(quick, dict.fromkeys(quick, 1.0))

    def passage(self, passage_id: str) -> Passage:
        """Return a passage."""
        found = self._passages.get(passage_id) or self._index.passage(passage_id)
        assert found is not None  # its scores came from it
        return found

    def stages(self, passage_id: str, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return each score of a passage; 0 if it has no word of the query."""
        stages = {name: of[passage_id] for name, of in scores.items() if passage_id in of}
        return stages | ({"bm25": 0.0} if "bm25" in scores and "bm25" not in stages else {})

    @functools.cached_property
    def _one_vector(self) -> Vector:
        """Of the query."""
        return one_vector(self._index.bundle, self._index.one_vector).query(self._query.rows)

    def _by_words(self) -> WordScores:
        if self._words is None:
            assert self._query.text is not None
            self._words = WordScores(self._index, self._query.text)
        return self._words

    def _cover(self, share: float, missing: Sequence[str]) -> None:
        self.coverage = min(self.coverage, share)
        self.missing |= set(missing)


def notes_of(found: LocalResult) -> tuple[str, ...]:
    """Return notes on a search by MaxSim."""
    notes = []
    if found.widened:
        notes.append("the probed centroids have fewer passages than are to be reranked, so the search was widened")
    if found.outgrown:
        notes.append("the index has more than doubled since it was tuned, so the default effort was used; tune it again")
    return tuple(notes)
