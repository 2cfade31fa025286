"""Tests that Vespa Cloud runs before it lets a package into production: Vespa's basic HTTP tests, which feed and query.

system-test: on an empty application, two passages are fed, and a query finds the right one first. staging-setup and
staging-test: what was fed before an upgrade is found after it. `vespa test` runs the same files against any application.
"""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.metadata import Value
from vespa_app.application import document_fields
from vespa_app.asking import encoded_by_vespa, query_body
from vespa_app.candidates import STRATEGIES, StrategyRequest
from vespa_app.codecs import Books
from vespa_app.description import Description
from vespa_app.layouts import document_path
from vespa_app.settings import AppSettings

__all__ = ["cd_tests"]

_TEXTS = {"cd-test-1": "passages about threads", "cd-test-2": "recipes with onions"}
_GROUP = "cdtest"


class _Axes:
    """Stands in for the bundle's codebook: the first axes are the centroids."""

    def __init__(self, dim: int) -> None:
        self.centroids: NDArray[np.float32] = np.eye(2, dim, dtype=np.float32)

    def assign(self, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        return np.asarray((vectors @ self.centroids.T).argmax(axis=1))


def cd_tests(description: Description, books: Books | None = None) -> dict[str, str]:
    """Path in the package -> content. books: of the bundle, where the codec needs them."""
    settings = description.settings
    books = books or Books(codebook=cast(Codebook, _Axes(settings.dim)))
    feeding = [_feed(settings, id_, books) for id_ in _TEXTS]
    asking = _ask(description, books)
    return {
        "tests/system-test/feed-and-search.json": _test("feed two passages and find the right one", [*feeding, asking]),
        "tests/staging-setup/feed.json": _test("feed before the upgrade", feeding),
        "tests/staging-test/search.json": _test("find after the upgrade", [asking]),
    }


def _test(name: str, steps: list[dict[str, Any]]) -> str:
    defaults = {"parameters": {"timeout": "20s"}}
    return json.dumps({"name": name, "defaults": defaults, "steps": steps}, indent=1) + "\n"


def _metadata(settings: AppSettings) -> dict[str, Value]:
    """The group, where there are groups; else nothing is needed."""
    return {settings.group_field: _GROUP} if settings.mode == "streaming" else {}


def _feed(settings: AppSettings, id_: str, books: Books) -> dict[str, Any]:
    place = list(_TEXTS).index(id_)
    vectors = np.eye(2, settings.dim, dtype=np.float32)[[place]]
    passage = Passage(f"{id_}#0", id_, "", _TEXTS[id_], _metadata(settings))
    fields = document_fields(passage, vectors, settings, books.codebook, books.thresholds)
    path = document_path(settings, passage.id, passage.metadata)
    return {
        "name": f"feed {id_}",
        "request": {"method": "POST", "uri": path, "body": {"fields": fields}},
        "response": {"code": 200},
    }


def _ask(description: Description, books: Books) -> dict[str, Any]:
    settings = description.settings
    rows = np.eye(1, settings.dim, dtype=np.float32)
    request = StrategyRequest(rows=rows, text="threads", rerank=10, settings=settings, codebook=books.codebook)
    parts = STRATEGIES[settings.candidates[0]].query(request)
    body = {**query_body(settings, parts.yql_where, parts.profile, 1), **parts.parameters}
    if settings.encoding == "embedder":
        body |= encoded_by_vespa(description, "threads")
    if settings.mode == "streaming":
        body["streaming.groupname"] = _GROUP
    return {
        "name": "the passage about threads is found first",
        "request": {"method": "POST", "uri": "/search/", "body": body},
        "response": {"code": 200, "body": {"root": {"children": [{"fields": {"document_id": "cd-test-1"}}]}}},
    }
