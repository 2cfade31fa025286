"""Workers without a cluster, and one cluster of two of them for all tests that need one."""

import json
import os
from importlib.util import find_spec

import pytest

if find_spec("ray") is None:
    pytest.skip("the extra ray is not installed", allow_module_level=True)

from colbert_vespa.ray.shipping import ShippedBundle
from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping
from late_interaction.addresses import vespa_url
from late_interaction.metadata import MetadataSchema
from vespa_app import default_settings
from vespa_app.running import Description

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when ray is imported: on any system, loopback addresses alone
STORE_BYTES = 100 << 20
ENCODER = {"device": "cpu", "precision": "fp32", "threads": 1}


@pytest.fixture(scope="session")
def shipped(tiny_bundle):
    """On the disk of the workers."""
    return ShippedBundle(tiny_bundle.path, tiny_bundle.sha256, {})


@pytest.fixture
def describe(tiny_bundle):
    """Makes a server one with an application of the bundle."""

    def describe_application(server):
        settings = default_settings(tiny_bundle, MetadataSchema.from_json({"year": "long"}))
        description = Description(settings, tiny_bundle.sha256, None)
        server.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}

    return describe_application


@pytest.fixture
def application(vespa, describe):
    describe(vespa)
    return vespa.url


@pytest.fixture
def encoder(shipped):
    """A worker that encodes."""
    from colbert_vespa.ray.encoding import EncodingWorker

    def open_worker(splitting=None, columns=None, dtype="float32"):
        return EncodingWorker(shipped, ENCODER, splitting or Splitting(), columns or ColumnMapping(), dtype)

    return open_worker


@pytest.fixture
def feeder(shipped, application):
    """A worker that feeds."""
    from colbert_vespa.ray.feeding import FeedingWorker

    opened = []

    def open_worker(columns=None, operation="put", splitting=None):
        to = vespa_url(application)
        more = (columns or ColumnMapping(), operation, 1)
        opened.append(FeedingWorker(shipped, to, ENCODER, splitting or Splitting(), *more))
        return opened[-1]

    yield open_worker
    for worker in opened:
        if "_feeder" in vars(worker):
            worker._feeder.close()


@pytest.fixture(scope="session")
def cluster():
    """Two workers of one processor each, on this machine alone."""
    import ray
    from ray.data import DataContext

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=STORE_BYTES, log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()
