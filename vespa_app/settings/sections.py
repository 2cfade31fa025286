"""The tables of app.toml: where an application runs. Each is one frozen object, read with the same care as the top level:

[cluster]                                   hosts of one's own
config = ["node1"]
container = ["node1", "node2"]
content = ["node1", "node2", "node3"]
redundancy = 2

[cloud]                                     Vespa Cloud, dev and prod
regions = ["aws-us-east-1c"]
content_nodes = [2, 4]                      one number, or the least and the most (autoscaling)
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from late_interaction.errors import MetadataError, SettingsError
from late_interaction.metadata import MetadataSchema

__all__ = [
    "LIMIT_RANGE",
    "MOST_NODES",
    "CloudSettings",
    "ClusterSettings",
    "read_fields",
    "read_section",
    "section_json",
    "setting_error",
    "toml_table",
    "toml_value",
]

LIMIT_RANGE = (0.1, 0.98)  # of a node, that may be full
MOST_NODES = 1000  # of a cluster on Vespa Cloud
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_Section = TypeVar("_Section")


@dataclass(frozen=True)
class ClusterSettings:
    """config, container, content: host names of each kind; one host may be of all three. Without content hosts the
    application runs on one node. groups: of content hosts, each of which has a whole copy. redundancy: copies of each
    document in the whole cluster. searchable_copies: of them, those that are indexed and ready to answer. memory_limit,
    disk_limit: the share of a content node above which Vespa takes no more documents, also of one node; 0 for Vespa's own.
    """

    config: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    groups: int = 1
    redundancy: int = 2
    searchable_copies: int = 2
    memory_limit: float = 0.0
    disk_limit: float = 0.0

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each host once, in the order of first mention."""
        return tuple(dict.fromkeys((*self.config, *self.container, *self.content)))

    @property
    def config_hosts(self) -> tuple[str, ...]:
        return self.config or self.hosts[:1]

    @property
    def container_hosts(self) -> tuple[str, ...]:
        return self.container or self.hosts[:1]


@dataclass(frozen=True)
class CloudSettings:
    """regions: of prod, in the order of deployment; the dev zone needs none. Lists of numbers have one, or the least and the
    most between which Vespa Cloud scales. read_tokens, write_tokens: names (never values) of tokens of the tenant; a client
    certificate always may read and write.
    """

    regions: tuple[str, ...] = ()
    container_nodes: tuple[float, ...] = (2,)
    container_vcpu: tuple[float, ...] = (2,)
    container_memory_gb: tuple[float, ...] = (8,)
    container_disk_gb: tuple[float, ...] = (50,)
    content_nodes: tuple[float, ...] = (2,)
    content_vcpu: tuple[float, ...] = (2,)
    content_memory_gb: tuple[float, ...] = (16,)
    content_disk_gb: tuple[float, ...] = (100,)
    groups: int = 1
    redundancy: int = 2
    read_tokens: tuple[str, ...] = ()
    write_tokens: tuple[str, ...] = ()


_SECTIONS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (ClusterSettings, CloudSettings)}
# of lists and tables by annotation: what they are, and the types of their items
_ITEMS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "tuple[str, ...]": ("a list of texts", (str,)),
    "tuple[float, ...]": ("a list of numbers", (int, float)),
    "Mapping[str, str]": ("a table of texts", (str, datetime.date)),
    "MetadataSchema": ("a table of field = type", (str,)),
    "Mapping[str, Mapping[str, Any]]": ("a table of tables", (Mapping,)),
    "Mapping[str, Mapping[str, float]]": ("a table of tables", (Mapping,)),
}


def setting_error(key: str, what: str, where: str = "") -> SettingsError:
    """In the one form that all have: the file, where there is one, the setting with its table, and what is wrong."""
    return SettingsError(f"{where}: setting {key}: {what}" if where else f"setting {key}: {what}")


def read_section(kind: type[_Section], name: str, value: object, where: str) -> _Section:
    """The dataclass of the table `name`. Raises: SettingsError naming table and key."""
    if not isinstance(value, Mapping):
        raise setting_error(name, f"must be a table, got {str(value)[:60]!r}", where)
    return kind(**read_fields(kind, value, where, f"{name}."))


def read_fields(kind: type[Any], data: Mapping[str, Any], where: str, table: str = "") -> dict[str, Any]:
    """Values for a dataclass of texts, numbers, lists, tables and such dataclasses, from TOML or JSON. table: with its dot.

    Raises: SettingsError naming the key that is unknown, or of a wrong type.
    """
    fields = {f.name: str(f.type).removesuffix(" | None") for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise setting_error(f"{table}{unknown[0]}", f"unknown; known: {', '.join(fields)}", where)
    return {name: _typed(f"{table}{name}", value, fields[name], where) for name, value in data.items()}


def _typed(key: str, value: object, annotation: str, where: str) -> object:
    if annotation in _SECTIONS:
        return read_section(_SECTIONS[annotation], key, value, where)
    if type(value).__name__ == annotation:
        return value
    what, items = _ITEMS.get(annotation, (annotation, ()))
    if annotation.startswith("tuple") and isinstance(value, list) and all(type(item) in items for item in value):
        return tuple(value)
    if isinstance(value, Mapping) and items and all(isinstance(item, items) for item in value.values()):
        return _table(key, value, annotation, where)
    raise setting_error(key, f"must be {what}, got {str(value)[:60]!r}", where)


def _table(key: str, value: Mapping[str, Any], annotation: str, where: str) -> object:
    if annotation == "MetadataSchema":
        try:
            return MetadataSchema.from_json(value)
        except MetadataError as error:
            raise setting_error(key, str(error), where) from None
    return {str(name): dict(item) if isinstance(item, Mapping) else str(item) for name, item in value.items()}


def section_json(section: object) -> dict[str, Any]:
    """What differs from the default, with tuples as lists."""
    assert dataclasses.is_dataclass(section)
    values = {f.name: (getattr(section, f.name), f.default) for f in dataclasses.fields(section)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def toml_table(name: str, data: Mapping[str, Any]) -> list[str]:
    """Lines of the table `name` and of the tables in it."""
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping)}
    lines = ["", f"[{name}]", *(f"{_key(key)} = {toml_value(value)}" for key, value in plain.items())]
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += toml_table(f"{name}.{_key(key)}", value)
    return lines


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml_value(name)


def toml_value(value: object) -> str:
    """TOML's basic strings, numbers, booleans and arrays are JSON's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
