"""What a deployment would send, and where to: `deploy --dry-run`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from late_interaction.errors import UsageError
from vespa_app.changes.staleness import REFEED
from vespa_app.deploying.cloud import CONTROL_URL, cloud_files, cloud_path
from vespa_app.deploying.config_server import SESSION_PATH
from vespa_app.deploying.targets import CLOUD_TARGETS, check_target, choose_urls
from vespa_app.package import check_package
from vespa_app.package.services import CLIENTS_FILE, overrides_xml
from vespa_app.package.zips import visible_files, zip_folder
from vespa_app.running import Description
from vespa_app.settings.names import CHANGES

__all__ = ["Shipment", "overriding", "plan_shipment"]

OVERRIDES_FILE = "validation-overrides.xml"

_CREDENTIALS = ("COLBERT_VESPA_TENANT", "COLBERT_VESPA_API_KEY_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")
_TOKEN = ("COLBERT_VESPA_TOKEN_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")


@dataclass(frozen=True)
class Shipment:
    """What a deployment would send.

    Attributes:
        target: the target.
        session_url: where it is sent.
        query_url: where the application answers then; "" if Vespa Cloud decides.
        files: bytes by path in the package.
        zip_bytes: size of what is sent.
        credentials: environment variables and whether they are set, never their values.
    """

    target: str
    session_url: str
    query_url: str
    files: Mapping[str, int]
    zip_bytes: int
    credentials: Mapping[str, bool]

    def to_json(self) -> dict[str, object]:
        """Return the shipment as JSON values."""
        return asdict(self)


def plan_shipment(folder: str | Path, target: str, *, query_url: str | None = None, allow: Collection[str] = ()) -> Shipment:
    """Check the package without sending anything.

    Args:
        folder: the package.
        target: as in `deploy`.
        query_url: as in `deploy`.
        allow: as in `deploy`.

    Raises:
        SettingsError: if the folder is not a package.
        UsageError: if the target is unknown.
    """
    root = Path(folder)
    description = check_package(root)
    check_target(description.settings, target, query_url)
    more = overriding(description, allow) | (cloud_files() if target in CLOUD_TARGETS else {})
    files = {name: path.stat().st_size for name, path in visible_files(root).items()}
    files |= {name: len(content) for name, content in more.items()}
    if target in CLOUD_TARGETS:
        tenant = os.environ.get("COLBERT_VESPA_TENANT") or "COLBERT_VESPA_TENANT"
        session = CONTROL_URL + cloud_path(tenant, description.settings.name, CLOUD_TARGETS[target])
        files.setdefault(CLIENTS_FILE, 0)
        answers = ""
    else:
        config, answers = choose_urls(target, query_url)
        session = config + SESSION_PATH
    variables = _CREDENTIALS if target in CLOUD_TARGETS else _TOKEN
    return Shipment(
        target=target,
        session_url=session,
        query_url=answers,
        files=dict(sorted(files.items())),
        zip_bytes=len(zip_folder(root, more)),
        credentials={name: bool(os.environ.get(name)) for name in variables},
    )


def overriding(description: Description, allow: Collection[str]) -> dict[str, bytes]:
    """Return the package's file of overrides plus `allow`, valid for today and, for clocks in other time zones, tomorrow.

    Raises:
        UsageError: if a change is unknown.
    """
    known = {*CHANGES, REFEED}
    if unknown := sorted(set(allow) - known):
        raise UsageError(f"--allow {unknown[0]!r} is not a known change; known: {', '.join(sorted(known))}")
    until = (datetime.now(timezone.utc).date() + timedelta(days=1)).isoformat()
    of_vespa = [name for name in allow if name != REFEED]
    days = {**description.settings.allow, **dict.fromkeys(of_vespa, until)}
    return {OVERRIDES_FILE: overrides_xml(days).encode()} if of_vespa else {}
