"""A local index: can it be opened, is every file as it was written, does its codebook still fit."""

from __future__ import annotations

import math
from pathlib import Path

from colbert_vespa.monitor.limits import Limits
from colbert_vespa.monitor.report import OK, WARNING, WRONG, Row, Sample, Section
from late_interaction.errors import ColbertVespaError, LocalIndexError
from late_interaction.plaid.shards import AnyIndex, ShardedIndex, open_index

__all__ = ["look_at_files", "look_at_index"]

AREA = "index"


def look_at_index(path: Path, limits: Limits) -> Section:
    """What opening it tells, without reading all of it."""
    try:
        index = open_index(path)
        try:
            return _opened(index, path, limits)
        finally:
            _close(index)
    except LocalIndexError as error:
        return Section((Row(AREA, "folder", WRONG, str(error)),))


def look_at_files(path: Path) -> Section:
    """Reads every file and compares every checksum."""
    try:
        index = open_index(path)
        try:
            index.verify()
        finally:
            _close(index)
    except ColbertVespaError as error:
        return Section((Row(AREA, "files", WRONG, f"{error}: restore a backup, or roll back to a version that is whole"),))
    return Section((Row(AREA, "files", OK, "every checksum is right"),))


def _close(index: AnyIndex) -> None:
    if isinstance(index, ShardedIndex):
        index.close()


def _opened(index: AnyIndex, path: Path, limits: Limits) -> Section:
    versions = index.versions()
    kept = f"{len(versions)} version{'s' if len(versions) > 1 else ''} to go back to"
    rows = [
        Row(AREA, "version", OK, f"{index.version}, bundle {index.bundle.sha256[:8]}; {kept}"),
        Row("documents", path.name, OK, f"{index.documents:,} documents, {index.passages:,} passages"),
    ]
    samples = [
        Sample("index_version", float(index.version)),
        Sample("documents", float(index.passages), {"index": path.name}),
        Sample("coverage_ratio", 0.0 if index.missing else 1.0, {"index": path.name}),
    ]
    readers = index.readers() if isinstance(index, ShardedIndex) else {0: index}
    rows += [Row(AREA, f"shard-{shard}", WRONG, why) for shard, why in index.missing.items()]
    drifts = [reader.drift for reader in readers.values() if reader.drift is not None]
    if drifts:
        drift = max(drifts, key=lambda value: math.inf if math.isnan(value) else value)
        says = f"vectors lie {drift:.3f} farther from their centroids than when it was trained"
        far = not drift < limits.centroids
        rows.append(Row(AREA, "codebook", WARNING if far else OK, f"{says}: colbert-vespa index compact" if far else says))
        samples.append(Sample("drift_distance", drift, {"of": "stored_vectors"}))
    return Section(tuple(rows), tuple(samples))
