"""Tests that Vespa Cloud runs before it lets a package into production: Vespa's basic HTTP tests, which feed and query.

system-test: on an empty application, two passages are fed, and a query finds the right one first. staging-setup and
staging-test: what was fed before an upgrade is found after it. Vespa Cloud runs staging-setup on the application in
production, so it feeds only fields that every application of ours has, and staging-test requests nothing else (staging.py
checks it). `vespa test` runs the same files against any application.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.metadata import Value
from vespa_app.candidates import STRATEGIES, StrategyRequest, strategy_of
from vespa_app.candidates.base import BASE_PROFILE, Parameter
from vespa_app.candidates.dense import dense_field
from vespa_app.codecs import NO_CODEBOOKS, Codebooks
from vespa_app.running import Description
from vespa_app.running.documents import document_fields
from vespa_app.running.layouts import document_path
from vespa_app.running.request_features import encoded_by_vespa, query_body
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import DEFAULT_WEIGHTS

__all__ = ["STAGING_FILE", "cd_tests"]

STAGING_FILE = "tests/staging-setup/feed.json"

_TEXTS = {"cd-test-1": "passages about threads", "cd-test-2": "recipes with onions"}
_GROUP = "cdtest"


def _ends(dim: int) -> Matrix:
    """Return `[2, dim]`: a vector and its opposite, which stay apart with any codec."""
    one = np.full((1, dim), dim**-0.5, np.float32)
    return np.concatenate([one, -one])


def _ends_codebook(dim: int) -> Codebook:
    """Make a codebook whose centroids are the vectors of the tests, to use instead of the bundle's."""
    return Codebook(_ends(dim), np.zeros((dim, 1), np.float32), np.zeros((dim, 2), np.float32), bits=1)


def cd_tests(description: Description, books: Codebooks = NO_CODEBOOKS) -> dict[str, str]:
    """Return the content of each test file by path. books: of the bundle, if the codec needs them."""
    settings = description.settings
    feeding = [_feed(settings, id_, books) for id_ in _TEXTS]
    optional = {name for strategy in STRATEGIES.values() for name in strategy.own_fields} | set(
        map(dense_field, settings.dense)
    )
    asking = _ask(description, books, settings.candidates[0])
    found = _ask(description, books, "exhaustive") if "exhaustive" in settings.candidates else _look_up(settings)
    return {
        "tests/system-test/feed-and-search.json": _test("feed two passages and find the right one", [*feeding, asking]),
        STAGING_FILE: _test("feed before the upgrade", [_without(step, optional) for step in feeding]),
        "tests/staging-test/search.json": _test("find after the upgrade", [found]),
    }


def _without(feeding: dict[str, Any], optional: Collection[str]) -> dict[str, Any]:
    """Remove fields that an application may or may not have."""
    fields = {name: value for name, value in feeding["request"]["body"]["fields"].items() if name not in optional}
    return {**feeding, "request": {**feeding["request"], "body": {"fields": fields}}}


def _test(name: str, steps: list[dict[str, Any]]) -> str:
    defaults = {"parameters": {"timeout": "20s"}}
    return json.dumps({"name": name, "defaults": defaults, "steps": steps}, indent=1) + "\n"


def _metadata(settings: AppSettings) -> dict[str, Value]:
    """Return the group, if there are groups; nothing else is needed."""
    return {settings.group_field: _GROUP} if settings.mode == "streaming" else {}


def _feed(settings: AppSettings, id_: str, books: Codebooks) -> dict[str, Any]:
    place = list(_TEXTS).index(id_)
    vectors = _ends(settings.dim)[[place]]
    passage = Passage(f"{id_}#0", id_, "", _TEXTS[id_], _metadata(settings))
    codes = _ends_codebook(settings.dim).assign_near(vectors) if books.codebook is None else None
    fields = document_fields([passage], [vectors], settings, books, codes, dense=_dense(settings, place))
    path = document_path(settings, passage.id, passage.metadata)
    return {
        "name": f"feed {id_}",
        "request": {"method": "POST", "uri": path, "body": {"fields": fields}},
        "response": {"code": 200},
    }


def _dense(settings: AppSettings, place: int) -> dict[str, Vector]:
    """Return one end of an axis for each dense model."""
    return {model: np.eye(1, own.dim, place % own.dim, dtype=np.float32)[0] for model, own in settings.dense.items()}


def _ask(description: Description, books: Codebooks, candidates: str) -> dict[str, Any]:
    settings = description.settings
    model, dense = next(iter(_dense(settings, 0).items()), ("", None))
    request = StrategyRequest(
        rows=_ends(settings.dim)[:1], text="threads", rerank=10, settings=settings,
        codebook=books.codebook or _ends_codebook(settings.dim), thresholds=books.thresholds, one_vector=books.one_vector,
        weights=settings.weights or DEFAULT_WEIGHTS, fusion=settings.fusion, model=model, dense=dense,
    )  # fmt: skip
    parts = strategy_of(candidates).query(request)
    body = {**query_body(settings, parts.yql_where, parts.profile, 1), **parts.parameters}
    if settings.encoding == "embedder":
        body |= encoded_by_vespa(description, "threads")
    return _finding("the passage about threads is found first", settings, body)


def _look_up(settings: AppSettings) -> dict[str, Any]:
    """Return a query by id, if every rank profile needs the fields of a strategy."""
    body = query_body(settings, f'document_id contains "{next(iter(_TEXTS))}"', BASE_PROFILE, 1)
    return _finding("the passage about threads is there", settings, body)


def _finding(name: str, settings: AppSettings, body: dict[str, Parameter]) -> dict[str, Any]:
    if settings.mode == "streaming":
        body["streaming.groupname"] = _GROUP
    return {
        "name": name,
        "request": {"method": "POST", "uri": "/search/", "body": body},
        "response": {"code": 200, "body": {"root": {"children": [{"fields": {"document_id": next(iter(_TEXTS))}}]}}},
    }
