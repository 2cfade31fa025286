"""A small server that answers as Vespa's document/v1 and its search for what is stored do, over HTTP/1.1 and HTTP/2 as
Vespa's own port does, and fails on order."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import ssl
import struct
import threading
import time
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from local_server import LocalServer, QuietHandler

LISTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


class FakeVespa(LocalServer):
    """`faults` maps a document id to what happens to it before it is taken: a status, "reset" of the connection, "cut" in the
    middle of an answer, "garbage" instead of JSON, "stall" of that operation for ever, "hush" of its whole connection, which
    stays open. `always` is a status for every operation while it is set.

    `documents` is what was taken, by id or group/id; `requests` every (method, id) in order of arrival. `most_in_flight`
    counts streams; `connections` what was opened, `open_connections` what still is. tls: a server's context, for https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.documents: dict[str, dict] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.always: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: dict[str, bytes] = {}
        self.search_answer: object = {"root": {"coverage": {"coverage": 100}, "children": []}}
        self.search_bodies: list[dict] = []
        self.search_faults: list[int | str] = []
        self.connections = self.open_connections = 0
        self.description = ""
        self.visits: list[dict[str, str]] = []
        self.visit_faults: list[int | str] = []
        self.lock = threading.Lock()
        self.tls = tls
        fake = self

        class Handler(QuietHandler):
            def handle(self) -> None:
                gone = (OSError, h2.exceptions.ProtocolError)  # the other side went away
                with contextlib.suppress(*gone), contextlib.closing(self):
                    if tls is not None:
                        self.connection = tls.wrap_socket(self.connection, server_side=True, do_handshake_on_connect=False)
                        shake_hands(self.connection)
                        second = self.connection.selected_alpn_protocol() == "h2"
                    else:
                        second = self.connection.recv(3, socket.MSG_PEEK) == b"PRI"
                    fake.connections += 1
                    with fake.counted():
                        if second:
                            Streams(fake, self.connection).serve()
                        else:
                            super().handle()

            def close(self) -> None:
                self.connection.close()

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = fake.answer(self.command, self.path, body, dict(self.headers))
                if isinstance(answer, str):
                    self.close_connection = True
                    reset(self.connection)
                    return
                self.answer(*answer)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

        super().__init__(Handler, "http" if tls is None else "https")

    @contextlib.contextmanager
    def counted(self):
        with self.lock:
            self.open_connections += 1
        try:
            yield
        finally:
            with self.lock:
                self.open_connections -= 1

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | str:
        """A status and a body; or "reset", "cut", "stall", "hush"."""
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if path.startswith("/search/"):
            return self.searched(json.loads(body))
        parts = path.partition("?")[0].split("/")
        if parts[4] == "colbert_application" and self.description:
            return 200, json.dumps({"fields": {"description": self.description}}).encode()
        if len(parts) == 6:
            return self.visited(parse_qs(path.partition("?")[2]))
        id_ = unquote(parts[6]) if parts[5] == "docid" else f"{unquote(parts[6])}/{unquote(parts[7])}"
        with self.lock:
            self.requests.append((method, id_))
            self.headers.append(headers)
            waiting = self.faults.get(id_)
            fault = waiting.pop(0) if waiting else (self.always if method != "GET" else None)
            if fault is None:
                return self.took(method, id_, body)
        if fault == "garbage":
            return 200, b"<html>not Vespa</html>"
        if isinstance(fault, str):
            return fault
        return fault, json.dumps({"message": f"told to say {fault}"}).encode()

    def visited(self, query: dict[str, list[str]]) -> tuple[int, bytes] | str:
        """A page of all documents, in an order of its own; continuation tokens are places."""
        with self.lock:
            self.visits.append({name: values[0] for name, values in query.items()})
            if self.visit_faults:
                fault = self.visit_faults.pop(0)
                return fault if isinstance(fault, str) else (fault, b'{"message":"told to"}')
            ids = sorted(self.documents, key=lambda id_: id_[::-1] + id_)
        asked = self.visits[-1]
        if "selection" in asked:
            ids = [id_ for id_ in ids if fnmatchcase(id_, re.fullmatch(r'id\.specific = "(.*)"', asked["selection"])[1])]
        first = int(asked.get("continuation", 0))
        last = first + int(asked["wantedDocumentCount"])
        wanted = set(asked["fieldSet"].partition(":")[2].split(","))
        page = [{"fields": {n: v for n, v in self.documents[id_]["fields"].items() if n in wanted}} for id_ in ids[first:last]]
        more = {"continuation": str(last)} if last < len(ids) else {}
        return 200, json.dumps({"documents": page, "documentCount": len(page), **more}).encode()

    def took(self, method: str, id_: str, body: bytes) -> tuple[int, bytes]:
        there = self.documents.get(id_)
        if method == "GET":
            return (
                (200, json.dumps(there).encode()) if there else (404, json.dumps({"id": id_, "message": "not found"}).encode())
            )
        if method == "DELETE":
            self.documents.pop(id_, None)
        elif method == "POST":
            self.documents[id_] = json.loads(body)
        elif there:
            there["fields"] |= {name: value["assign"] for name, value in json.loads(body)["fields"].items()}
        else:
            return 404, b'{"message":"not found"}'
        return 200, json.dumps({"id": id_}).encode()

    def searched(self, body: dict) -> tuple[int, bytes] | str:
        with self.lock:
            self.search_bodies.append(body)
            if self.search_faults:
                fault = self.search_faults.pop(0)
                return fault if isinstance(fault, str) else (fault, b'{"root":{"errors":[{"message":"told to"}]}}')
            if body.get("presentation.summary") != "passage_stored":
                return 200, json.dumps(self.search_answer).encode()
            wanted = {a or b for a, b in LISTED.findall(body.get("ids", ""))} | {
                v for k, v in body.items() if re.match(r"id\d", k)
            }
            every = body["yql"].endswith(" where true")
            rows = [d["fields"] for d in self.documents.values() if every or d["fields"].get("document_id") in wanted]
            rows.sort(key=lambda fields: fields["id"])
            page = rows[body.get("offset", 0) :][: body["hits"]]
        root = {"fields": {"totalCount": len(rows)}, "coverage": {"full": True}, "children": [{"fields": f} for f in page]}
        return 200, json.dumps({"root": root}).encode()


def shake_hands(connection: ssl.SSLSocket) -> None:
    """Shake hands. On failure read what the client sent already: unread bytes reset the connection, and the alert is lost."""
    try:
        connection.do_handshake()
    except ssl.SSLError:
        with contextlib.closing(socket.socket(fileno=connection.detach())) as plain:
            plain.settimeout(5)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1 << 16):
                pass
        raise


class SkippedTime:
    """A clock, and a sleep that only moves it on. `pauses` is what was slept, in seconds."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return time.monotonic() + self.skipped

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.skipped += seconds


class Streams:
    """One connection of HTTP/2."""

    def __init__(self, fake: FakeVespa, connection: socket.socket) -> None:
        self.fake, self.socket = fake, connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.open: dict[int, tuple[dict[str, str], bytearray]] = {}

    def serve(self) -> None:
        self.h2.initiate_connection()
        self.socket.sendall(self.h2.data_to_send())
        while data := self.socket.recv(1 << 16):
            try:
                events = self.h2.receive_data(data)
            except h2.exceptions.ProtocolError:
                return
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    self.open[event.stream_id] = (dict(event.headers), bytearray())
                elif isinstance(event, h2.events.DataReceived):
                    self.open[event.stream_id][1].extend(event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    self.open.pop(event.stream_id, None)
                elif isinstance(event, h2.events.StreamEnded) and not self.ended(event.stream_id):
                    return
            self.socket.sendall(self.h2.data_to_send())

    def ended(self, stream: int) -> bool:
        """Answers; False where the connection is gone."""
        headers, body = self.open.pop(stream)
        answer = self.fake.answer(headers[":method"], headers[":path"], bytes(body), headers)
        if answer == "stall":
            return True
        if answer == "hush":
            while self.socket.recv(1 << 16):  # taken, and never read
                pass
            return False
        if answer == "reset":
            reset(self.socket)
            return False
        status, data = (200, b'{"id":') if isinstance(answer, str) else answer
        shown = [
            (":status", str(status)),
            ("content-type", "application/json"),
            ("content-length", str(len(data) + (answer == "cut"))),
        ]
        self.h2.send_headers(stream, shown)
        self.h2.send_data(stream, data, end_stream=answer != "cut")
        if answer == "cut":
            self.socket.sendall(self.h2.data_to_send())
            reset(self.socket)
            return False
        return True


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
