"""Open the places that copies are made between: addresses and backup folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feeder.copying.backup import PROGRESS, BackupSource, BackupTarget, check_free
from feeder.copying.journal import CopyJournal
from feeder.copying.run import Copy, CopySummary
from feeder.copying.source import StoredSource
from feeder.copying.vespa import VespaSource
from feeder.targets import Target
from feeder.targets.vespa import open_vespa
from late_interaction.addresses import VespaUrl, locate
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import cache_folder, register_bundle
from late_interaction.errors import UsageError
from late_interaction.files import is_there
from late_interaction.progress import CountReport
from vespa_app.running import Application

if TYPE_CHECKING:
    from late_interaction.plaid import Storage
    from late_interaction.plaid.shards import Sharding

__all__ = ["CopyOptions", "backup_index", "copy_index", "restore_index"]


@dataclass(frozen=True)
class CopyOptions:
    """Options of a copy.

    Attributes:
        bundle: bundle of a Vespa application that this machine does not know.
        storage: storage of a new local index; by default one that keeps the vectors unchanged.
        sharding: shards of a new local index.
        merge: the target may already have documents.
        resume: continue an interrupted copy.
        journal: file that records the progress; by default in the user's cache.
    """

    bundle: Bundle | None = None
    storage: Storage | None = None
    sharding: Sharding | None = None
    merge: bool = False
    resume: bool = False
    journal: Path | None = None


def copy_index(source: str, target: str, options: CopyOptions | None = None, report: CountReport | None = None) -> CopySummary:
    """Copy ids, texts, metadata and vectors from the address `source` to the address `target`.

    Args:
        source: a local index or a Vespa application.
        target: a local index or a Vespa application.
        options: options of the copy.
        report: called with the progress.

    Returns:
        what was copied.

    Raises:
        CollectionError: if a document is refused, or the counts do not agree at the end.
        LocalIndexError: if a local index is missing or damaged.
        VespaError: if Vespa does not answer.
        BundleError: if the target belongs to another bundle.
        MetadataError: if the target's metadata fields differ.
        UsageError: if the target is not empty.
    """
    options = options or CopyOptions()
    return _copied(_opened(source, options.bundle), target, options, report)


def backup_index(
    source: str, folder: Path, options: CopyOptions | None = None, report: CountReport | None = None
) -> CopySummary:
    """Copy ids, texts, metadata and vectors from the address `source` to a new backup folder.

    Args:
        source: a local index or a Vespa application.
        folder: the backup folder.
        options: only bundle, resume and journal apply.
        report: called with the progress.

    Returns:
        what was copied.

    Raises:
        ColbertVespaError: as in `copy_index`.
        UsageError: if the folder contains anything else.
    """
    options = options or CopyOptions()
    check_free(folder)
    place = _opened(source, options.bundle)
    with contextlib.closing(place), contextlib.ExitStack() as open_things:
        identity = _identity(place, "backup", place.kept.key)
        progress = open_things.enter_context(_progress(folder / PROGRESS, identity, resume=options.resume))
        target = BackupTarget(folder, place, batches=progress.last.batches)
        return Copy(place, target, progress, as_is=True, report=report).run()


def restore_index(
    folder: Path, target: str, options: CopyOptions | None = None, report: CountReport | None = None
) -> CopySummary:
    """Copy a backup to the address `target`, if every part of it is undamaged.

    Args:
        folder: the backup folder.
        target: a local index or a Vespa application.
        options: options of the copy.
        report: called with the progress.

    Returns:
        what was copied.

    Raises:
        ColbertVespaError: as in `copy_index`.
        CollectionError: if the backup is damaged or incomplete.
    """
    return _copied(BackupSource(folder), target, options or CopyOptions(), report)


def _copied(source: StoredSource, target: str, options: CopyOptions, report: CountReport | None) -> CopySummary:
    with contextlib.closing(source), contextlib.ExitStack() as open_things:
        to = open_things.enter_context(contextlib.closing(_target(target, source, options)))
        register_bundle(source.bundle)  # like a feed
        identity = _identity(source, f"{to.place} {to.built}", to.kept.key)
        journal = options.journal or _journal(source.place, to.place)
        progress = open_things.enter_context(_progress(journal, identity, resume=options.resume))
        return Copy(source, to, progress, merge=options.merge, report=report).run()


def _opened(source: str, bundle: Bundle | None) -> StoredSource:
    place = locate(source)
    if isinstance(place, Path):
        from feeder.copying.local import LocalSource

        return LocalSource(place)
    application = Application.read(place)
    return VespaSource(application, application.choose_bundle(bundle))


def _target(address: str, source: StoredSource, options: CopyOptions) -> Target:
    place = locate(address)
    return _open_local(place, source, options) if isinstance(place, Path) else _open_vespa(place, source, options)


def _open_vespa(url: VespaUrl, source: StoredSource, options: CopyOptions) -> Target:
    if options.storage is not None or options.sharding is not None:
        raise UsageError(
            "codec, bits, refine and shards apply to a local index only; the codec of a Vespa application is set by app --codec"
        )
    return open_vespa(url, source.bundle)


def _open_local(path: Path, source: StoredSource, options: CopyOptions) -> Target:
    """Open or create a local index, which stores vectors as the source keeps them as far as possible."""
    from feeder.targets.local import LocalTarget

    storage = options.storage or (None if is_there(path) else source.storage)
    return LocalTarget(
        path, source.bundle, source.schema, resume=options.resume, create=True, storage=storage, sharding=options.sharding,
        codes_of=source.codebook,
    )  # fmt: skip


def _identity(source: StoredSource, target: str, kept: str) -> str:
    """Return the identity of a copy: the journal of another one is refused."""
    parts = [source.place, source.version, source.bundle.sha256, target, kept]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _journal(source: str, target: str) -> Path:
    return cache_folder() / "journals" / ("copy-" + hashlib.sha256(json.dumps([source, target]).encode()).hexdigest()[:16])


@contextlib.contextmanager
def _progress(path: Path, identity: str, *, resume: bool) -> Iterator[CopyJournal]:
    found = CopyJournal(path, identity, resume=resume)
    try:
        yield found
    finally:
        found.close(remove=False)
