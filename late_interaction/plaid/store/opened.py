"""The open version of an index, which its readers read and its writer builds on."""

from __future__ import annotations

from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.store.versions import Version, read_current, read_version

__all__ = ["OpenedVersion", "opened_bundle"]


class OpenedVersion:
    """The open version. `refresh` moves it to the newest one, and the writer to the one it has just published."""

    def __init__(self, path: Path, snapshot: Snapshot, current: tuple[int, str], *, fixed: bool = False) -> None:
        """Hold a snapshot. current: number and checksum of its version. fixed: `refresh` does not move it."""
        self.path = path
        self.fixed = fixed
        self._opened = snapshot, current  # one attribute, so that threads never see halves of two versions
        self._bundles: dict[str, Bundle] = {}  # by checksum, shared with pinned readers, so that each is read once

    @classmethod
    def newest(cls, path: Path) -> OpenedVersion:
        """Open the newest version.

        Raises:
            LocalIndexError: if there is no index, or it is damaged.
        """
        return cls(path, *_open_newest(path, None))

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot."""
        return self._opened[0]

    @property
    def current(self) -> tuple[int, str]:
        """Return number and checksum of the version."""
        return self._opened[1]

    @property
    def version(self) -> Version:
        """Return the version."""
        return self.snapshot.version

    @property
    def bundle(self) -> Bundle:
        """Return the index's copy of the bundle; see `opened_bundle`."""
        sha256 = self.version.bundle
        if sha256 not in self._bundles:
            self._bundles[sha256] = opened_bundle(self.path, sha256)
        return self._bundles[sha256]

    def refresh(self) -> bool:
        """Move to the newest version; return whether there was a newer one."""
        snapshot, current = self._opened
        if self.fixed or read_current(self.path) == current:
            return False
        self._opened = _open_newest(self.path, snapshot)
        return True

    def move_to(self, snapshot: Snapshot, current: tuple[int, str]) -> None:
        """Move to a version that is open already."""
        self._opened = snapshot, current

    def pinned(self) -> OpenedVersion:
        """Return the same version, which `refresh` of this one does not move."""
        other = OpenedVersion(self.path, *self._opened)
        other._bundles = self._bundles
        return other


def opened_bundle(root: Path, sha256: str) -> Bundle:
    """Open the bundle in an index's folder.

    Raises:
        BundleError: if it is damaged.
        LocalIndexError: if it has another checksum.
    """
    bundle = Bundle.open(root / "bundle", verify=False)
    if bundle.sha256 != sha256:
        raise LocalIndexError(
            f"{root} is damaged or was just replaced: its bundle has checksum {bundle.sha256[:12]}, but the open "
            f"version was made with {sha256[:12]}"
        )
    return bundle


def _open_newest(root: Path, before: Snapshot | None) -> tuple[Snapshot, tuple[int, str]]:
    current = read_current(root)
    while True:
        try:
            return Snapshot(root, read_version(root, *current), before), current
        except LocalIndexError:
            newer = read_current(root)  # a later commit may have removed the files of that version
            if newer == current:
                raise
            current = newer
