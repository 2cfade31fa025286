"""What a redeploy does, by Vespa's config model: refusals with their names, and the actions it asks for once allowed."""

import datetime
import re
from dataclasses import replace

import pytest
from change_cases import CASES
from test_config_model import certificate
from vespa_bundles import small_bundle

from vespa_app.package import build_package

pytestmark = [pytest.mark.oracle]

_ALLOW = re.compile(r"<allow until='yyyy-mm-dd'>([a-z-]+)</allow>")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "real", onnx=True)


@pytest.fixture(scope="module")
def clients():
    return certificate()


@pytest.mark.parametrize("name", CASES)
def test_vespa_says_the_same(vespa_oracle, bundle, clients, tmp_path, name):
    before, after, kinds, overrides = CASES[name]
    zone = "cloud-prod" if after.cloud else "self-hosted"

    def write(settings, folder):
        app = build_package(bundle, settings).write(tmp_path / folder)
        if settings.cloud:
            (app / "security").mkdir()
            (app / "security" / "clients.pem").write_bytes(clients)
        return app

    old = write(before, "old")
    reply = vespa_oracle.validate(write(after, "new"), zone, previous=old)
    assert set(_ALLOW.findall(reply.get("error", ""))) == set(overrides), reply
    assert reply["ok"] == (not overrides), reply
    if overrides:
        day = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=5)
        allowed = replace(after, allow=dict.fromkeys(overrides, day.isoformat()))
        reply = vespa_oracle.validate(write(allowed, "allowed"), zone, previous=old)
        assert reply["ok"], reply
    if kinds is not None:
        assert {action["type"].lower() for action in reply["actions"]} == set(kinds)
