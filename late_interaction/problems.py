"""Errors of the tree as HTTP problems (RFC 9457): the table that the server writes by and its clients read by."""

from __future__ import annotations

from late_interaction import errors
from late_interaction.errors import ColbertVespaError

__all__ = ["MEDIA_TYPE", "PREFIX", "PROBLEMS"]

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:colbert-vespa:"  # prefix of a problem's type

# the nearest class of an error counts; the server's own faults are described only in its log
PROBLEMS: dict[type[ColbertVespaError], tuple[int, str]] = {
    errors.UsageError: (422, "usage"),
    errors.FilterError: (422, "filter"),
    errors.MetadataError: (422, "metadata"),
    errors.CollectionError: (422, "document"),
    errors.LocalIndexError: (503, "index-unavailable"),
    errors.IndexBeingWritten: (409, "index-being-written"),
    errors.IncompleteAnswer: (503, "incomplete-answer"),
    errors.VespaTimeout: (504, "timeout"),
    errors.VespaBusy: (429, "busy"),
    errors.VespaUnreachable: (503, "vespa-unreachable"),
    errors.VespaRefused: (502, "vespa-refused"),
    errors.VespaError: (502, "vespa"),
    errors.MissingDependency: (501, "not-installed"),
    errors.ColbertVespaError: (500, "server"),
}
