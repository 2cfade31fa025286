"""services.xml, hosts.xml and deployment.xml: one stateless and one content cluster.

They run on one node, on your own hosts, or on Vespa Cloud.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings
from vespa_app.settings.names import host_alias

__all__ = [
    "CLIENTS_FILE",
    "CONTENT_CLUSTER",
    "deployment_xml",
    "hosts_xml",
    "overrides_xml",
    "services_xml",
    "xml_text",
]

CONTENT_CLUSTER = "content"
CLIENTS_FILE = "security/clients.pem"  # certificates of clients that may feed and query on Vespa Cloud; added by `deploy`


def services_xml(
    settings: AppSettings, documents: Mapping[str, str], threads: int, components: Iterable[ET.Element] = ()
) -> str:
    """Return services.xml.

    Args:
        settings: settings of the application.
        documents: schema -> mode ("index" or "streaming").
        threads: most threads of one query on a content node.
        components: components of the container, such as embedders.
    """
    root = ET.Element("services", version="1.0")
    cluster = settings.cluster
    if cluster.content:
        root.append(_admin(cluster))
    container = ET.SubElement(root, "container", id="default", version="1.0")
    ET.SubElement(container, "search")
    ET.SubElement(container, "document-api")
    container.extend(components)
    if settings.cloud is not None:
        container.append(_clients(settings.cloud))
    container.append(_container_nodes(settings))
    content = ET.SubElement(root, "content", id=CONTENT_CLUSTER, version="1.0")
    ET.SubElement(content, "min-redundancy").text = str(_redundancy(settings))
    groups = settings.cloud.groups if settings.cloud is not None else settings.cluster.groups
    if groups == 2:  # otherwise one group would carry all load while the other is down as a whole
        ET.SubElement(content, "coverage-policy").text = "node"
    listed = ET.SubElement(content, "documents")
    for schema, mode in documents.items():
        ET.SubElement(listed, "document", type=schema, mode=mode)
    limits = {"disk": cluster.disk_limit, "memory": cluster.memory_limit}  # in the order of Vespa's schema of the file
    for name, limit in limits.items():
        if limit:
            ET.SubElement(_path(content, "tuning/resource-limits"), name).text = f"{limit:g}"
    proton = _path(content, "engine/proton")
    if cluster.content:
        ET.SubElement(proton, "searchable-copies").text = str(cluster.searchable_copies)
    ET.SubElement(_path(proton, "tuning/searchnode/requestthreads"), "persearch").text = str(threads)
    content.append(_content_nodes(settings))
    return xml_text(root)


def xml_text(root: ET.Element) -> str:
    """Return the XML as text."""
    ET.indent(root, "    ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _path(parent: ET.Element, path: str) -> ET.Element:
    """Return the element at a path, created if missing."""
    for tag in path.split("/"):
        found = parent.find(tag)
        parent = ET.SubElement(parent, tag) if found is None else found
    return parent


def _redundancy(settings: AppSettings) -> int:
    if settings.cloud is not None:
        return settings.cloud.redundancy
    return settings.cluster.redundancy if settings.cluster.content else 1


def _admin(cluster: ClusterSettings) -> ET.Element:
    admin = ET.Element("admin", version="2.0")
    ET.SubElement(admin, "adminserver", hostalias=host_alias(cluster.config_hosts[0]))
    servers = ET.SubElement(admin, "configservers")
    for host in cluster.config_hosts:
        ET.SubElement(servers, "configserver", hostalias=host_alias(host))
    return admin


def _container_nodes(settings: AppSettings) -> ET.Element:
    cloud = settings.cloud
    if cloud is not None:
        nodes = ET.Element("nodes", count=_range(cloud.container_nodes))
        resources = (cloud.container_vcpu, cloud.container_memory_gb, cloud.container_disk_gb)
        nodes.append(_resources(*resources))
        return nodes
    heap = settings.jvm_heap_mb
    hosts = settings.cluster.container_hosts if settings.cluster.content else ()
    nodes = ET.Element("nodes") if hosts else ET.Element("nodes", count="1")
    ET.SubElement(nodes, "jvm", options=f"-Xms{heap // 2}m -Xmx{heap}m")
    for host in hosts:
        ET.SubElement(nodes, "node", hostalias=host_alias(host))
    return nodes


def _content_nodes(settings: AppSettings) -> ET.Element:
    cloud, cluster = settings.cloud, settings.cluster
    if cloud is not None:
        nodes = ET.Element("nodes", count=_range(cloud.content_nodes))
        if cloud.groups > 1:
            nodes.set("groups", str(cloud.groups))
        nodes.append(_resources(cloud.content_vcpu, cloud.content_memory_gb, cloud.content_disk_gb))
        return nodes
    if not cluster.content:
        return ET.Element("nodes", count="1")
    keys = dict(enumerate(cluster.content))
    if cluster.groups == 1:
        return _node_list(ET.Element("nodes"), keys)
    top = ET.Element("group")
    ET.SubElement(top, "distribution", partitions=f"{cluster.redundancy // cluster.groups}|" * (cluster.groups - 1) + "*")
    for number in range(cluster.groups):
        group = ET.SubElement(top, "group", {"name": f"group{number}", "distribution-key": str(number)})
        _node_list(group, {key: host for key, host in keys.items() if key % cluster.groups == number})
    return top


def _node_list(parent: ET.Element, hosts: Mapping[int, str]) -> ET.Element:
    for key, host in hosts.items():
        ET.SubElement(parent, "node", {"hostalias": host_alias(host), "distribution-key": str(key)})
    return parent


def _range(values: tuple[float, ...], unit: str = "") -> str:
    """Return one number, or Vespa's form of a range: [least, most]."""
    texts = [f"{value:g}{unit}" for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _resources(vcpu: tuple[float, ...], memory: tuple[float, ...], disk: tuple[float, ...]) -> ET.Element:
    return ET.Element("resources", vcpu=_range(vcpu), memory=_range(memory, "Gb"), disk=_range(disk, "Gb"))


def _clients(cloud: CloudSettings) -> ET.Element:
    clients = ET.Element("clients")
    certificates = ET.SubElement(clients, "client", id="mtls", permissions="read,write")
    ET.SubElement(certificates, "certificate", file=CLIENTS_FILE)
    for permission, tokens in (("read", cloud.read_tokens), ("write", cloud.write_tokens)):
        if tokens:
            client = ET.SubElement(clients, "client", id=f"token-{permission}", permissions=permission)
            for token in tokens:
                ET.SubElement(client, "token", id=token)
    return clients


def hosts_xml(cluster: ClusterSettings) -> str:
    """Return hosts.xml."""
    root = ET.Element("hosts")
    for name in cluster.hosts:
        ET.SubElement(ET.SubElement(root, "host", name=name), "alias").text = host_alias(name)
    return xml_text(root)


def deployment_xml(cloud: CloudSettings) -> str:
    """Return deployment.xml."""
    root = ET.Element("deployment", version="1.0")
    prod = ET.SubElement(root, "prod")
    for region in cloud.regions:
        ET.SubElement(prod, "region").text = region
    return xml_text(root)


def overrides_xml(allow: Mapping[str, str]) -> str:
    """Return the validation overrides.

    allow: Vespa's name of a change -> the last day on which it is allowed, as 2026-12-24.
    """
    root = ET.Element("validation-overrides")
    for name, day in allow.items():
        ET.SubElement(root, "allow", until=day).text = name
    return xml_text(root)
