"""Generate a Vespa application package from settings and a bundle, deploy it, and read back what is deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.lazy_names import lazy_names

if TYPE_CHECKING:
    from vespa_app.package import Package, build_package, check_package, default_settings
    from vespa_app.running import Application
    from vespa_app.settings import AppSettings

__all__ = ["AppSettings", "Application", "Package", "build_package", "check_package", "default_settings"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "vespa_app.package": ("Package", "build_package", "check_package", "default_settings"),
        "vespa_app.running": ("Application",),
        "vespa_app.settings": ("AppSettings",),
    },
)
