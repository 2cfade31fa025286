"""Find the kind of a source: by its suffix, by what a folder contains, or from the settings."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feeder.sources.array_files import read_array_file
from feeder.sources.arrow import is_dataset, read_arrow, read_dataset, read_parquet
from feeder.sources.corpus import corpus_of, open_corpus
from feeder.sources.folders import has_files, read_folder
from feeder.sources.ids import read_any_ids, read_ids, read_json_ids
from feeder.sources.jsonl import json_object, read_json, read_json_lines, read_vespa
from feeder.sources.packed import bare_suffix, lines
from feeder.sources.pages import PAGES, read_page
from feeder.sources.records import ROW, SourceLimits, SourceSettings, has_id
from feeder.sources.source import BadRecord, FileSource, Item, Reader
from feeder.sources.spool import standard_input
from feeder.sources.tables import read_csv, read_tsv
from late_interaction.errors import CollectionError, UsageError

__all__ = ["FORMATS", "open_id_lists", "open_sources"]


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        read: reads it.
        suffixes: suffixes of files, without .gz and .zst.
        folder: tells whether a folder is of this kind.
        alone: its files are read only if named, and skipped in folders, because weights of models have the same suffixes.
    """

    read: Reader
    suffixes: tuple[str, ...] = ()
    folder: Callable[[Path], bool] | None = None
    alone: bool = False


def _file_reader(path: Path, settings: SourceSettings | None = None) -> Reader | None:
    kind = _kind_of_file(path)
    return None if kind is None or kind.alone else _delimited(kind.read, settings or SourceSettings())


def _delimited(read: Reader, settings: SourceSettings) -> Reader:
    """Apply the delimiter of the settings to a reader of tables."""
    return partial(read, delimiter=settings.delimiter) if settings.delimiter and read in (read_csv, read_tsv) else read


def _read_lines(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield records, or what is wrong with one."""
    for number, line in lines(path, name, limits):
        try:
            yield number, json_object(line, f"{name}:{number}")
        except CollectionError as error:
            yield number, BadRecord(str(error))


FORMATS: dict[str, Kind] = {
    "jsonl": Kind(_read_lines, (".jsonl", ".ndjson")),
    "json": Kind(read_json, (".json",)),
    "vespa": Kind(read_vespa),
    "csv": Kind(read_csv, (".csv",)),
    "tsv": Kind(read_tsv, (".tsv",)),
    "parquet": Kind(read_parquet, (".parquet",)),
    "arrow": Kind(read_arrow, (".arrow", ".feather")),
    "arrays": Kind(read_array_file, (".npz", ".safetensors"), alone=True),
    "page": Kind(partial(read_page, id_=""), tuple(PAGES)),
    "beir": Kind(read_json_lines, folder=lambda path: corpus_of(path) is not None),
    "dataset": Kind(read_dataset, folder=is_dataset),
    "pages": Kind(
        partial(read_folder, prefix="", reader=_file_reader, has_id=bool),
        folder=lambda path: has_files(path, _file_reader),
    ),
}


# kinds of sources of ids, by suffix; `-`: standard input
ID_LISTS: dict[str, Reader] = {
    ".txt": read_ids, ".jsonl": read_json_ids, ".ndjson": read_json_ids, ".json": read_any_ids, "-": read_any_ids,
}  # fmt: skip


def open_id_lists(sources: Sequence[str], settings: SourceSettings | None = None) -> list[FileSource]:
    """Open sources of which only the ids are needed.

    In addition to those of `open_sources`, text files with one id per line, and JSON lines of ids.

    Args:
        sources: files, folders, or `-` for standard input.
        settings: settings of the sources.

    Raises:
        CollectionError: if a source is missing or of no known kind.
        UsageError: if the format in the settings is unknown.
    """
    settings = settings or SourceSettings()
    columns = dataclasses.replace(settings.columns, title=(), text=(), metadata=(), vectors="", dense={})
    found = open_sources(sources, dataclasses.replace(settings, columns=columns, required=()))
    for source, opened in zip(sources, found, strict=True):
        kind = "" if settings.format else "-" if source == "-" else bare_suffix(opened.path)
        opened.read = opened.read if opened.path.is_dir() else ID_LISTS.get(kind, opened.read)
    return found


def open_sources(sources: Sequence[str], settings: SourceSettings | None = None) -> list[FileSource]:
    """Open files, folders, or `-` for standard input, which is copied to a temporary file first.

    Args:
        sources: files, folders, or `-`.
        settings: settings of the sources.

    Raises:
        CollectionError: if a source is missing or of no known kind.
        UsageError: if the format in the settings is unknown.
    """
    settings = settings or SourceSettings()
    if settings.format and settings.format not in FORMATS:
        raise UsageError(f"format {settings.format!r} is unknown; known: {', '.join(FORMATS)}")
    kinds = [_kind(source, settings.format) for source in sources]
    keys = iter(_keys([Path(source) for source, kind in zip(sources, kinds, strict=True) if _by_path(kind, settings)]))
    alone = sum(_by_path(kind, settings) for kind in kinds) == 1
    return [
        _open(source, kind, settings, next(keys) if _by_path(kind, settings) else "", alone)
        for source, kind in zip(sources, kinds, strict=True)
    ]


def _kind(source: str, format_: str) -> Kind | None:
    """Return the kind; None for standard input."""
    given = FORMATS.get(format_)
    if source == "-":
        return None
    if not source:
        raise CollectionError("a source name is empty; give files, folders, or - for standard input")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', '') or error})"
        raise CollectionError(f"no file or folder {path}{reason}; give files, folders, or - for standard input") from None
    folder = stat.S_ISDIR(mode)
    if not folder and not stat.S_ISREG(mode):
        raise CollectionError(f"{path} is a pipe or a device; give it as standard input, with - as the source")
    kind = given or (_kind_of_folder(path) if folder else _kind_of_file(path))
    if kind is None:
        files = ", ".join(suffix for known in FORMATS.values() for suffix in known.suffixes)
        raise CollectionError(
            f"{path} is not a source: sources are {files} (.gz and .zst too), or folders of such files, with corpus.jsonl, or "
            "with a data set"
        )
    if folder != (kind.folder is not None):
        raise CollectionError(f"{path} is a {'folder' if folder else 'file'}: which format {format_!r} cannot read")
    return kind


def _kind_of_file(path: Path) -> Kind | None:
    suffix = bare_suffix(path)
    return next((kind for kind in FORMATS.values() if suffix in kind.suffixes), None)


def _kind_of_folder(path: Path) -> Kind | None:
    return next((kind for kind in FORMATS.values() if kind.folder is not None and kind.folder(path)), None)


def _by_path(kind: Kind | None, settings: SourceSettings) -> bool:
    """Tell whether ids are made from the source's path."""
    return kind is not None and (kind is FORMATS["page"] or kind is FORMATS["pages"] or settings.columns.id == ROW)


def _keys(paths: Sequence[Path]) -> list[str]:
    """Return the prefixes of ids made from paths: a path's own name, or for several the part below their common parent."""
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100  links are not followed
    try:
        common = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
        return [path.relative_to(common).as_posix() for path in whole]
    except ValueError:  # on different drives
        return [path.as_posix() for path in whole]


def _open(source: str, kind: Kind | None, settings: SourceSettings, key: str, alone: bool) -> FileSource:
    if kind is None:
        given = FORMATS.get(settings.format)
        return standard_input(settings, read_json if given is None else _delimited(given.read, settings))
    path, read = Path(source), _delimited(kind.read, settings)
    if kind is FORMATS["beir"]:
        opened = open_corpus(path, settings)
        opened.key = f"{key}/{opened.path.name}" if key and not alone else ""
        return opened
    if kind is FORMATS["page"]:
        read = partial(read_page, id_=key)
    elif kind is FORMATS["pages"]:
        id_there = partial(has_id, columns=settings.columns)
        reader = partial(_file_reader, settings=settings)
        read = partial(read_folder, prefix="" if alone else f"{key}/", reader=reader, has_id=id_there)
    return FileSource(path, source, read, settings, key)
