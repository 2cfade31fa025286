"""Find bundles on this machine by checksum, so that commands that talk to Vespa find the application's bundle.

One small file per bundle in the user's cache folder holds the path of the bundle; nothing is copied.
"""

from __future__ import annotations

import os
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.errors import BundleError
from late_interaction.files import atomic_write

__all__ = ["cache_folder", "find_bundle", "register_bundle"]


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/colbert-vespa`, by default `~/.cache/colbert-vespa`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "colbert-vespa"


def register_bundle(bundle: Bundle, cache: Path | None = None) -> None:
    """Record where `bundle` is.

    A cache that cannot be written is not an error: `--bundle` still works.
    """
    folder = (cache or cache_folder()) / "bundles"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / bundle.sha256, str(bundle.path.absolute()).encode())
    except OSError:
        return


def find_bundle(sha256: str, cache: Path | None = None) -> Bundle:
    """Return the registered bundle with that checksum.

    Raises:
        BundleError: if none is registered, or it was moved or changed since.
    """
    entry = (cache or cache_folder()) / "bundles" / Path(sha256).name
    hint = "name the folder with --bundle"
    if not entry.is_file():
        raise BundleError(f"no bundle with checksum {sha256[:12]} is registered on this machine; {hint}")
    bundle = Bundle.open(entry.read_text(encoding="utf-8"), verify=False)
    if bundle.sha256 != sha256:
        raise BundleError(f"{bundle.path} has been replaced (its checksum is no longer {sha256[:12]}); {hint}")
    return bundle
