"""What a deployment would send, and where to: `deploy --dry-run`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vespa_app.deploying.cloud import CONTROL_URL, cloud_files, cloud_path
from vespa_app.deploying.config_server import SESSION_PATH
from vespa_app.deploying.overrides import overriding
from vespa_app.deploying.targets import CLOUD_TARGETS, check_target, choose_urls
from vespa_app.package import check_package
from vespa_app.package.services import CLIENTS_FILE
from vespa_app.package.zips import visible_files, zip_folder

__all__ = ["Shipment", "plan_shipment"]

_CREDENTIALS = ("COLBERT_VESPA_TENANT", "COLBERT_VESPA_API_KEY_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")
_TOKEN = ("COLBERT_VESPA_TOKEN_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")


@dataclass(frozen=True)
class Shipment:
    """files: path in the package -> bytes. zip_bytes: what travels. session_url: what it is sent to. query_url: where the
    application answers then; "" where Vespa Cloud decides. credentials: variables of the environment -> whether they are
    set, never their values."""

    target: str
    session_url: str
    query_url: str
    files: Mapping[str, int]
    zip_bytes: int
    credentials: Mapping[str, bool]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def plan_shipment(folder: str | Path, target: str, *, query_url: str | None = None, allow: Collection[str] = ()) -> Shipment:
    """Checks the package, and sends nothing.

    Raises: SettingsError where the folder is no package, UsageError on an unknown target.
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
