"""What a new package makes of the documents that an application already holds: whether they mean the same under it.

Vespa compares types of fields; which model made the vectors, how bits were cut and how ids are made it does not see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import httpx

from late_interaction.errors import SettingsError, UsageError, VespaError
from vespa_app.candidates import needed_encoding
from vespa_app.running import Description
from vespa_app.running.description import read_description

__all__ = ["REFEED", "documents_to_feed", "read_running", "stale_documents", "stale_indexes"]

REFEED = "refeed"  # a package under which the documents that are there mean nothing; Vespa does not know this one
_OF_VECTORS = ("dim", "codec", "residual_bits", "thresholds", "encoding")
_OF_DOCUMENTS = {
    "namespace": "documents that are there keep their old ids, and are found beside the new ones",
    "mode": "ids of documents have a group in mode streaming, and none in mode index",
    "group_field": "ids of documents have another group",
    "layout": "a document is one passage in layout passages, and all of them in layout chunks",
}


def stale_documents(old: Description, new: Description) -> Iterator[str]:
    """Why the documents of an index mean something else under the new description of it; nothing where they do not."""
    was, is_ = old.settings, new.settings
    if is_.encoding == "client":  # or Vespa makes all vectors again by itself
        if old.bundle_sha256 != new.bundle_sha256:
            shas = f"{old.bundle_sha256[:12]} -> {new.bundle_sha256[:12]}"
            yield f"another bundle ({shas}): its vectors must not meet the old ones"
        for name in _OF_VECTORS:
            if getattr(was, name) != getattr(is_, name) and (name != "residual_bits" or was.codec == is_.codec == "residual"):
                yield f"{name} {_shown(getattr(was, name))} -> {_shown(getattr(is_, name))}: the stored vectors mean others"
        for name in was.dense.keys() & is_.dense.keys():
            before, after = ((own.dim, own.cells, own.distance) for own in (was.dense[name], is_.dense[name]))
            if before != after:
                yield f"dense model {name} {_listed(before)} -> {_listed(after)}: its stored vectors mean others"
        before, after = (dataclasses.astuple(own) for own in (was.one_vector, is_.one_vector))
        if before != after and needed_encoding(was) and needed_encoding(is_):
            yield f"one vector {_listed(before)} -> {_listed(after)}: the stored vectors of candidates pooled mean others"
    for name, why in _OF_DOCUMENTS.items():
        if getattr(was, name) != getattr(is_, name):
            yield f"{name} {_shown(getattr(was, name))} -> {_shown(getattr(is_, name))}: {why}"


def _listed(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def stale_indexes(running: Description, new: Description) -> dict[str, str]:
    """Of the indexes that both have, those whose documents must be fed again -> the first reason."""
    before = {index.settings.schema: index for index in running.all}
    reasons = {}
    for index in new.all:
        name = index.settings.schema
        reason = next(stale_documents(before[name], index), None) if name in before else None
        if reason is not None:
            reasons[name] = reason
    return reasons


def read_running(query_urls: Iterable[str], transport: httpx.BaseTransport | None = None) -> list[Description | SettingsError]:
    """What applications of ours that answer there say of themselves; an error where one is of another release."""
    descriptions: list[Description | SettingsError] = []
    for url in query_urls:
        try:
            descriptions.append(read_description(url, transport=transport))
        except VespaError:
            continue
        except SettingsError as error:
            descriptions.append(error)
    return descriptions


def documents_to_feed(running: Iterable[Description | SettingsError], new: Description, *, allowed: bool) -> tuple[str, ...]:
    """What must be fed again after `new` is deployed over what runs.

    Raises: UsageError where something must, and it is not `allowed`.
    """
    reasons: dict[str, str] = {}
    for description in running:
        if isinstance(description, SettingsError):
            reasons[new.settings.schema] = f"what runs cannot be compared with the package ({description})"
        else:
            reasons |= stale_indexes(description, new)
    if reasons and not allowed:
        name, reason = next(iter(reasons.items()))
        raise UsageError(
            f"nothing was sent: under this package the documents of the running index {name} mean nothing: {reason}. "
            "Keep both until the new ones are there (colbert-vespa app BUNDLE -o BOTH --beside OLD), or deploy with "
            f"--allow {REFEED} and feed them again"
        )
    return tuple(f"feed the documents of index {name} again: {reason}" for name, reason in reasons.items())
