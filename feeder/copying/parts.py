"""A part of a backup: some documents with their vectors, as one compressed file. docs/how-to/backups.md describes the format.

Uncompressed: the length of the head in eight bytes, the head as JSON, then the rows of all passages one after the other in
the form that the head names:

    float32     [n, d] little-endian
    bfloat16    [n, d] the upper halves of such floats, if all lower halves are zero
    residual    codes [n] of four bytes, then residuals [n, bytes], for the codebook of the backup

If the bundle has dense models, float32 [passages, width] follows: for each passage the vectors of all models, in the order
of their names.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np

from feeder.copying.source import stored_document
from feeder.targets import EncodedDocument
from late_interaction.array_types import Matrix, Vector
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.errors import CollectionError, MetadataError
from late_interaction.metadata import MetadataSchema
from late_interaction.structured import Count, parse, read
from vespa_app.codecs import Packed

__all__ = ["LARGEST", "DenseDims", "pack_part", "read_part"]

LARGEST = 4 << 30  # uncompressed bytes of a part
MAX_HEAD = 1 << 30
_LEVEL = 1
_LENGTH = struct.Struct("<Q")
DenseDims: TypeAlias = Mapping[str, int]
NO_DENSE: DenseDims = {}
_Id = Annotated[str, msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class _PassageHead:
    id: _Id
    title: str
    text: str
    metadata: Mapping[str, Any]
    rows: Count


@dataclass(frozen=True, slots=True)
class _DocumentHead:
    id: _Id
    digest: str
    passages: tuple[_PassageHead, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    form: str
    documents: tuple[_DocumentHead, ...]


def pack_part(documents: Sequence[EncodedDocument], dim: int, dense: DenseDims = NO_DENSE) -> tuple[bytes, int]:
    """Pack documents into a part.

    Args:
        documents: the documents.
        dim: dimensions of a token vector.
        dense: dimensions of the dense models, by name.

    Returns:
        the file's bytes, and its uncompressed length.

    Raises:
        CollectionError: if the part exceeds what a reader accepts, or a passage lacks a dense vector.
    """
    form, rows = _packed_rows(documents, dim)
    if dense:
        rows.append(_packed_dense(documents, dense))
    head = json.dumps({"form": form, "documents": [_described(document) for document in documents]}).encode()
    size = _LENGTH.size + len(head) + sum(len(piece) for piece in rows)
    if len(head) > MAX_HEAD or size > LARGEST:
        raise CollectionError(f"document {documents[0].document.id!r} and those after it are too large for a part of a backup")
    packer = zlib.compressobj(_LEVEL, wbits=31)
    pieces = [packer.compress(piece) for piece in (_LENGTH.pack(len(head)), head, *rows)]
    return b"".join([*pieces, packer.flush()]), size


def _described(document: EncodedDocument) -> dict[str, object]:
    passages = [
        {"id": p.id, "title": p.title, "text": p.text, "metadata": dict(p.metadata), "rows": len(rows)}
        for p, rows in zip(document.passages, document.vectors, strict=True)
    ]
    return {"id": document.document.id, "digest": document.digest, "passages": passages}


def _packed_rows(documents: Sequence[EncodedDocument], dim: int) -> tuple[str, list[bytes]]:
    if documents and all(len(document.packed) == len(document.passages) for document in documents):
        packed = [pair for document in documents for pair in document.packed]
        codes = np.concatenate([pair[0] for pair in packed])
        return "residual", [codes.astype("<i4").tobytes(), np.concatenate([pair[1] for pair in packed]).tobytes()]
    rows = np.concatenate([np.zeros((0, dim), np.float32), *(rows for document in documents for rows in document.vectors)])
    bits = rows.astype("<f4").view("<u4")
    if not (bits & 0xFFFF).any():
        return "bfloat16", [(bits >> 16).astype("<u2").tobytes()]
    return "float32", [bits.tobytes()]


def _packed_dense(documents: Sequence[EncodedDocument], dense: DenseDims) -> bytes:
    rows = []
    for document in documents:
        for passage, vectors in zip(document.passages, document.dense_by_passage, strict=True):
            for name, dim in sorted(dense.items()):
                if name not in vectors or vectors[name].shape != (dim,):
                    raise CollectionError(
                        f"passage {passage.id!r} has no vector of dense model {name!r}; feed its document again"
                    )
                rows.append(vectors[name].astype("<f4").tobytes())
    return b"".join(rows)


def read_part(
    data: bytes,
    size: int,
    where: str,
    schema: MetadataSchema,
    dim: int,
    book: Codebook | None,
    dense: DenseDims = NO_DENSE,
) -> list[EncodedDocument]:
    """Read a part.

    Args:
        data: the file's bytes.
        size: uncompressed length, from the manifest.
        where: the file, for error messages.
        schema: metadata fields.
        dim: dimensions of a token vector.
        book: the codebook of packed rows.
        dense: dimensions of the dense models, by name.

    Raises:
        CollectionError: if the part is damaged; the message names `where`.
    """
    try:
        unpacker = zlib.decompressobj(wbits=31)
        plain = unpacker.decompress(data, size + 1)
        if len(plain) != size or not unpacker.eof or unpacker.unused_data:
            raise ValueError("its length differs from the manifest")
        length = _LENGTH.unpack_from(plain)[0]
        if length > MAX_HEAD or _LENGTH.size + length > size:
            raise ValueError("its head is longer than the part")
        head = parse(plain[_LENGTH.size : _LENGTH.size + length], CollectionError, f"head of {where}")
        described = read(_Head, head, CollectionError, f"{where} is damaged")
        body = memoryview(plain)[_LENGTH.size + length :]
        body, of_models = _parted_dense(body, sum(len(document.passages) for document in described.documents), dense)
        return list(_documents(described, body, schema, dim, book, of_models))
    except (zlib.error, struct.error, ValueError, MetadataError) as error:
        raise CollectionError(f"{where} is damaged ({error}); use another backup") from None


def _parted_dense(body: memoryview, passages: int, dense: DenseDims) -> tuple[memoryview, list[dict[str, Vector]]]:
    """Split off the dense vectors, one set per passage; ValueError if they do not fit."""
    if not dense:
        return body, []
    size = 4 * passages * sum(dense.values())
    if size > len(body):
        raise ValueError("its dense vectors are truncated")
    rows = np.frombuffer(body[len(body) - size :], "<f4").reshape(passages, -1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("its dense vectors are not finite")
    names = sorted(dense)
    edges = np.cumsum([dense[name] for name in names])[:-1]
    return body[: len(body) - size], [dict(zip(names, np.split(row, edges), strict=True)) for row in rows]


def _documents(
    head: _Head, body: memoryview, schema: MetadataSchema, dim: int, book: Codebook | None, dense: list[dict[str, Vector]]
) -> Iterator[EncodedDocument]:
    counts = [passage.rows for document in head.documents for passage in document.passages]
    vectors, packed = _rows(head.form, body, sum(counts), dim, book)
    edges = np.cumsum([0, *counts])
    place = 0
    for document in head.documents:
        passages, first = document.passages, place
        place += len(passages)
        spans = [slice(int(edges[n]), int(edges[n + 1])) for n in range(first, place)]
        yield stored_document(
            [Passage(p.id, document.id, p.title, p.text, schema.check(p.metadata), document.digest) for p in passages],
            [vectors[rows] for rows in spans],
            [] if packed is None else [(packed[0][rows], packed[1][rows]) for rows in spans],
            counted=False,
            dense=dense[first:place],
        )


def _rows(form: str, body: memoryview, count: int, dim: int, book: Codebook | None) -> tuple[Matrix, Packed | None]:
    if form == "residual":
        if book is None:
            raise ValueError("it has codes, but the backup has no codebook")
        if len(body) != count * (4 + book.residual_bytes):
            raise ValueError("its rows are truncated")
        codes = np.frombuffer(body[: 4 * count], "<i4").astype(np.int32)
        residuals = np.frombuffer(body[4 * count :], np.uint8).reshape(count, book.residual_bytes)
        return book.decode(codes, residuals), (codes, residuals)
    width = {"float32": 4, "bfloat16": 2}.get(form)
    if width is None or len(body) != count * dim * width:
        raise ValueError(f"its rows are truncated, or their form {form!r} is unknown")
    if form == "float32":
        rows = np.frombuffer(body, "<f4").astype(np.float32)
    else:
        rows = (np.frombuffer(body, "<u2").astype(np.uint32) << 16).view(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("its rows are not finite")
    return rows.reshape(count, dim), None
