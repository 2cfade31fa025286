"""The dense encoder that evaluations compare with: the exporter's own graph."""

import gc
import tempfile

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints

from exporter.dense_baseline import DenseBaseline
from exporter.quiet import quiet
from late_interaction.errors import CheckpointError


def test_it_gives_sentence_transformers_vectors_and_leaves_no_folder(tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    folder = checkpoints.dense(tmp_path / "m")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    encoder = DenseBaseline(folder)
    assert len(list(scratch.iterdir())) == 1
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu")
        documents = model.encode_document(list(checkpoints.TEXTS), normalize_embeddings=True)
        queries = model.encode_query(list(checkpoints.TEXTS), normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(checkpoints.TEXTS), documents, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_queries(checkpoints.TEXTS), queries, atol=1e-4)
    del encoder
    gc.collect()
    assert not list(scratch.iterdir())


def test_what_is_not_a_dense_model_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError):
        DenseBaseline(tmp_path / "nothing")
