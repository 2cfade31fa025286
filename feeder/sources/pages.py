"""Files of text, Markdown, HTML and PDF: each file is a document."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feeder.markdown import headings
from feeder.sources.charset import decode_html, decode_text
from feeder.sources.front_matter import MetadataTypes, split_front_matter
from feeder.sources.html_text import html_text
from feeder.sources.packed import bare_name, bare_suffix, opened
from feeder.sources.pdf_text import pdf_text
from feeder.sources.records import SourceLimits, SourceRecord
from feeder.sources.report import Note
from late_interaction.errors import CollectionError
from late_interaction.text import clean_text

__all__ = ["PAGES", "markdown_types", "page_of", "read_page"]


@dataclass(frozen=True)
class Page:
    """A page. fields: of its front matter."""

    title: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def read_page(path: Path, name: str, limits: SourceLimits, *, id_: str) -> Iterator[tuple[str, SourceRecord | Note]]:
    """Yield the record of a file."""
    types = markdown_types([path], limits)
    yield from (("1", item) for item in page_of(path, name, id_, limits, types))


def page_of(path: Path, name: str, id_: str, limits: SourceLimits, types: MetadataTypes) -> Iterator[SourceRecord | Note]:
    """Yield its record, and notes on what is missing.

    Raises:
        CollectionError: if the file cannot be read.
        MissingDependency: if an extra is not installed.
    """
    suffix = bare_suffix(path)
    data = _bytes(path, name, limits)
    page = PAGES.get(suffix, _text)(data, name, limits)
    yield from page.notes
    if not page.text.strip():
        what = "empty files" if not data.strip() else f"{suffix[1:].upper()} files without text"
        yield Note("no_text", what + (" (scans?)" if suffix == ".pdf" else ""), 1, (name,))
    metadata, unfit = types.of(page.fields)
    if unfit:
        yield Note("unused", "front matter fields that cannot be metadata", len(unfit), (f"{name} ({', '.join(unfit)})",))
    title = " ".join(page.title.split()) or (bare_name(path) if page.text.strip() else "")
    yield {"id": id_, "title": title, "text": page.text, "metadata": metadata}


def markdown_types(files: Iterable[Path], limits: SourceLimits) -> MetadataTypes:
    """Return the types of all files' front matter. Unreadable files are reported when their text is read."""
    types = MetadataTypes()
    for path in files:
        if PAGES.get(bare_suffix(path)) is _markdown:
            with contextlib.suppress(CollectionError):
                types.add(_markdown(_bytes(path, path.name, limits), path.name, limits).fields)
    return types


def _bytes(path: Path, name: str, limits: SourceLimits) -> bytes:
    most = limits.file_mb << 20
    with opened(path, name, limits) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise CollectionError(f"{name} is larger than {limits.file_mb} MiB; raise limits.file_mb, or split it")
    return data


def _text(data: bytes, name: str, limits: SourceLimits) -> Page:
    return Page("", decode_text(data, name))


def _markdown(data: bytes, name: str, limits: SourceLimits) -> Page:
    fields, text = split_front_matter(decode_text(data, name))
    title = fields.get("title")
    if isinstance(title, (str, int, float)) and str(title).strip():
        return Page(str(title), text, {key: value for key, value in fields.items() if key != "title"})
    return Page(next((heading.title for heading in headings(text) if heading.title), ""), text, fields)


def _html(data: bytes, name: str, limits: SourceLimits) -> Page:
    decoded, notes = decode_html(data, name)
    return Page(*html_text(clean_text(decoded), name), notes=notes)


def _pdf(data: bytes, name: str, limits: SourceLimits) -> Page:
    title, text, notes = pdf_text(data, name, limits.file_mb)
    return Page(title, text, notes=notes)


PAGES: dict[str, Callable[[bytes, str, SourceLimits], Page]] = {
    ".txt": _text,
    ".text": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
