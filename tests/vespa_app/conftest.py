"""Fixtures of the tests of packages and their deployment."""

import pytest
from fake_config_server import FakeConfigServer


@pytest.fixture
def server():
    fake = FakeConfigServer()
    yield fake
    fake.close()
