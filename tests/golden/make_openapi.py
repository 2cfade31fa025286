"""Writes openapi.json, the description of the server's API, after a change that is meant."""

from __future__ import annotations

import json
from pathlib import Path

from colbert_vespa.server.app import create_app
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.settings import ServerSettings


class Nothing(Engine):
    """Of no index: the description is that of every server."""

    def __init__(self) -> None:
        self.settings = ServerSettings()


if __name__ == "__main__":
    described = create_app(Nothing()).openapi()
    Path(__file__).with_name("openapi.json").write_text(json.dumps(described, indent=1) + "\n")
