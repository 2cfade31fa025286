"""Small indexes behind the server, and callers of it."""

from __future__ import annotations

import pytest
from serving import made, serving


@pytest.fixture(scope="session")
def animals(tmp_path_factory, tiny_bundle) -> str:
    """A local index that nothing here writes to."""
    return made(tmp_path_factory.mktemp("served") / "animals", tiny_bundle)


@pytest.fixture
async def http(animals):
    async with serving(animals) as caller:
        yield caller


@pytest.fixture(scope="module")
def browser():
    from page_browser import chromium

    with chromium() as running:
        yield running
