"""Whether the documents that an application already holds keep their meaning under a new package.

Vespa compares types of fields. It does not see which model made the vectors, how bits were cut, or how ids are made.
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

REFEED = "refeed"  # our own name, unknown to Vespa: a package that invalidates the stored documents
_OF_VECTORS = ("dim", "codec", "residual_bits", "thresholds", "encoding")
_OF_DOCUMENTS = {
    "namespace": "existing documents keep their old ids, and are found beside the new ones",
    "mode": "document ids contain a group in mode streaming, but not in mode index",
    "group_field": "document ids contain another group",
    "layout": "a document is one passage in layout passages, but all of its passages in layout chunks",
}


def stale_documents(old: Description, new: Description) -> Iterator[str]:
    """Yield why the documents of an index change their meaning under its new description; nothing if they do not."""
    was, is_ = old.settings, new.settings
    if is_.encoding == "client":  # otherwise Vespa makes all vectors again
        if old.bundle_sha256 != new.bundle_sha256:
            shas = f"{old.bundle_sha256[:12]} -> {new.bundle_sha256[:12]}"
            yield f"another bundle ({shas}), whose vectors cannot be mixed with the old ones"
        for name in _OF_VECTORS:
            if getattr(was, name) != getattr(is_, name) and (name != "residual_bits" or was.codec == is_.codec == "residual"):
                yield (
                    f"{name} {_shown(getattr(was, name))} -> {_shown(getattr(is_, name))}, which changes the "
                    f"meaning of stored vectors"
                )
        for name in was.dense.keys() & is_.dense.keys():
            before, after = ((own.dim, own.cells, own.distance) for own in (was.dense[name], is_.dense[name]))
            if before != after:
                yield (
                    f"dense model {name} {_listed(before)} -> {_listed(after)}, which changes the meaning of its stored vectors"
                )
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
    """Return the indexes of both whose documents must be fed again, with the first reason."""
    before = {index.settings.schema: index for index in running.all}
    reasons = {}
    for index in new.all:
        name = index.settings.schema
        reason = next(stale_documents(before[name], index), None) if name in before else None
        if reason is not None:
            reasons[name] = reason
    return reasons


def read_running(query_urls: Iterable[str], transport: httpx.BaseTransport | None = None) -> list[Description | SettingsError]:
    """Return the descriptions of the applications of ours that answer there; an error for one of another release."""
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
    """Return what must be fed again after `new` is deployed over what runs.

    Raises:
        UsageError: if something must, and it is not `allowed`.
    """
    reasons: dict[str, str] = {}
    for description in running:
        if isinstance(description, SettingsError):
            reasons[new.settings.schema] = f"the running application cannot be compared with the package ({description})"
        else:
            reasons |= stale_indexes(description, new)
    if reasons and not allowed:
        name, reason = next(iter(reasons.items()))
        raise UsageError(
            f"nothing was sent: this package invalidates the documents of the running index {name}: {reason}. "
            f"Deploy both indexes until the new one is fed (colbert-vespa app BUNDLE -o BOTH --beside OLD), or "
            f"deploy with --allow {REFEED} and feed the documents again"
        )
    return tuple(f"feed the documents of index {name} again: {reason}" for name, reason in reasons.items())
