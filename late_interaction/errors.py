"""Every error that users can meet, in one tree.

    ColbertVespaError                 base of all errors for users
    ├── UsageError                    the command or call was given something it does not accept
    │   └── ArgumentError             also a ValueError, as callers of RAGatouille's methods expect
    ├── MissingDependency             an extra is not installed; the message has the install command
    ├── DeviceError                   an accelerator does not start, or fails
    ├── BundleError                   a folder is not a bundle, or was changed
    ├── CheckpointError               weights cannot be loaded or exported
    ├── CollectionError               a document source cannot be read; the message names path and line
    ├── MetadataError                 a metadata value does not fit its field
    ├── FilterError                   a `where` does not parse or names an unknown field
    ├── SettingsError                 application settings are not valid
    ├── LocalIndexError               a local index is missing or damaged
    │   └── IndexBeingWritten         another writer has the index
    ├── IncompleteAnswer              an answer lacks documents although a complete one was required
    └── VespaError                    an error reported by Vespa, or by a server of `colbert-vespa serve`
        ├── VespaUnreachable          Vespa does not answer: the connection is refused or reset
        │   └── VespaTimeout          Vespa did not answer before the deadline
        ├── VespaBusy                 Vespa asks to try again later (429, 503 or 507)
        └── VespaRefused              Vespa rejected the request (4xx or 5xx); the message is its own

A message is one line: what is wrong, where, and what to do. `exit_code` is 1, for usage errors 2.
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
    """The command or call was given something it does not accept (exit code 2)."""

    exit_code = 2


class ArgumentError(UsageError, ValueError):
    """A UsageError that is also a ValueError, as callers of RAGatouille's methods expect."""

    pass


class MissingDependency(ColbertVespaError):
    """An extra is not installed; the message has the install command."""

    pass


class DeviceError(ColbertVespaError):
    """An accelerator does not start, or fails."""

    pass


class BundleError(ColbertVespaError):
    """A folder is not a bundle, or was changed."""

    pass


class CheckpointError(ColbertVespaError):
    """Weights cannot be loaded or exported."""

    pass


class CollectionError(ColbertVespaError):
    """A document source cannot be read; the message names path and line."""

    pass


class MetadataError(ColbertVespaError):
    """A metadata value does not fit its field."""

    pass


class FilterError(ColbertVespaError):
    """A filter does not parse or names an unknown field."""

    pass


class SettingsError(ColbertVespaError):
    """Application settings are not valid."""

    pass


class LocalIndexError(ColbertVespaError):
    """A local index is missing or damaged."""

    pass


class IndexBeingWritten(LocalIndexError):
    """Another writer has the index."""

    pass


class IncompleteAnswer(ColbertVespaError):
    """An answer lacks documents although a complete one was required."""

    pass


class VespaError(ColbertVespaError):
    """An error reported by Vespa, or by a server of `colbert-vespa serve`.

    Attributes:
        status: the HTTP status, or 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class VespaUnreachable(VespaError):
    """Vespa does not answer."""

    pass


class VespaTimeout(VespaUnreachable):
    """Vespa did not answer before the deadline."""

    pass


class VespaBusy(VespaError):
    """Vespa asks to try again later (429, 503 or 507).

    Attributes:
        retry_after: seconds to wait; 0 if Vespa does not say.
    """

    retry_after: float = 0.0


class VespaRefused(VespaError):
    """Vespa rejected the request; the message is its own."""

    pass
