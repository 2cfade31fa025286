"""One Vespa node in one server: config server, document/v1 and query port."""

from __future__ import annotations

import json

from fake_config_server import ACCEPTED
from fake_vespa import FakeVespa

from vespa_app.deploying.config_server import HEALTH_PATH
from vespa_app.running.description import DESCRIPTION_PATH

__all__ = ["FakeNode"]


class FakeNode(FakeVespa):
    """Everything deployed is running at once."""

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes] | str:
        if path.endswith("/serviceconverge"):
            return self.json({"services": [{"type": "container", "host": "node1", "port": 8080, "currentGeneration": 7}]})
        if path.partition("?")[0].endswith("/prepareandactivate"):
            return self.json(ACCEPTED)
        if path == HEALTH_PATH:
            return self.json({"status": {"code": "up"}})
        if path == "/ApplicationStatus":
            return self.json({})
        if path == DESCRIPTION_PATH and method == "POST":
            self.description = json.loads(body)["fields"]["description"]
            return self.json({})
        if path == DESCRIPTION_PATH and not self.description:
            return 404, b'{"message":"not found"}'
        return super().answer(method, path, body, headers)

    @staticmethod
    def json(body: object) -> tuple[int, bytes]:
        return 200, json.dumps(body).encode()
