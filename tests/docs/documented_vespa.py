"""A server that answers as the config server, document/v1 and query port of one Vespa node, for what the documentation asks."""

from __future__ import annotations

import json

from fake_config_server import ACCEPTED
from fake_vespa import FakeVespa

from vespa_app.running.description import DESCRIPTION_PATH

__all__ = ["DocumentedVespa"]

PROFILES = ("passage_stored", "passage_vectors")
HIDDEN = ("token_vectors", "codes", "centroids", "digest")


class DocumentedVespa(FakeVespa):
    """Everything deployed is running at once, and every query finds everything that is stored, in order of its ids."""

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | str:
        if path.endswith("/serviceconverge"):
            return self._json({"services": [{"type": "container", "host": "node1", "port": 8080, "currentGeneration": 7}]})
        if path.partition("?")[0].endswith("/prepareandactivate"):
            return self._json(ACCEPTED[1] if isinstance(ACCEPTED, tuple) else ACCEPTED)
        if path == "/ApplicationStatus":
            return self._json({})
        if path == DESCRIPTION_PATH and method == "POST":
            self.description = json.loads(body)["fields"]["description"]
            return self._json({})
        if path == DESCRIPTION_PATH and not self.description:
            return 404, b'{"message":"not found"}'
        return super().answer(method, path, body, headers)

    @staticmethod
    def _json(body: object) -> tuple[int, bytes]:
        return 200, json.dumps(body).encode()

    def searched(self, body: dict) -> tuple[int, bytes] | str:
        if body.get("presentation.summary") in PROFILES:
            return super().searched(body)
        with self.lock:
            self.search_bodies.append(body)
            stored = [self.documents[id_]["fields"] for id_ in sorted(self.documents)]
        hits = [
            {
                "relevance": 9.0 - n,
                "fields": {name: value for name, value in fields.items() if name not in HIDDEN} | {"matchfeatures": {}},
            }
            for n, fields in enumerate(stored[: body.get("hits", 10)])
        ]
        root = {"fields": {"totalCount": len(stored)}, "coverage": {"full": True, "coverage": 100, "documents": len(stored)}}
        return self._json({"root": {**root, "children": hits}})
