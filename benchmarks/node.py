"""The Vespa node of the benchmarks: what is deployed there is replaced, and others fill its disk, too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from late_interaction.bundle import Bundle
from vespa_app import build_package
from vespa_app.deploying import deploy
from vespa_app.settings import AppSettings, ClusterSettings

__all__ = ["CLUSTER", "replace_application"]

CLUSTER = ClusterSettings(disk_limit=0.97)
REPLACED = ("content-type-removal", "schema-removal", "field-type-change", "indexing-change", "refeed", "indexing-mode-change")


def replace_application(bundle: Bundle, settings: AppSettings, url: str, config_url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = build_package(bundle, settings).write(Path(folder) / "package")
        deploy(package, config_url, query_url=url, allow=REPLACED)
