"""The title and the text of a PDF file, as far as it has any; scanned pages have none."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from feeder.sources.report import Note
from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["pdf_text"]

MAX_PAGES = 5000


def pdf_text(data: bytes, name: str, most_mb: int) -> tuple[str, str, tuple[Note, ...]]:
    """Return title, text and notes.

    Raises:
        CollectionError: if the file cannot be read, or has more text than allowed.
        MissingDependency: if pypdf is not installed.
    """
    with required("sources", name):
        import pypdf
    pages: list[str] = []
    size = 0
    try:
        with (
            _warnings() as warnings,
            pypdf.apply_configuration(zlib_maximum_output_length=most_mb << 20),
            pypdf.PdfReader(io.BytesIO(data)) as reader,
        ):
            if reader.is_encrypted and not reader.decrypt(""):
                raise CollectionError(f"{name} needs a password; remove the password")
            if len(reader.pages) > MAX_PAGES:
                raise CollectionError(f"{name} has more than {MAX_PAGES} pages; split it")
            title = str((reader.metadata and reader.metadata.title) or "")
            for page in reader.pages:
                pages.append(page.extract_text())
                size += len(pages[-1])
                if size > most_mb << 20:
                    raise CollectionError(f"{name} expands to more than {most_mb} MiB of text; split it")
    except CollectionError:
        raise
    except Exception as error:  # noqa: BLE001  on a damaged file pypdf raises whatever its code comes upon
        raise CollectionError(f"{name} cannot be read as a PDF ({type(error).__name__}: {error})") from None
    return title, "\n\n".join(pages), _notes(name, pages, warnings)


def _notes(name: str, pages: list[str], warnings: list[str]) -> tuple[Note, ...]:
    notes = []
    empty = sum(not page.strip() for page in pages)
    if empty and empty < len(pages):
        notes.append(Note("no_text", "PDF files with pages that have no text", 1, (f"{name} ({empty} of {len(pages)} pages)",)))
    if warnings:
        notes.append(Note("damaged", "PDF files with faults, whose text may be incomplete", 1, (f"{name} ({warnings[0]})",)))
    return tuple(notes)


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what pypdf logs instead of printing it: only there does it report that it skipped a fault."""
    logger, messages = logging.getLogger("pypdf"), list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(" ".join(record.getMessage().split())[:80])  # type: ignore[method-assign]
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.propagate = before
        logger.removeHandler(handler)
