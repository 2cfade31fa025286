"""Which passages of some documents a Vespa application has: one query for many documents."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from feeder.sending.retrying import insistent
from late_interaction.documents import Passage
from late_interaction.errors import VespaBusy, VespaRefused
from vespa_app.running import Application
from vespa_app.running.http import answer_json, connect, error_text, mapped_errors
from vespa_app.running.passage_fields import DIGEST, PRESENT, STORED
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["StoredRow", "StoredRows", "stored_query"]

DOCUMENTS = 256  # documents per query
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One stored passage; in layout `chunks` one document.

    Attributes:
        passage_id: its id.
        document_id: its document's id.
        digest: its digest.
        present: marks of its metadata.
        group: its group in mode streaming.
    """

    passage_id: str
    document_id: str
    digest: str
    present: tuple[str, ...]
    group: str

    @property
    def is_first(self) -> bool:
        """Tell whether it is the first passage of its document."""
        return self.passage_id == Passage.id_of(self.document_id, 0)


class StoredRows:
    """Queries one application. sleep: waits for seconds between attempts. most: rows of one answer."""

    def __init__(self, application: Application, *, sleep: Callable[[float], None] = time.sleep, most: int = MAX_HITS) -> None:
        self._url, self._settings = application.url, application.settings
        self._client = connect(application.url, timeout=TIMEOUT_S + 5, connections=1)
        self._most, self._sleep, self._chance = most, sleep, random.Random()

    def of(self, document_ids: Sequence[str]) -> dict[str, list[StoredRow]]:
        """Return the rows of the documents that have any, by document id.

        Raises:
            VespaUnreachable: if retries are used up.
            VespaBusy: if retries are used up.
            VespaRefused: if Vespa refuses the query.
        """
        ids = list(dict.fromkeys(document_ids))
        found: dict[str, list[StoredRow]] = {}
        for first in range(0, len(ids), DOCUMENTS):
            for row in self._rows(ids[first : first + DOCUMENTS]):
                found.setdefault(row.document_id, []).append(row)
        return found

    def count(self) -> int:
        """Return the number of Vespa documents in the index. Errors are those of `of`."""
        return int(self._asked(_query(self._settings, "true", 0, {}))["fields"]["totalCount"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _rows(self, ids: Sequence[str]) -> Iterator[StoredRow]:
        """Query each half if there are more rows than one answer holds; for one document, two pages."""
        rows, total = self._page(ids)
        if total > len(rows) and len(ids) > 1:
            yield from self._rows(ids[: len(ids) // 2])
            yield from self._rows(ids[len(ids) // 2 :])
            return
        yield from rows
        if total > len(rows):
            if total > 2 * self._most:  # offsets have the same limit
                raise VespaRefused(f"{self._url}: document {ids[0]!r} has {total} passages; the limit is {2 * self._most}")
            yield from self._page(ids, offset=self._most)[0]

    def _page(self, ids: Sequence[str], offset: int = 0) -> tuple[list[StoredRow], int]:
        """Return rows from `offset` on, and their total number."""
        root = self._asked(stored_query(self._settings, ids, self._most) | {"offset": offset})
        return [self._row(hit["fields"]) for hit in root.get("children", [])], int(root["fields"]["totalCount"])

    def _row(self, fields: Mapping[str, Any]) -> StoredRow:
        group = str(fields.get(self._settings.group_field, ""))
        present = tuple(fields.get(PRESENT, ()))
        return StoredRow(str(fields["id"]), str(fields["document_id"]), str(fields.get(DIGEST, "")), present, group)

    def _asked(self, body: Mapping[str, object]) -> Mapping[str, Any]:
        """Return the root of a complete answer."""

        def ask() -> Mapping[str, Any]:
            with mapped_errors(self._url):
                return _complete(answer_json(self._client.post("/search/", json=body)), self._url)

        return insistent(ask, self._sleep, self._chance)


def stored_query(settings: AppSettings, ids: Sequence[str], hits: int) -> dict[str, object]:
    """Return the request for the rows of `ids`, each of which is a parameter or part of one."""
    lists = [_listed(id_) for id_ in ids]
    parameters = {"ids": ",".join(listed for listed in lists if listed)}
    tests = ["document_id in (@ids)"] if parameters["ids"] else []
    for number, id_ in enumerate(id_ for id_, listed in zip(ids, lists, strict=True) if not listed):
        parameters[f"id{number}"] = id_
        tests.append(f"document_id contains @id{number}")
    return _query(settings, " or ".join(tests) + " order by id", hits, parameters)


def _query(settings: AppSettings, where: str, hits: int, parameters: Mapping[str, str]) -> dict[str, object]:
    return {
        "yql": f"select * from {settings.schema} where {where}",  # noqa: S608 - a checked name and parameters
        "model.restrict": settings.schema,
        "ranking.profile": "unranked",
        "ranking.softtimeout.enable": False,
        "presentation.summary": STORED,
        "hits": hits,
        "timeout": TIMEOUT_S,
        **parameters,
        **({"streaming.selection": "true"} if settings.mode == "streaming" else {}),
    }


def _listed(id_: str) -> str:
    """Return an element of a list parameter, which has quotes but no escapes; empty if the id has both kinds of quotes."""
    return next((f"{mark}{id_}{mark}" for mark in "\"'" if mark not in id_), "")


def _complete(answer: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """Raise VespaBusy if nodes did not answer: their documents would count as missing."""
    root: Mapping[str, Any] = answer.get("root", {})
    coverage = root.get("coverage", {})
    if "errors" in root or not coverage.get("full", False):
        said = error_text(answer) if "errors" in root else f"it covers {coverage.get('coverage', 0)} % of the documents"
        raise VespaBusy(f"{url} cannot report what is stored: {said}", httpx.codes.SERVICE_UNAVAILABLE)
    return root
