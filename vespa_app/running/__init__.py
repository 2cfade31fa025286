"""What a running application is to those who feed and ask it: its description, documents, requests, connections."""

from __future__ import annotations

from vespa_app.running.application import Application
from vespa_app.running.description import Description

__all__ = ["Application", "Description"]
