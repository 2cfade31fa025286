"""Bundles against what colbert-ai, PyLate and sentence-transformers made of 242 hard strings (tests/golden/loaders)."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

from golden.loaders import compare
from golden.loaders.make_checkpoints import CHECKPOINTS
from golden.loaders.make_checkpoints import FOLDER as CHECKPOINT_FOLDER
from golden.loaders.rows import GOLDEN, read
from golden.loaders.strings import STRINGS
from kept_files import cached_folder, source_key

from exporter import ExportOptions, export
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder

QUICK = ExportOptions(sample=("what is late interaction",))  # instead of the docstrings that export would verify on
DISAGREEMENTS = json.loads((GOLDEN / "disagreements.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def encoded():
    """checkpoint -> bundle, and both sides' rows of every string with their vectors. Each bundle is exported once and kept."""
    found = {}
    source = source_key("exporter", "late_interaction")

    def get(name):
        if name not in found:
            digest = hashlib.sha256(source.encode())
            for file in sorted((CHECKPOINT_FOLDER / name).rglob("*")):
                digest.update(file.read_bytes() if file.is_file() else b"")
            folder = cached_folder(
                f"golden.{name}", digest.hexdigest()[:16], lambda path: export(CHECKPOINT_FOLDER / name, path, QUICK) and None
            )
            encoder = Encoder(Bundle.open(folder), precision="fp32", threads=1)
            sides = {
                "query": (encoder.tokenizing.queries(STRINGS), encoder.encode_queries(STRINGS)),
                "document": (encoder.tokenizing.documents(STRINGS), encoder.encode_documents(STRINGS)),
            }
            rows = {
                side: [
                    SimpleNamespace(ids=row.ids, attention=row.attention, keep=row.keep, vectors=matrix)
                    for row, matrix in zip(*both, strict=True)
                ]
                for side, both in sides.items()
            }
            found[name] = encoder.bundle, rows
        return found[name]

    return get


def test_there_are_enough_hard_strings_and_none_is_there_twice():
    assert len(STRINGS) == len(set(STRINGS)) >= 200
    for loader in compare.TRAINED.values():
        assert json.loads((GOLDEN / loader / "loader.json").read_text(encoding="utf-8"))["strings"] == len(STRINGS)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_rows_are_those_of_the_loader_it_was_trained_with(encoded, name):
    """Ids, attention and kept rows one by one; vectors by cosine."""
    theirs = read(GOLDEN / compare.TRAINED[name.split("-")[0]] / f"{name}.npz")
    for side, ours in encoded(name)[1].items():
        for text, a, b in zip(STRINGS, ours, theirs[side], strict=True):
            assert a.ids.tolist() == b.ids.tolist(), (side, text)
            assert a.attention.tolist() == b.attention.tolist(), (side, text)
            assert a.keep.tolist() == b.keep.tolist(), (side, text)
            assert a.vectors.shape == b.vectors.shape
            assert compare.worst_cosine(a.vectors, b.vectors) >= compare.COSINE, (side, text)
            np.testing.assert_allclose(np.linalg.norm(a.vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "loader"), [(name, loader) for name, others in DISAGREEMENTS.items() for loader in others])
def test_what_differs_from_the_other_loaders_is_known(encoded, name, loader):
    """The bundle follows the loader that the checkpoint was trained with. disagreements.json has of how many strings another
    loader makes something else, by the first thing that differs."""
    bundle, ours = encoded(name)
    assert bundle.manifest.layout == {"native": "sentence-transformers"}.get(name.split("-")[0], name.split("-")[0])
    theirs = read(GOLDEN / loader / f"{name}.npz")
    found = {side: compare.differences(ours[side], theirs[side]) for side in ours}
    assert found == DISAGREEMENTS[name][loader]


def test_every_pair_of_checkpoint_and_loader_is_accounted_for():
    for loader in compare.TRAINED.values():
        refused = json.loads((GOLDEN / loader / "loader.json").read_text(encoding="utf-8"))["not_read"]
        for name in CHECKPOINTS:
            trained = compare.TRAINED[name.split("-")[0]] == loader
            assert (GOLDEN / loader / f"{name}.npz").is_file() != (name in refused)
            assert not (trained and name in refused)
            assert trained or name in refused or loader in DISAGREEMENTS[name]
