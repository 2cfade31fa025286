"""Parquet files, Arrow files and streams, and saved Hugging Face data sets: each row is a record.

Lists of floats, and lists of such lists, become numpy arrays.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feeder.sources.packed import unpacked
from feeder.sources.records import SourceLimits
from feeder.sources.source import BadRecord, Item
from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["is_dataset", "read_arrow", "read_dataset", "read_parquet", "read_table"]

ROWS = 256  # rows read at a time
BATCH_BYTES = 64 << 20  # bytes of a Parquet file read at a time
STATE, DICT = "state.json", "dataset_dict.json"


def read_parquet(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield the rows of a Parquet file."""
    _arrow(path)
    from pyarrow import parquet

    with unpacked(path, name, limits) as plain, _named(name), parquet.ParquetFile(plain) as file:
        yield from _rows(file.iter_batches(_rows_at_once(file.metadata)), 1, name, limits)


def _rows_at_once(metadata: Any) -> int:
    """Return how many rows take 64 MiB in the row group with the largest rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(ROWS, int(BATCH_BYTES / max(1, largest))))


def read_arrow(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield the rows of Arrow's file format (Feather) or stream format."""
    with unpacked(path, name, limits) as plain:
        yield from _rows(_batches(plain, name), 1, name, limits)


def read_table(table: Any, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield the rows of an Arrow table in memory."""
    yield from _rows(_sliced(table.to_batches()), 1, name, limits)


def is_dataset(path: Path) -> bool:
    """Tell whether there is a description of a data set, not just a file of that name."""
    return any(_describes(path / name, key) for name, key in ((STATE, "_data_files"), (DICT, "splits")))


def _describes(path: Path, key: str) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and key in data


def read_dataset(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[str, Item]]:
    """Yield the rows of what `save_to_disk` wrote: one data set, or several (train, test), whose rows are `SPLIT/ROW`."""
    splits = _strings(path / DICT, "splits", name) if (path / DICT).is_file() else [""]
    for split in splits:
        folder = path / split if split else path
        row = 1
        for file in _data_files(folder, name):
            for batch in _batches(file, str(file)):
                for number, record in _rows([batch], row, name, limits):
                    yield f"{split}/{number}" if split else str(number), record
                row += batch.num_rows


def _data_files(folder: Path, name: str) -> list[Path]:
    files = [folder / file for file in _strings(folder / STATE, "_data_files", name)]
    if any(file.parent != folder for file in files):
        raise CollectionError(f"{folder / STATE} names files outside its folder")
    return files


def _strings(path: Path, key: str, name: str) -> list[str]:
    """Return the list of names at `key`; Hugging Face stores it as texts or as objects with `filename`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = [item["filename"] if isinstance(item, dict) else item for item in data[key]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CollectionError(f"{name}: {path} is not a description of a data set ({type(error).__name__}: {error})") from None
    if data.get("_indices_data_files") or not all(
        isinstance(item, str) and "/" not in item.replace("..", "/") for item in found
    ):
        raise CollectionError(
            f"{name}: {path} has indices or unexpected file names; save the data set again after flatten_indices()"
        )
    return found


def _batches(path: Path, name: str) -> Iterator[Any]:
    pa = _arrow(path)
    with _named(name), pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield from _sliced(pa.ipc.open_stream(source))
            return
        yield from _sliced(reader.get_batch(number) for number in range(reader.num_record_batches))


def _sliced(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            yield batch.slice(start, ROWS)


def _rows(batches: Iterable[Any], first: int, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    row = first
    for batch in batches:
        if batch.nbytes > (limits.line_mb << 20) * ROWS:
            raise CollectionError(f"{name}:{row}: a row is larger than {limits.line_mb} MiB; raise limits.line_mb in feed.toml")
        names = batch.schema.names
        if twice := [key for key in names if names.count(key) > 1]:
            raise CollectionError(f"{name}: column {twice[0]!r} occurs twice")
        for record in _records(batch, row, name):
            yield row, {key: _plain(value) for key, value in record.items()} if isinstance(record, dict) else record
            row += 1


def _records(batch: Any, row: int, name: str) -> Iterator[dict[str, object] | BadRecord]:
    """Yield a record for each row, or what is wrong with its arrays."""
    names = batch.schema.names
    depths = {key: depth for key, type_ in zip(names, batch.schema.types, strict=True) if (depth := _float_depth(type_))}
    columns = {key: _storage(batch.column(key)) for key in depths}
    others = _plain_records(batch.select([key for key in names if key not in depths]), row, name)
    for place, record in enumerate(others):
        try:
            arrays = {key: _array_at(columns[key], place, depth) for key, depth in depths.items()}
        except ValueError as error:
            yield BadRecord(f"{name}:{row + place}: {error}")
        else:
            yield {key: arrays[key] if key in arrays else record[key] for key in names}


def _float_depth(type_: Any) -> int:
    """Return how many lists are around its floats; 0 for any other type."""
    import pyarrow as pa

    depth, type_ = 0, getattr(type_, "storage_type", type_)
    while pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        depth, type_ = depth + 1, type_.value_type
    return depth if pa.types.is_floating(type_) else 0


def _storage(column: Any) -> Any:
    return getattr(column, "storage", column)  # the numbers of a tensor, one after the other


def _array_at(column: Any, place: int, depth: int) -> object:
    """Return an array; ValueError if its rows have several lengths, or one is null."""
    scalar = column[place]
    return _array_of(scalar.values, depth - 1) if scalar.is_valid else None


def _array_of(values: Any, depth: int) -> object:
    if depth > 1:
        return [_array_of(value.values if value.is_valid else _no_row(), depth - 1) for value in values]
    if depth == 0:
        return values.to_numpy(zero_copy_only=False)
    if values.null_count:
        _no_row()
    lengths = set(values.value_lengths().to_pylist())
    if len(lengths) > 1:
        raise ValueError(f"rows of vectors have several lengths: {', '.join(map(str, sorted(lengths)[:3]))}")
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), next(iter(lengths), 0))


def _no_row() -> Any:
    raise ValueError("a row of vectors is null")


def _plain_records(batch: Any, row: int, name: str) -> Iterator[dict[str, object]]:
    """Yield records; CollectionError for the row with a text that is not UTF-8, or a time that Python lacks."""
    try:
        yield from batch.to_pylist() if batch.num_columns else ({} for _ in range(batch.num_rows))
    except (ValueError, OverflowError) as error:
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).to_pylist()
            except (ValueError, OverflowError) as of_row:
                raise CollectionError(f"{name}:{row + place}: a value cannot be read ({of_row})") from None
        raise CollectionError(f"{name}:{row}: rows cannot be read ({error})") from None


def _plain(value: object) -> object:
    """Return times as ISO 8601 text, as everywhere else."""
    return value.isoformat() if isinstance(value, (datetime.datetime, datetime.date)) else value


def _arrow(path: Path) -> Any:
    with required("sources", str(path)):
        import pyarrow
    return pyarrow


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise CollectionError(f"{name} cannot be read: {error}") from None
