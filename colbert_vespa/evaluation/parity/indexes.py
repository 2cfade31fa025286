"""Compare what an index stores, finds and scores with the encoder: codec, candidates and ranking separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.parity.comparison import Case, Comparison, compare_orders, row_cosines, worst_rows
from late_interaction.addresses import locate
from late_interaction.array_types import Matrix
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim_many
from late_interaction.plaid import open_index
from query import Client
from query.types import Hit, SearchResult
from vespa_app.running import Application

__all__ = ["ComparedIndex", "IndexAnswers", "ask", "compare_addresses", "compare_index", "describe"]

Scores = dict[str, dict[str, float]]
EXACT = "exhaustive"
TIE = 1e-3  # difference of two scores that float noise may exchange
WORST = 5


@dataclass(frozen=True)
class ComparedIndex:
    """An index to compare.

    Attributes:
        codec: Name of the codec with its bits.
        embedder: Whether Vespa makes the vectors.
        differences: Differences of Vespa's rules for the text to the bundle's.
    """

    address: str
    codec: str
    embedder: bool = False
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class IndexAnswers:
    """Answers of one index, by query.

    Attributes:
        exact: The first `depth` hits of MaxSim over everything, if the index supports it.
        found: The first k hits of a search.
        texts: Text of every passage among the hits.
        stored: Stored vectors of these passages, if the index returns them.
        scores: Scores by the engine's own `score`.
        notes: Questions that could not be answered.
    """

    place: ComparedIndex
    exact: Mapping[str, SearchResult]
    found: Mapping[str, SearchResult]
    texts: Mapping[str, str]
    stored: Mapping[str, Matrix]
    scores: Scores
    notes: tuple[str, ...]


def describe(address: str) -> ComparedIndex:
    """Return codec and encoder of the index at an address.

    Raises:
        LocalIndexError: If the index is missing or damaged.
        VespaError: If Vespa does not answer.
    """
    located = locate(address)
    if isinstance(located, Path):
        with open_index(located) as index:
            return ComparedIndex(address, _named(index.codec, index.bits))
    description = Application.read(located).description
    settings = description.settings
    codec = _named(settings.codec, settings.residual_bits)
    return ComparedIndex(address, codec, settings.encoding == "embedder", tuple(description.embedder_differences))


def _named(codec: str, bits: int | None) -> str:
    return f"residual{bits}" if codec == "residual" else codec


def ask(
    client: Client, place: ComparedIndex, queries: Mapping[str, str], rows: Mapping[str, Matrix], k: int, depth: int
) -> IndexAnswers:
    """Ask an index every query and collect its answers.

    Args:
        client: Client of the index.
        place: The index.
        queries: Texts of the queries. An index whose queries Vespa encodes is asked with these.
        rows: Rows of the queries by the bundle's encoder, for other indexes.
        k: Hits of a search.
        depth: Hits of MaxSim over everything.
    """
    given: Mapping[str, str | Matrix] = queries if place.embedder else rows
    notes = []
    exact: dict[str, SearchResult] = {}
    if EXACT in client.strategies:
        exact = {id_: client.search(query, depth, candidates=EXACT) for id_, query in given.items()}
    else:
        notes.append(f"{place.address} has no candidates {EXACT}, so misses of a search cannot be measured")
    found = {id_: client.search(query, k) for id_, query in given.items()}
    hits: dict[str, Hit] = {h.passage_id: h for results in (exact, found) for r in results.values() for h in r.hits}
    texts = {id_: passage_text(hit.title, hit.text) for id_, hit in hits.items()}
    stored: Mapping[str, Matrix] = {}
    scores: Scores = {}
    try:
        stored = client.vectors(list(texts))
        scores = {id_: client.score(query, list(texts)) for id_, query in given.items()}
    except UsageError as error:
        notes.append(f"{place.address}: {error}")
    return IndexAnswers(place, exact, found, texts, stored, scores, tuple(notes))


def compare_index(
    answers: IndexAnswers, rows: Mapping[str, Matrix], encoder: Encoder | None, k: int, ready: Mapping[str, Matrix]
) -> list[Comparison]:
    """Compare the layers of one index, as far as the index could answer.

    Args:
        answers: Answers of the index.
        rows: Query rows of the bundle's encoder, by query.
        encoder: Encodes passages; None if all of them have ready rows.
        k: Number of best hits that are compared.
        ready: Rows of passages encoded elsewhere, by passage id.

    Raises:
        UsageError: If a passage has no rows and there is no encoder, or if no passage is found.
    """
    place = answers.place
    passages = list(answers.texts)
    if not passages:
        raise UsageError(f"{place.address} finds nothing for any of the queries; use other queries, or feed it first")
    bare = [id_ for id_ in passages if id_ not in ready]
    if bare and encoder is None:
        raise UsageError(
            f"{place.address} finds passage {bare[0]!r}, whose vectors were made elsewhere; supply them with "
            f"--documents or --collection"
        )
    encoded = encoder.encode_documents([answers.texts[id_] for id_ in bare]) if encoder is not None and bare else []
    made = {**{id_: ready[id_] for id_ in passages if id_ in ready}, **dict(zip(bare, encoded, strict=True))}
    ours = _maxsim(rows, made)
    compared = []
    if answers.stored:
        compared.append(_codec(answers, made, rows, encoder, k))
    if answers.scores and not place.embedder:
        measured, cases = compare_orders(_maxsim(rows, answers.stored), answers.scores, k)
        compared.append(Comparison("ranking", "MaxSim over stored vectors", place.address, measured, tuple(cases)))
    if answers.exact:
        compared.append(_candidates(answers, k))
    reasons = _why(place)
    measured, cases = compare_orders(ours, _by_passage(answers.found), k)
    compared.append(Comparison("answers", "MaxSim of the encoder", place.address, measured, _with(cases, reasons), place.codec))
    return compared


def _codec(
    answers: IndexAnswers, made: Mapping[str, Matrix], rows: Mapping[str, Matrix], encoder: Encoder | None, k: int
) -> Comparison:
    """Compare the encoder's rows with stored rows; texts with another number of rows have no cosines."""
    place = answers.place
    known = [id_ for id_ in made if id_ in answers.stored]
    same = [id_ for id_ in known if len(made[id_]) == len(answers.stored[id_])]
    cosines = {f"passage {id_}": row_cosines(made[id_], answers.stored[id_]) for id_ in same}
    ours, theirs = (_maxsim(rows, {id_: vectors[id_] for id_ in known}) for vectors in (made, answers.stored))
    measured, cases = compare_orders(ours, theirs, k)
    measured["rows_equal"] = len(same) / len(made)
    if cosines:
        together = np.concatenate(list(cosines.values()))
        measured |= {"mean_cosine": float(together.mean()), "worst_cosine": float(together.min())}
    others = [id_ for id_ in made if id_ not in set(same)][:WORST]
    tokens = [] if encoder is None else encoder.tokenizing.documents([answers.texts[id_] for id_ in others])
    cut = {id_: rows_of.truncated for id_, rows_of in zip(others, tokens, strict=encoder is not None)}
    cases += [Case(f"passage {id_}", "rows_equal", 0.0, _other_rows(place, cut.get(id_, False))) for id_ in others]
    layer = "embedder" if place.embedder else "codec"
    whole = _with(worst_rows(cosines, {}) + cases, _why(place))
    return Comparison(layer, "encoder", f"stored in {place.address}", measured, whole, place.codec)


def _other_rows(place: ComparedIndex, truncated: bool) -> str:
    if truncated:
        return "truncation: the text is longer than the model reads"
    if place.embedder and place.differences:
        return f"Vespa's rules: {place.differences[0]}"
    return "stored with another bundle, or text that was changed since"


def _why(place: ComparedIndex) -> str:
    """Return the known reason for different vectors and scores."""
    if place.embedder and place.differences:
        return f"Vespa's rules: {place.differences[0]}"
    return "" if place.codec == "float32" else f"codec {place.codec}"


def _with(cases: Sequence[Case], reason: str) -> tuple[Case, ...]:
    return tuple(case if case.reason else replace(case, reason=reason) for case in cases)


def _candidates(answers: IndexAnswers, k: int) -> Comparison:
    """Compare a search with exhaustive MaxSim in the same index: the passages that its candidates miss."""
    measured, cases = compare_orders(
        {id_: _first(result, k) for id_, result in answers.exact.items()}, _by_passage(answers.found), k
    )
    missed = [miss for query, result in answers.exact.items() for miss in _missed(query, result, answers.found[query], k)]
    strategy = next(iter(answers.found.values())).candidates
    kept = [case for case in cases if case.measure == "score_error"]
    where = answers.place.address
    return Comparison("candidates", f"{EXACT} in {where}", f"{strategy} in {where}", measured, (*missed[:WORST], *kept))


def _missed(query: str, exact: SearchResult, found: SearchResult, k: int) -> list[Case]:
    """Return the hits among the exact k best that the search did not return."""
    there = {hit.passage_id for hit in found.hits}
    last = found.hits[-1].score if len(found.hits) >= k else float("-inf")
    missed = []
    for hit in exact.hits[:k]:
        if hit.passage_id not in there:
            tie = abs(hit.score - last) <= TIE
            reason = "equal scores, either order is right" if tie else f"candidate miss: exact rank {hit.rank}"
            missed.append(Case(f"query {query}, passage {hit.passage_id}", "overlap", hit.score, reason))
    return missed


def compare_addresses(left: IndexAnswers, right: IndexAnswers, k: int) -> Comparison:
    """Compare the hits of two indexes.

    If both support MaxSim over everything, its hits are compared, since no candidate is missed then.
    """
    both = bool(left.exact and right.exact)
    sides = [answers.exact if both else answers.found for answers in (left, right)]
    measured, cases = compare_orders(
        {id_: _first(result, k) for id_, result in sides[0].items()},
        {id_: _first(result, k) for id_, result in sides[1].items()},
        k,
    )
    reasons = [reason for reason in (_why(left.place), _why(right.place)) if reason]
    why = "; ".join(dict.fromkeys(reasons))
    return Comparison("addresses", left.place.address, right.place.address, measured, _with(cases, why))


def _maxsim(rows: Mapping[str, Matrix], vectors: Mapping[str, Matrix]) -> Scores:
    """Return MaxSim by query and passage."""
    ids, lengths = list(vectors), [len(D) for D in vectors.values()]
    if not ids:
        return {query: {} for query in rows}
    flat = np.concatenate(list(vectors.values()))
    return {query: dict(zip(ids, maxsim_many(Q, flat, lengths).tolist(), strict=True)) for query, Q in rows.items()}


def _first(result: SearchResult, k: int) -> dict[str, float]:
    return {hit.passage_id: hit.score for hit in result.hits[:k]}


def _by_passage(results: Mapping[str, SearchResult]) -> Scores:
    return {query: {hit.passage_id: hit.score for hit in result.hits} for query, result in results.items()}
