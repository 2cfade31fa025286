"""Workers of one run do not get into each other's way."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has no groups")
def test_a_file_is_one_workers(request):
    """Where groups are lost, two workers deploy to the same node."""
    assert request.node.nodeid.endswith("@test_workers")
