"""Writes tests/golden/loaders/LOADER: token ids, attention, kept rows and vectors of the hard strings, by the loaders that
people trained with. They cannot be installed together, so each runs in an environment of its own, which this script makes
under .cache/loaders from the versions in LOADER.txt:

    cd tests && ../.venv/bin/python -m golden.make_loaders [colbert_ai] [pylate] [sentence_transformers]

`--relock` first resolves those versions again from LOADER.in. In the end disagreements.json is written: on how many strings the
other loaders differ from the one that a checkpoint was trained with. Read the diff.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from golden.loaders import compare, rows

__all__ = ["LOADERS"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "loaders"
LOADERS = ("colbert_ai", "pylate", "sentence_transformers")
PYTHON = "3.11"


def uv(*arguments: str) -> None:
    command = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    subprocess.run([command, *arguments], check=True)


def make(loader: str, *, relock: bool) -> None:
    lock, environment = FOLDER / f"{loader}.txt", ROOT / ".cache" / "loaders" / loader
    if relock:
        wanted = FOLDER / f"{loader}.in"
        uv("pip", "compile", "-q", "--no-header", "--no-annotate", "--python-version", PYTHON, str(wanted), "-o", str(lock))
    uv("venv", "-q", "--allow-existing", "--python", PYTHON, str(environment))
    uv("pip", "sync", "-q", "--python", str(environment), str(lock))
    for old in (FOLDER / loader).glob("*.npz"):
        old.unlink()
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "",
             "OMP_NUM_THREADS": "1"}  # fmt: skip
    command = [str(environment / "bin" / "python"), str(FOLDER / f"run_{loader}.py")]
    subprocess.run(command, check=True, env=os.environ | quiet)


def write_disagreements() -> None:
    found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for checkpoint in sorted(path.name for path in (FOLDER / "checkpoints").iterdir()):
        trained = compare.TRAINED[checkpoint.split("-")[0]]
        ours = rows.read(FOLDER / trained / f"{checkpoint}.npz")
        for loader in LOADERS:
            file = FOLDER / loader / f"{checkpoint}.npz"
            if loader == trained or not file.is_file():
                continue
            theirs = rows.read(file)
            found.setdefault(checkpoint, {})[loader] = {side: compare.differences(ours[side], theirs[side]) for side in ours}
    (FOLDER / "disagreements.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    for chosen in names or LOADERS:
        make(chosen, relock="--relock" in sys.argv)
    write_disagreements()
