"""The tables of app.toml: where an application runs. Each is one frozen object, read with the same care as the top level:

[cluster]                                   hosts of one's own
config = ["node1"]
container = ["node1", "node2"]
content = ["node1", "node2", "node3"]
redundancy = 2

[cloud]                                     Vespa Cloud, dev and prod
regions = ["aws-us-east-1c"]
content_nodes = [2, 4]                      one number, or the least and the most (autoscaling)

and of the vectors of a dense model beside the token vectors:

[dense.NAME]
dim = 384
cells = "bfloat16"

[one_vector]                                that candidates pooled search
encoding = "lemur"
dim = 512
cells = "int8"
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from late_interaction.errors import SettingsError

__all__ = [
    "LIMIT_RANGE",
    "MEAN_VECTOR",
    "MOST_NODES",
    "CloudSettings",
    "ClusterSettings",
    "DenseSettings",
    "OneVectorSettings",
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
    container_nodes: tuple[int | float, ...] = (2,)
    container_vcpu: tuple[int | float, ...] = (2,)
    container_memory_gb: tuple[int | float, ...] = (8,)
    container_disk_gb: tuple[int | float, ...] = (50,)
    content_nodes: tuple[int | float, ...] = (2,)
    content_vcpu: tuple[int | float, ...] = (2,)
    content_memory_gb: tuple[int | float, ...] = (16,)
    content_disk_gb: tuple[int | float, ...] = (100,)
    groups: int = 1
    redundancy: int = 2
    read_tokens: tuple[str, ...] = ()
    write_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class DenseSettings:
    """One vector a passage, of a dense model of the bundle. cells: `float` or `bfloat16`; `int8` (one byte a dimension) and
    `bits` (one bit) keep its direction, roughly. distance: how the model compares vectors, `prenormalized-angular` (of
    length 1, as most are), `angular` or `dotproduct`. links, explore: of the HNSW graph.
    """

    dim: int
    cells: str = "bfloat16"
    distance: str = "prenormalized-angular"
    links: int = 16
    explore: int = 200


@dataclass(frozen=True)
class OneVectorSettings:
    """The vector of each passage that candidates `pooled` search. encoding: `mean` of the token vectors, or one whose fitted
    parameters the bundle has (late_interaction.one_vector). dim: of that one; 0 for as many as token vectors have. cells:
    `float`, `bfloat16` or `int8`.
    """

    encoding: str = "mean"
    dim: int = 0
    cells: str = "float"


MEAN_VECTOR = OneVectorSettings()


def setting_error(key: str, what: str, where: str = "") -> SettingsError:
    """In the one form that all have: the file, where there is one, the setting with its table, and what is wrong."""
    return SettingsError(f"{where}: setting {key}: {what}" if where else f"setting {key}: {what}")


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
