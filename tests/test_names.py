"""One name, one thing: no class name is defined twice across the packages."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("colbert_vespa", "exporter", "feeder", "late_interaction", "query", "vespa_app")
SAME = {"ColbertReranker", "ColbertRetriever"}  # what users import from one framework's module or another's


def test_no_class_name_is_defined_twice():
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    names = Counter(name for source in sources for name in re.findall(r"^ *class (\w+)", source, re.MULTILINE))
    assert {name for name, times in names.items() if times > 1} <= SAME
