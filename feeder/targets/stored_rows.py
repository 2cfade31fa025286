"""Which passages a Vespa application has of some documents: asked in one query for many documents."""

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

DOCUMENTS = 256  # asked for at once
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One stored passage; in layout `chunks` one document. present: marks of its metadata. group: of mode streaming."""

    passage_id: str
    document_id: str
    digest: str
    present: tuple[str, ...]
    group: str

    @property
    def is_first(self) -> bool:
        return self.passage_id == Passage.id_of(self.document_id, 0)


class StoredRows:
    """Queries of one application. sleep: seconds, between attempts. most: rows of one answer."""

    def __init__(self, application: Application, *, sleep: Callable[[float], None] = time.sleep, most: int = MAX_HITS) -> None:
        self._url, self._settings = application.url, application.settings
        self._client = connect(application.url, timeout=TIMEOUT_S + 5, connections=1)
        self._most, self._sleep, self._chance = most, sleep, random.Random()

    def of(self, document_ids: Sequence[str]) -> dict[str, list[StoredRow]]:
        """Rows by document id, of those that have any. Raises: VespaUnreachable, VespaBusy when retries are used up;
        VespaRefused where Vespa refuses the query."""
        ids = list(dict.fromkeys(document_ids))
        found: dict[str, list[StoredRow]] = {}
        for first in range(0, len(ids), DOCUMENTS):
            for row in self._rows(ids[first : first + DOCUMENTS]):
                found.setdefault(row.document_id, []).append(row)
        return found

    def count(self) -> int:
        """How many documents of Vespa the index has. Raises: as `of`."""
        return int(self._asked(_query(self._settings, "true", 0, {}))["fields"]["totalCount"])

    def close(self) -> None:
        self._client.close()

    def _rows(self, ids: Sequence[str]) -> Iterator[StoredRow]:
        """Where there are more than one answer holds: of each half; of one document: of two pages."""
        rows, total = self._page(ids)
        if total > len(rows) and len(ids) > 1:
            yield from self._rows(ids[: len(ids) // 2])
            yield from self._rows(ids[len(ids) // 2 :])
            return
        yield from rows
        if total > len(rows):
            if total > 2 * self._most:  # offsets end at the same number
                raise VespaRefused(f"{self._url}: document {ids[0]!r} has {total} passages, and {2 * self._most} is the most")
            yield from self._page(ids, offset=self._most)[0]

    def _page(self, ids: Sequence[str], offset: int = 0) -> tuple[list[StoredRow], int]:
        """Rows from `offset` on, and how many there are in all."""
        root = self._asked(stored_query(self._settings, ids, self._most) | {"offset": offset})
        return [self._row(hit["fields"]) for hit in root.get("children", [])], int(root["fields"]["totalCount"])

    def _row(self, fields: Mapping[str, Any]) -> StoredRow:
        group = str(fields.get(self._settings.group_field, ""))
        present = tuple(fields.get(PRESENT, ()))
        return StoredRow(str(fields["id"]), str(fields["document_id"]), str(fields.get(DIGEST, "")), present, group)

    def _asked(self, body: Mapping[str, object]) -> Mapping[str, Any]:
        """The root of a complete answer."""

        def ask() -> Mapping[str, Any]:
            with mapped_errors(self._url):
                return _complete(answer_json(self._client.post("/search/", json=body)), self._url)

        return insistent(ask, self._sleep, self._chance)


def stored_query(settings: AppSettings, ids: Sequence[str], hits: int) -> dict[str, object]:
    """The request for the rows of `ids`, each of which is a parameter or part of one."""
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
    """As an element of a list parameter, which knows quotes and no escapes; empty where both kinds of quotes are in it."""
    return next((f"{mark}{id_}{mark}" for mark in "\"'" if mark not in id_), "")


def _complete(answer: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """Raises: VespaBusy where nodes did not answer: what they have would count as not there."""
    root: Mapping[str, Any] = answer.get("root", {})
    coverage = root.get("coverage", {})
    if "errors" in root or not coverage.get("full", False):
        said = error_text(answer) if "errors" in root else f"it covers {coverage.get('coverage', 0)} % of the documents"
        raise VespaBusy(f"{url} cannot say what is stored: {said}", httpx.codes.SERVICE_UNAVAILABLE)
    return root
