"""A small local server that answers as a config server and a container do."""

from __future__ import annotations

import json
import socket
import threading

import httpx
from local_server import LocalServer, QuietHandler

from vespa_app.deploying import deploy
from vespa_app.deploying.config_server import APPLICATION_PATH
from vespa_app.running.description import DESCRIPTION_PATH

__all__ = ["ACCEPTED", "Clock", "FakeConfigServer", "Starting", "deploy_to"]

ACCEPTED = {"session-id": "7", "log": [], "configChangeActions": {"restart": [], "refeed": [], "reindex": []}}


class FakeConfigServer(LocalServer):
    """converge: generations that the searchnode says it has, one for each time it is asked; the last one stays."""

    def __init__(self) -> None:
        self.accept: tuple[int, object] = (200, ACCEPTED)
        self.converge = [7]
        self.not_serving = 0
        self.package = b""
        self.application = False
        self.description: dict | None = None
        self.tokens: set[str | None] = set()
        fake = self

        class Handler(QuietHandler):
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
                elif self.path == APPLICATION_PATH and fake.application:
                    self.answer(200, {"generation": 7})
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

        super().__init__(Handler)


class Clock:
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Starting(httpx.BaseTransport):
    """Vespa as it starts: the first requests of a path are refused, or accepted and dropped."""

    def __init__(self, refused: dict[str, int], dropped: dict[str, int] | None = None) -> None:
        self.refused, self.dropped = dict(refused), dict(dropped or {})
        self.real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if self.refused.get(path, 0):
            self.refused[path] -= 1
            request.url = request.url.copy_with(port=9)
        elif self.dropped.get(path, 0):
            self.dropped[path] -= 1
            with socket.create_server(("127.0.0.1", 0)) as listening:
                request.url = request.url.copy_with(port=listening.getsockname()[1])

                def drop() -> None:
                    listening.accept()[0].close()

                threading.Thread(target=drop).start()
                return self.real.handle_request(request)
        return self.real.handle_request(request)

    def close(self) -> None:
        self.real.close()


def deploy_to(server, app, **arguments):
    clock = arguments.pop("clock", None) or Clock()
    return deploy(app, server.url, query_url=server.url, clock=clock, sleep=clock.sleep, **arguments)
