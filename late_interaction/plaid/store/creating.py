"""A new index appears in its place whole, and never in the place of another."""

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
    """Raises: LocalIndexError where `root` is there and not an empty folder, or would lie in another index or a bundle."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise LocalIndexError(f"{root} exists and is not an empty folder: give another place for the index")
    if holder := folder_of_ours_around(root):
        raise LocalIndexError(f"{root} would lie in the {holder}: give another place for the index")


def folder_of_ours_around(path: Path) -> str:
    """The index or bundle that `path` would lie in, as `index FOLDER`; '' where there is none."""
    for folder in Path(os.path.realpath(path)).parents:
        if (folder / "SHARDS.json").is_file() or ((folder / "CURRENT").is_file() and (folder / "versions").is_dir()):
            return f"index {folder}"
        if is_bundle_folder(folder):
            return f"bundle {folder}"
    return ""


@contextlib.contextmanager
def new_index(root: Path) -> Iterator[Path]:
    """Yields a folder beside `root` that takes its place when the block ends well. Of several processes that make an index
    there, one does.

    Raises: LocalIndexError where `root` is there and not an empty folder, another process was first, or the disk refuses;
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
        raise LocalIndexError(f"{root} cannot be made, nothing was written: {error}") from None
