"""Settings and bundle -> Vespa application package; deploy it; read back what is deployed."""

from __future__ import annotations

from vespa_app.package.building import Package, build_package, default_settings
from vespa_app.package.checks import check_package
from vespa_app.running.application import Application
from vespa_app.settings.application_settings import AppSettings

__all__ = ["AppSettings", "Application", "Package", "build_package", "check_package", "default_settings"]
