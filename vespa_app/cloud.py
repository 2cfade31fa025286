"""Vespa Cloud's dev and prod zones, through pyvespa. Names and credentials come from the environment, never from the command
line, and are never shown:

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.errors import ColbertVespaError, UsageError, VespaRefused, VespaUnreachable
from vespa_app.services import CLIENTS_FILE
from vespa_app.serving import DeployReport, Poll, wait_until_serving
from vespa_app.zips import zip_folder

__all__ = ["CLOUD_TARGETS", "cloud_path", "deploy_to_cloud"]

CLOUD_TARGETS = {"cloud": "dev", "cloud-prod": "prod"}  # --target -> environment
CONTROL_URL = "https://api-ctl.vespa-cloud.com:4443"
DEV_REGION = "aws-us-east-1c"
INSTANCE = "default"
HIDDEN = "(hidden)"
_SECRETS = ("COLBERT_VESPA_API_KEY_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")


@dataclass(frozen=True)
class _Access:
    """Files with what lets one in. api_key: None for the login of `vespa auth login`."""

    tenant: str
    certificate: Path
    key: Path
    api_key: Path | None


def cloud_path(tenant: str, application: str, environment: str) -> str:
    """Where a package is sent to."""
    root = f"/application/v4/tenant/{tenant}/application/{application}"
    return f"{root}/submit/" if environment == "prod" else f"{root}/instance/{INSTANCE}/deploy/dev-{DEV_REGION}"


def deploy_to_cloud(folder: Path, application: str, environment: str, poll: Poll) -> DeployReport:
    """Deploys the package and waits until it takes documents. environment: "dev", or "prod" through the tests and regions of
    deployment.xml, where the wait is for every region.

    Raises: UsageError where the tenant or a credential is missing, or the package is not made for prod, VespaRefused with the
    Cloud's message, VespaUnreachable.
    """
    access = _access()
    if environment == "prod" and not (folder / "deployment.xml").is_file():
        raise UsageError(f"{folder} has no deployment.xml: name regions in [cloud] of app.toml, and generate it again")
    start = poll.clock()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "application"
        shutil.copytree(folder, prepared)
        clients = prepared / CLIENTS_FILE
        clients.parent.mkdir(exist_ok=True)
        shutil.copyfile(access.certificate, clients)  # who may feed and search
        poll.say(f"deploying {application} to {environment} of Vespa Cloud tenant {access.tenant}")
        url = _deploy(access, application, prepared, environment, poll.timeout)
    wait_until_serving(folder, url, poll, poll.clock() + poll.timeout)
    return DeployReport(query_url=url, generation=0, seconds=poll.clock() - start)


def _access() -> _Access:
    tenant = os.environ.get("COLBERT_VESPA_TENANT")
    if not tenant:
        raise UsageError("target cloud needs the environment variable COLBERT_VESPA_TENANT")
    certificate = _credential("COLBERT_VESPA_CERT", "make a pair with `vespa auth cert`")
    key = _credential("COLBERT_VESPA_KEY", "make a pair with `vespa auth cert`")
    api = "COLBERT_VESPA_API_KEY_FILE"
    return _Access(tenant, certificate, key, _credential(api, "") if os.environ.get(api) else None)


def _credential(variable: str, advice: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_file():
        raise UsageError(f"target cloud needs {variable} to name a file" + (f": {advice}" if advice else ""))
    return Path(value)


def _deploy(access: _Access, application: str, folder: Path, environment: str, timeout: float) -> str:
    """The URL of the deployed application. What pyvespa prints on the way, with paths of credentials, is not shown."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet):
            cloud = _connect(access, application, folder, quiet)
            if environment == "prod":
                build = cloud.deploy_to_prod(instance=INSTANCE, application_root=str(folder))
                if not cloud.wait_for_prod_deployment(build, max_wait=int(timeout)):
                    raise VespaRefused(
                        f"Vespa Cloud finished build {build} without deploying it: nothing has changed, or a later one"
                    )
                deployed = cloud.get_application(instance=INSTANCE, environment="prod", region=cloud.get_prod_region())
            else:
                deployed = cloud.deploy_from_disk(instance=INSTANCE, application_root=folder, max_wait=int(timeout))
    except ColbertVespaError:
        raise
    except (ConnectionError, TimeoutError) as error:
        raise VespaUnreachable(f"Vespa Cloud does not answer: {_scrubbed(error)}") from None
    except Exception as error:  # noqa: BLE001 - pyvespa lets through whatever its libraries raise
        raise VespaRefused(f"Vespa Cloud did not take the application: {_scrubbed(error)}") from None
    return str(deployed.url).rstrip("/")


def _connect(access: _Access, application: str, folder: Path, output: io.StringIO) -> Any:
    """pyvespa's client with our credentials and our zip; it neither logs in nor makes a key pair by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from vespa.deployment import VespaCloud

    class Cloud(VespaCloud):  # type: ignore[misc]
        def _load_certificate_pair(self, generate_cert: bool = True) -> tuple[Any, Any]:
            self.data_cert_path, self.data_key_path = str(access.certificate), str(access.key)
            key = serialization.load_pem_private_key(access.key.read_bytes(), password=None)
            return key, x509.load_pem_x509_certificate(access.certificate.read_bytes())

        def _check_vespacli_available(self) -> bool:
            return False

        def _vespa_auth_login(self) -> None:
            raise UsageError("target cloud needs COLBERT_VESPA_API_KEY_FILE, or a login: run `vespa auth login`")

        def read_app_package_from_disk(self, application_root: Path) -> bytes:
            body = io.BytesIO()
            zip_folder(application_root, body, {})
            return body.getvalue()

    api_key = str(access.api_key) if access.api_key else None
    return Cloud(
        tenant=access.tenant, application=application, key_location=api_key, application_root=str(folder), output_file=output
    )


def _scrubbed(error: Exception) -> str:
    """The message without anything that lets one in, or says where that lies."""
    text = " ".join(str(error).split())
    for variable in _SECRETS:
        if value := os.environ.get(variable):
            text = text.replace(value, HIDDEN)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for line in Path(value).read_text(encoding="utf-8").splitlines():
                    if len(line) > 8:
                        text = text.replace(line, HIDDEN)
    return text[:500]
