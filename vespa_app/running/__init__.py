"""A running application as seen by feeder and query client: its description, documents, requests, connections."""

from __future__ import annotations

from vespa_app.running.application import Application
from vespa_app.running.description import Description

__all__ = ["Application", "Description"]
