"""A small HTTP server that answers as Vespa's document/v1 does, and fails on order."""

from __future__ import annotations

import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class FakeVespa:
    """`faults` maps a document id to the answers it gets before it is taken: a status, "reset" or "garbage".

    `documents` is what was taken, `requests` every (method, id) in order of arrival.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.search_answer: object = {"root": {"coverage": {"coverage": 100}, "children": []}}
        self.search_bodies: list[dict] = []
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def answer(self, status: int, body: object) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/search/"):
                    fake.search_bodies.append(json.loads(body))
                    self.answer(200, fake.search_answer)
                    return
                id_ = unquote(self.path.split("/docid/")[1])
                with fake.lock:
                    fake.requests.append((self.command, id_))
                    waiting = fake.faults.get(id_)
                    fault = waiting.pop(0) if waiting else None
                if fault == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                elif fault == "garbage":
                    self.answer(200, b"<html>not Vespa</html>")
                elif fault is not None:
                    self.answer(int(fault), {"message": f"told to say {fault}"})
                else:
                    self.take(id_, body)

            def take(self, id_: str, body: bytes) -> None:
                with fake.lock:
                    if self.command == "GET":
                        document = fake.documents.get(id_)
                        self.answer(200 if document else 404, document or {"message": "not found"})
                        return
                    if self.command == "DELETE":
                        fake.documents.pop(id_, None)
                    else:
                        fake.documents[id_] = json.loads(body)
                self.answer(200, {"id": id_})

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
