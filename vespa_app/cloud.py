"""Vespa Cloud's dev zone, through pyvespa. Names and credentials come from the environment, never from the command line:

COLBERT_VESPA_TENANT          the tenant's name
COLBERT_VESPA_API_KEY_FILE    file with the control plane's API key; without it the login of `vespa auth login` is used
COLBERT_VESPA_CERT, _KEY      files with the data plane's certificate and key, as `vespa auth cert` makes them
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from late_interaction.errors import UsageError, VespaRefused, VespaUnreachable
from vespa_app.serving import DeployReport, Poll, wait_until_serving

__all__ = ["deploy_to_cloud"]


def deploy_to_cloud(folder: Path, application: str, poll: Poll) -> DeployReport:
    """Deploys the package to a dev instance and waits until it takes documents.

    Raises: UsageError where the tenant or a credential is missing, VespaRefused with the Cloud's message, VespaUnreachable.
    """
    tenant = os.environ.get("COLBERT_VESPA_TENANT")
    if not tenant:
        raise UsageError("target cloud needs the environment variable COLBERT_VESPA_TENANT")
    certificate = _credential("COLBERT_VESPA_CERT", "make a pair with `vespa auth cert`")
    _credential("COLBERT_VESPA_KEY", "make a pair with `vespa auth cert`")
    key = "COLBERT_VESPA_API_KEY_FILE"
    api_key = str(_credential(key, "")) if os.environ.get(key) else None
    start = poll.clock()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "application"
        shutil.copytree(folder, prepared)
        (prepared / "security").mkdir(exist_ok=True)
        shutil.copyfile(certificate, prepared / "security" / "clients.pem")  # who may feed and search
        poll.say(f"deploying {application} to the dev zone of Vespa Cloud tenant {tenant}")
        url = _deploy(tenant, application, api_key, prepared, poll.timeout)
    wait_until_serving(folder, url, poll, poll.clock() + poll.timeout)
    return DeployReport(query_url=url, generation=0, seconds=poll.clock() - start)


def _credential(variable: str, advice: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_file():
        raise UsageError(f"target cloud needs {variable} to name a file" + (f": {advice}" if advice else ""))
    return Path(value)


def _deploy(tenant: str, application: str, api_key: str | None, folder: Path, timeout: float) -> str:
    """The URL of the deployed application. What pyvespa prints on the way, with paths of credentials, is not shown."""
    from vespa.deployment import VespaCloud

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cloud: Any = VespaCloud(tenant=tenant, application=application, key_location=api_key, application_root=str(folder))
            deployed: Any = cloud.deploy_from_disk(instance="default", application_root=folder, max_wait=int(timeout))
    except (ConnectionError, TimeoutError) as error:
        raise VespaUnreachable(f"Vespa Cloud does not answer: {error}") from None
    except Exception as error:  # noqa: BLE001 - pyvespa lets through whatever its libraries raise
        raise VespaRefused(f"Vespa Cloud did not take the application: {str(error)[:500]}") from None
    return str(deployed.url).rstrip("/")
