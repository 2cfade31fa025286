"""Folders and single files of text, markdown, HTML and PDF: a file is a document, its path in the folder the id."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from feeder.sources.records import Limits, Record
from late_interaction.errors import CollectionError, MissingDependency

__all__ = ["PAGES", "has_pages", "read_page", "read_pages"]

MAX_PDF_PAGES = 5000
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_SKIPPED = {"script", "style", "noscript", "template", "head", "svg", "nav", "iframe", "object"}
_INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "q",
    "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
}  # fmt: skip
Content = tuple[str, str]  # title and text


def has_pages(folder: Path) -> bool:
    return next(_files(folder), None) is not None


def read_pages(path: Path, name: str, limits: Limits) -> Iterator[tuple[str, Record]]:
    """All files of the folder and those below it, by path. Hidden ones and links are left out."""
    for file in _files(path):
        own = file.relative_to(path).as_posix()
        yield own, _record(file, f"{name}/{own}", own, limits)


def read_page(path: Path, name: str, limits: Limits) -> Iterator[tuple[str, Record]]:
    yield "1", _record(path, name, path.name, limits)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.suffix.lower() in PAGES:
            yield path


def _record(path: Path, name: str, id_: str, limits: Limits) -> Record:
    try:
        if path.stat().st_size > limits.file_mb << 20:
            raise CollectionError(f"{name} is larger than {limits.file_mb} MiB: raise limits.file_mb, or split it")
        title, text = PAGES[path.suffix.lower()](path, name, limits)
    except OSError as error:
        raise CollectionError(f"{name} cannot be read: {error.strerror or error}") from None
    return {"id": id_, "title": title.strip() or path.stem, "text": text}


def _text(path: Path, name: str, limits: Limits) -> Content:
    try:
        return "", path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CollectionError(f"{name}: not UTF-8 (byte {error.start}): convert the file") from None


def _markdown(path: Path, name: str, limits: Limits) -> Content:
    _, text = _text(path, name, limits)
    heading = _HEADING.search(text)
    return heading.group(1) if heading else "", text


def _html(path: Path, name: str, limits: Limits) -> Content:
    """Title and visible text: a line for each block, headings as in markdown."""
    try:
        from lxml import etree, html
    except ImportError:
        raise MissingDependency(f"{path} needs lxml: pip install 'colbert-vespa[sources]'") from None
    data = path.read_bytes()
    if not data.strip():
        return "", ""
    try:
        data.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # what the page itself says
    try:
        root = html.document_fromstring(data, parser=html.HTMLParser(encoding=encoding, no_network=True, huge_tree=False))
    except (etree.LxmlError, ValueError) as error:
        raise CollectionError(f"{name} is no HTML that can be read: {error}") from None
    title = root.find(".//title")
    pieces: list[str] = []
    for event, node in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        _walk(event, node, pieces)
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    return "" if title is None else title.text_content(), "\n".join(line for line in lines if line)


def _walk(event: str, node, pieces: list[str]) -> None:  # type: ignore[no-untyped-def]  # lxml has no types
    tag = node.tag if isinstance(node.tag, str) else ""
    hidden = not tag or any(parent.tag in _SKIPPED for parent in node.iterancestors()) or tag in _SKIPPED
    block = "\n" if tag not in _INLINE else ""
    if event == "start" and not hidden:
        heading = f"{'#' * int(tag[1])} " if re.fullmatch("h[1-6]", tag) else ""
        pieces.append(block + heading + " ".join((node.text or "").split("\n")))
    elif event != "start":
        pieces.append("" if hidden else block)
        parent = node.getparent()
        if parent is not None and not any(up.tag in _SKIPPED for up in (parent, *parent.iterancestors())):
            pieces.append(" ".join((node.tail or "").split("\n")))


def _pdf(path: Path, name: str, limits: Limits) -> Content:
    """The text of its pages, as far as it has any; scanned pages have none."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError:
        raise MissingDependency(f"{path} needs pypdf: pip install 'colbert-vespa[sources]'") from None
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    pages: list[str] = []
    size = 0
    try:
        with pypdf.apply_configuration(zlib_maximum_output_length=limits.file_mb << 20), pypdf.PdfReader(path) as reader:
            if reader.is_encrypted and not reader.decrypt(""):
                raise CollectionError(f"{name} needs a password: remove it")
            if len(reader.pages) > MAX_PDF_PAGES:
                raise CollectionError(f"{name} has more than {MAX_PDF_PAGES} pages: split it")
            title = str((reader.metadata and reader.metadata.title) or "")
            for page in reader.pages:
                pages.append(page.extract_text())
                size += len(pages[-1])
                if size > limits.file_mb << 20:
                    raise CollectionError(f"{name} unpacks to more than {limits.file_mb} MiB of text")
    except CollectionError:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, ArithmeticError) as error:
        raise CollectionError(f"{name} is no PDF that can be read ({type(error).__name__}: {error})") from None
    return title, "\n\n".join(pages)


PAGES: dict[str, Callable[[Path, str, Limits], Content]] = {
    ".txt": _text,
    ".text": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
