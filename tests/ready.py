"""Vectors that no model of ours made, for tests: seeded unit rows, and bundles without a model."""

import numpy as np

from late_interaction.bundle import Manifest, SideRules, write_manifest

DIM = 16


def unit_rows(count, seed=0, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ready_bundle(folder, dim=DIM, rows=2048, **more):
    folder.mkdir(parents=True)
    sides = {"query": SideRules(32), "document": SideRules(rows)}
    return write_manifest(folder, Manifest("made elsewhere", "ready", dim, **sides, pad_id=0, max_tokens=rows, **more))
