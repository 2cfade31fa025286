"""The golden files: what one loader makes of every string, for one checkpoint. numpy only, since three environments import it.

One npz per loader and checkpoint. For each side (query, document): `lengths` [texts] rows of each text, and, with all texts'
rows one after the other, `ids`, `attention`, `keep` [rows], `vectors` [kept rows, dim] float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["GOLDEN", "SIDES", "Rows", "read", "write"]

GOLDEN = Path(__file__).resolve().parent
SIDES = ("query", "document")
GRID = 2.0**11  # vectors are rounded to this so that they compress; it turns a row by 1 - cosine = 2e-7 at most


@dataclass
class Rows:
    """One text: ids, attention, keep `[n]`, vectors `[kept, dim]`."""

    ids: np.ndarray
    attention: np.ndarray
    keep: np.ndarray
    vectors: np.ndarray


def write(path: Path, sides: dict[str, list[Rows]]) -> None:
    arrays = {}
    for side, texts in sides.items():
        vectors = np.concatenate([rows.vectors for rows in texts])
        arrays |= {
            f"{side}_lengths": np.array([len(rows.ids) for rows in texts], np.int32),
            f"{side}_ids": np.concatenate([rows.ids for rows in texts]).astype(np.int32),
            f"{side}_attention": np.concatenate([rows.attention for rows in texts]).astype(np.int8),
            f"{side}_keep": np.concatenate([rows.keep for rows in texts]).astype(np.bool_),
            f"{side}_vectors": (np.round(vectors * GRID) / GRID).astype(np.float32),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def read(path: Path) -> dict[str, list[Rows]]:
    """Both sides, one item per string."""
    found: dict[str, list[Rows]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for side in SIDES:
            ends = np.cumsum(arrays[f"{side}_lengths"])[:-1]
            ids, attention, keep = (np.split(arrays[f"{side}_{name}"], ends) for name in ("ids", "attention", "keep"))
            vectors = np.split(arrays[f"{side}_vectors"], np.cumsum([int(rows.sum()) for rows in keep])[:-1])
            found[side] = [Rows(*rows) for rows in zip(ids, attention, keep, vectors, strict=True)]
    return found
