"""Names that Vespa accepts, and its names of changes.

The reserved words were found by trying 340 names on Vespa's config model and on a running node.
"""

from __future__ import annotations

import re

__all__ = [
    "CHANGES",
    "RESERVED_BY_QUERIES",
    "RESERVED_BY_SCHEMAS",
    "application_fault",
    "field_fault",
    "host_alias",
    "namespace_fault",
    "schema_fault",
]

_SCHEMA_WORDS = """
    attribute case documentid else expression host if index index_url matchfeatures position rankfeatures relevancy sddocname
    select_input split_foreach summary summaryfeatures switch tokenize
"""
_QUERY_WORDS = "all and as asc contains default each false from in null or timeout true"
_TYPE_WORDS = "array bool byte document double float int long map predicate raw string tensor uri weightedset"

RESERVED_BY_SCHEMAS = frozenset(_SCHEMA_WORDS.split())  # refused as field names at deployment, in upper or lower case
RESERVED_BY_QUERIES = frozenset(_QUERY_WORDS.split())  # deployed, but queries cannot name them
_TYPE_NAMES = frozenset(_TYPE_WORDS.split())
# for schemas only: Vespa's ReservedDocumentTypeNameValidator and its selections; `content` is the cluster, which queries and
# selections can name too
_DOCUMENT_WORDS = frozenset(("content", "id", "not", "now"))
# names of changes that Vespa refuses without an override: com.yahoo.config.application.api.ValidationId
_CHANGES = """
    access-control certificate-removal cluster-size-reduction content-cluster-removal content-type-removal
    data-plane-token-removal deployment-removal field-type-change global-document-change global-endpoint-change
    hnsw-settings-change indexing-change indexing-mode-change minimum-node-count paged-setting-removal redundancy-increase
    redundancy-one resources-reduction schema-removal tensor-type-change zone-endpoint-change
"""
CHANGES = frozenset(_CHANGES.split())

_FIELD = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAMESPACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_APPLICATION = re.compile(r"[a-z][a-z0-9]{0,19}")
_XML_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def field_fault(name: str) -> str:
    """Return why a field cannot have that name, or an empty text; so do all functions here."""
    if not _FIELD.fullmatch(name):
        return "a field name must be an ASCII letter, then letters, digits and _"
    reserved = name.lower() in RESERVED_BY_SCHEMAS or name.lower() in RESERVED_BY_QUERIES
    return "the name is reserved by Vespa; rename the field" if reserved else ""


def schema_fault(name: str) -> str:
    """Return why a schema cannot have that name, or an empty text."""
    if not _SCHEMA.fullmatch(name):
        return f"{name!r} must be a lower-case letter, then lower-case letters, digits and _"
    reserved = name in RESERVED_BY_SCHEMAS | RESERVED_BY_QUERIES | _TYPE_NAMES | _DOCUMENT_WORDS
    return f"{name!r}: the name is reserved by Vespa; choose another" if reserved else ""


def namespace_fault(name: str) -> str:
    """Return why document ids cannot have that namespace, or an empty text."""
    return "" if _NAMESPACE.fullmatch(name) else f"{name!r} must be letters, digits and _ . -"


def application_fault(name: str) -> str:
    """Return why an application on Vespa Cloud cannot have that name, or an empty text."""
    if _APPLICATION.fullmatch(name):
        return ""
    return f"{name!r} must be a lower-case letter, then at most 19 lower-case letters and digits"


def host_alias(host: str) -> str:
    """Return the alias of a host. Aliases are XML names, which an address like 10.0.0.1 is not."""
    return host if _XML_NAME.fullmatch(host) else f"host-{host}"
