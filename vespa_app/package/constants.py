"""Constant tensors of a package, in Vespa's typed binary format (`.tbf`): a tenth of the bytes and time of JSON.

    0x07                        mixed tensor with a cell type
    0x01                        cells are float
    mapped dimensions           count, then each name
    indexed dimensions          count, then each name and size
    subspaces                   count, if a dimension is mapped; each is its labels, then its cells, big-endian

Numbers are one byte below 128, else four bytes with the top bit set; texts are their length and their bytes.
"""

from __future__ import annotations

import re

import numpy as np

from late_interaction.array_types import Matrix

__all__ = ["constant_path", "tensor_file"]

_TYPE = re.compile(r"tensor<float>\((?:(\w+)\{\}, )?(\w+)\[(\d+)\]\)")


def constant_path(schema: str, name: str) -> str:
    """Return where a package keeps a constant of a schema."""
    return f"codebooks/{schema}_{name}.tbf"


def tensor_file(type_: str, cells: Matrix) -> bytes:
    """Return `tensor<float>(x[d])` from `[d]`, or `tensor<float>(c{}, x[d])` from `[C, d]` with row numbers as labels.

    Raises:
        ValueError: if the type is another, or the cells have another shape.
    """
    match = _TYPE.fullmatch(type_)
    if match is None or cells.ndim != (2 if match[1] else 1) or cells.shape[-1] != int(match[3]):
        raise ValueError(f"{type_} cannot be made from cells of shape {list(cells.shape)}")
    data = np.ascontiguousarray(cells, ">f4")
    parts = [b"\x07\x01", _number(1) + _text(match[1]) if match[1] else _number(0)]
    parts += [_number(1), _text(match[2]), _number(int(match[3]))]
    if not match[1]:
        return b"".join([*parts, data.tobytes()])
    parts.append(_number(len(data)))
    for label, row in enumerate(data):
        parts += [_text(str(label)), row.tobytes()]
    return b"".join(parts)


def _number(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else (value | 0x8000_0000).to_bytes(4, "big")


def _text(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()
