"""Files that are never seen half-written: write beside, flush, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["atomic_write", "fsync_folder", "make_folders", "safe_join", "sha256_file", "staged_folder", "staging_prefix"]


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes) -> None:
    """Replaces `path` with `data`; a crash leaves the old content or the new, never a mixture."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    fsync_folder(path.parent)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative`, or ValueError where `relative` is absolute, has `..`, or is not plain POSIX."""
    pure = PurePosixPath(relative)
    plain = pure.parts == tuple(relative.split("/")) and not pure.is_absolute() and ".." not in pure.parts
    if not plain or "\\" in relative or "\0" in relative:
        raise ValueError(f"unsafe path {relative!r}")
    return root / relative


def staging_prefix(target: Path) -> str:
    """How the name of a staging folder of `target`, beside it, begins."""
    return f".{target.name}.staging-"


def _fsync_all(folder: Path) -> None:
    """Every file below `folder` and every folder, as a folder keeps the names of what is in it."""
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
        elif path.is_file():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())
    fsync_folder(folder)


def make_folders(path: Path) -> None:
    """`path` and the folders above it, each durable in the one that holds its name."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        fsync_folder(folder.parent)


@contextlib.contextmanager
def staged_folder(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its name when the block ends well.

    An existing `target` is replaced only then, and stays as it was when the block raises. replace: False leaves a target that
    is there and not an empty folder as it is, even where it came meanwhile.

    Raises: OSError, without `replace` where there is such a target.
    """
    target = target.absolute()
    make_folders(target.parent)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=staging_prefix(target)))
    try:
        yield staging
        staging.chmod(0o755)
        _fsync_all(staging)
        if replace and target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            os.replace(target, old / "was")
            os.replace(staging, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(staging, target)  # of folders, the system replaces none but an empty one
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
