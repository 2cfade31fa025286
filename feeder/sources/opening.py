"""Which kind of source a name means: by its suffix, by what a folder holds, or as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from feeder.sources.arrow import is_dataset, read_arrow, read_dataset, read_parquet
from feeder.sources.beir import corpus_of, open_corpus
from feeder.sources.jsonl import read_json, read_json_lines, read_vespa
from feeder.sources.packed import bare_suffix
from feeder.sources.pages import PAGES, has_pages, read_page, read_pages
from feeder.sources.records import SourceSettings
from feeder.sources.source import FileSource, Reader
from feeder.sources.spool import standard_input
from feeder.sources.tables import read_csv, read_tsv
from late_interaction.errors import CollectionError, UsageError

__all__ = ["FORMATS", "open_sources"]


@dataclass(frozen=True)
class Kind:
    """suffixes: of files, those of .gz and .zst taken off. folder: whether a folder is one."""

    read: Reader
    suffixes: tuple[str, ...] = ()
    folder: Callable[[Path], bool] | None = None


FORMATS: dict[str, Kind] = {
    "jsonl": Kind(read_json_lines, (".jsonl", ".ndjson")),
    "json": Kind(read_json, (".json",)),
    "vespa": Kind(read_vespa),
    "csv": Kind(read_csv, (".csv",)),
    "tsv": Kind(read_tsv, (".tsv",)),
    "parquet": Kind(read_parquet, (".parquet",)),
    "arrow": Kind(read_arrow, (".arrow", ".feather")),
    "page": Kind(read_page, tuple(PAGES)),
    "beir": Kind(read_json_lines, folder=lambda path: corpus_of(path) is not None),
    "dataset": Kind(read_dataset, folder=is_dataset),
    "pages": Kind(read_pages, folder=has_pages),
}


def open_sources(sources: Sequence[str], settings: SourceSettings | None = None) -> list[FileSource]:
    """Files, folders, or `-` for standard input, which is copied to a temporary file first.

    Raises: CollectionError where one is missing or of no kind that is known; UsageError where the settings name none.
    """
    settings = settings or SourceSettings()
    if settings.format and settings.format not in FORMATS:
        raise UsageError(f"format {settings.format!r} is unknown; known: {', '.join(FORMATS)}")
    return [_open(source, settings) for source in sources]


def _open(source: str, settings: SourceSettings) -> FileSource:
    given = FORMATS.get(settings.format)
    if source == "-":
        return standard_input(settings, read_json if given is None else given.read)
    path = Path(source)
    if not path.exists():
        raise CollectionError(f"no file or folder {path}: give files, folders, or - for standard input")
    kind = given or _kind_of(path)
    if kind is None:
        files = ", ".join(suffix for known in FORMATS.values() for suffix in known.suffixes)
        raise CollectionError(
            f"{path} is no source: sources are {files} (.gz and .zst too), or folders of such pages, with corpus.jsonl, or "
            "with a data set"
        )
    if kind is FORMATS["beir"]:
        return open_corpus(path, settings)
    if path.is_dir() != (kind.folder is not None):
        raise CollectionError(f"{path} is a {'folder' if path.is_dir() else 'file'}: format {settings.format!r} is not of such")
    return FileSource(path, str(path), kind.read, settings)


def _kind_of(path: Path) -> Kind | None:
    if path.is_dir():
        return next((kind for kind in FORMATS.values() if kind.folder is not None and kind.folder(path)), None)
    suffix = bare_suffix(path)
    return next((kind for kind in FORMATS.values() if suffix in kind.suffixes), None)
