"""Convert checkpoints to bundles at first use, and cache them for the user.

A folder is identified by its content, so a checkpoint that was trained further is exported again. A hub name is identified by
the name, so the hub is contacted once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from late_interaction.addresses import as_path
from late_interaction.bundle import FORMAT_VERSION, Bundle
from late_interaction.bundle_cache import cache_folder, register_bundle
from late_interaction.files import sha256_file

__all__ = ["bundle_of", "with_document_length"]


def bundle_of(checkpoint: str | Path, say: Callable[[str], None]) -> Bundle:
    """Return the bundle of a checkpoint folder, a hub name, or a bundle's folder.

    Queries of checkpoints that are exported here have no fixed length: a longer query gets more rows.

    Raises:
        UsageError: If the text is empty.
        BundleError: If the bundle is damaged.
        CheckpointError: If the checkpoint has to be exported and cannot be.
        MissingDependency: If the checkpoint has to be exported and an extra is missing.
    """
    folder = as_path(checkpoint, "checkpoint")
    if (folder / "manifest.json").is_file():
        return Bundle.open(folder)
    place = cache_folder() / "checkpoints" / f"{_key(checkpoint)}-{FORMAT_VERSION}"
    if not place.is_dir():
        from exporter import ExportOptions, export

        say(f"exporting {checkpoint} to {place}")
        export(checkpoint, place, ExportOptions(query_length="auto"), progress=say)
    bundle = Bundle.open(place, verify=False)
    register_bundle(bundle)
    return bundle


def _key(checkpoint: str | Path) -> str:
    folder = Path(checkpoint)
    if not folder.is_dir():
        return str(checkpoint).replace("/", "--")
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n".encode())
    return f"{folder.resolve().name}-{digest.hexdigest()[:32]}"


def with_document_length(bundle: Bundle, length: int) -> Bundle:
    """Return the bundle with documents read to `length` tokens, or as far as the model can."""
    manifest = bundle.manifest
    document = dataclasses.replace(manifest.document, length=min(length, manifest.max_tokens), auto=False)
    return Bundle(bundle.path, dataclasses.replace(manifest, document=document))
