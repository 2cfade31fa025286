"""Every error that users can meet, one tree:

    ColbertVespaError                 exit code 1, one line
    ├── UsageError                    exit code 2: the command or call was given something it does not take
    │   └── ArgumentError             also a ValueError, as callers of RAGatouille's methods expect it
    ├── MissingDependency             an extra is not installed; the message has the install command
    ├── DeviceError                   an accelerator that does not start, or fails
    ├── BundleError                   a folder that is no bundle, or one that was changed
    ├── CheckpointError               weights that cannot be loaded or exported
    ├── CollectionError               a document source: path, line, encoding, duplicate id
    ├── MetadataError                 a metadata value that does not fit its field
    ├── FilterError                   a `where` that does not parse or names an unknown field
    ├── SettingsError                 application settings, refused before Vespa would refuse them
    ├── LocalIndexError               a local index that is missing or damaged
    │   └── IndexBeingWritten         another writer has it
    ├── IncompleteAnswer              an answer without all documents, where a whole one was required
    └── VespaError                    anything Vespa says, or a server of `colbert-vespa serve`
        ├── VespaUnreachable          no answer: refused, reset
        │   └── VespaTimeout          none before the deadline
        ├── VespaBusy                 429, 503, 507: try again later
        └── VespaRefused              4xx and 5xx with Vespa's own message

Messages say what is wrong, where, and what to do, in one line.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "BundleError",
    "CheckpointError",
    "ColbertVespaError",
    "CollectionError",
    "DeviceError",
    "FilterError",
    "IncompleteAnswer",
    "IndexBeingWritten",
    "LocalIndexError",
    "MetadataError",
    "MissingDependency",
    "SettingsError",
    "UsageError",
    "VespaBusy",
    "VespaError",
    "VespaRefused",
    "VespaTimeout",
    "VespaUnreachable",
]


class ColbertVespaError(Exception):
    """Base of all errors raised for a user's attention."""

    exit_code = 1

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class UsageError(ColbertVespaError):
    exit_code = 2


class ArgumentError(UsageError, ValueError):
    pass


class MissingDependency(ColbertVespaError):
    pass


class DeviceError(ColbertVespaError):
    pass


class BundleError(ColbertVespaError):
    pass


class CheckpointError(ColbertVespaError):
    pass


class CollectionError(ColbertVespaError):
    pass


class MetadataError(ColbertVespaError):
    pass


class FilterError(ColbertVespaError):
    pass


class SettingsError(ColbertVespaError):
    pass


class LocalIndexError(ColbertVespaError):
    pass


class IndexBeingWritten(LocalIndexError):
    pass


class IncompleteAnswer(ColbertVespaError):
    pass


class VespaError(ColbertVespaError):
    """`status` is the HTTP status, or 0 where there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class VespaUnreachable(VespaError):
    pass


class VespaTimeout(VespaUnreachable):
    pass


class VespaBusy(VespaError):
    """`retry_after`: seconds that the other side asks to wait; 0 where it does not say."""

    retry_after: float = 0.0


class VespaRefused(VespaError):
    pass
