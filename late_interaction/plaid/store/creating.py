"""Create an index so that it appears in its place complete, and never in the place of another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from late_interaction.bundle import is_bundle_folder
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.files import nothing_owned, replace_folder

__all__ = ["check_free", "folder_of_ours_around", "new_index"]


def check_free(root: Path) -> None:
    """Check that an index can be created at `root`.

    Raises:
        LocalIndexError: if `root` exists and is not an empty folder, or lies in another index or a bundle.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise LocalIndexError(f"{root} exists and is not an empty folder; choose another folder for the index")
    if holder := folder_of_ours_around(root):
        raise LocalIndexError(f"{root} lies inside {holder}; choose another folder for the index")


def folder_of_ours_around(path: Path) -> str:
    """Return the index or bundle that contains `path`, as `index FOLDER`; '' if there is none."""
    for folder in Path(os.path.realpath(path)).parents:
        if (folder / "SHARDS.json").is_file() or ((folder / "CURRENT").is_file() and (folder / "versions").is_dir()):
            return f"index {folder}"
        if is_bundle_folder(folder):
            return f"bundle {folder}"
    return ""


@contextlib.contextmanager
def new_index(root: Path) -> Iterator[Path]:
    """Yield a folder beside `root` that takes its place if the block succeeds.

    If several processes create an index there, one succeeds.

    Raises:
        LocalIndexError: if `root` exists and is not an empty folder, another process was first, or the disk refuses;
            nothing is left then.
    """
    check_free(root)
    try:
        with replace_folder(root, owned=nothing_owned) as staging:
            yield staging
    except (OSError, UsageError, LocalIndexError) as error:
        check_free(root)
        if not isinstance(error, OSError):
            raise
        raise LocalIndexError(f"cannot create {root}, nothing was written: {error}") from None
