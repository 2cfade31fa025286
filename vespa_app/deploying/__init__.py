"""Deploy a package to docker, a config server or Vespa Cloud, and wait until it serves."""

from __future__ import annotations

from vespa_app.deploying.deployment import deploy
from vespa_app.deploying.serving import DeployReport
from vespa_app.deploying.shipment import plan_shipment

__all__ = ["DeployReport", "deploy", "plan_shipment"]
