import pytest
from fake_vespa import FakeVespa


@pytest.fixture
def vespa():
    fake = FakeVespa()
    yield fake
    fake.close()
