"""What a user sets: app.toml with its tables, and names that Vespa takes. Whether settings can work is judged in
vespa_app.package.settings_checks, which knows the tables of codecs and strategies."""

from __future__ import annotations

from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.sections import MEAN_VECTOR, CloudSettings, ClusterSettings, DenseSettings, OneVectorSettings

__all__ = ["MEAN_VECTOR", "AppSettings", "CloudSettings", "ClusterSettings", "DenseSettings", "OneVectorSettings"]
