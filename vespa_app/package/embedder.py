"""Vespa's colbert-embedder, configured with a bundle's model and rules."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from late_interaction.bundle import Bundle, SideRules
from late_interaction.errors import BundleError
from vespa_app.running.layouts import EMBEDDER_TYPE, Embedder

__all__ = ["embedder_component", "embedder_differences"]


def embedder_component(bundle: Bundle, embedder: Embedder) -> ET.Element:
    """Return the component in services.xml."""
    manifest = bundle.manifest
    start, end = _special_ids(bundle.file("tokenizer.json"))
    component = ET.Element("component", id=embedder.id, type=EMBEDDER_TYPE)
    ET.SubElement(component, "transformer-model", path=embedder.model)
    ET.SubElement(component, "tokenizer-model", path=embedder.tokenizer)
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
        # Vespa's name for it: whether rows of padding are emitted
        "attend-to-expansion-tokens": None if expansion else "false",
    }
    for tag, value in values.items():
        if value is not None:
            ET.SubElement(component, tag).text = str(value)
    return component


def _special_ids(tokenizer_file: Path) -> tuple[int, int]:
    """Return the ids put before and after every text: [CLS] and [SEP], <s> and </s>."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer_file)).encode("", add_special_tokens=True).ids
    if len(ids) < 2:
        raise BundleError(f"{tokenizer_file} does not put start and end tokens around a text, as Vespa's colbert-embedder does")
    return ids[0], ids[-1]


def embedder_differences(bundle: Bundle) -> tuple[str, ...]:
    """Return where Vespa's colbert-embedder cannot follow the bundle's rules, so that its vectors differ from ours."""
    manifest = bundle.manifest
    differences = []
    for side, rules in (("query", manifest.query), ("document", manifest.document)):
        differences += _side_differences(side, rules)
    expansion = manifest.query.expansion
    if expansion is not None and expansion.attend:
        differences.append("query: the bundle's encoder attends to the mask tokens, but Vespa's does not")
    if manifest.document.skip_ids:
        differences.append("document: Vespa drops punctuation before encoding, but the bundle after")
    if manifest.pooling is not None:
        differences.append("document: the bundle pools rows, but Vespa does not")
    return tuple(differences)


def _side_differences(side: str, rules: SideRules) -> list[str]:
    differences = []
    if rules.marker_id is None:
        differences.append(f"{side}: Vespa inserts a marker token, but the bundle has none")
    if rules.prompt:
        differences.append(f"{side}: Vespa does not support prompts, but the bundle has {rules.prompt!r}")
    return differences
