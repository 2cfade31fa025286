"""services.xml and hosts.xml: one stateless and one content cluster, on one node of one's own or on Vespa Cloud."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from late_interaction.bundle import Bundle, SideRules
from late_interaction.errors import BundleError
from vespa_app.settings import AppSettings

__all__ = ["EMBEDDER_ID", "MODEL_FILE", "TOKENIZER_FILE", "embedder_differences", "services_xml"]

EMBEDDER_ID = "colbert"
MODEL_FILE = "models/model.onnx"
TOKENIZER_FILE = "models/tokenizer.json"
CONTENT_CLUSTER = "content"


def services_xml(settings: AppSettings, bundle: Bundle, schemas: tuple[str, ...]) -> str:
    root = ET.Element("services", version="1.0")
    container = ET.SubElement(root, "container", id="default", version="1.0")
    ET.SubElement(container, "search")
    ET.SubElement(container, "document-api")
    if settings.embedder:
        container.append(_embedder(bundle))
    nodes = ET.SubElement(container, "nodes", count="1")
    heap = settings.jvm_heap_mb
    ET.SubElement(nodes, "jvm", options=f"-Xms{heap // 2}m -Xmx{heap}m")
    content = ET.SubElement(root, "content", id=CONTENT_CLUSTER, version="1.0")
    ET.SubElement(content, "min-redundancy").text = "1"
    documents = ET.SubElement(content, "documents")
    for schema in schemas:
        ET.SubElement(documents, "document", type=schema, mode="index")
    threads = _path(content, "engine/proton/tuning/searchnode/requestthreads")
    ET.SubElement(threads, "persearch").text = str(settings.search_threads)
    ET.SubElement(content, "nodes", count="1")
    ET.indent(root, "    ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _path(parent: ET.Element, path: str) -> ET.Element:
    for tag in path.split("/"):
        parent = ET.SubElement(parent, tag)
    return parent


def _embedder(bundle: Bundle) -> ET.Element:
    manifest = bundle.manifest
    start, end = _special_ids(bundle.file("tokenizer.json"))
    component = ET.Element("component", id=EMBEDDER_ID, type="colbert-embedder")
    ET.SubElement(component, "transformer-model", path=MODEL_FILE)
    ET.SubElement(component, "tokenizer-model", path=TOKENIZER_FILE)
    expansion = manifest.query.expansion
    values = {
        "max-tokens": manifest.max_tokens,
        "max-query-tokens": manifest.query.length,
        "max-document-tokens": manifest.document.length,
        "transformer-start-sequence-token": start,
        "transformer-end-sequence-token": end,
        "transformer-mask-token": expansion.token_id if expansion else None,
        "transformer-pad-token": manifest.pad_id,
        "query-token-id": manifest.query.marker_id,
        "document-token-id": manifest.document.marker_id,
    }
    for tag, value in values.items():
        if value is not None:
            ET.SubElement(component, tag).text = str(value)
    return component


def _special_ids(tokenizer_file: Path) -> tuple[int, int]:
    """Ids put before and after every text: [CLS] and [SEP], <s> and </s>."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer_file)).encode("", add_special_tokens=True).ids
    if len(ids) < 2:
        raise BundleError(f"{tokenizer_file} puts no start and end tokens around a text, as Vespa's colbert-embedder does")
    return ids[0], ids[-1]


def embedder_differences(bundle: Bundle) -> tuple[str, ...]:
    """Where Vespa's colbert-embedder cannot do what the bundle's rules say, so that its vectors differ from ours."""
    manifest = bundle.manifest
    found = []
    for side, rules in (("query", manifest.query), ("document", manifest.document)):
        found += _side_differences(side, rules)
    expansion = manifest.query.expansion
    if expansion is None:
        found.append("query: Vespa pads queries with mask tokens, the bundle does not")
    elif expansion.attend:
        found.append("query: the bundle's encoder attends to the mask tokens, Vespa's does not")
    if manifest.document.skip_ids:
        found.append("document: Vespa drops punctuation before encoding, the bundle after")
    return tuple(found)


def _side_differences(side: str, rules: SideRules) -> list[str]:
    found = []
    if rules.marker_id is None:
        found.append(f"{side}: Vespa inserts a marker token, the bundle has none")
    if rules.prompt:
        found.append(f"{side}: Vespa knows no prompt, the bundle has {rules.prompt!r}")
    return found
