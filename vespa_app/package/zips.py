"""Zip files with the same bytes for the same content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from late_interaction.errors import SettingsError

__all__ = ["visible_files", "zip_folder"]

_TIME = (1980, 1, 1, 0, 0, 0)


def zip_folder(folder: str | Path, more: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """Zip everything in `folder` that is not hidden, and `more`."""
    files: dict[str, bytes | Path] = {**visible_files(folder), **more}
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(files):
            content = files[name]
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content if isinstance(content, bytes) else content.read_bytes())
    return body.getvalue()


def visible_files(folder: str | Path) -> dict[str, Path]:
    """Map path in a package to its file, except hidden ones.

    Raises:
        SettingsError: if a file is a link to outside the folder, whose content would be sent along.
    """
    root = Path(folder)
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    visible = {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.split("/"))}
    for name, path in visible.items():
        if not path.resolve().is_relative_to(root.resolve()):
            raise SettingsError(f"{root}: {name} is a link to a file outside the package; replace it with the file")
    return visible
