"""Replace, remove and truncate files and folders safely.

No file is ever seen half-written, and nothing of the user's is removed. A file is replaced by writing beside it, flush,
fsync, rename, and fsync of the folder. A folder is built as `.NAME.staging-HEX` beside its destination, held by an flock
while its process lives, and renamed when it is complete; an existing folder is replaced only if `owned` recognises it as
our own. Modes follow the umask, or those of the file replaced. Links are followed, never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from late_interaction.errors import UsageError

__all__ = [
    "atomic_write",
    "check_apart",
    "check_folder",
    "check_output_file",
    "check_own_output",
    "check_writable",
    "claim_folder",
    "copy_file",
    "files_below",
    "fsync_folder",
    "is_claimed",
    "is_there",
    "make_folders",
    "nothing_owned",
    "remove_abandoned",
    "remove_file",
    "remove_folder",
    "replace_folder",
    "safe_join",
    "sha256_file",
]

MARKER = ".colbert-vespa.json"  # marker file of a folder that a command works in
Owned = Callable[[Path], bool]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make errors of the system name `path`, not the temporary file or folder beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _resolved(path: Path) -> Path:
    """Return the target of a link: the target is written, and the link stays."""
    return Path(os.path.realpath(path))


def atomic_write(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; a crash leaves the old content or the new, never a mixture.

    A device or pipe is written to.

    Raises:
        OSError: if the file cannot be written; it names `path`.
    """
    with _named(path):
        place = _resolved(path)
        if place.exists() and not place.is_file():
            place.write_bytes(data)
            return
        beside = place.with_name(f".{place.name[:100]}.{secrets.token_hex(8)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if place.exists():
                    os.fchmod(descriptor, stat.S_IMODE(place.stat().st_mode))
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(beside, place)
        except BaseException:
            remove_file(beside)
            raise
        fsync_folder(place.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of `source` to the new file `target`, and create its folder.

    Raises:
        OSError: if `target` exists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)


def remove_file(path: Path) -> None:
    """Remove one of our own files, if it exists."""
    path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_join(root: Path, relative: str) -> Path:
    """Return `root / relative`.

    Raises:
        ValueError: if `relative` is absolute, has `..`, or is not plain POSIX.
    """
    pure = PurePosixPath(relative)
    plain = pure.parts == tuple(relative.split("/")) and not pure.is_absolute() and ".." not in pure.parts
    if not plain or "\\" in relative or "\0" in relative:
        raise ValueError(f"unsafe path {relative!r}")
    return root / relative


def files_below(folder: Path) -> Iterator[str]:
    """Return relative POSIX paths of everything below `folder` except folders; a link to a folder counts as a file."""
    for root, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if Path(root, name).is_symlink())):
            yield Path(root, name).relative_to(folder).as_posix()


def is_there(path: Path) -> bool:
    """Tell whether `path` exists and is not an empty folder."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def make_folders(path: Path) -> None:
    """Create `path` and the folders above it, each durable in its parent."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        fsync_folder(folder.parent)


def nothing_owned(_folder: Path) -> bool:
    """Return False, for a folder that must be new or empty."""
    return False


def _is_free(path: Path) -> bool:
    """Tell whether `path` does not exist or is an empty folder."""
    return not path.exists() or (path.is_dir() and next(path.iterdir(), None) is None)


def check_folder(target: Path, *, owned: Owned) -> None:
    """Check before the work whether `replace_folder` could write `target`.

    Raises:
        UsageError: if anything but an empty folder or our own exists there.
        OSError: if it cannot be written.
    """
    if not str(target):
        raise UsageError("an output folder needs a name")
    with _named(target):
        place = _resolved(target)
        if place.exists() and not place.is_dir():
            raise UsageError(f"{target} is a file; give a new or empty folder")
        if not _is_free(place) and not owned(place):
            raise UsageError(
                f"{target} contains files that this command did not write, so it is not replaced; give a new or empty folder"
            )
        check_writable(place.parent)


def check_output_file(path: Path) -> None:
    """Check before the work whether `atomic_write` could write `path`.

    Raises:
        OSError: if it could not; it names `path`.
    """
    with _named(path):
        place = _resolved(path)
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if not place.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder does not exist")
        if not place.exists() or place.is_file():
            check_writable(place.parent)


def check_own_output(path: Path, mark: str) -> None:
    """Check that `path` is missing, empty, or has `mark` near its beginning, as each of our own files has.

    Raises:
        UsageError: if anything else exists there.
    """
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(1000)
        if start and mark.encode() not in start:
            raise UsageError(f"{path} was not written by this command, so it is not overwritten; give another file")


def check_writable(folder: Path) -> None:
    """Check that `folder`, or its nearest existing parent, can be written.

    Raises:
        OSError: if it cannot; it names that folder.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is not a folder", str(folder))
    try:
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        tempfile.TemporaryFile(dir=nearest).close()  # /proc and similar file systems claim to be writable
    except OSError as error:
        raise PermissionError(errno.EACCES, f"folder {nearest} cannot be written: {error.strerror}", str(folder)) from None


def check_apart(written: Sequence[tuple[str, Path]], read: Sequence[tuple[str, Path]]) -> None:
    """Check that a command does not write what it reads, and does not write one file twice.

    Links of either kind and relative paths are resolved.

    Args:
        written: description and path of each output.
        read: description and path of each input.

    Raises:
        UsageError: if two are the same; the message names both.
    """
    known: dict[object, tuple[str, Path]] = {}
    for what, path in read:
        known |= dict.fromkeys(_identities(path), (what, path))
    for what, path in written:
        for identity in (identities := _identities(path)):
            if identity in known:
                other, there = known[identity]
                raise UsageError(
                    f"{what} {path} and {other} {there} are the same file or folder; choose another for one of them"
                )
        known |= dict.fromkeys(identities, (what, path))


def _identities(path: Path) -> list[object]:
    found: list[object] = [os.path.realpath(path)]
    with contextlib.suppress(OSError):
        status = path.stat()
        found.append((status.st_dev, status.st_ino))
    return found


def claim_folder(folder: Path, kind: str) -> None:
    """Mark `folder` as one that commands of this `kind` write into and remove their files from.

    A new or empty folder gets a marker.

    Raises:
        UsageError: if the folder is not empty and has no marker of that kind.
        OSError: if it cannot be written.
    """
    with _named(folder):
        if is_claimed(folder, kind):
            return
        if not _is_free(folder):
            raise UsageError(f"{folder} is not a {kind} folder; give a new or empty one")
        make_folders(folder)
        atomic_write(folder / MARKER, json.dumps({"colbert-vespa": kind, "format_version": 1}).encode() + b"\n")


def is_claimed(folder: Path, kind: str) -> bool:
    """Tell whether `folder` has the marker of that kind."""
    try:
        found = json.loads((folder / MARKER).read_bytes()[:1000])
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("colbert-vespa") == kind


def remove_folder(folder: Path, *, owned: Owned) -> None:
    """Remove `folder` if it exists.

    Raises:
        UsageError: if it is not our own.
        OSError: if it cannot be removed; it names the folder.
    """
    with _named(folder):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()) or (folder.exists() and not owned(folder)):
            raise UsageError(f"{folder} contains files that this command did not write, so it is not removed")
        if folder.exists():
            shutil.rmtree(folder)


@contextlib.contextmanager
def replace_folder(target: Path, *, owned: Owned) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its name if the block succeeds.

    If the block fails, nothing changes.

    Args:
        target: the folder to write.
        owned: tells whether a non-empty folder is our own and may be replaced; asked before the block, and again at its
            end.

    Raises:
        UsageError: if anything else exists there.
        OSError: if it cannot be written; it names `target`.
    """
    check_folder(target, owned=owned)
    place = _resolved(target)
    with _named(target):
        make_folders(place.parent)
        remove_abandoned(place)
        staging, lock = _new_staging(place)
    try:
        yield staging
        with _named(target):
            _fsync_all(staging)
            check_folder(target, owned=owned)
            _put_in_place(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _put_in_place(staging: Path, place: Path) -> None:
    if place.exists():
        staging.chmod(stat.S_IMODE(place.stat().st_mode))
    if _is_free(place):
        os.replace(staging, place)  # the system replaces no folder but an empty one
        fsync_folder(place.parent)
        return
    old = _beside(place, "old")
    lock = _opened(place)
    try:
        _flock(lock)
        os.replace(place, old)
        try:
            os.replace(staging, place)
        except BaseException:
            os.replace(old, place)
            raise
        fsync_folder(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(lock)


def remove_abandoned(target: Path) -> None:
    """Remove what ended processes have left beside `target`.

    These are its staging folders and its former content, which is restored if the target is missing. Folders held by a
    living process stay.
    """
    place = _resolved(target)
    left = re.compile(rf"\.{re.escape(place.name)}\.(staging|old)-[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for path in sorted(place.parent.iterdir()):
            match = left.fullmatch(path.name)
            if match and path.is_dir() and not path.is_symlink():
                _remove_unless_held(path, place if match[1] == "old" else None)


def _remove_unless_held(path: Path, before: Path | None) -> None:
    """Remove a folder unless a process holds it. before: its original path, if it is the former content of a target."""
    lock = _opened(path)
    try:
        if not _flock(lock, wait=False):
            return
        if before is not None and not before.exists():
            os.replace(path, before)
        else:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}-{secrets.token_hex(8)}")


def _new_staging(place: Path) -> tuple[Path, int]:
    """Return a new folder, and the descriptor that holds it."""
    while True:
        staging = _beside(place, "staging")
        staging.mkdir()
        lock = _opened(staging)
        _flock(lock)
        if staging.exists():  # else another process removed it as abandoned before it was held
            return staging, lock
        os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _flock(descriptor: int, *, wait: bool = True) -> bool:
    """Return False if another process has it, or the file system has no locks; then nothing counts as abandoned."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _fsync_all(folder: Path) -> None:
    """Sync every file below `folder`, and every folder, which keeps the names of its entries."""
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
        elif path.is_file():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())
    fsync_folder(folder)
