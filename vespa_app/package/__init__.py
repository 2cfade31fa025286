"""Generate and check the files of an application package from settings and bundle."""

from __future__ import annotations

from vespa_app.package.building import Package, build_package, default_settings
from vespa_app.package.checks import check_package
from vespa_app.package.settings_checks import check_settings, read_settings

__all__ = ["Package", "build_package", "check_package", "check_settings", "default_settings", "read_settings"]
