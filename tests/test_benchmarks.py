"""Benchmarks are run by hand: at least they find what they call."""

import importlib
import math
from pathlib import Path

import pytest

from benchmarks import serve

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_imports_what_is_there(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_percentiles_are_values_that_were_measured():
    hundred = [float(value) for value in range(100, 0, -1)]
    assert [serve.percentile(hundred, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert serve.percentile([7.0], 0.99) == serve.percentile([7.0], 0.5) == 7.0
    assert serve.percentile([1.0, 2.0, 9.0], 0.5) == 2.0
    assert math.isnan(serve.percentile([], 0.5))


def counted():
    tally = serve.Tally()
    for number in range(4):
        tally.answered(200, 10.0 + number)
    tally.answered(429, 0.1)
    tally.put(200)
    tally.put(429)
    return tally


def test_a_429_is_no_error_and_everything_else_is():
    tally = counted()
    assert (len(tally.milliseconds), tally.busy, tally.errors, tally.written) == (4, 2, 0, 1)
    tally.answered(504, 60_000.0, "the time was up")
    tally.put(409, "another writer")
    tally.failed("ReadError()")
    assert (len(tally.milliseconds), tally.errors, tally.first_error) == (4, 3, "504 the time was up")


def test_the_server_is_told_beside_the_library():
    runs = [
        serve.summed_up("server", 8, counted(), 2.0, (100.0, 101.0), 0.008),
        serve.summed_up("library", 8, counted(), 1.0, (90.0, 90.4)),
    ]
    assert serve.ratios(runs) == {8: 0.5} and serve.failed(runs) == 0
    assert serve.table(runs).splitlines()[2:] == [
        "| server, 8 | 4 | 2 | 0 | 1 | 11.0 | 13.0 | 13.0 | 2.0 | 100, 101 | 0.50 | 2.0 |",
        "| library, 8 | 4 | 2 | 0 | 1 | 11.0 | 13.0 | 13.0 | 4.0 | 90, 90 |  |  |",
    ]
    nothing = serve.Tally()
    nothing.answered(500, 1.0, "a fault")
    runs = [
        serve.summed_up("server", 1, nothing, 1.0, (1.0, 1.0), 0.0),
        serve.summed_up("library", 1, nothing, 1.0, (1.0, 1.0)),
    ]
    assert serve.ratios(runs) == {} and serve.failed(runs) == 1
    found = {
        "machine": "a machine", "load_begin": (1.0, 2.0, 3.0), "load_end": (4.0, 5.0, 6.0), "documents": 2_000, "seconds": 10.0,
        "overhead": {"overhead_ms": 1.25, "library_ms": 3.0, "served_ms": 4.25}, "next_plaid": "not built: a reason",
    }  # fmt: skip
    told = serve.report(found, runs)
    assert "load average 1.0, 2.0, 3.0" in told and "overhead 1.25 ms p50" in told and "not built: a reason" in told
    assert "server, 1: first error: 500 a fault" in told
