"""Checks of the settings that say where an application runs: hosts of one's own, Vespa Cloud, changes that are allowed."""

from __future__ import annotations

import datetime
import re

from late_interaction.errors import SettingsError
from vespa_app.package.services import host_alias
from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.sections import LIMIT_RANGE, CloudSettings, ClusterSettings

__all__ = ["CHANGES", "check_places", "check_still_allowed"]

# names of changes that Vespa refuses unless an override allows them: com.yahoo.config.application.api.ValidationId
_CHANGES = """
    access-control certificate-removal cluster-size-reduction content-cluster-removal content-type-removal
    data-plane-token-removal deployment-removal field-type-change global-document-change global-endpoint-change
    hnsw-settings-change indexing-change indexing-mode-change minimum-node-count paged-setting-removal redundancy-increase
    redundancy-one resources-reduction schema-removal tensor-type-change zone-endpoint-change
"""
CHANGES = frozenset(_CHANGES.split())
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
_TOKEN_VALUE = "vespa_cloud_"  # values begin so  # noqa: S105
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
LONGEST_ALLOWANCE_DAYS = 30
MOST_NODES = 1000


def check_places(settings: AppSettings, today: datetime.date | None = None) -> None:
    """Raises: SettingsError naming the table and key that cannot work."""
    if settings.cloud is not None and settings.cluster != ClusterSettings():
        raise SettingsError("settings [cluster] and [cloud] exclude each other: hosts of your own, or Vespa Cloud's")
    _check_cluster(settings.cluster)
    if settings.cloud is not None:
        _check_cloud(settings.cloud)
        _check_threads(settings, settings.cloud)
    _check_allow(settings, today or datetime.datetime.now(datetime.timezone.utc).date())


def _check_cluster(cluster: ClusterSettings) -> None:
    for kind in ("config", "container", "content"):
        hosts = getattr(cluster, kind)
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise SettingsError(f"setting cluster.{kind}: {host!r} is no host name")
        if len(set(hosts)) != len(hosts):
            raise SettingsError(f"setting cluster.{kind} names a host twice")
    _check_hosts(cluster.hosts)
    for name in ("memory_limit", "disk_limit"):
        limit, (least, most) = getattr(cluster, name), LIMIT_RANGE
        if limit and not least <= limit <= most:
            raise SettingsError(f"setting cluster.{name} must be from {least} to {most}, or 0 for Vespa's own, got {limit:g}")
    if cluster.hosts and not cluster.content:
        raise SettingsError("setting cluster.content is empty: name the hosts that hold the documents")
    if len(cluster.config) % 2 == 0 and cluster.config:
        raise SettingsError(f"setting cluster.config names {len(cluster.config)} hosts: config servers need an odd number")
    if not cluster.content:
        return
    nodes = len(cluster.content)
    if not 1 <= cluster.groups <= nodes or nodes % cluster.groups:
        raise SettingsError(f"setting cluster.groups is {cluster.groups}, and {nodes} content hosts make no such equal groups")
    _check_copies("cluster", cluster.redundancy, cluster.groups, nodes)
    if not 1 <= cluster.searchable_copies <= cluster.redundancy:
        raise SettingsError(
            f"setting cluster.searchable_copies must be from 1 to redundancy ({cluster.redundancy}), "
            f"got {cluster.searchable_copies}"
        )
    if cluster.searchable_copies % cluster.groups:
        raise SettingsError(
            f"setting cluster.searchable_copies is {cluster.searchable_copies}, "
            f"and each of {cluster.groups} groups needs as many"
        )


def _check_hosts(hosts: tuple[str, ...]) -> None:
    """Host names have no case, and each needs an alias of its own."""
    seen: dict[str, str] = {}
    for host in hosts:
        for name in dict.fromkeys((host.lower(), host_alias(host).lower())):
            if (other := seen.setdefault(name, host)) != host:
                raise SettingsError(
                    f"setting cluster names {other!r} and {host!r}, which Vespa cannot tell apart: give one name"
                )


def _check_copies(table: str, redundancy: int, groups: int, nodes: float) -> None:
    if not 1 <= redundancy <= nodes:
        raise SettingsError(f"setting {table}.redundancy must be from 1 to the content nodes ({nodes:g}), got {redundancy}")
    if groups > 1 and (redundancy < groups or redundancy % groups):
        raise SettingsError(
            f"setting {table}.redundancy is {redundancy}, and each of {groups} groups has whole copies: take a multiple of it"
        )


def _check_cloud(cloud: CloudSettings) -> None:
    for region in cloud.regions:
        if not _REGION.fullmatch(region):
            raise SettingsError(f"setting cloud.regions: {region!r} is no region of Vespa Cloud, such as aws-us-east-1c")
    if len(set(cloud.regions)) != len(cloud.regions):
        raise SettingsError("setting cloud.regions names a region twice")
    for name in ("read_tokens", "write_tokens"):
        for token in getattr(cloud, name):
            if not _TOKEN.fullmatch(token) or token.lower().startswith(_TOKEN_VALUE):
                raise SettingsError(
                    f"setting cloud.{name}: wanted names of tokens (letters, digits, _ and -), never their values"
                )
    for kind in ("container", "content"):
        for what in ("nodes", "vcpu", "memory_gb", "disk_gb"):
            _check_range(f"cloud.{kind}_{what}", getattr(cloud, f"{kind}_{what}"), whole=what == "nodes")
    least = cloud.content_nodes[0]
    if cloud.groups < 1 or any(count % cloud.groups for count in cloud.content_nodes):
        raise SettingsError(f"setting cloud.groups is {cloud.groups}, and cloud.content_nodes make no such equal groups")
    _check_copies("cloud", cloud.redundancy, cloud.groups, least)
    if cloud.regions and (cloud.redundancy < 2 or cloud.container_nodes[0] < 2):
        raise SettingsError(
            "settings cloud.redundancy and cloud.container_nodes must be at least 2 in production (cloud.regions)"
        )


def _check_threads(settings: AppSettings, cloud: CloudSettings) -> None:
    threads, vcpu = settings.search_threads, cloud.content_vcpu[0]
    if threads > vcpu:
        raise SettingsError(
            f"setting search_threads is {threads}, and a content node has cloud.content_vcpu {vcpu:g}: take fewer"
        )


def _check_range(name: str, values: tuple[float, ...], *, whole: bool) -> None:
    if len(values) not in (1, 2) or list(values) != sorted(values) or values[0] <= 0:
        raise SettingsError(f"setting {name} must be [number] or [least, most], above 0, got {list(values)}")
    if whole and (any(value != int(value) for value in values) or values[-1] > MOST_NODES):
        raise SettingsError(f"setting {name} must be whole numbers up to {MOST_NODES}, got {list(values)}")


def check_still_allowed(settings: AppSettings, today: datetime.date | None = None) -> None:
    """For a package that is about to be made. Raises: SettingsError where [allow] has a day that is past."""
    now = (today or datetime.datetime.now(datetime.timezone.utc).date()).isoformat()
    for name, day in settings.allow.items():
        if day < now:
            raise SettingsError(f"setting allow.{name}: {day} is past, and allows nothing; take it out, or give a later day")


def _check_allow(settings: AppSettings, today: datetime.date) -> None:
    for name, day in settings.allow.items():
        if name not in CHANGES:
            raise SettingsError(f"setting allow: {name!r} is no change that Vespa knows; known: {', '.join(sorted(CHANGES))}")
        try:
            until = datetime.datetime.strptime(day, "%Y-%m-%d").date()
        except ValueError:
            raise SettingsError(f"setting allow.{name} must be a day such as 2026-12-24, got {day!r}") from None
        if (until - today).days > LONGEST_ALLOWANCE_DAYS:
            raise SettingsError(f"setting allow.{name} is {day}: Vespa takes at most {LONGEST_ALLOWANCE_DAYS} days ahead")
