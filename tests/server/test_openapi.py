"""The published description: kept as a file, true of the answers, and no request brings a fault about."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import made

from colbert_vespa.server.access import EVERYTHING
from colbert_vespa.server.app import create_app
from colbert_vespa.server.door import Door
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.settings import ServedAddress, ServerSettings
from query.options import SearchOptions

GOLDEN = Path(__file__).parents[1] / "golden" / "openapi.json"
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance)


class AnyDoor(Door):
    def admitted(self, request, role):
        return EVERYTHING


@pytest.fixture(scope="module")
def app(tmp_path_factory, tiny_bundle):
    index = made(tmp_path_factory.mktemp("described") / "animals", tiny_bundle)
    engine = Engine([ServedAddress(index)], settings=ServerSettings(timeout=60.0, max_k=50, max_batch=8))
    yield create_app(engine, AnyDoor())
    asyncio.run(engine.close())


def test_the_description_is_the_one_that_is_kept(app):
    """After a change that is meant: `python tests/golden/make_openapi.py`."""
    assert json.loads(GOLDEN.read_text()) == json.loads(json.dumps(app.openapi()))


def test_every_field_of_a_search_is_described(app):
    described = set(app.openapi()["components"]["schemas"]["SearchRequest"]["properties"])
    options = {field.name for field in dataclasses.fields(SearchOptions)} - {"rerank_with"}  # no request names a folder
    assert described == {"query", "queries", "rows", *options}


def operations(app, examples):
    """Requests made from the description, some of them wrong on purpose, each checked against it."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=examples, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(checks=CHECKS[1:] if case.path == "/ready" else CHECKS)  # 503 until the models are warm

        yield operation.label, check


def test_no_request_brings_a_fault_about(app):
    labels = []
    for label, check in operations(app, 4):
        check()
        labels.append(label)
    assert len(labels) >= 17


@pytest.mark.slow
def test_no_request_brings_a_fault_about_in_many(app):
    for _, check in operations(app, 150):
        check()
