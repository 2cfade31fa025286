"""Settings and bundle -> Vespa application package; deploy it; read back what is deployed."""

from __future__ import annotations

from vespa_app.package import Package, build_package, check_package, default_settings
from vespa_app.running import Application
from vespa_app.settings import AppSettings

__all__ = ["AppSettings", "Application", "Package", "build_package", "check_package", "default_settings"]
