"""The import graph has no circle, imports inside functions included: grimp, which import-linter brings, sees them all."""

import grimp
import pytest

PACKAGES = ("colbert_vespa", "exporter", "feeder", "late_interaction", "query", "vespa_app")


@pytest.fixture(scope="module")
def imports():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(imports):
    """Groups of modules that reach each other."""
    reached = {module: _reached(module, imports) for module in imports}
    groups = {frozenset({module, *(other for other in reached[module] if module in reached[other])}) for module in imports}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reached(module, imports):
    reached, waiting = set(), [module]
    while waiting:
        for imported in imports[waiting.pop()] - reached:
            reached.add(imported)
            waiting.append(imported)
    return reached


def test_no_circle_at_module_or_function_level(imports):
    assert circles(imports) == []


def test_a_circle_is_seen():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert circles(imports) == [["a", "b", "c"]]
