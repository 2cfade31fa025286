"""A process that encodes: reads batches from the socket that is its standard input, and answers them in order.

One thread reads, one encodes, one answers, so the encoder waits for neither. The process ends when the socket is closed, by
the feed or because the feed's process ended.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

from feeder.encoding.batches import EncodedPassages, Text, encode_batch
from feeder.encoding.passages import Splitting
from late_interaction.array_types import Matrix, TokenIds
from late_interaction.bundle import Bundle
from late_interaction.dense import dense_encoders
from late_interaction.encoder import Encoder
from late_interaction.errors import ColbertVespaError
from late_interaction.workers.frames import Frame, pack, read_frame, split_rows

__all__ = ["answer_of", "batch_body", "main"]


def batch_body(batch: Sequence[Text]) -> dict[str, Any]:
    """Return a batch as JSON values."""
    return {"batch": [[item.title, item.text, item.ranges, item.dense] for item in batch]}


def _text(title: str, text: str, ranges: Sequence[Sequence[int]] | None, dense: Sequence[str]) -> Text:
    return Text(title, text, None if ranges is None else tuple((start, end) for start, end in ranges), tuple(dense))


def answer_of(frame: Frame, dim: int, dense_dims: Mapping[str, int]) -> list[EncodedPassages]:
    """Parse a worker's answer. dense_dims: dimensions of the bundle's dense models.

    Raises:
        ColbertVespaError: the worker's error.
    """
    if "error" in frame.body:
        raise ColbertVespaError(frame.body["error"])
    counts = [count for item in frame.body["encoded"] for count in item[2]]
    rest: Iterator[Matrix] = iter(split_rows(frame.rows, counts, dim) if counts else ())
    token_ids = iter(_split_ids(frame.rows, counts, dim) if frame.body["token_ids"] else [None] * len(counts))
    start = 4 * sum(counts) * (dim + bool(frame.body["token_ids"]))
    found = []
    for title, ranges, own, truncated, error, names in frame.body["encoded"]:
        places = tuple((first, last) for first, last in ranges)
        vectors, ids = tuple(itertools.islice(rest, len(own))), tuple(itertools.islice(token_ids, len(own)))
        dense = {}
        for name in names:
            shape = len(places), dense_dims[name]
            dense[name] = np.frombuffer(frame.rows, "<f4", shape[0] * shape[1], start).reshape(shape).astype(np.float32)
            start += dense[name].nbytes
        found.append(EncodedPassages(title, places, vectors, ids, truncated, error, dense))
    return found


def _split_ids(rows: bytes, counts: Sequence[int], dim: int) -> list[TokenIds]:
    """Split off the ids of each passage's rows, which follow all vectors."""
    total = sum(counts)
    return np.split(np.frombuffer(rows, "<i4", total, 4 * total * dim).astype(np.int32), np.cumsum(counts)[:-1])


def _answer(number: int, encoded: Sequence[EncodedPassages]) -> bytes:
    body = [
        [item.title, item.ranges, [len(rows) for rows in item.vectors], item.truncated, item.error, list(item.dense)]
        for item in encoded
    ]
    data = [np.ascontiguousarray(rows, "<f4").tobytes() for item in encoded for rows in item.vectors]
    ids = [
        ids.astype("<i4").tobytes() for item in encoded for ids in item.token_ids if ids is not None
    ]  # for all rows, or for none
    dense = [np.ascontiguousarray(rows, "<f4").tobytes() for item in encoded for rows in item.dense.values()]
    return pack(number, {"encoded": body, "token_ids": bool(ids)}, b"".join(data + ids + dense))


class _Worker:
    def __init__(self, connection: socket.socket, settings: dict[str, Any]) -> None:
        self._connection = connection
        self._requests: Queue[Frame] = Queue(2)
        self._answers: Queue[bytes] = Queue(2)
        bundle = Bundle.open(Path(settings["bundle"]), verify=False)
        where = {"threads": settings["threads"], "device": settings["device"]}
        self._encoder = Encoder(bundle, precision=settings["precision"], **where)
        self._dense = dense_encoders(bundle, **where)
        self._splitting = Splitting(*settings["splitting"])

    def run(self, buffer: bytearray) -> None:
        for task in (lambda: self._read(buffer), self._write):
            threading.Thread(target=_ending, args=(task,), daemon=True).start()
        while True:
            request = self._requests.get()
            try:
                batch = [_text(*item) for item in request.body["batch"]]
                encoded = encode_batch(batch, self._splitting, self._encoder.tokenizing, self._encoder, self._dense)
                self._answers.put(_answer(request.number, encoded))
            except (ColbertVespaError, MemoryError) as error:
                self._answers.put(pack(request.number, {"error": str(error) or "an encoding process ran out of memory"}))

    def _read(self, buffer: bytearray) -> None:
        while (frame := read_frame(self._connection, buffer)) is not None:
            self._requests.put(frame)

    def _write(self) -> None:
        while True:
            self._connection.sendall(self._answers.get())


def _ending(task: Any) -> None:
    """Run the task; when it ends, exit, because nobody is left to encode for."""
    try:
        task()
    except OSError:
        pass
    finally:
        os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the worker. The first frame has the settings. `arguments` are not used."""
    del arguments
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as connection:
        buffer = bytearray()
        first = read_frame(connection, buffer)
        if first is None:
            return
        try:
            worker = _Worker(connection, first.body)
        except ColbertVespaError as error:
            connection.sendall(pack(0, {"error": str(error)}))
            return
        connection.sendall(pack(0, {}))
        worker.run(buffer)
