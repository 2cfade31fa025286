"""A server that answers as the config server, document/v1 and query port of one Vespa node, for what the documentation asks."""

from __future__ import annotations

from fake_node import FakeNode

__all__ = ["DocumentedVespa"]

PROFILES = ("passage_stored", "passage_vectors")
HIDDEN = ("token_vectors", "codes", "centroids", "digest")


class DocumentedVespa(FakeNode):
    """Every query finds everything that is stored, in order of its ids."""

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
        return self.json({"root": {**root, "children": hits}})
