"""A small local server that answers as a config server and a container do."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vespa_app.deploy import deploy
from vespa_app.description import DESCRIPTION_PATH

__all__ = ["ACCEPTED", "Clock", "FakeConfigServer", "deploy_to"]

ACCEPTED = {"session-id": "7", "log": [], "configChangeActions": {"restart": [], "refeed": [], "reindex": []}}


class FakeConfigServer:
    """converge: generations that the searchnode says it has, one for each time it is asked; the last one stays."""

    def __init__(self) -> None:
        self.accept: tuple[int, object] = (200, ACCEPTED)
        self.converge = [7]
        self.not_serving = 0
        self.package = b""
        self.description: dict | None = None
        self.tokens: set[str | None] = set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                if self.path.endswith("/serviceconverge"):
                    generation = fake.converge.pop(0) if len(fake.converge) > 1 else fake.converge[0]
                    node = {"type": "searchnode", "host": "node1", "port": 19110, "currentGeneration": generation}
                    container = {"type": "container", "host": "node1", "port": 8080, "currentGeneration": 7}
                    self.answer(200, {"services": [node, container]})
                elif self.path == "/ApplicationStatus":
                    fake.not_serving -= 1
                    self.answer(404 if fake.not_serving >= 0 else 200, {})
                elif self.path == DESCRIPTION_PATH and fake.description is not None:
                    self.answer(200, fake.description)
                else:
                    self.answer(404, {"message": "not found"})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.tokens.add(self.headers.get("Authorization"))
                if self.path.endswith("/prepareandactivate"):
                    assert self.headers["Content-Type"] == "application/zip"
                    fake.package = body
                    self.answer(*fake.accept)
                else:
                    assert self.path == DESCRIPTION_PATH
                    fake.description = json.loads(body)
                    self.answer(200, {})

            def answer(self, status: int, body: object) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Clock:
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def deploy_to(server, app, **arguments):
    clock = Clock()
    return deploy(app, server.url, query_url=server.url, clock=clock, sleep=clock.sleep, **arguments)
