"""Made texts, and models that need no network."""

from __future__ import annotations

import pytest

from colbert_vespa import RAGPretrainedModel
from late_interaction.bundle_cache import cache_folder

HUB_NAME = "colbert-ir/colbertv2.0"  # as RAGatouille's examples have it


@pytest.fixture
def rag(tiny_bundle, tmp_path, monkeypatch):
    """A model whose answers mean nothing, with indexes below `tmp_path`, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    made = RAGPretrainedModel.from_pretrained(tiny_bundle.path)
    yield made
    made.close()


@pytest.fixture
def hub_model(minilm_bundle, tmp_path, monkeypatch):
    """The demo's model where an export of that hub name would be, and an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = cache_folder() / "checkpoints" / f"{HUB_NAME.replace('/', '--')}-1"
    place.parent.mkdir(parents=True)
    place.symlink_to(minilm_bundle.path)
    return HUB_NAME
