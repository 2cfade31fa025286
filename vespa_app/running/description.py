"""The description of an application: one document in its own schema, readable at the query port."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import msgspec

from late_interaction.errors import SettingsError, UsageError, VespaRefused
from late_interaction.structured import parse, read
from vespa_app.running.http import answer_json, check_not_server, connect, mapped_errors
from vespa_app.settings import AppSettings

__all__ = [
    "DESCRIPTION_FILE",
    "DESCRIPTION_PATH",
    "DESCRIPTION_SCHEMA",
    "DESCRIPTION_VERSION",
    "Description",
    "description_document",
    "description_schema",
    "read_description",
]

DESCRIPTION_VERSION = 2  # its indexes have the field digest
DESCRIPTION_FILE = "colbert-vespa.json"  # in the package
DESCRIPTION_SCHEMA = "colbert_application"
_FIELD = "description"
# the namespace is fixed, because a reader does not know the settings yet
DESCRIPTION_PATH = f"/document/v1/colbert_vespa/{DESCRIPTION_SCHEMA}/docid/current"


@dataclass(frozen=True)
class Description:
    """The description of an application.

    Attributes:
        settings: settings of the index.
        bundle_sha256: checksum of the bundle that the package was generated from.
        codebook_sha256: checksum of its centroids; None without.
        embedder_differences: where Vespa's own embedder cannot follow the bundle's rules.
        joins: whether its rank profiles can join candidates and fuse scores; those of earlier releases only fuse ranks of
            MaxSim and BM25.
        beside: the application's further indexes, each with its own settings and bundle; empty in theirs.
    """

    settings: AppSettings
    bundle_sha256: str
    codebook_sha256: str | None
    embedder_differences: tuple[str, ...] = ()
    joins: bool = True
    beside: tuple[Description, ...] = ()

    @property
    def all(self) -> tuple[Description, ...]:
        """Return the descriptions of all indexes, the default one first."""
        return (dataclasses.replace(self, beside=()), *self.beside)

    @property
    def schemas(self) -> tuple[str, ...]:
        """Return the names of all indexes."""
        return tuple(index.settings.schema for index in self.all)

    def index(self, name: str) -> Description:
        """Return the description of an index.

        Raises:
            UsageError: if the application has no index `name`.
        """
        for index in self.all:
            if index.settings.schema == name:
                return index
        raise UsageError(f"the application has no index {name!r}; it has: {', '.join(self.schemas)}")

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        own = {
            "version": DESCRIPTION_VERSION,
            "settings": self.settings.to_json(),
            "bundle_sha256": self.bundle_sha256,
            "codebook_sha256": self.codebook_sha256,
            "embedder_differences": list(self.embedder_differences),
            "joins": self.joins,
        }
        return own | ({"beside": [index.to_json() for index in self.beside]} if self.beside else {})

    @classmethod
    def from_json(cls, text: str, where: str) -> Description:
        """Parse a description.

        Raises:
            SettingsError: if the text is not a description of a known version.
        """
        where = f"{where}: description of a colbert-vespa application"
        stored = read(_Stored, parse(text, SettingsError, where, version=DESCRIPTION_VERSION), SettingsError, where)
        return dataclasses.replace(cls._of(stored, where), beside=tuple(cls._of(index, where) for index in stored.beside))

    @classmethod
    def _of(cls, stored: _StoredIndex, where: str) -> Description:
        settings = AppSettings.from_json(stored.settings, where)
        return cls(settings, stored.bundle_sha256, stored.codebook_sha256, stored.embedder_differences, stored.joins)


@dataclass(frozen=True, kw_only=True)
class _StoredIndex:
    """The form of an index in `to_json`."""

    settings: Mapping[str, Any]
    bundle_sha256: str
    codebook_sha256: str | None
    embedder_differences: tuple[str, ...]
    joins: bool = False
    version: Annotated[int, msgspec.Meta(ge=DESCRIPTION_VERSION, le=DESCRIPTION_VERSION)] = DESCRIPTION_VERSION


@dataclass(frozen=True, kw_only=True)
class _Stored(_StoredIndex):
    beside: tuple[_StoredIndex, ...] = ()


def description_schema() -> str:
    """Return the schema of the description."""
    return f"""\
schema {DESCRIPTION_SCHEMA} {{
    document {DESCRIPTION_SCHEMA} {{
        field {_FIELD} type string {{
            indexing: summary
        }}
    }}
}}
"""


def description_document(text: str) -> bytes:
    """Return the body of the put that stores the description."""
    return json.dumps({"fields": {_FIELD: text}}).encode()


def read_description(query_url: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> Description:
    """Read the description of the application behind a query port.

    Raises:
        VespaUnreachable: if nothing answers.
        VespaBusy: if Vespa asks to wait.
        VespaRefused: if the application has no description.
        SettingsError: if the description cannot be read by this release.
        ServerAnswered: if a server of ours answers.
    """
    with connect(query_url, timeout=timeout, transport=transport) as client, mapped_errors(query_url):
        response = client.get(DESCRIPTION_PATH)
    advice = f"{query_url} has no colbert-vespa application; deploy one with `colbert-vespa deploy`"
    check_not_server(response)
    if response.status_code in (400, 404):
        raise VespaRefused(advice, response.status_code)
    fields = answer_json(response).get("fields")
    text = fields.get(_FIELD) if isinstance(fields, dict) else None
    if not isinstance(text, str):
        raise VespaRefused(advice, response.status_code)
    return Description.from_json(text, query_url)
