"""Golden queries: what breaks one and what does not, and the file that keeps them."""

from __future__ import annotations

import json

import pytest

from colbert_vespa.monitor.baseline import Profile, drift_rows
from colbert_vespa.monitor.canaries import Canaries, Canary, ask_canaries, compare
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, HealthReport
from late_interaction.errors import UsageError, VespaTimeout
from query.types import Hit, SearchResult

CANARY = Canary("a query", (("a#0", 12.0), ("b#0", 11.0), ("c#0", 10.0)))


def result(*hits, **changes):
    found = [Hit(n, id_.split("#")[0], id_, score, "", "", {}) for n, (id_, score) in enumerate(hits, start=1)]
    return SearchResult(tuple(found), "exhaustive", len(found), len(found), **changes)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (result(("a#0", 12.01), ("b#0", 10.99), ("c#0", 10.0)), ""),
        (result(("b#0", 11.0), ("a#0", 12.0), ("c#0", 10.0)), ""),  # the order is the scores' affair
        (result(("new#0", 15.0), ("a#0", 12.0), ("b#0", 11.0)), ""),  # c is pushed out by something better
        (result(("new#0", 11.5), ("b#0", 11.0), ("c#0", 10.0)), "a#0 is no longer found: deleted, on a lost node"),
        (result(("a#0", 12.0), ("b#0", 11.0)), "c#0 is no longer found: deleted"),
        (result(), "a#0 is no longer found (and 2 more): deleted"),
        (result(("a#0", 12.0), ("b#0", 11.06), ("c#0", 10.0)), "score of b#0 was 11.000 and is 11.060: another text"),
        (result(("a#0", 6.0), ("b#0", 5.0), ("c#0", 4.0)), "score of a#0 was 12.000 and is 6.000 (and 2 more): another"),
        (result(("a#0", 12.0), coverage=0.6, degraded=("some nodes",)), "the answer lacks documents (some nodes)"),
    ],
)
def test_what_breaks_a_canary(found, why):
    said = compare(CANARY, found, 0.05)
    assert said.startswith(why)
    assert bool(said) == bool(why)


class Answers:
    """As a client: one outcome for each query."""

    def __init__(self, outcomes, sha256="b" * 64):
        self.outcomes = outcomes
        self.bundle = type("Bundle", (), {"sha256": sha256})()

    def search(self, query, k, *, candidates, timeout):
        found = self.outcomes[query]
        if isinstance(found, Exception):
            raise found
        return found


def test_each_canary_has_an_outcome():
    canaries = Canaries("b" * 64, "auto", 3, 0.05, tuple(Canary(name, CANARY.expected) for name in ("good", "bad", "late")))
    client = Answers(
        {"good": result(*CANARY.expected), "bad": result(("a#0", 1.0)), "late": VespaTimeout("http://x did not answer in time")}
    )
    found = ask_canaries(client, canaries, 5.0)
    assert {row.name: row.state for row in found.rows} == {"all": WRONG, "bad": WRONG, "late": UNKNOWN}
    outcomes = {s.labels["outcome"]: s.value for s in found.samples if s.metric == "canaries"}
    assert outcomes == {"kept": 1, "broken": 1, "silent": 1}


def test_broken_canaries_that_begin_alike_are_one_series_for_prometheus():
    """Prometheus refuses a whole answer in which a series comes twice."""
    queries = [f"{'a long question ' * 10}{end}" for end in ("one", "two")]
    canaries = Canaries("b" * 64, "auto", 3, 0.05, tuple(Canary(query, CANARY.expected) for query in queries))
    found = ask_canaries(Answers(dict.fromkeys(queries, result())), canaries, 5.0)
    assert len([row for row in found.rows if row.state == WRONG]) == 3
    series = [(s.metric, tuple(sorted(s.labels.items()))) for s in HealthReport("x", found, 0.0, 0.0).samples()]
    assert len(series) == len(set(series))


def test_canaries_of_another_bundle_say_so():
    canaries = Canaries("a" * 64, "auto", 3, 0.05, (CANARY,))
    found = ask_canaries(Answers({}), canaries, 5.0)
    assert [(row.name, row.state) for row in found.rows] == [("bundle", WRONG)]
    assert "made with bundle aaaaaaaa, the index has bbbbbbbb" in found.rows[0].says


CANARIES = Canaries("ab", "auto", 2, 0.05, (Canary("who? ☃", (("a#0", 1.5),)),))
CANARIES_FILE = """\
{
 "format": "colbert-vespa canaries",
 "version": 1,
 "bundle": "ab",
 "candidates": "auto",
 "k": 2,
 "tolerance": 0.05,
 "canaries": [
  {
   "query": "who? ☃",
   "expected": [
    [
     "a#0",
     1.5
    ]
   ]
  }
 ]
}
"""
PROFILE = Profile("ab", 100, ("q",), (1.0, 2.0), 0.01, (0.5,), 0.9)
PROFILE_FILE = (
    '{"format": "colbert-vespa baseline", "version": 1, "bundle": "ab", "passages": 100, "queries": ["q"], '
    '"lengths": [1.0, 2.0], "unknown": 0.01, "scores": [0.5], "nearness": 0.9}\n'
)


@pytest.mark.parametrize(("made", "text"), [(CANARIES, CANARIES_FILE), (PROFILE, PROFILE_FILE)], ids=["canaries", "baseline"])
def test_the_files_byte_for_byte(tmp_path, made, text):
    made.write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == text
    assert type(made).read(tmp_path / "file") == made


@pytest.mark.parametrize("kind", [CANARIES, PROFILE], ids=["canaries", "baseline"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: None, "cannot be read"),
        (lambda data: "{", "is not JSON"),
        (lambda data: "[]", "is not a JSON object"),
        (lambda data: json.dumps({**data, "format": "other"}), "format 'other' is unknown"),
        (lambda data: json.dumps({**data, "version": 2}), "version 2 .* reads 1"),
        (lambda data: json.dumps({**data, "bundle": None, "k": None, "lengths": "x", "canaries": 7}), "holds no"),
        (lambda data: json.dumps({name: data[name] for name in ("format", "version")}), "holds no"),
    ],
)
def test_a_file_that_is_none_is_a_usage_error(tmp_path, kind, change, message):
    kind.write(tmp_path / "good")
    text = change(json.loads((tmp_path / "good").read_text()))
    if text is not None:
        (tmp_path / "file").write_text(text)
    with pytest.raises(UsageError, match=message):
        type(kind).read(tmp_path / "file")


def profile(**changes):
    made = {
        "bundle": "ab",
        "passages": 100,
        "queries": ("q",),
        "lengths": tuple(range(100)),
        "unknown": 0.01,
        "scores": tuple(range(100)),
        "nearness": 0.9,
    }
    return Profile(**{**made, **changes})


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({}, set()),
        ({"lengths": tuple(range(15, 115))}, set()),
        ({"lengths": tuple(range(30, 130))}, {"lengths"}),
        ({"scores": tuple(range(-30, 70))}, {"scores"}),
        ({"scores": ()}, {"scores"}),
        ({"unknown": 0.05}, {"unknown tokens"}),
        ({"nearness": 0.86}, {"centroids"}),
        ({"passages": 89}, {"passages"}),
        ({"passages": 201}, {"passages"}),
    ],
)
def test_what_has_drifted(changes, moved):
    rows = drift_rows(profile(), profile(**changes), WarningLimits()).rows
    assert {row.name for row in rows if row.state == WARNING} == moved
    assert {row.state for row in rows} <= {OK, WARNING}


def test_a_baseline_of_another_bundle_or_without_codebook():
    assert [row.state for row in drift_rows(profile(bundle="cd"), profile(), WarningLimits()).rows] == [WRONG]
    assert "centroids" not in {row.name for row in drift_rows(profile(nearness=None), profile(), WarningLimits()).rows}
