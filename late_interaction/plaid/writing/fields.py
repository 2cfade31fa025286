"""Add metadata fields to an index; its passages have no value in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from late_interaction.documents import Passage
from late_interaction.errors import MetadataError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.store.versions import SegmentEntry, Version, now
from late_interaction.plaid.writing.build import merge_segments

__all__ = ["widened"]


def widened(root: Path, snapshot: Snapshot, number: int, further: MetadataSchema) -> Version:
    """Return version `number` of the same passages, in one segment with the snapshot's columns and `further`.

    Vectors are copied as stored. Memory use is the metadata of all passages.

    Raises:
        MetadataError: if a field exists with another type.
    """
    old = snapshot.version
    for name, type_ in further.fields.items():
        if (there := old.schema.fields.get(name, type_)) is not type_:
            raise MetadataError(f"metadata field {name!r} in {root} has type {there.value} and cannot change to {type_.value}")
    schema = MetadataSchema(dict(sorted({**old.schema.fields, **further.fields}.items())))
    parts = [(part.segment, part.mask) for part in snapshot.living if part.mask.any()]
    kept = [Passage("", "", "", "", p.metadata, p.digest) for p in snapshot.iter_passages()]
    segments: tuple[SegmentEntry, ...] = ()
    if parts:
        segments = (merge_segments(root, f"{number}f", schema, snapshot.codebook, snapshot.form, parts, kept),)
    return dataclasses.replace(old, schema=schema, segments=segments, name="", number=number, created=now())
