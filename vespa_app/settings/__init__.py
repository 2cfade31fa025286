"""What a user sets: app.toml with its tables, and names that Vespa accepts.

vespa_app.package.settings_checks decides whether settings can work, because it knows the tables of codecs and strategies.
"""

from __future__ import annotations

from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.sections import MEAN_VECTOR, CloudSettings, ClusterSettings, DenseSettings, OneVectorSettings

__all__ = ["MEAN_VECTOR", "AppSettings", "CloudSettings", "ClusterSettings", "DenseSettings", "OneVectorSettings"]
