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


def test_the_architecture_page_names_modules_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = [path.as_posix() for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert {name for name in named if not any(module.endswith(f"/{name}") for module in modules)} == set()


def test_one_factory_knows_whether_an_index_has_shards():
    sources = {path: path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    knowing = {path.relative_to(ROOT).as_posix() for path, text in sources.items() if re.search(r"isinstance\(.*Sharded", text)}
    assert knowing <= {"late_interaction/plaid/opening.py"}


def test_no_options_are_written_once_more_for_the_command_line():
    commands = [path.read_text() for path in (ROOT / "colbert_vespa" / "cli").glob("*_command*.py")]
    assert not [text for text in commands if "@dataclass" in text]
