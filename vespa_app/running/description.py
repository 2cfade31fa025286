"""What an application says about itself: one document in a schema of its own, readable at the query port."""

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
# the namespace is fixed: a reader does not know the settings yet
DESCRIPTION_PATH = f"/document/v1/colbert_vespa/{DESCRIPTION_SCHEMA}/docid/current"


@dataclass(frozen=True)
class Description:
    """bundle_sha256: of the bundle that made the package. codebook_sha256: of its centroids, None without.
    embedder_differences: where Vespa's own embedder cannot follow the bundle's rules. joins: whether its rank profiles join
    candidates and fuse scores as queries say; those of earlier releases fuse ranks of MaxSim and BM25 alone. beside: the
    application's further indexes, each with settings and bundle of its own; empty in theirs."""

    settings: AppSettings
    bundle_sha256: str
    codebook_sha256: str | None
    embedder_differences: tuple[str, ...] = ()
    joins: bool = True
    beside: tuple[Description, ...] = ()

    @property
    def all(self) -> tuple[Description, ...]:
        """Of every index, the one that is asked by default first."""
        return (dataclasses.replace(self, beside=()), *self.beside)

    @property
    def schemas(self) -> tuple[str, ...]:
        return tuple(index.settings.schema for index in self.all)

    def index(self, name: str) -> Description:
        """Raises: UsageError where the application has no index `name`."""
        for index in self.all:
            if index.settings.schema == name:
                return index
        raise UsageError(f"the application has no index {name!r}; it has: {', '.join(self.schemas)}")

    def to_json(self) -> dict[str, Any]:
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
        """Raises: SettingsError where the text is no description of a version known here."""
        where = f"{where}: description of a colbert-vespa application"
        stored = read(_Stored, parse(text, SettingsError, where, version=DESCRIPTION_VERSION), SettingsError, where)
        return dataclasses.replace(cls._of(stored, where), beside=tuple(cls._of(index, where) for index in stored.beside))

    @classmethod
    def _of(cls, stored: _StoredIndex, where: str) -> Description:
        settings = AppSettings.from_json(stored.settings, where)
        return cls(settings, stored.bundle_sha256, stored.codebook_sha256, stored.embedder_differences, stored.joins)


@dataclass(frozen=True, kw_only=True)
class _StoredIndex:
    """As `to_json` has it."""

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
    """The body of the put that stores the description."""
    return json.dumps({"fields": {_FIELD: text}}).encode()


def read_description(query_url: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> Description:
    """The description of the application behind a query port.

    Raises: VespaUnreachable, VespaBusy, VespaRefused where it has none, SettingsError where it is not readable here;
    ServerAnswered.
    """
    with connect(query_url, timeout=timeout, transport=transport) as client, mapped_errors(query_url):
        response = client.get(DESCRIPTION_PATH)
    advice = f"{query_url} holds no colbert-vespa application: deploy one with `colbert-vespa deploy`"
    check_not_server(response)
    if response.status_code in (400, 404):
        raise VespaRefused(advice, response.status_code)
    fields = answer_json(response).get("fields")
    text = fields.get(_FIELD) if isinstance(fields, dict) else None
    if not isinstance(text, str):
        raise VespaRefused(advice, response.status_code)
    return Description.from_json(text, query_url)
