"""Parquet files, Arrow files and streams, and Hugging Face data sets that were saved to disk: a row is a record."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feeder.sources.packed import unpacked
from feeder.sources.records import SourceLimits, SourceRecord
from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["is_dataset", "read_arrow", "read_dataset", "read_parquet"]

ROWS = 256  # read at a time
STATE, DICT = "state.json", "dataset_dict.json"


def read_parquet(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    _arrow(path)
    from pyarrow import parquet

    with unpacked(path, name, limits) as plain, _named(name), parquet.ParquetFile(plain) as file:
        yield from _rows(file.iter_batches(ROWS), 1, name, limits)


def read_arrow(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Arrow's file format (Feather) or its stream format."""
    with unpacked(path, name, limits) as plain:
        yield from _rows(_batches(plain, name), 1, name, limits)


def is_dataset(path: Path) -> bool:
    """Whether there is a description of a data set, not just a file of that name."""
    return any(_describes(path / name, key) for name, key in ((STATE, "_data_files"), (DICT, "splits")))


def _describes(path: Path, key: str) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and key in data


def read_dataset(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[str, SourceRecord]]:
    """What `save_to_disk` wrote: one data set, or several (train, test), whose rows are then `SPLIT/ROW`."""
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
        raise CollectionError(f"{folder / STATE} names files outside of its folder")
    return files


def _strings(path: Path, key: str, name: str) -> list[str]:
    """The list of names at `key`; Hugging Face has it as texts or as objects with `filename`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = [item["filename"] if isinstance(item, dict) else item for item in data[key]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CollectionError(f"{name}: {path} is no description of a data set ({type(error).__name__}: {error})") from None
    if data.get("_indices_data_files") or not all(
        isinstance(item, str) and "/" not in item.replace("..", "/") for item in found
    ):
        raise CollectionError(f"{name}: {path} has indices or odd file names: save the data set again after flatten_indices()")
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


def _rows(batches: Iterable[Any], first: int, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    row = first
    for batch in batches:
        if batch.nbytes > (limits.line_mb << 20) * ROWS:
            raise CollectionError(f"{name}:{row}: rows larger than {limits.line_mb} MiB")
        names = batch.schema.names
        if twice := [key for key in names if names.count(key) > 1]:
            raise CollectionError(f"{name}: column {twice[0]!r} stands twice")
        for record in _records(batch, row, name):
            yield row, {key: _plain(value) for key, value in record.items()}
            row += 1


def _records(batch: Any, row: int, name: str) -> Iterator[dict[str, object]]:
    """Raises: CollectionError naming the row with a text that is not UTF-8, or a time that Python does not have."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError) as error:
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).to_pylist()
            except (ValueError, OverflowError) as of_row:
                raise CollectionError(f"{name}:{row + place}: a value cannot be read ({of_row})") from None
        raise CollectionError(f"{name}:{row}: rows cannot be read ({error})") from None


def _plain(value: object) -> object:
    """Times as ISO 8601 text, as everywhere else."""
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
