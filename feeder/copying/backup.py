"""A backup folder, as a target and as a place with stored documents. docs/how-to/backups.md describes the format.

parts/000000.gz, ...    documents with their vectors (parts.py)
bundle/                 the index's bundle
codebook.npz            for rows that are kept as codes and residuals
manifest.json           describes all of it, with checksums; written last, so a folder without it is not a backup
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from feeder.copying.journal import KIND
from feeder.copying.manifest import MANIFEST, PART, BackupManifest, FileNote, PartNote
from feeder.copying.parts import DenseDims, pack_part, read_part
from feeder.copying.source import Batch, StoredSource
from feeder.outcomes import Finished, Settled, StoredDigest
from feeder.own_files import check_own_file
from feeder.targets import EncodedDocument, Kept
from late_interaction.bundle import Bundle, is_bundle_folder
from late_interaction.codebook import Codebook
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import atomic_write, remove_file, replace_folder, sha256_file
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage

__all__ = ["PROGRESS", "BackupSource", "BackupTarget", "check_free"]

CODEBOOK = "codebook.npz"
ONCE = "backup {} cannot be changed; change the index, and make another backup"
PROGRESS = "progress.jsonl"  # of an incomplete backup


class BackupTarget:
    """Writes a part for each batch. Nothing counts before `finish`, which reads every part again."""

    counted = unit_rows = False
    needs_vectors = True

    def __init__(self, folder: Path, source: StoredSource, *, batches: int) -> None:
        """Open a backup folder for writing. batches: how many an earlier run has written."""
        self.name, self._folder, self._source = str(folder), folder, source
        self.place, self.built = str(folder.resolve()), ""
        self._batches = batches
        self._outcomes: list[Settled] = []
        self.schema, self.digest_basis = source.schema, ""
        with _disk_errors(folder):
            (folder / "parts").mkdir(parents=True, exist_ok=True)

    @property
    def bundle(self) -> Bundle:
        """Return the index's bundle."""
        return self._source.bundle

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""
        return self._source.kept

    def size(self) -> int:
        """Return 0: a backup holds only this copy."""
        return 0

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        """Return nothing: a backup holds only this copy."""
        return {}

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        """Write the batch as a part."""
        data, _ = pack_part(batch, self._source.bundle.manifest.dim, _dense_of(self._source.bundle))
        with _disk_errors(self._folder):
            atomic_write(self._part(self._batches), data)
        self._batches += 1
        self._outcomes += [Settled(document.document.id) for document in batch]

    def update(self, batch: Sequence[Document]) -> None:
        """Raise: a backup cannot be changed."""
        raise UsageError(ONCE.format(self.name))

    def delete(self, document_ids: Sequence[str]) -> None:
        """Raise: a backup cannot be changed."""
        raise UsageError(ONCE.format(self.name))

    def still_updated(self, document_ids: Sequence[str]) -> Sequence[str]:
        """Return nothing: a backup is never updated."""
        return ()

    def statistics(self) -> None:
        """Return None: nothing goes over a network."""

    def settled(self, *, wait: bool = False) -> list[Settled]:
        """Return the outcomes since the last call."""
        found, self._outcomes = self._outcomes, []
        return found

    def finish(self) -> Finished:
        """Read every part again and write the manifest.

        Raises:
            CollectionError: if a part has changed since it was written, or the disk refuses.
        """
        with _disk_errors(self._folder):
            return self._finished()

    def _finished(self) -> Finished:
        bundle = self._folder / "bundle"
        with replace_folder(bundle, owned=is_bundle_folder) as staging:
            self._source.bundle.copy_to(staging)
        codebook = None
        if self._source.codebook is not None:
            self._source.codebook.save(self._folder / CODEBOOK)
            codebook = FileNote.of(self._folder / CODEBOOK)
        written = {self._part(number) for number in range(self._batches)}
        for leftover in sorted((self._folder / "parts").iterdir()):
            if PART.fullmatch(leftover.name) and leftover not in written:
                remove_file(leftover)
        notes = tuple(self._note(self._part(number)) for number in range(self._batches))
        source = self._source
        manifest = BackupManifest(
            source.name, source.bundle.sha256, source.schema, source.kept, source.storage, codebook, notes,
            _dense_of(source.bundle),
        )  # fmt: skip
        atomic_write(self._folder / MANIFEST, manifest.to_json())
        return Finished()

    def close(self) -> None:
        """Do nothing: no file stays open."""
        pass

    def _part(self, number: int) -> Path:
        return self._folder / "parts" / f"{number:06}.gz"

    def _note(self, path: Path) -> PartNote:
        """Return the note of a part, which is read whole."""
        try:
            data = path.read_bytes()
            size = len(zlib.decompress(data, wbits=31))
        except (OSError, zlib.error) as error:
            raise CollectionError(
                f"{path} has changed since it was written ({error}); run the backup again without --resume"
            ) from None
        source = self._source
        of_bundle = source.bundle.manifest.dim, source.codebook, _dense_of(source.bundle)
        found = read_part(data, size, str(path), source.schema, *of_bundle)
        file = FileNote(path.name, len(data), hashlib.sha256(data).hexdigest())
        passages = sum(len(document.passages) for document in found)
        return PartNote(file, size, len(found), passages, _token_vectors(found))


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise CollectionError if the disk refuses."""
    try:
        yield
    except OSError as error:
        raise CollectionError(
            f"backup {folder} cannot be written ({error.strerror}); fix the disk, then run again with --resume"
        ) from None


def _dense_of(bundle: Bundle) -> DenseDims:
    """Return the dimensions of the bundle's dense models, of each of which every passage has a vector."""
    return {name: part.dim for name, part in sorted(bundle.manifest.dense.items())}


def _token_vectors(documents: Sequence[EncodedDocument]) -> int:
    return sum(len(rows) for document in documents for rows in document.vectors)


def check_free(folder: Path) -> None:
    """Check that the folder is free for a backup.

    Raises:
        UsageError: if the folder contains anything but an unfinished backup.
    """
    if (folder / MANIFEST).exists():
        raise UsageError(f"{folder} already contains a backup; choose a new folder")
    unfinished = (folder / PROGRESS).exists()
    check_own_file(folder / PROGRESS, KIND)
    if folder.exists() and not unfinished and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; choose a new one")


class BackupSource:
    """A backup as a place with stored documents."""

    counted = True

    def __init__(self, folder: Path) -> None:
        """Read every part, so that nothing is restored from a backup that is damaged anywhere.

        Raises:
            CollectionError: if a file is damaged; the message names it.
            BundleError: if the bundle has changed.
        """
        self.name, self.place, self._folder = str(folder), str(folder.resolve()), folder
        self._manifest = BackupManifest.read(folder)
        self.bundle = Bundle.open(folder / "bundle")
        if self.bundle.sha256 != self._manifest.bundle_sha256:
            raise CollectionError(f"{folder} is damaged: its bundle is not the one in the manifest")
        if self._manifest.dense != _dense_of(self.bundle):
            raise CollectionError(f"{folder} is damaged: its dense models differ from its bundle's")
        self.codebook = self._codebook()
        self.version = hashlib.sha256(self._manifest.to_json()).hexdigest()
        for number in range(len(self._manifest.parts)):
            self._read(number)

    def _codebook(self) -> Codebook | None:
        note = self._manifest.codebook
        if note is None:
            return None
        path = self._folder / CODEBOOK
        if not path.is_file() or path.stat().st_size != note.bytes or sha256_file(path) != note.sha256:
            raise CollectionError(f"{path} is missing or damaged (its checksum differs); use another backup")
        return Codebook.load(path)

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._manifest.schema

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""
        return self._manifest.kept

    @property
    def storage(self) -> Storage:
        """Return the storage of the index."""
        return self._manifest.storage

    def size(self) -> int:
        """Return the number of passages."""
        return sum(note.passages for note in self._manifest.parts)

    def batches(self, resume: str) -> Iterator[Batch]:
        """Yield the documents of each part; places are numbers of parts."""
        for number in range(int(resume or 0), len(self._manifest.parts)):
            yield Batch(self._read(number), str(number + 1))

    def close(self) -> None:
        """Do nothing: no file stays open."""
        pass

    def _read(self, number: int) -> list[EncodedDocument]:
        note = self._manifest.parts[number]
        path = self._folder / "parts" / note.file.name
        try:
            if path.stat().st_size != note.file.bytes:
                raise CollectionError(f"{path} is damaged (its length differs from the manifest); use another backup")
            data = path.read_bytes()
        except OSError as error:
            raise CollectionError(f"{path} cannot be read ({error.strerror}); use another backup") from None
        if hashlib.sha256(data).hexdigest() != note.file.sha256:
            raise CollectionError(f"{path} is damaged (its checksum differs); use another backup")
        of_bundle = self.bundle.manifest.dim, self.codebook, self._manifest.dense
        found = read_part(data, note.unpacked, str(path), self.schema, *of_bundle)
        counts = (len(found), sum(len(document.passages) for document in found), _token_vectors(found))
        if counts != (note.documents, note.passages, note.token_vectors):
            raise CollectionError(f"{path} is damaged (its documents differ from the manifest); use another backup")
        return found
