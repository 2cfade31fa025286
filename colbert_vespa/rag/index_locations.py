"""Locate the indexes of a model: folders by name, or a Vespa application.

When an index of RAGatouille or colbert-ai is opened for the first time, it is imported into the folder `NAME.imported` beside
it, which is opened from then on. The original files are not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from colbert_vespa.rag.checkpoints import bundle_of, with_document_length
from colbert_vespa.rag.checks import checked_name
from late_interaction.addresses import VespaUrl, as_path
from late_interaction.bundle import Bundle
from late_interaction.errors import LocalIndexError
from late_interaction.files import is_there
from late_interaction.plaid import open_index
from late_interaction.plaid.imports import import_index
from late_interaction.plaid.imports.colbert_ai import COLBERT_AI_FILES
from late_interaction.plaid.imports.peer import read_json
from late_interaction.plaid.opening import IMPORTED
from late_interaction.plaid.shards.layout import SHARDS, is_index_folder
from late_interaction.plaid.store.versions import CURRENT

__all__ = ["DEFAULT_ROOT", "IndexLocation", "check_replaceable", "is_colbert_ai", "is_index", "listed_versions"]

DEFAULT_ROOT = ".ragatouille/"


@dataclass(frozen=True, slots=True)
class IndexLocation:
    """Where the indexes are: a folder with one for each name, or a Vespa application."""

    root: Path | VespaUrl

    @classmethod
    def under(cls, index_root: str | None) -> IndexLocation:
        """Return where RAGatouille keeps the indexes of that root."""
        return cls(as_path(DEFAULT_ROOT if index_root is None else index_root, "index_root") / "colbert" / "indexes")

    @property
    def remote(self) -> bool:
        """Return whether the indexes are on Vespa."""
        return isinstance(self.root, VespaUrl)

    def address(self, name: str) -> str:
        """Return the address of the index of that name, whether it exists or not; '' is the first index of an application.

        Raises:
            ArgumentError: If the name is not valid.
        """
        if isinstance(self.root, VespaUrl):
            return str(VespaUrl(self.root.url, checked_name(name) if name else ""))
        return str(self.root / checked_name(name))

    def opened(self, name: str, bundle: Bundle | None, say: Callable[[str], None]) -> str:
        """Return an address that can be searched and fed.

        An index written by RAGatouille is imported, and the address is that of the import.

        Args:
            name: Name of the index.
            bundle: Bundle of the checkpoint that RAGatouille's index was made with; None for the checkpoint named by the index.
            say: Called with notes on the progress.

        Raises:
            LocalIndexError: If the index does not exist.
            BundleError: If the index cannot be imported because of its bundle.
            CheckpointError: If the index cannot be imported because of its checkpoint.
            MetadataError: If the index cannot be imported because of its metadata.
        """
        if self.remote:
            return self.address(name)
        path = Path(self.address(name))
        if is_index(path):
            return str(path)
        imported = path.with_name(path.name + IMPORTED)
        if is_index(imported):
            return str(imported)
        if not is_colbert_ai(path):
            raise LocalIndexError(f"no index {name!r} in {self.root}; existing: {', '.join(self._names()) or 'none'}")
        say(f"importing {path} into {imported}")
        import_index(path, imported, bundle=_bundle_for(path, bundle, say))
        return str(imported)

    def _names(self) -> list[str]:
        assert isinstance(self.root, Path)
        found = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [path.name for path in found if is_index(path) or is_colbert_ai(path)]


def is_index(path: Path) -> bool:
    """Return whether an index of ours, of shards or not, is at `path`."""
    return (path / CURRENT).is_file() or (path / SHARDS).is_file()


def check_replaceable(path: Path) -> None:
    """Check that `path` may be replaced.

    Raises:
        LocalIndexError: If `path` exists and is not an index of ours, or contains other files.
    """
    if is_there(path) and not (path.is_dir() and is_index_folder(path)):
        raise LocalIndexError(f"{path} exists and is not an index of ours, so it is not replaced; choose another index_name")


def listed_versions(address: str) -> list[dict[str, Any]]:
    """Return the kept versions of a local index, oldest first.

    Raises:
        LocalIndexError: If the index is missing or damaged.
    """
    index = open_index(address)
    return [
        {
            "version": version.number,
            "name": version.name,
            "passages": version.passages,
            "created": datetime.fromtimestamp(version.created, timezone.utc).isoformat(),
            "current": version.number == index.version,
        }
        for version in index.versions()
    ]


def is_colbert_ai(path: Path) -> bool:
    """Return whether an index written by RAGatouille or colbert-ai is at `path`."""
    return all((path / name).is_file() for name in COLBERT_AI_FILES)


def _bundle_for(path: Path, bundle: Bundle | None, say: Callable[[str], None]) -> Bundle:
    """Return the bundle for an index of colbert-ai, with the document length of its config."""
    config = read_json(path / "metadata.json", dict).get("config")
    known = config if isinstance(config, dict) else {}
    if bundle is None:
        checkpoint = known.get("checkpoint")
        if not isinstance(checkpoint, str) or not checkpoint:
            raise LocalIndexError(f"{path} does not record its checkpoint; give from_index(..., checkpoint=)")
        bundle = bundle_of(checkpoint, say)
    length = known.get("doc_maxlen")
    return with_document_length(bundle, length) if type(length) is int and length > 0 else bundle
