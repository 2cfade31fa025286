import pytest
from fake_cluster import FakeCluster


@pytest.fixture
def cluster():
    made = FakeCluster()
    yield made
    made.close()


@pytest.fixture
def look(cluster):
    """One look at the fake cluster: the report, and rows by area and name."""
    from colbert_vespa.monitor.checks import Monitor, Watched

    def once(**changes):
        with Monitor(
            Watched(cluster.url, changes.pop("config", (cluster.url,)), timeout=changes.pop("timeout", 60.0), **changes)
        ) as m:
            report = m.look()
        return report, {(row.area, row.name): row for row in report.found.rows}

    return once
