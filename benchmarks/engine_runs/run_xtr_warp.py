"""xtr-warp-rs on the CPU, 4 bits, with its defaults, which it sets by the size of the index.

An effort: `nprobe`, `bound`, `t_prime`, `max_candidates` and `centroid_score_threshold` of its search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import Data, K, Prepare, main, timed_search
from xtr_warp.search import XTRWarp

if TYPE_CHECKING:  # peers' environments have none of ours
    from late_interaction.array_types import Matrix


def build(data: Data, index: Path) -> None:
    """From a folder of arrays, as it streams what is larger than memory."""
    with TemporaryDirectory(dir=index.parent) as source:
        (Path(source) / "part_0.npy").symlink_to(data.vectors_file)
        np.save(Path(source) / "part_0.doclens.npy", np.diff(data.offsets))
        XTRWarp(str(index), device="cpu").create(source, device="cpu", show_progress=False)


def search(data: Data, index: Path) -> dict[str, Any]:
    def opening() -> Prepare:
        opened = XTRWarp(str(index), device="cpu").load(device="cpu")

        def ranked(Q: Matrix, effort: Mapping[str, Any]) -> list[int]:
            found = opened.search(
                torch.from_numpy(Q)[None], K, num_threads=torch.get_num_threads(), show_progress=False, **effort
            )
            return [id_ for id_, _ in found[0]]

        return lambda effort: lambda Q: ranked(Q, effort)

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
