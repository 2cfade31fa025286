"""The corpus of a collection in BEIR's form: corpus.jsonl in a folder with queries and judgements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import SourceLimits, SourceSettings
from feeder.sources.report import Note
from feeder.sources.source import FileSource, Item
from late_interaction.errors import CollectionError

__all__ = ["corpus_of", "open_corpus"]


def corpus_of(folder: Path) -> Path | None:
    """Return the corpus file of a collection folder; None if it is not one."""
    names = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def open_corpus(folder: Path, settings: SourceSettings) -> FileSource:
    """Open the corpus of a collection folder.

    Raises:
        CollectionError: if the folder has none.
    """
    file = corpus_of(folder)
    if file is None:
        raise CollectionError(f"{folder} has no corpus.jsonl or corpus.jsonl.gz; give a file or a collection folder")
    return FileSource(file, str(file), _read_corpus, settings)


def _read_corpus(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield its records, and notes on files beside it that do not belong to the collection."""
    for other in sorted(path.parent.iterdir()):
        if not other.name.startswith((".", "corpus.", "queries.", "qrels")):
            yield 0, Note("left_out", f"other files skipped beside {path.name}", 1, (str(other),))
    yield from read_json_lines(path, name, limits)
