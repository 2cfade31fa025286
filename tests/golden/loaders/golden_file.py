"""Runs one loader over every checkpoint. Imported by the run_*.py scripts in their own environments: standard library and numpy
only, and by file name, since there is no package there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import GOLDEN, SIDES, Rows, write
from strings import STRINGS

__all__ = ["SIDES", "Rows", "run"]

CHECKPOINTS = GOLDEN / "checkpoints"

Encode = Callable[[str, str], Rows]
"""(side, text) -> rows"""


def run(loader: str, packages: tuple[str, ...], load: Callable[[Path], Encode]) -> None:
    """Encodes every string, one at a time, with every checkpoint that the loader reads; writes loader/NAME.npz and
    loader/loader.json, which has the versions, and the reason for each checkpoint that the loader does not read."""
    out = GOLDEN / loader
    refused = {}
    for checkpoint in sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir()):
        try:
            encode = load(checkpoint)
            sides = {side: [encode(side, text) for text in STRINGS] for side in SIDES}
        except Exception as error:  # noqa: BLE001  whatever the loader raises is its answer
            if os.environ.get("GOLDEN_TRACE"):
                traceback.print_exc()
            said = " ".join(str(error).replace(str(GOLDEN), ".").split())
            refused[checkpoint.name] = f"{type(error).__name__}: {said[:160]}"
            print(f"{loader} does not read {checkpoint.name}: {refused[checkpoint.name]}", flush=True)
            continue
        write(out / f"{checkpoint.name}.npz", sides)
        print(f"{loader} {checkpoint.name}", flush=True)
    described: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "strings": len(STRINGS),
        "not_read": refused,
    }
    (out / "loader.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
