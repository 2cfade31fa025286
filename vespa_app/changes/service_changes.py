"""What a change of services.xml does to the processes of an application."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

__all__ = ["embedder_changes", "service_changes"]

_RESOURCES = ("vcpu", "memory", "disk")


def service_changes(old: Path, new: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, where, what, and the override needed or "", for two package folders."""
    before, after = _services(old), _services(new)
    yield from _process_changes(before, after)
    yield from _copies(before, after)
    yield from _limits(before, after)
    for cluster in ("container", "content"):
        yield from _resource_changes(cluster, before, after)
    gone = _names(before, ".//client/token") - _names(after, ".//client/token")
    if gone:
        yield "refused", "clients", f"tokens that lose access: {', '.join(sorted(gone))}", "data-plane-token-removal"
    files = ("hosts.xml", "deployment.xml")
    for name in files:
        if _read(old, name) != _read(new, name):
            yield "live", name, "changed", ""


def embedder_changes(old: Path, new: Path) -> Iterator[tuple[str, str, str]]:
    """Yield kind, where and what for requests that name an embedder, for two package folders."""
    was, is_ = (_names(_services(folder), "container/component") for folder in (old, new))
    for name in sorted(was - is_):
        yield "breaks", "queries", f"{name} is removed: a query with embed({name}, ...) is refused"
    for name in sorted(is_ - was):
        yield "live", "queries", f"queries may use embed({name}, ...)"


def _services(folder: Path) -> ET.Element:
    return ET.fromstring((folder / "services.xml").read_bytes())  # noqa: S314 - both packages have passed our checks


def _read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes() if (folder / name).is_file() else b""


def _names(root: ET.Element, path: str) -> set[str]:
    return {str(element.get("id")) for element in root.iterfind(path)}


def _process_changes(before: ET.Element, after: ET.Element) -> Iterator[tuple[str, str, str, str]]:
    threads = [root.findtext(".//persearch") or "1" for root in (before, after)]
    if threads[0] != threads[1]:
        yield "restart", "content nodes", f"threads per search {threads[0]} -> {threads[1]}", ""
    heaps = [jvm.get("options", "") if (jvm := root.find(".//jvm")) is not None else "" for root in (before, after)]
    if heaps[0] != heaps[1]:
        yield "restart", "container nodes", f"JVM options {heaps[0] or 'none'} -> {heaps[1] or 'none'}", ""
    roles = [_roles(root) for root in (before, after)]
    moved = [host for host in roles[1] if "content" in roles[1][host] and host in roles[0] and roles[0][host] != roles[1][host]]
    if moved:
        what = f"other services run beside it on {', '.join(sorted(moved))}, so its ports change"
        yield "restart", "content nodes", what, ""
    if any(("content" in parts[host]) for parts in roles[:1] for host in parts) and _hosts(before) != _hosts(after):
        yield "live", "content nodes", "documents are redistributed across hosts or groups", ""


def _roles(root: ET.Element) -> dict[str, set[str]]:
    """Map host alias to the kinds of services on it."""
    roles: dict[str, set[str]] = {}
    for kind, path in (("config", "admin//configserver"), ("container", "container//node"), ("content", "content//node")):
        for element in root.iterfind(path):
            roles.setdefault(str(element.get("hostalias")), set()).add(kind)
    return roles


def _hosts(root: ET.Element) -> list[str]:
    return [ET.tostring(element, encoding="unicode") for element in root.iterfind("content//node")]


def _copies(before: ET.Element, after: ET.Element) -> Iterator[tuple[str, str, str, str]]:
    for name, path in (("redundancy", "content/min-redundancy"), ("searchable copies", "content//searchable-copies")):
        was, is_ = (root.findtext(path) or "" for root in (before, after))
        if was != is_:
            yield (
                "live",
                "content nodes",
                f"{name} {was or '1'} -> {is_ or '1'}: copies are made or dropped in the background",
                "",
            )


def _limits(before: ET.Element, after: ET.Element) -> Iterator[tuple[str, str, str, str]]:
    for name in ("memory", "disk"):
        was, is_ = (root.findtext(f"content/tuning/resource-limits/{name}") or "Vespa's own" for root in (before, after))
        if was != is_:
            yield "live", "content nodes", f"stops accepting documents above a share of {name} of {was} -> {is_}", ""


def _resource_changes(cluster: str, before: ET.Element, after: ET.Element) -> Iterator[tuple[str, str, str, str]]:
    """Yield changes on Vespa Cloud, where nodes have resources."""
    old, new = (root.find(f"{cluster}/nodes") for root in (before, after))
    if old is None or new is None or old.find("resources") is None or new.find("resources") is None:
        return
    if ET.tostring(old) != ET.tostring(new):
        was, is_ = _totals(old), _totals(new)
        shrunk = [name for name in was if 2 * is_[name] < was[name]]
        if shrunk:
            what = f"less than half of the {', '.join(shrunk)} remains"
            yield "refused", f"{cluster} nodes", what, "resources-reduction"
        yield "live", f"{cluster} nodes", "Vespa Cloud moves the cluster to the new nodes, one after the other", ""


def _totals(nodes: ET.Element) -> dict[str, float]:
    count = _least(nodes.get("count", "1"))
    resources = nodes.find("resources")
    assert resources is not None
    each = {name: count * _least(resources.get(name, "0")) for name in _RESOURCES}
    return {"nodes": count, **each}


def _least(text: str) -> float:
    """Return the least of a number or a range, with or without a unit: `[2, 4]`, `16Gb`."""
    match = re.search(r"[\d.]+", text)
    return float(match[0]) if match else 0.0
