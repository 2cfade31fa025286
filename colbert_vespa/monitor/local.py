"""Check a local index: whether it opens, its files are undamaged, and its codebook still fits."""

from __future__ import annotations

from pathlib import Path

from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import OK, WARNING, WRONG, CheckRow, Sample, Section
from late_interaction.errors import ColbertVespaError, LocalIndexError
from late_interaction.plaid import PlaidIndex, open_index

__all__ = ["look_at_files", "look_at_index"]

AREA = "index"


def look_at_index(path: Path, limits: WarningLimits) -> Section:
    """Return what opening the index shows, without reading all of it."""
    try:
        with open_index(path) as index:
            return _opened(index, path, limits)
    except LocalIndexError as error:
        return Section((CheckRow(AREA, "folder", WRONG, str(error)),))


def look_at_files(path: Path) -> Section:
    """Read every file and compare every checksum."""
    try:
        with open_index(path) as index:
            index.verify()
    except ColbertVespaError as error:
        return Section((CheckRow(AREA, "files", WRONG, f"{error}; restore a backup, or roll back to an intact version"),))
    return Section((CheckRow(AREA, "files", OK, "every checksum is right"),))


def _opened(index: PlaidIndex, path: Path, limits: WarningLimits) -> Section:
    versions = index.versions()
    kept = f"{len(versions)} version{'s' if len(versions) > 1 else ''} to go back to"
    rows = [
        CheckRow(AREA, "version", OK, f"{index.version}, bundle {index.bundle.sha256[:8]}; {kept}"),
        CheckRow("documents", path.name, OK, f"{index.documents:,} documents, {index.passages:,} passages"),
    ]
    samples = [
        Sample("index_version", float(index.version)),
        Sample("documents", float(index.passages), {"index": path.name}),
        Sample("coverage_ratio", 0.0 if index.missing else 1.0, {"index": path.name}),
    ]
    drift = index.drift  # before `missing`, which knows of damaged files what opening them has shown
    rows += [CheckRow(AREA, f"shard-{shard}", WRONG, why) for shard, why in index.missing.items()]
    if drift is not None:
        says = f"vectors lie {drift:.3f} farther from their centroids than when it was trained"
        far = not drift < limits.centroids
        rows.append(CheckRow(AREA, "codebook", WARNING if far else OK, f"{says}: colbert-vespa index compact" if far else says))
        samples.append(Sample("drift_distance", drift, {"of": "stored_vectors"}))
    return Section(tuple(rows), tuple(samples))
