"""The process of one shard: reads requests from the socket that is its standard input, and answers them in order.

It ends when the socket is closed, by the router or because the router's process ended.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction.errors import ColbertVespaError
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.shards.reading import VersionGone, open_at
from late_interaction.plaid.shards.wire import filter_from_json, result_to_json, settings_from_json
from late_interaction.workers.frames import Frame, serve, split_rows

__all__ = ["Shard", "main"]


class Shard:
    """Answers requests about the index at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._index: LocalIndex | None = None

    def answer(self, request: Frame) -> dict[str, Any]:
        """Answer a request. In the answer, `error` is one line for the user; `gone` says that its version was pruned."""
        try:
            number, digest = request.body["version"]
            self._index = open_at(self._root, (number, digest), self._index)
            match request.body["do"]:
                case "score":
                    return {"scores": self._score(self._index, request)}
                case "dense":
                    return {"scores": self._dense_search(self._index, request)}
                case "dense_scores":
                    return {"scores": self._dense_scores(self._index, request)}
            return {"results": self._search(self._index, request)}
        except VersionGone as error:
            return {"error": str(error), "gone": True}
        except (ColbertVespaError, OSError, MemoryError, ValueError, LookupError) as error:
            return {"error": str(error) or type(error).__name__}

    @staticmethod
    def _search(index: LocalIndex, request: Frame) -> list[dict[str, Any]]:
        body = request.body
        where, settings = filter_from_json(body["where"]), settings_from_json(body["settings"])
        options: dict[str, Any] = {"where": where, "ids": body["ids"], "settings": settings, "exact": body["exact"]}
        queries = split_rows(request.rows, body["rows"], index.dim)
        if len(queries) == 1:
            return [result_to_json(index.search(queries[0], body["k"], **options))]
        found = index.search_many(queries, body["k"], threads=body["threads"], **options)
        return [result_to_json(result) for result in found]

    @staticmethod
    def _score(index: LocalIndex, request: Frame) -> dict[str, float]:
        Q = split_rows(request.rows, request.body["rows"], index.dim)[0]
        return index.score(Q, request.body["ids"])

    @staticmethod
    def _dense_search(index: LocalIndex, request: Frame) -> Mapping[str, float]:
        body = request.body
        vector, where = np.frombuffer(request.rows, "<f4"), filter_from_json(body["where"])
        options: dict[str, Any] = {"where": where, "ids": body["ids"], "exact": body["exact"]}
        return index.dense_search(body["name"], vector, body["k"], **options).scores

    @staticmethod
    def _dense_scores(index: LocalIndex, request: Frame) -> Mapping[str, float]:
        body = request.body
        return index.dense_scores(body["name"], np.frombuffer(request.rows, "<f4"), body["ids"]).scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the shard whose folder is the argument; by default that of the process."""
    (root,) = sys.argv[1:] if arguments is None else arguments
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        serve(Shard(Path(root)).answer, connection)
