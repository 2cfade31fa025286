import json

import pytest
from fake_vespa import FakeVespa

from late_interaction.metadata import MetadataSchema
from vespa_app import default_settings
from vespa_app.application import Application
from vespa_app.description import Description


@pytest.fixture
def vespa():
    fake = FakeVespa()
    yield fake
    fake.close()


@pytest.fixture
def application(vespa, tiny_bundle):
    """An application of the tiny bundle, on that server."""
    settings = default_settings(tiny_bundle, MetadataSchema.from_json({"year": "long"}))
    description = Description(settings, tiny_bundle.sha256, None)
    vespa.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}
    return Application(vespa.url, description)
