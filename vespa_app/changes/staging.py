"""Check whether Vespa Cloud's staging can succeed: its setup runs on the application in production."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from late_interaction.errors import SettingsError, UsageError
from vespa_app.candidates import strategies_of
from vespa_app.candidates.base import declared_fields
from vespa_app.codecs import CODECS
from vespa_app.running import Description
from vespa_app.running.passage_fields import OWN_FIELDS
from vespa_app.settings import AppSettings

__all__ = ["check_staging", "staging_fault"]


def staging_fault(folder: str | Path, running: Description) -> str | None:
    """Return what the package feeds in staging-setup but the running application cannot accept; None if it can."""
    indexes = {index.settings.schema: _fields(index.settings) for index in running.all}
    for file in sorted((Path(folder) / "tests" / "staging-setup").glob("*.json")):
        for schema, fields in _fed(file):
            where = f"tests/staging-setup/{file.name} feeds"
            if schema not in indexes:
                return f"{where} index {schema}, but the running application has {', '.join(indexes)}"
            if unknown := sorted(fields - indexes[schema]):
                return f"{where} field {unknown[0]}, which index {schema} of the running application lacks"
    return None


def check_staging(folder: Path, running: Iterable[Description | SettingsError]) -> None:
    """Check a deployment to production.

    Raises:
        UsageError: if a running application cannot accept the staging documents.
    """
    for described in running:
        if isinstance(described, Description) and (fault := staging_fault(folder, described)):
            raise UsageError(
                f"nothing was sent: {fault}, so Vespa Cloud would refuse it in staging; deploy the package with both indexes "
                "first (app --beside), or edit that file"
            )


def _fields(settings: AppSettings) -> frozenset[str]:
    of_strategies = [declared_fields(strategy, settings) for strategy in strategies_of(settings)]
    own = {*OWN_FIELDS, *settings.metadata.fields, *CODECS[settings.codec].more_fields(settings)}
    return frozenset(own).union(*of_strategies)


def _fed(file: Path) -> list[tuple[str, frozenset[str]]]:
    """Yield schema and field names of every document that the file feeds; files of another form are left to Vespa."""
    try:
        steps: list[Any] = json.loads(file.read_text(encoding="utf-8"))["steps"]
        requests = [step["request"] for step in steps]
        return [(_schema(request["uri"]), frozenset(request["body"]["fields"])) for request in requests if "body" in request]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return []


def _schema(uri: str) -> str:
    """Return the schema of `/document/v1/NAMESPACE/SCHEMA/...`."""
    return uri.split("/")[4]
