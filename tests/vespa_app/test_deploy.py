"""Deployment, against a small local server and a stand-in for Vespa Cloud."""

import datetime
import io
import json
import zipfile
from types import SimpleNamespace

import httpx
import pytest
from fake_config_server import ACCEPTED, Clock, Starting, deploy_to
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError, UsageError, VespaBusy, VespaRefused, VespaUnreachable
from vespa_app.deploying import deploy, plan_shipment
from vespa_app.deploying.config_server import HEALTH_PATH, SESSION_PATH
from vespa_app.deploying.deployment import START_S
from vespa_app.package import build_package
from vespa_app.running import Application
from vespa_app.running.description import read_description
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")
    return build_package(small_bundle(folder / "bundle"), AppSettings(dim=16, query_rows=8)).write(folder / "app")


def test_a_deployment_waits_for_services_and_writes_the_description(server, app):
    server.converge = [-1, 6, 7]
    server.not_serving = 2
    said = []
    report = deploy_to(server, app, progress=said.append)
    assert (report.query_url, report.generation, report.seconds) == (server.url, 7, 2.0)
    assert [line for line in said if line.startswith("waiting")] == [
        "waiting for searchnode on node1:19110",
        f"waiting for the query port {server.url}",
    ]
    with zipfile.ZipFile(io.BytesIO(server.package)) as archive:
        assert set(archive.namelist()) == {f.relative_to(app).as_posix() for f in app.rglob("*") if f.is_file()}
    application = Application.read(server.url)
    assert application.settings == AppSettings(dim=16, query_rows=8)
    assert application.url == server.url


def test_a_refusal_shows_vespas_own_message(server, app):
    server.accept = (400, {"error-code": "INVALID_APPLICATION_PACKAGE", "message": "Invalid application:\nno such field"})
    with pytest.raises(VespaRefused, match="Invalid application: no such field") as caught:
        deploy_to(server, app)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)


def test_what_is_no_config_server_is_refused(server, app):
    for answer in ({"hello": "world"}, [], b"<html>"):
        server.accept = (200, answer)
        with pytest.raises(VespaRefused):
            deploy_to(server, app)


def test_a_timeout_names_what_is_not_up(server, app):
    server.converge = [6]
    with pytest.raises(VespaUnreachable, match=r"not up after 30 s: waiting for searchnode on node1:19110"):
        deploy_to(server, app, timeout=30)
    assert server.description is None


def test_a_query_port_that_never_serves_is_named(server, app):
    server.not_serving = 10**6
    with pytest.raises(VespaUnreachable, match=f"waiting for the query port {server.url}.*404"):
        deploy_to(server, app, timeout=5)


def test_warnings_and_change_actions_are_reported(server, app):
    changes = {"restart": [{"messages": ["one"]}], "refeed": [{"messages": ["two", "two"]}], "reindex": []}
    log = [{"level": "WARNING", "message": "mind\nthis"}, {"level": "INFO", "message": "nothing"}]
    server.accept = (200, {**ACCEPTED, "log": log, "configChangeActions": changes})
    said = []
    report = deploy_to(server, app, progress=said.append)
    assert (report.warnings, report.restart, report.refeed, report.reindex) == (("mind this",), ("one",), ("two",), ())
    assert "Vespa warns: mind this" in said
    json.dumps(report.to_json())


def test_changes_that_vespa_refuses_are_allowed_only_on_request(server, app):
    deploy_to(server, app, allow=("field-type-change",))
    with zipfile.ZipFile(io.BytesIO(server.package)) as archive:
        text = archive.read("validation-overrides.xml").decode()
    assert '<allow until="' in text
    assert "field-type-change</allow>" in text
    assert not (app / "validation-overrides.xml").exists()


def test_nobody_answers(app):
    clock = Clock()
    with pytest.raises(VespaUnreachable, match=r"after 60 s.*127\.0\.0\.1:9") as caught:
        deploy(app, "http://127.0.0.1:9", query_url="http://127.0.0.1:9", clock=clock, sleep=clock.sleep)
    assert "docker" not in str(caught.value)


def test_a_config_server_that_starts_is_waited_for(server, app):
    said = []
    report = deploy_to(server, app, progress=said.append, transport=Starting({HEALTH_PATH: 3}, {HEALTH_PATH: 2}))
    assert (report.generation, report.seconds) == (7, 2.0)
    assert [line for line in said if line.startswith("waiting")] == [f"waiting for the config server {server.url}"]
    clock = Clock()
    with pytest.raises(VespaUnreachable, match=server.url):
        deploy_to(server, app, clock=clock, timeout=5, transport=Starting({HEALTH_PATH: 10**6}))
    assert clock.now == 5


def test_other_errors_are_not_waited_for(server, app):
    def unknown_name(request):
        raise httpx.ConnectError("name or service not known")

    clock = Clock()
    with pytest.raises(VespaUnreachable, match="not known"):
        deploy_to(server, app, clock=clock, transport=httpx.MockTransport(unknown_name))
    with pytest.raises(VespaUnreachable):  # it was up, and the package may have arrived
        deploy_to(server, app, clock=clock, transport=Starting({SESSION_PATH: 1}))
    server.accept = (503, {"message": "later"})
    with pytest.raises(VespaBusy):
        deploy_to(server, app, clock=clock)
    assert clock.now == 0


def test_docker_that_is_not_up_says_how_to_start_it(app, monkeypatch, tmp_path):
    for module in ("targets", "config_server"):
        monkeypatch.setattr(f"vespa_app.deploying.{module}.DOCKER_CONFIG_URL", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    with pytest.raises(VespaUnreachable, match="docker run .* vespaengine/vespa"):
        deploy(app, "docker", query_url="http://127.0.0.1:9", clock=clock, sleep=clock.sleep)
    assert clock.now == START_S
    (tmp_path / "docker-compose.yml").touch()
    with pytest.raises(VespaUnreachable, match="docker compose up -d --wait"):
        deploy(app, "docker", query_url="http://127.0.0.1:9", clock=clock, sleep=clock.sleep)


def test_targets_and_folders_that_are_none(app, tmp_path):
    for target in ("dokcer", "localhost:19071"):
        with pytest.raises(UsageError, match="deploy target"):
            deploy(app, target)
    with pytest.raises(SettingsError, match="not an application package"):
        deploy(tmp_path, "docker")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_number_of_seconds(app, timeout):
    with pytest.raises(UsageError, match="--timeout must be a number of seconds above 0"):
        deploy(app, "docker", timeout=timeout)


def test_the_cloud_takes_names_and_credentials_from_the_environment_only(app, monkeypatch, tmp_path):
    for name in ("TENANT", "CERT", "KEY", "API_KEY_FILE"):
        monkeypatch.delenv(f"COLBERT_VESPA_{name}", raising=False)
    pem = tmp_path / "some.pem"
    pem.write_text("secret")
    for name, value in (("TENANT", "mine"), ("CERT", str(pem)), ("KEY", str(pem))):
        with pytest.raises(UsageError, match=f"COLBERT_VESPA_{name}"):
            deploy(app, "cloud")
        monkeypatch.setenv(f"COLBERT_VESPA_{name}", value)
    monkeypatch.setenv("COLBERT_VESPA_API_KEY_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(UsageError, match="COLBERT_VESPA_API_KEY_FILE"):
        deploy(app, "cloud")


SECRET = "vespa_cloud_topsecretvalue"


@pytest.fixture
def credentials(monkeypatch, tmp_path):
    """Real keys in files that the environment names, and everything that must never be shown."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    files = {"CERT": certificate, "KEY": pem, "API_KEY_FILE": pem, "TOKEN_FILE": SECRET}
    for variable, text in files.items():
        (tmp_path / f"{variable}.secret").write_text(text)
        monkeypatch.setenv(f"COLBERT_VESPA_{variable}", str(tmp_path / f"{variable}.secret"))
    monkeypatch.setenv("COLBERT_VESPA_TENANT", "mine")
    return SimpleNamespace(certificate=certificate, secrets=(SECRET, pem.splitlines()[1], ".secret"))


def nothing_runs(url, **_):
    raise VespaUnreachable(url)


@pytest.fixture
def cloud(monkeypatch):
    """pyvespa as it is, but for what goes over the network."""
    from vespa.deployment import VespaCloud

    fake = SimpleNamespace(sent=[], error=None, late=False, build={"status": "done"}, regions=["aws-us-east-1c"], served=[])

    def wait_for_build(self, build, max_wait):
        if fake.late:
            raise TimeoutError
        return "skipReason" not in fake.build

    def request(self, method, path, body=None, headers=None, return_raw_response=False):
        if fake.error is not None:
            raise fake.error
        fake.sent.append((method, path, body.getvalue() if body is not None else b""))
        if path.endswith("/submit/"):
            return {"message": "submitted", "build": 3}
        if "/deploy/dev-" in path:
            return {"message": "deploying", "run": 1}
        if "/build-status/" in path:
            return fake.build
        return {"active": False, "status": "success", "log": {}, "lastId": 1}

    monkeypatch.setattr(VespaCloud, "_request", request)
    monkeypatch.setattr(VespaCloud, "wait_for_prod_deployment", wait_for_build)
    monkeypatch.setattr(VespaCloud, "get_prod_regions", lambda self, instance: fake.regions)
    monkeypatch.setattr(VespaCloud, "get_mtls_endpoint", lambda self, region, **_: f"http://{region}.example/")
    monkeypatch.setattr(VespaCloud, "get_application", lambda self, **_: SimpleNamespace(url="http://aws-us-east-1c.example/"))
    monkeypatch.setattr(
        "vespa_app.deploying.cloud.wait_until_serving", lambda folder, url, place, *_: fake.served.append(place)
    )
    monkeypatch.setattr("vespa_app.changes.staleness.read_description", nothing_runs)
    return fake


@pytest.fixture(scope="module")
def cloud_app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    settings = AppSettings(dim=16, query_rows=8, cloud=CloudSettings(regions=("aws-us-east-1c",)))
    return build_package(small_bundle(folder / "bundle"), settings).write(folder / "app")


@pytest.fixture(scope="module")
def regions_app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    settings = AppSettings(dim=16, query_rows=8, cloud=CloudSettings(regions=("aws-us-east-1c", "aws-eu-west-1a")))
    return build_package(small_bundle(folder / "bundle"), settings).write(folder / "app")


def zip_in(body):
    """The first zip in a request's body."""
    with zipfile.ZipFile(io.BytesIO(body[body.index(b"PK\x03\x04") :].partition(b"\r\n--")[0])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("target", "path"), [("cloud", "/instance/default/deploy/dev-aws-us-east-1c"), ("cloud-prod", "/submit/")]
)
def test_both_zones_of_vespa_cloud_get_the_package_and_the_certificate(
    cloud, cloud_app, credentials, capfd, caplog, target, path
):
    said = []
    report = deploy(cloud_app, target, progress=said.append)
    assert report.query_url == "http://aws-us-east-1c.example"
    method, sent_to, body = cloud.sent[0]
    assert (method, sent_to) == ("POST", f"/application/v4/tenant/mine/application/colbert{path}")
    files = zip_in(body)
    assert files["security/clients.pem"].decode() == credentials.certificate
    assert "tests/system-test/feed-and-search.json" in files
    assert b"<region>aws-us-east-1c</region>" in files["deployment.xml"]
    assert not (cloud_app / "security").exists()
    shown = " ".join([*said, *capfd.readouterr(), caplog.text, json.dumps(report.to_json())])
    for secret in credentials.secrets:
        assert secret not in shown
        assert secret.encode() not in body


def test_errors_of_the_cloud_show_no_secrets(cloud, cloud_app, credentials, capfd, caplog):
    import os

    key = os.environ["COLBERT_VESPA_KEY"]
    for error, kind in ((RuntimeError, VespaRefused), (ConnectionError, VespaUnreachable)):
        cloud.error = error(f"no access with {key}: {credentials.secrets[1]}")
        with pytest.raises(kind, match="no access with") as caught:
            deploy(cloud_app, "cloud")
        shown = " ".join([str(caught.value), *capfd.readouterr(), caplog.text])
        assert not any(secret in shown for secret in credentials.secrets)


def test_a_token_is_sent_and_never_shown(server, app, credentials, capfd, caplog):
    said = []
    report = deploy_to(server, app, progress=said.append)
    assert server.tokens == {f"Bearer {SECRET}"}
    shown = [*said, *capfd.readouterr(), caplog.text, json.dumps(report.to_json())]
    server.accept = (400, {"message": "no"})
    with pytest.raises(VespaRefused) as caught:
        deploy_to(server, app)
    shown.append(str(caught.value))
    shipment = plan_shipment(app, server.url)
    shown.append(json.dumps(shipment.to_json()))
    assert not any(secret in " ".join(shown) for secret in credentials.secrets)
    assert shipment.credentials["COLBERT_VESPA_TOKEN_FILE"]


def test_no_command_takes_a_credential():
    import inspect

    from colbert_vespa.cli.commands import app

    names = {name for command in app.registered_commands for name in inspect.signature(command.callback).parameters}
    files = {"keys", "tls_cert", "tls_key"}  # of `serve`: paths
    assert not {name for name in names - files if any(word in name for word in ("token_", "cert", "key", "password", "secret"))}


@pytest.mark.parametrize("target", ["cloud", "cloud-prod"])
def test_allowed_changes_travel_to_the_cloud_too(cloud, cloud_app, credentials, target):
    with pytest.raises(UsageError, match="--allow 'nonsense'"):
        deploy(cloud_app, target, allow=("nonsense",))
    assert cloud.sent == []
    deploy(cloud_app, target, allow=("field-type-change", "refeed"))
    sent = next(body for method, path, body in cloud.sent if method == "POST")
    text = zip_in(sent)["validation-overrides.xml"].decode()
    assert "field-type-change</allow>" in text
    assert "refeed" not in text


def test_a_dry_run_for_the_cloud_weighs_what_would_travel(cloud, cloud_app, credentials, monkeypatch):
    shipment = plan_shipment(cloud_app, "cloud", allow=("schema-removal",))
    deploy(cloud_app, "cloud", allow=("schema-removal",))
    sent = next(body for method, path, body in cloud.sent if method == "POST")
    archive = sent[sent.index(b"PK\x03\x04") :] if not sent.startswith(b"PK") else sent
    assert shipment.zip_bytes == len(archive.partition(b"\r\n--")[0])
    assert shipment.files["security/clients.pem"] == len(credentials.certificate)
    monkeypatch.delenv("COLBERT_VESPA_CERT")
    assert plan_shipment(cloud_app, "cloud").zip_bytes < shipment.zip_bytes


def test_every_region_of_production_gets_the_description(cloud, regions_app, credentials):
    cloud.regions = ["aws-eu-west-1a", "aws-us-east-1c", "gcp-us-central1-f"]  # the last one is no longer in deployment.xml
    report = deploy(regions_app, "cloud-prod")
    urls = {region: f"http://{region}.example" for region in ("aws-us-east-1c", "aws-eu-west-1a")}
    assert report.regions == urls
    assert report.query_url == urls["aws-us-east-1c"]
    assert cloud.served == [f"region {region} ({url})" for region, url in urls.items()]


def test_a_region_that_is_not_up_is_named(cloud, regions_app, credentials):
    with pytest.raises(VespaUnreachable, match="build 3 is not up in aws-eu-west-1a"):
        deploy(regions_app, "cloud-prod")


def test_a_build_that_is_late_names_its_jobs(cloud, regions_app, credentials):
    jobs = [{"jobName": "system-test", "runStatus": "success"}, {"jobName": "staging-test", "runStatus": "running"}]
    cloud.late, cloud.build = True, {"status": "deploying", "jobs": jobs}
    with pytest.raises(VespaUnreachable, match=r"after 7200 s: waiting for staging-test \(running\); it continues"):
        deploy(regions_app, "cloud-prod")
    cloud.build = {"status": "deploying"}
    with pytest.raises(VespaUnreachable, match="after 60 s: waiting for its first job"):
        deploy(regions_app, "cloud-prod", timeout=60)


def test_a_build_without_changes_still_gets_its_description(cloud, cloud_app, credentials):
    cloud.build = {"status": "done", "skipReason": "no-changes"}
    assert deploy(cloud_app, "cloud-prod").regions == {"aws-us-east-1c": "http://aws-us-east-1c.example"}
    cloud.build = {"status": "done", "skipReason": "cancelled"}
    with pytest.raises(VespaRefused, match="finished build 3 without deploying it"):
        deploy(cloud_app, "cloud-prod")


def test_packages_go_where_they_were_made_for(app, cloud_app, tmp_path):
    settings = AppSettings(dim=16, query_rows=8, cluster=ClusterSettings(content=("a",), redundancy=1, searchable_copies=1))
    hosts = build_package(small_bundle(tmp_path / "bundle"), settings).write(tmp_path / "hosts")
    for package, target, query_url, message in (
        (cloud_app, "docker", None, r"has a table \[cloud\]"),
        (cloud_app, "http://127.0.0.1:9", None, r"has a table \[cloud\]"),
        (hosts, "cloud", None, r"has a table \[cluster\]"),
        (hosts, "cloud-prod", None, r"has a table \[cluster\]"),
        (cloud_app, "cloud", "http://h:8080", "--query-url does not apply to --target cloud"),
    ):
        for act in (deploy, plan_shipment):
            with pytest.raises(UsageError, match=message):
                act(package, target, query_url=query_url)


def test_production_needs_regions(cloud, app, credentials):
    with pytest.raises(UsageError, match=r"no deployment.xml; list regions in \[cloud\]"):
        deploy(app, "cloud-prod")


def test_a_dry_run_sends_nothing_and_shows_what_would_be_sent(app, cloud_app, cli, monkeypatch, tmp_path):
    shipment = plan_shipment(app, "http://config:19071", allow=("schema-removal",))
    files = {f.relative_to(app).as_posix(): f.stat().st_size for f in app.rglob("*") if f.is_file()}
    assert {name: size for name, size in shipment.files.items() if name != "validation-overrides.xml"} == files
    assert shipment.files["validation-overrides.xml"] > 0
    assert shipment.session_url == "http://config:19071/application/v2/tenant/default/prepareandactivate"
    assert shipment.query_url == "http://config:8080"
    monkeypatch.setenv("COLBERT_VESPA_TENANT", "mine")
    prod = plan_shipment(cloud_app, "cloud-prod")
    assert prod.session_url.endswith(":4443/application/v4/tenant/mine/application/colbert/submit/")
    assert "security/clients.pem" in prod.files
    done = cli("deploy", str(app), "--target", "http://127.0.0.1:9", "--dry-run", "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["files"]["services.xml"] == files["services.xml"]
    assert "prepareandactivate" in cli("deploy", str(app), "--dry-run").stdout.replace("\n", "")
    with pytest.raises(UsageError, match="deploy target"):
        plan_shipment(app, "dokcer")
    with pytest.raises(UsageError, match="not a known change; known: access-control.*refeed"):
        plan_shipment(app, "docker", allow=("everything",))


def test_a_vespa_without_our_application(server):
    with pytest.raises(VespaRefused, match="colbert-vespa deploy"):
        read_description(server.url)


def test_a_description_of_another_release(server):
    server.description = {"fields": {"description": '{"version": 99}'}}
    with pytest.raises(SettingsError, match="version 99"):
        read_description(server.url)
