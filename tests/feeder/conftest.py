import dataclasses
import json

import numpy as np
import pytest

from late_interaction.metadata import MetadataSchema
from vespa_app import default_settings
from vespa_app.running import Application, Description


@pytest.fixture
def application(vespa, tiny_bundle):
    """An application of the tiny bundle, on that server."""
    settings = default_settings(tiny_bundle, MetadataSchema.from_json({"year": "long"}))
    description = Description(settings, tiny_bundle.sha256, None)
    vespa.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}
    return Application(vespa.url, description)


@pytest.fixture(scope="session")
def codebook_bundle(tiny_bundle, tmp_path_factory):
    """The tiny model with a codebook and thresholds, which it has no sample for."""
    from late_interaction.bundle import write_manifest
    from late_interaction.codebook_training import train_codebook
    from late_interaction.thresholds import Thresholds

    folder = tmp_path_factory.mktemp("codebook") / "bundle"
    folder.mkdir()
    tiny_bundle.copy_to(folder)
    (folder / "codebooks").mkdir()
    rows = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    train_codebook(rows, bits=4, centroids=64).save(folder / "codebooks/residual.npz")
    cuts = np.linspace(-0.05, 0.05, 16, dtype=np.float32)
    Thresholds(cuts, np.full(16, 0.2, np.float32)).save(folder / "codebooks/binary.npz")
    books = {"residual": "codebooks/residual.npz", "binary": "codebooks/binary.npz"}
    return write_manifest(folder, dataclasses.replace(tiny_bundle.manifest, codebooks=books))
