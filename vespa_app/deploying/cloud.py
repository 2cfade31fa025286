"""Vespa Cloud's dev and prod zones, through pyvespa.

Names and credentials come from the environment, never from the command line, and are never shown:

    COLBERT_VESPA_TENANT          the tenant's name
    COLBERT_VESPA_API_KEY_FILE    file with the control plane's API key; by default the login of `vespa auth login` is used
    COLBERT_VESPA_CERT, _KEY      files with the data plane's certificate and key, made by `vespa auth cert`
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.errors import ColbertVespaError, UsageError, VespaError, VespaRefused, VespaUnreachable
from late_interaction.extras import required
from vespa_app.deploying.serving import DeployReport, Poll, wait_until_serving
from vespa_app.package.services import CLIENTS_FILE
from vespa_app.package.zips import zip_folder

__all__ = ["CONTROL_URL", "CloudZone", "cloud_files", "cloud_path"]

CONTROL_URL = "https://api-ctl.vespa-cloud.com:4443"
DEV_REGION = "aws-us-east-1c"
INSTANCE = "default"
DEPLOYMENT_FILE = "deployment.xml"
HIDDEN = "(hidden)"
_SECRETS = ("COLBERT_VESPA_API_KEY_FILE", "COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY")


@dataclass(frozen=True)
class _Access:
    """Files with credentials. api_key: None for the login of `vespa auth login`."""

    tenant: str
    certificate: Path
    key: Path
    api_key: Path | None


def cloud_path(tenant: str, application: str, environment: str) -> str:
    """Return where a package is sent."""
    root = f"/application/v4/tenant/{tenant}/application/{application}"
    return f"{root}/submit/" if environment == "prod" else f"{root}/instance/{INSTANCE}/deploy/dev-{DEV_REGION}"


class CloudZone:
    """One environment ("dev" or "prod") of an application. Output of pyvespa, with paths of credentials, is not shown."""

    def __init__(self, folder: Path, application: str, environment: str, poll: Poll) -> None:
        """Check tenant, credentials and package.

        Raises:
            UsageError: if the tenant or a credential is missing, or the package is not made for prod.
        """
        self._access = _access()
        if environment == "prod" and not (folder / DEPLOYMENT_FILE).is_file():
            raise UsageError(f"{folder} has no {DEPLOYMENT_FILE}; list regions in [cloud] of app.toml, and generate it again")
        self._folder = folder
        self._application = application
        self._environment = environment
        self._poll = poll
        self._start = poll.clock()

    def running_urls(self) -> tuple[str, ...]:
        """Return where the application answers now; empty if it is not deployed yet."""
        try:
            with self._pyvespa() as cloud:
                regions = (DEV_REGION,) if self._environment == "dev" else tuple(cloud.get_prod_regions(INSTANCE))
                return tuple(self._endpoint(cloud, region) for region in regions)
        except VespaError:
            return ()

    def deploy(self, more: Mapping[str, bytes]) -> DeployReport:
        """Send the package plus `more` files, and wait until it accepts documents: in prod through the tests and every region.

        Raises:
            VespaRefused: with the message of Vespa Cloud.
            VespaUnreachable: if something is not up in time; the message names it.
        """
        name, tenant = self._application, self._access.tenant
        self._poll.say(f"deploying {name} to {self._environment} of Vespa Cloud tenant {tenant}")
        with tempfile.TemporaryDirectory() as scratch, self._pyvespa() as cloud:
            prepared = self._prepare(Path(scratch) / "application", more)
            urls = self._to_prod(cloud, prepared) if self._environment == "prod" else self._to_dev(cloud, prepared)
        deadline = self._start + self._poll.timeout
        for region, url in urls.items():
            wait_until_serving(self._folder, url, f"region {region} ({url})", self._poll, deadline)
        seconds = self._poll.clock() - self._start
        return DeployReport(query_url=next(iter(urls.values())), generation=0, seconds=seconds, regions=urls)

    def _prepare(self, target: Path, more: Mapping[str, bytes]) -> Path:
        shutil.copytree(self._folder, target)
        for name, content in {**more, **cloud_files()}.items():
            file = target / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        return target

    def _to_dev(self, cloud: Any, prepared: Path) -> dict[str, str]:
        deployed = cloud.deploy_from_disk(instance=INSTANCE, application_root=prepared, max_wait=int(self._poll.timeout))
        return {DEV_REGION: str(deployed.url).rstrip("/")}

    def _to_prod(self, cloud: Any, prepared: Path) -> dict[str, str]:
        build = cloud.deploy_to_prod(instance=INSTANCE, application_root=str(prepared))
        self._wait_for_build(cloud, build)
        wanted = _regions(prepared / DEPLOYMENT_FILE)
        missing = [region for region in wanted if region not in cloud.get_prod_regions(INSTANCE)]
        if missing:
            raise VespaUnreachable(f"build {build} is not up in {', '.join(missing)}; see Vespa Cloud's console")
        return {region: self._endpoint(cloud, region) for region in wanted}

    def _wait_for_build(self, cloud: Any, build: int) -> None:
        seconds = self._poll.timeout
        try:
            done = cloud.wait_for_prod_deployment(build, max_wait=int(seconds))
        except TimeoutError:
            jobs = cloud.check_production_build_status(build, quiet=True).get("jobs", ())
            late = [f"{job['jobName']} ({job['runStatus']})" for job in jobs if job["runStatus"] != "success"]
            raise VespaUnreachable(
                f"build {build} is not in production after {seconds:.0f} s: waiting for "
                f"{', '.join(late) or 'its first job'}; it continues by itself; deploy again when it is done, or "
                f"raise --timeout"
            ) from None
        # a deployed package may still lack its description if a deployment was interrupted
        if not done and cloud.check_production_build_status(build, quiet=True).get("skipReason") != "no-changes":
            raise VespaRefused(f"Vespa Cloud finished build {build} without deploying it: a later build has taken its place")

    def _endpoint(self, cloud: Any, region: str) -> str:
        url = cloud.get_mtls_endpoint(instance=INSTANCE, environment=self._environment, region=region)
        return str(url).rstrip("/")

    @contextlib.contextmanager
    def _pyvespa(self) -> Iterator[Any]:
        """Return pyvespa's client; its errors become ours."""
        quiet = io.StringIO()
        try:
            with contextlib.redirect_stdout(quiet):
                yield _connect(self._access, self._application, self._folder, quiet)
        except ColbertVespaError:
            raise
        except (ConnectionError, TimeoutError) as error:
            raise VespaUnreachable(f"Vespa Cloud does not answer: {_scrubbed(error)}") from None
        except Exception as error:  # noqa: BLE001 - pyvespa lets through whatever its libraries raise
            raise VespaRefused(f"Vespa Cloud rejected the application: {_scrubbed(error)}") from None


def cloud_files() -> dict[str, bytes]:
    """Return what `deploy` adds to a package: the certificate of those who may feed and search; empty if none is set."""
    certificate = os.environ.get("COLBERT_VESPA_CERT")
    return {CLIENTS_FILE: Path(certificate).read_bytes()} if certificate and Path(certificate).is_file() else {}


def _regions(deployment: Path) -> tuple[str, ...]:
    root = ET.fromstring(deployment.read_bytes())  # noqa: S314 - the user's own file
    return tuple(str(region.text).strip() for region in root.iter("region"))


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


def _connect(access: _Access, application: str, folder: Path, output: io.StringIO) -> Any:
    """Return pyvespa's client with our credentials and our zip; it neither logs in nor makes a key pair by itself."""
    with required("cloud", "Vespa Cloud"):
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
            raise UsageError("target cloud needs COLBERT_VESPA_API_KEY_FILE, or a login; run `vespa auth login`")

        def read_app_package_from_disk(self, application_root: Path) -> bytes:
            return zip_folder(application_root)

    api_key = str(access.api_key) if access.api_key else None
    return Cloud(
        tenant=access.tenant, application=application, key_location=api_key, application_root=str(folder), output_file=output
    )


def _scrubbed(error: Exception) -> str:
    """Return the message without credentials or their locations."""
    text = " ".join(str(error).split())
    for variable in _SECRETS:
        if value := os.environ.get(variable):
            text = text.replace(value, HIDDEN)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for line in Path(value).read_text(encoding="utf-8").splitlines():
                    if len(line) > 8:
                        text = text.replace(line, HIDDEN)
    return text[:500]
