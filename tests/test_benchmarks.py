"""Benchmarks are run by hand: at least they find what they call."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_imports_what_is_there(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__
