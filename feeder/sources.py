"""Document sources: JSONL files, gzipped or not, collection folders and standard input.

A line is an object: `id` (or `_id`), `title`, `text`, `metadata` (an object). Other keys of the line are metadata too.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from late_interaction.documents import Document
from late_interaction.errors import CollectionError

__all__ = ["Collection", "FileSource", "Query", "Spool", "open_sources", "read_collection", "spooled"]

MAX_LINE_BYTES = 32 << 20
MAX_ID_CHARACTERS = 1024
_RESERVED = {"id", "_id", "title", "text", "metadata"}
# code points that Vespa's text fields refuse (com.yahoo.text.Text.isTextCharacter); both backends get the same text
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane * 0x10000 + 0xFFFE) + chr(plane * 0x10000 + 0xFFFF) for plane in range(17))
    + "]"
)


def clean_text(text: str) -> str:
    """`text` with control characters and other code points that are no text replaced by a blank."""
    return _NOT_TEXT.sub(" ", text)


@dataclass(frozen=True)
class FileSource:
    """A file of documents that can be read more than once."""

    path: Path
    name: str

    def __iter__(self) -> Iterator[Document]:
        """Raises: CollectionError naming file and line."""
        for number, record in _json_lines(self.path, self.name):
            yield _document(record, f"{self.name}:{number}")


def open_sources(sources: Sequence[str]) -> list[FileSource]:
    """Files, collection folders (their corpus.jsonl or corpus.jsonl.gz) or `-` for standard input.

    Raises: CollectionError where one is missing. Standard input is copied to a temporary file first, since the whole of
    a source is checked before anything is sent.
    """
    return [_open_source(source) for source in sources]


def _open_source(source: str) -> FileSource:
    if source == "-":
        with tempfile.NamedTemporaryFile(prefix="colbert-vespa-stdin-", suffix=".jsonl", delete=False) as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        atexit.register(Path(file.name).unlink, missing_ok=True)
        return FileSource(Path(file.name), "standard input")
    path = Path(source)
    if path.is_dir():
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            if (path / name).is_file():
                return FileSource(path / name, str(path / name))
        raise CollectionError(f"{path} has no corpus.jsonl or corpus.jsonl.gz: give a file or a collection folder")
    if not path.is_file():
        raise CollectionError(f"no file or folder {path}: give JSONL files or a collection folder")
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".json", ".ndjson")):
        raise CollectionError(f"{path}: sources are .jsonl or .jsonl.gz files, or collection folders")
    return FileSource(path, str(path))


class Spool:
    """Documents on their way into a temporary file, from where they can be read more than once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by `source`
            "w", prefix="colbert-vespa-", suffix=".jsonl", delete=False, encoding="utf-8"
        )
        atexit.register(Path(self._file.name).unlink, missing_ok=True)

    def add(self, item: Document) -> None:
        """Raises: CollectionError where a value cannot be written as JSON."""
        record = {"id": item.id, "title": item.title, "text": item.text, "metadata": dict(item.metadata)}
        try:
            self._file.write(json.dumps(record) + "\n")
        except (TypeError, ValueError) as error:
            raise CollectionError(f"document {item.id!r} has a value that is no text, number or list ({error})") from None

    def source(self) -> FileSource:
        self._file.close()
        return FileSource(Path(self._file.name), self._name)


def spooled(documents: Iterable[Document]) -> Iterable[Document]:
    """`documents`, or a temporary file of them where they can be read only once."""
    if not isinstance(documents, Iterator):
        return documents
    spool = Spool("documents")
    for item in documents:
        spool.add(item)
    return spool.source()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield io.BufferedReader(unzipped)
        else:
            yield file


def _json_lines(path: Path, name: str) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        with _opened(path) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise CollectionError(f"{name}:{number}: line longer than {MAX_LINE_BYTES >> 20} MiB")
                if line.strip():
                    yield number, _json_object(line, f"{name}:{number}")
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise CollectionError(f"{name} cannot be read: {error}") from None


def _json_object(line: bytes, where: str) -> dict[str, object]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CollectionError(f"{where}: not UTF-8 (byte {error.start}): convert the file") from None
    except (ValueError, RecursionError) as error:
        raise CollectionError(f"{where}: not JSON ({error}): one object a line is wanted") from None
    if not isinstance(record, dict):
        raise CollectionError(f"{where}: a JSON object is wanted, got {type(record).__name__}")
    return record


def _id(record: Mapping[str, object], where: str) -> str:
    raw = record.get("id", record.get("_id"))
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    if not isinstance(raw, str) or not raw.strip():
        raise CollectionError(f'{where}: no id: every line needs a non-empty "id" (or "_id")')
    if len(raw) > MAX_ID_CHARACTERS:
        raise CollectionError(f"{where}: id longer than {MAX_ID_CHARACTERS} characters")
    if _NOT_TEXT.search(raw):
        raise CollectionError(f"{where}: id {raw!r} has control characters")
    return raw


def _text(record: Mapping[str, object], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CollectionError(f"{where}: {key} must be text, got {type(value).__name__}")
    return clean_text(value)


def _document(record: dict[str, object], where: str) -> Document:
    inner = record.get("metadata") or {}
    if not isinstance(inner, dict):
        raise CollectionError(f"{where}: metadata must be an object, got {type(inner).__name__}")
    outer = {key: value for key, value in record.items() if key not in _RESERVED}
    if twice := sorted(set(inner) & set(outer)):
        raise CollectionError(f"{where}: {twice[0]!r} stands both in metadata and beside it")
    metadata = {key: _clean_value(value) for key, value in {**inner, **outer}.items()}
    return Document(_id(record, where), _text(record, "title", where), _text(record, "text", where), metadata)  # type: ignore[arg-type]


def _clean_value(value: object) -> object:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean_value(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Query:
    id: str
    text: str


@dataclass(frozen=True)
class Collection:
    """A corpus with queries and judgements: corpus.jsonl[.gz], queries.jsonl, qrels.tsv."""

    name: str
    corpus: FileSource
    queries: tuple[Query, ...]
    qrels: Mapping[str, Mapping[str, float]]


def read_collection(folder: str | Path) -> Collection:
    """Raises: CollectionError where the folder, a file or a line of it is not as it should be."""
    root = Path(folder)
    if not root.is_dir():
        raise CollectionError(f"no folder {root}: a collection has corpus.jsonl, queries.jsonl and qrels.tsv")
    corpus = open_sources([str(root)])[0]
    queries = root / "queries.jsonl"
    qrels = root / "qrels.tsv"
    for file in (queries, qrels):
        if not file.is_file():
            raise CollectionError(f"{root} has no {file.name}: a collection has corpus.jsonl, queries.jsonl and qrels.tsv")
    records = _json_lines(queries, str(queries))
    asked = tuple(
        Query(_id(record, f"{queries}:{number}"), _text(record, "text", f"{queries}:{number}")) for number, record in records
    )
    return Collection(root.name, corpus, asked, _read_qrels(qrels))


def _read_qrels(path: Path) -> dict[str, dict[str, float]]:
    judged: dict[str, dict[str, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CollectionError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and not _is_number(fields[-1])):
            continue
        if len(fields) == 4:  # TREC: query, iteration, document, relevance
            fields = [fields[0], fields[2], fields[3]]
        if len(fields) != 3 or not _is_number(fields[2]):
            raise CollectionError(f"{path}:{number}: wanted query-id, document-id and relevance, separated by tabs")
        judged.setdefault(fields[0], {})[fields[1]] = float(fields[2])
    return judged


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
