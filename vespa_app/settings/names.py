"""Names that Vespa takes. Both lists were found by trying 340 names on Vespa's config model and on a running node."""

from __future__ import annotations

import re

from late_interaction.errors import SettingsError

__all__ = ["RESERVED_BY_QUERIES", "RESERVED_BY_SCHEMAS", "check_application", "check_field", "check_namespace", "check_schema"]

_SCHEMA_WORDS = """
    attribute case documentid else expression host if index index_url matchfeatures position rankfeatures relevancy sddocname
    select_input split_foreach summary summaryfeatures switch tokenize
"""
_QUERY_WORDS = "all and as asc contains default each false from in null or timeout true"
_TYPE_WORDS = "array bool byte document double float int long map predicate raw string tensor uri weightedset"

RESERVED_BY_SCHEMAS = frozenset(_SCHEMA_WORDS.split())  # refused as field names when the package is deployed, in any case
RESERVED_BY_QUERIES = frozenset(_QUERY_WORDS.split())  # deployed, but no query can name them
_TYPE_NAMES = frozenset(_TYPE_WORDS.split())
# as schemas only: Vespa's ReservedDocumentTypeNameValidator and its selections; `content` is the cluster, which queries and
# selections can name too
_DOCUMENT_WORDS = frozenset(("content", "id", "not", "now"))

_FIELD = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAMESPACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_APPLICATION = re.compile(r"[a-z][a-z0-9]{0,19}")


def check_field(name: str, where: str = "field") -> None:
    """Raises: SettingsError where a field cannot have that name."""
    if not _FIELD.fullmatch(name):
        raise SettingsError(f"{where} {name!r}: Vespa's field names are an ASCII letter, then letters, digits and _")
    if name.lower() in RESERVED_BY_SCHEMAS or name.lower() in RESERVED_BY_QUERIES:
        raise SettingsError(f"{where} {name!r}: the name is reserved by Vespa; rename the field")


def check_schema(name: str) -> None:
    """Raises: SettingsError where a schema cannot have that name."""
    if not _SCHEMA.fullmatch(name):
        raise SettingsError(f"setting schema {name!r}: wanted a lower-case letter, then lower-case letters, digits and _")
    if name in RESERVED_BY_SCHEMAS | RESERVED_BY_QUERIES | _TYPE_NAMES | _DOCUMENT_WORDS:
        raise SettingsError(f"setting schema {name!r}: the name is reserved by Vespa; take another")


def check_namespace(name: str) -> None:
    """Raises: SettingsError where document ids cannot have that namespace."""
    if not _NAMESPACE.fullmatch(name):
        raise SettingsError(f"setting namespace {name!r}: wanted letters, digits and _ . -")


def check_application(name: str) -> None:
    """Raises: SettingsError where Vespa Cloud would not take that application name."""
    if not _APPLICATION.fullmatch(name):
        raise SettingsError(f"setting name {name!r}: wanted a lower-case letter, then at most 19 lower-case letters and digits")
