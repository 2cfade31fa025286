"""What tests make once and keep in .cache/, keyed by the code that makes it."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
DAY_S = 86_400
CACHE = ROOT / ".cache" / "tests"


def source_key(*folders: str) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    digest.update((ROOT / "requirements.lock").read_bytes())
    return digest.hexdigest()[:16]


def cached_folder(name: str, key: str, make: Callable[[Path], None]) -> Path:
    folder = CACHE / f"{name}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock"):  # workers want the same ones
        if not folder.is_dir():
            for old in CACHE.glob(f"{name}-*"):
                if old.stat().st_mtime < time.time() - DAY_S:  # of another session, it may be in use
                    shutil.rmtree(old, ignore_errors=True)
            make(folder)
    return folder
