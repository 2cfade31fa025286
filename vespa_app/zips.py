"""Zip files that are the same bytes for the same content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_zip", "zip_folder"]

_TIME = (1980, 1, 1, 0, 0, 0)


def write_zip(files: Mapping[str, bytes | Path], target: str | Path | io.BytesIO) -> None:
    """files: path inside the zip -> its bytes, or the file that has them."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(files):
            content = files[name]
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content if isinstance(content, bytes) else content.read_bytes())


def zip_folder(folder: str | Path, target: str | Path | io.BytesIO, more: Mapping[str, bytes | Path]) -> None:
    """Everything in `folder` but what is hidden, and `more`."""
    root = Path(folder)
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    visible = {name: root / name for name in found if not any(part.startswith(".") for part in name.split("/"))}
    write_zip({**visible, **more}, target)
