"""Each fault is told as what it is: made-up answers of an index with one thing wrong at a time."""

from types import SimpleNamespace

import numpy as np
import pytest

from colbert_vespa.evaluation.parity.comparison import Case, Comparison, compare_orders
from colbert_vespa.evaluation.parity.indexes import ComparedIndex, IndexAnswers, compare_addresses, compare_index
from colbert_vespa.evaluation.parity.thresholds import THRESHOLDS, checks_of, parse_thresholds
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from query.types import Hit, SearchResult

K = 3
RNG = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


VECTORS = {f"d{n}#0": unit(RNG.standard_normal((6, 8))) for n in range(12)}
ROWS = {f"q{n}": unit(RNG.standard_normal((4, 8))) for n in range(5)}


class FakeEncoder:
    """The text of a passage is its id."""

    tokenizing = SimpleNamespace(documents=lambda texts: [SimpleNamespace(truncated=text == "d3#0") for text in texts])

    def encode_documents(self, texts):
        return [VECTORS[text] for text in texts]


def answer(vectors, query, count, leave_out=(), factor=1.0):
    scores = {id_: factor * maxsim(ROWS[query], D) for id_, D in vectors.items()}
    order = sorted((id_ for id_ in scores if id_ not in leave_out), key=lambda id_: -scores[id_])[:count]
    hits = [Hit(n, id_[:-2], id_, scores[id_], "", id_, {}) for n, id_ in enumerate(order, start=1)]
    return SearchResult(tuple(hits), "centroid", None, count)


def answers(*, stored=VECTORS, leave_out=(), factor=1.0, place=ComparedIndex("here", "float32")):
    exact = {query: answer(stored, query, len(stored), factor=factor) for query in ROWS}
    return IndexAnswers(
        place=place,
        exact=exact,
        found={query: answer(stored, query, K, leave_out, factor) for query in ROWS},
        texts={id_: id_ for id_ in VECTORS},
        stored=stored,
        scores={q: {id_: factor * maxsim(Q, D) for id_, D in stored.items()} for q, Q in ROWS.items()},
        notes=(),
    )


def faults(given):
    """Layers that fail, with their comparisons."""
    compared = compare_index(given, ROWS, FakeEncoder(), K, {})
    return {c.layer: c for c in compared if any(not check.passed for check in checks_of(c, {}))}, compared


def test_nothing_differs():
    found, compared = faults(answers())
    assert found == {}
    assert [c.layer for c in compared] == ["codec", "ranking", "candidates", "answers"]
    for comparison in compared:
        assert comparison.measured["overlap"] == 1.0 and comparison.measured["score_error"] < 1e-5


def test_other_vectors_are_the_codecs():
    stored = {id_: unit(D + RNG.normal(0, 0.3, D.shape)) for id_, D in VECTORS.items()}
    found, _ = faults(answers(stored=stored, place=ComparedIndex("here", "residual4")))
    assert {"codec"} <= found.keys() <= {"codec", "answers"}
    assert {case.reason for case in found["codec"].cases} == {"codec residual4"}
    assert found["codec"].cases[0].what.startswith("passage d")


def test_other_scores_of_the_same_vectors_are_the_ranking():
    found, _ = faults(answers(factor=1.5))
    assert found.keys() == {"ranking"}
    assert found["ranking"].measured["tau"] == pytest.approx(1.0)


def test_what_is_not_found_is_a_candidate_miss():
    best = answer(VECTORS, "q0", 1).hits[0].passage_id
    found, _ = faults(answers(leave_out=(best,)))
    assert "candidates" in found and not {"codec", "ranking"} & found.keys()
    assert Case(f"query q0, passage {best}", "overlap", pytest.approx(maxsim(ROWS["q0"], VECTORS[best])),
                "candidate miss: exact rank 1") in found["candidates"].cases  # fmt: skip


def test_equal_scores_are_no_candidate_miss():
    """Two passages of the same vectors at the k-th place."""
    third = answer(VECTORS, "q0", K).hits[-1].passage_id
    twins = {**VECTORS, "d12#0": VECTORS[third]}
    given = answers(stored=twins, leave_out=(third,))
    _, compared = faults(given)
    case = next(c for c in compared if c.layer == "candidates").cases[0]
    assert (case.what, case.reason) == (f"query q0, passage {third}", "equal scores, either order is right")


def test_rows_that_are_missing_have_a_reason():
    stored = VECTORS | {"d3#0": VECTORS["d3#0"][:4], "d4#0": VECTORS["d4#0"][:4]}
    found, _ = faults(answers(stored=stored))
    reasons = {case.what: case.reason for case in found["codec"].cases if case.measure == "rows_equal"}
    assert reasons["passage d3#0"].startswith("truncation")
    assert reasons["passage d4#0"].startswith("stored with another bundle")
    assert found["codec"].measured["rows_equal"] == pytest.approx(10 / 12)


def test_vespas_embedder_is_a_layer_of_its_own():
    place = ComparedIndex("here", "float32", embedder=True, differences=("punctuation is dropped",))
    stored = {id_: unit(D + RNG.normal(0, 1.0, D.shape)) for id_, D in VECTORS.items()}
    _, compared = faults(answers(stored=stored, place=place))
    assert [c.layer for c in compared] == ["embedder", "candidates", "answers"]  # its queries' rows are not known
    assert compared[0].cases[0].reason == "Vespa's rules: punctuation is dropped"


def test_two_addresses():
    stored = {id_: unit(D + RNG.normal(0, 0.3, D.shape)) for id_, D in VECTORS.items()}
    same = compare_addresses(answers(), answers(), K)
    other = compare_addresses(answers(), answers(stored=stored, place=ComparedIndex("there", "residual2")), K)
    assert same.measured["overlap"] == 1.0 > other.measured["overlap"]
    assert other.name == "addresses here : there" and other.cases[0].reason == "codec residual2"


def test_orders_by_hand():
    measured, cases = compare_orders({"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"q": {"a": 1.0, "b": 2.0, "c": 2.5}}, 1)
    assert measured == {"overlap": 0.0, "tau": pytest.approx(-1.0), "score_error": 2.0}
    assert cases == [Case("query q", "overlap", 0.0), Case("query q", "score_error", 2.0)]
    assert compare_orders({"q": {"a": 1.0}}, {"q": {"a": -np.inf}}, 1)[0] == {"overlap": 1.0}


def test_thresholds_by_layer_and_by_comparison():
    comparison = Comparison("codec", "a", "http://h:80#x", {"mean_cosine": 0.97, "tau": 0.9}, codec="residual4")
    assert [check.passed for check in checks_of(comparison, {})] == [False, True]
    own = parse_thresholds(["codec.mean_cosine=0.99", "codec a : http://h:80#x.mean_cosine=0.95", "codec.worst_cosine=1"])
    assert all(check.passed for check in checks_of(comparison, own))
    assert "wanted at least 0.99" in checks_of(comparison, {})[0].said
    for text in ("codec=1", "nonsense.tau=1", "codec.tau=x", "codec.tau=nan", "codec.speed=1", ""):
        with pytest.raises(UsageError, match="--threshold must be"):
            parse_thresholds([text])


def test_every_codec_of_an_application_has_thresholds():
    from vespa_app.codecs import CODECS

    names = {f"residual{bits}" for bits in (1, 2, 4)} | set(CODECS) - {"residual"}
    assert {f"codec {name}" for name in names} <= THRESHOLDS.keys()
