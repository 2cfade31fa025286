"""Every moment at which a writer may be killed."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from late_interaction.plaid.store.storage import ArrayWriter


def before_every_file_operation(root, copies, act):
    """Runs `act`, and keeps the folder `root` as it was before each operation that changes a file: what a kill would leave."""

    def copying(real, when=lambda *args, **kwargs: True):
        def call(*args, **kwargs):
            if when(*args, **kwargs):
                target = copies / f"copy-{len(list(copies.iterdir()))}"
                real_copy(root, target)
            return real(*args, **kwargs)

        return call

    busy = []
    copy = shutil.copytree

    def real_copy(source, target):
        if not busy:
            busy.append(True)
            copy(source, target)
            busy.clear()

    def writes(path, mode="r", *args, **kwargs):
        return not busy and root in path.parents and mode[0] in "wa"

    copies.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "unlink", "pwrite", "mkdir"):
            patch.setattr(os, name, copying(getattr(os, name), lambda *a, **k: not busy))
        patch.setattr(shutil, "rmtree", copying(shutil.rmtree, lambda *a, **k: not busy))
        patch.setattr(pathlib.Path, "open", copying(pathlib.Path.open, writes))
        patch.setattr(ArrayWriter, "append", copying(ArrayWriter.append))
        act()
    return sorted(copies.iterdir())
