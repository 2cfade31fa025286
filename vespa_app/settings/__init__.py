"""What a user sets: app.toml with its tables, and names that Vespa takes. Whether settings can work is judged in
vespa_app.package.settings_checks, which knows the tables of codecs and strategies."""

from __future__ import annotations

from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.sections import CloudSettings, ClusterSettings, DenseSettings

__all__ = ["AppSettings", "CloudSettings", "ClusterSettings", "DenseSettings"]
