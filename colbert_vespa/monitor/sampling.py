"""Sample an index: the same passages as long as they exist, so that two samples can be compared."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_vespa.monitor.documents import counted
from colbert_vespa.monitor.http_client import HttpClient
from late_interaction.addresses import locate
from late_interaction.documents import Passage, passage_text
from late_interaction.errors import VespaRefused
from late_interaction.plaid import open_index
from vespa_app.running import Application
from vespa_app.settings import AppSettings

if TYPE_CHECKING:
    from late_interaction.plaid import PlaidIndex

__all__ = ["SAMPLED", "beginnings", "sample_of"]

SAMPLED = 256  # passages: distributions of two such samples of one index differ by less than .12 in 19 of 20 cases
WORDS = 12  # of a passage's beginning, as a question about it
QUERIES = 20


def sample_of(address: str, http: HttpClient, count: int = SAMPLED) -> tuple[int, list[str]]:
    """Return the number of passages (in layout `chunks`, of documents), and the texts of `count` passages as they are encoded.

    Raises:
        LocalIndexError: If the index is missing or damaged.
        VespaError: If Vespa does not answer.
        UsageError: If the address is not valid.
    """
    place = locate(address)
    if not isinstance(place, Path):
        application = Application.read(place, timeout=http.timeout)
        settings = application.description.settings
        return counted(http, application.url, settings)[0], _visited(http, application.url, settings, count)
    with open_index(place) as index:
        return index.passages, [passage.encoded_text for passage in _smallest(index, count)]


def _smallest(index: PlaidIndex, count: int) -> list[Passage]:
    """Return the passages with the smallest digests of their ids, which is a random sample."""
    return heapq.nsmallest(count, index.iter_passages(), key=lambda p: hashlib.sha256(p.id.encode()).digest())


def _visited(http: HttpClient, url: str, settings: AppSettings, count: int) -> list[str]:
    """Return the first visited texts: Vespa visits buckets in order, and hashes ids into buckets."""
    path = f"/document/v1/{settings.namespace}/{settings.schema}/docid"
    wanted = {"wantedDocumentCount": str(count), "fieldSet": f"{settings.schema}:title,text", "concurrency": "1"}
    texts: list[str] = []
    continuation: str | None = ""
    while continuation is not None and len(texts) < count:
        more = {"continuation": continuation} if continuation else {}
        answer = http.json(url, path, parameters={**wanted, **more})
        texts += [text for document in answer.get("documents", ()) for text in _texts(document, url)]
        continuation = answer.get("continuation")
    return texts[:count]


def _texts(document: dict[str, Any], url: str) -> list[str]:
    """Return the texts of a document; in layout `chunks` its text is the list of its passages."""
    fields = document.get("fields")
    if not isinstance(fields, dict):
        raise VespaRefused(f"{url} returns documents without fields; check that it is a Vespa endpoint")
    text = fields.get("text", "")
    return [passage_text(str(fields.get("title", "")), part) for part in (text if isinstance(text, list) else [text])]


def beginnings(texts: Sequence[str], count: int = QUERIES) -> list[str]:
    """Return the first words of the first `count` texts that have any: questions whose answers are in the index."""
    found = [" ".join(text.split()[:WORDS]) for text in texts]
    return list(dict.fromkeys(text for text in found if text))[:count]
