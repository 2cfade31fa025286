"""Make the bundle available on every worker's machine: at its path, or through the cluster's object store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.bundle import MANIFEST, Bundle, is_bundle_folder
from late_interaction.bundle_cache import cache_folder
from late_interaction.errors import BundleError, UsageError
from late_interaction.files import atomic_write, replace_folder, safe_join

__all__ = ["ShippedBundle", "opened_bundle", "ship"]


@dataclass(frozen=True)
class ShippedBundle:
    """A bundle that can be sent to workers.

    Attributes:
        path: Folder on the driver, and on workers that share its disk.
        files: References to the content of each file, by name.
    """

    path: Path
    sha256: str
    files: Mapping[str, Any]

    def open(self) -> Bundle:
        """Open the bundle on the machine of the caller.

        Raises:
            BundleError: If its files are damaged or cannot be written to the disk.
        """
        copy = cache_folder() / "cluster-bundles" / self.sha256
        for place in (self.path, copy):
            if (bundle := self._at(place)) is not None:
                return bundle
        try:
            with contextlib.suppress(UsageError), replace_folder(copy, owned=self._is_old) as staging:
                self._write(staging)
        except OSError as error:
            raise BundleError(f"cannot copy the bundle to {copy}: {error}") from None
        if (bundle := self._at(copy)) is None:  # of another worker on this machine, where that was first
            raise BundleError(f"the bundle copied to {copy} is damaged: its checksum is not {self.sha256[:12]}; run it again")
        return bundle

    def _at(self, place: Path) -> Bundle | None:
        try:
            bundle = Bundle.open(place)
        except BundleError:
            return None
        return bundle if bundle.sha256 == self.sha256 else None

    def _is_old(self, folder: Path) -> bool:
        return is_bundle_folder(folder) and self._at(folder) is None

    def _write(self, folder: Path) -> None:
        import ray

        for name, reference in self.files.items():
            target = safe_join(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, ray.get(reference))


def ship(bundle: Bundle) -> ShippedBundle:
    """Put the bundle's files into the object store, which keeps one copy for all workers of a machine."""
    import numpy as np
    import ray

    files = {name: ray.put(np.fromfile(bundle.file(name), np.uint8)) for name in (*bundle.manifest.files, MANIFEST)}
    return ShippedBundle(bundle.path.absolute(), bundle.sha256, files)


def opened_bundle(bundle: Bundle | str | Path) -> Bundle:
    """Return the bundle, opening a folder.

    Raises:
        BundleError: If the bundle is missing or damaged.
    """
    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
