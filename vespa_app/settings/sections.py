"""The tables of app.toml about where an application runs and about dense models.

Each is one frozen object, checked as strictly as the top level:

    [cluster]                                   your own hosts
    config = ["node1"]
    container = ["node1", "node2"]
    content = ["node1", "node2", "node3"]
    redundancy = 2

    [cloud]                                     Vespa Cloud, dev and prod
    regions = ["aws-us-east-1c"]
    content_nodes = [2, 4]                      one number, or the least and the most (autoscaling)

The vectors of a dense model beside the token vectors:

    [dense.NAME]
    dim = 384
    cells = "bfloat16"
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

LIMIT_RANGE = (0.1, 0.98)  # share of a node that may be used
MOST_NODES = 1000  # most nodes of a cluster on Vespa Cloud
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_Section = TypeVar("_Section")


@dataclass(frozen=True)
class ClusterSettings:
    """Your own hosts.

    Attributes:
        config: config servers.
        container: containers; a host may have several roles.
        content: content nodes; without any, the application runs on one node.
        groups: groups of content hosts, each with a whole copy.
        redundancy: copies of each document in the whole cluster.
        searchable_copies: how many of them are indexed and ready to answer.
        memory_limit: share of a content node's memory above which Vespa accepts no more documents; 0 for Vespa's own.
        disk_limit: the same for disk.
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
        """Return each host once, in the order of first mention."""
        return tuple(dict.fromkeys((*self.config, *self.container, *self.content)))

    @property
    def config_hosts(self) -> tuple[str, ...]:
        """Return the hosts of config servers."""
        return self.config or self.hosts[:1]

    @property
    def container_hosts(self) -> tuple[str, ...]:
        """Return the hosts of containers."""
        return self.container or self.hosts[:1]


@dataclass(frozen=True)
class CloudSettings:
    """Vespa Cloud. Lists of numbers have one number, or the least and the most between which Vespa Cloud scales.

    Attributes:
        regions: regions of prod, in the order of deployment; the dev zone needs none.
        container_nodes: number of containers.
        container_vcpu: vCPU of a container.
        container_memory_gb: memory of a container in GB.
        container_disk_gb: disk of a container in GB.
        content_nodes: number of content nodes.
        content_vcpu: vCPU of a content node.
        content_memory_gb: memory of a content node in GB.
        content_disk_gb: disk of a content node in GB.
        groups: groups of content nodes.
        redundancy: copies of each document.
        read_tokens: names (never values) of the tenant's tokens that may read.
        write_tokens: names of tokens that may write; a client certificate may always do both.
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
    """One vector per passage from a dense model of the bundle.

    Attributes:
        dim: its dimensions.
        cells: `float` or `bfloat16`; `int8` (one byte per dimension) and `bits` (one bit) keep roughly its direction.
        distance: how the model compares vectors: `prenormalized-angular` (of length 1, as most are), `angular` or
            `dotproduct`.
        links: links of the HNSW graph.
        explore: neighbours explored at insert.
    """

    dim: int
    cells: str = "bfloat16"
    distance: str = "prenormalized-angular"
    links: int = 16
    explore: int = 200


@dataclass(frozen=True)
class OneVectorSettings:
    """The vector of each passage that candidates `pooled` search.

    Attributes:
        encoding: `mean` of the token vectors, or one whose fitted parameters the bundle has (late_interaction.one_vector).
        dim: its dimensions; 0 for as many as token vectors have.
        cells: `float`, `bfloat16` or `int8`.
    """

    encoding: str = "mean"
    dim: int = 0
    cells: str = "float"


MEAN_VECTOR = OneVectorSettings()


def setting_error(key: str, what: str, where: str = "") -> SettingsError:
    """Return an error in the common form: the file, if there is one, the setting with its table, and what is wrong."""
    return SettingsError(f"{where}: setting {key}: {what}" if where else f"setting {key}: {what}")


def section_json(section: object) -> dict[str, Any]:
    """Return what differs from the default, with tuples as lists."""
    assert dataclasses.is_dataclass(section)
    values = {f.name: (getattr(section, f.name), f.default) for f in dataclasses.fields(section)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }


def toml_table(name: str, data: Mapping[str, Any]) -> list[str]:
    """Return the lines of the table `name` and of its nested tables."""
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping)}
    lines = ["", f"[{name}]", *(f"{_key(key)} = {toml_value(value)}" for key, value in plain.items())]
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += toml_table(f"{name}.{_key(key)}", value)
    return lines


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml_value(name)


def toml_value(value: object) -> str:
    """Return a TOML value: basic strings, numbers, booleans and arrays are JSON's, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
