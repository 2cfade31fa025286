"""What a disk keeps when the power fails: names of a folder that was synced since, bytes of a file that was synced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


class Disk:
    """Watches what is synced below `root`; `after_power_loss` copies what would be left."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._names: dict[int, set[str]] = {}  # inode of a folder -> names that are durable
        self._bytes: dict[int, int] = {}  # inode of a file -> bytes that are durable
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            node = os.fstat(descriptor)
            if path.is_dir():
                self._names[node.st_ino] = {item.name for item in path.iterdir()}
            else:
                self._bytes[node.st_ino] = node.st_size

        patch.setattr(os, "fsync", synced)

    def after_power_loss(self, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        self._copy(self.root, target)
        return target

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir()
        for name in self._names.get(source.stat().st_ino, set()):
            path = source / name
            if path.is_dir():
                self._copy(path, target / name)
            elif path.exists():
                (target / name).write_bytes(path.read_bytes()[: self._bytes.get(path.stat().st_ino, 0)])
