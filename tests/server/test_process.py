"""The command itself: TLS, keys, MCP beside HTTP, and the end on SIGTERM with a query under way."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from local_server import LocalServer, QuietHandler
from vespa_bundles import small_bundle

from colbert_vespa.server.keys import KeyFile
from late_interaction.metadata import MetadataSchema
from vespa_app import build_package, default_settings


class SlowVespa(LocalServer):
    """Says what it is at once, and answers a query when it is told to."""

    def __init__(self, description):
        self.asked, self.go_on = threading.Event(), threading.Event()
        slow = self

        class Handler(QuietHandler):
            def do_GET(self):
                self.answer(200, {"fields": {"description": description}})

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                slow.asked.set()
                assert slow.go_on.wait(60)
                self.answer(200, {"root": {"fields": {"totalCount": 0}, "coverage": {"coverage": 100}, "children": []}})

        super().__init__(Handler)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("process") / "bundle", onnx=True)


@pytest.fixture(scope="module")
def vespa(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package") / "package"
    build_package(bundle, default_settings(bundle, MetadataSchema({}))).write(folder)
    running = SlowVespa((folder / "colbert-vespa.json").read_text())
    yield running
    running.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of 127.0.0.1, signed by itself."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")]), datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return folder


@contextlib.contextmanager
def started(*arguments):
    """The process and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "colbert_vespa", "serve", *map(str, arguments), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server, port
        finally:
            server.kill()


def until(done, server):
    limit = time.monotonic() + 120
    while True:
        with contextlib.suppress(httpx.TransportError):
            if done():
                return
        assert server.poll() is None, server.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_over_tls_with_keys_mcp_and_an_end_that_drains(vespa, bundle, certificate, tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    token, limited = file.make("one", "read")[1], file.make("other", "read", indexes=["elsewhere"])[1]
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    options = (
        "--bundle",
        bundle.path,
        "--keys",
        file.path,
        "--mcp",
        "--log-json",
        "--settle",
        "2",
        "--trusted-proxy",
        "127.0.0.1",
    )
    tls = ("--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    with started(f"docs={vespa.url}", *options, *tls) as (server, port):
        url = f"https://127.0.0.1:{port}"
        with httpx.Client(base_url=url, verify=context, timeout=60, headers={"authorization": f"Bearer {token}"}) as http:
            until(lambda: http.get("/ready").status_code == 200, server)
            assert http.get("/v1/indexes", headers={"authorization": ""}).status_code == 401
            assert [index["name"] for index in http.get("/v1/indexes").json()["indexes"]] == ["docs"]

            tools = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
            assert http.post("/mcp", json=tools, headers={**accept, "authorization": ""}).status_code == 401
            listed = http.post("/mcp", json=tools, headers=accept).json()
            assert {tool["name"] for tool in listed["result"]["tools"]} == {"search", "fetch"}
            ask = {
                "jsonrpc": "2.0",
                "id": 2,
                "method": "tools/call",
                "params": {"name": "search", "arguments": {"query": "hello"}},
            }
            hidden = http.post("/mcp", json=ask, headers={**accept, "authorization": f"Bearer {limited}"}).json()["result"]
            assert hidden["isError"] and "there is no index" in hidden["content"][0]["text"]

            vespa.asked.clear()
            answers = []
            body = {"query": "hello", "timeout": 50}
            proxied = {"x-forwarded-for": "203.0.113.7"}
            asking = threading.Thread(
                target=lambda: answers.append(httpx.post(
                    f"{url}/v1/search", json=body, verify=context, timeout=60, headers={**http.headers, **proxied}))
            )  # fmt: skip
            asking.start()
            assert vespa.asked.wait(60)
            server.send_signal(signal.SIGTERM)
            until(lambda: http.get("/ready").status_code == 503, server)
            assert http.get("/health").status_code == 200
            vespa.go_on.set()
            asking.join(60)
            assert answers[0].status_code == 200 and answers[0].json()["results"][0]["hits"] == []
        log = server.communicate(timeout=60)[1].splitlines()
        assert server.returncode == 0
    events = [json.loads(line) for line in log if line.startswith("{")]
    searched = [event for event in events if event.get("route") == "/v1/search"]
    assert [(event["status"], event["client"], event["key"]) for event in searched] == [
        (200, "203.0.113.7", token.split("_")[1])
    ]
    assert token not in str(log) and "hello" not in str(log) and "Traceback" not in str(log)


def test_an_address_that_is_taken_is_told(cli, vespa, bundle, certificate):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "is not available" in cli("serve", vespa.url, "--bundle", str(bundle.path), "--port", port, code=2).stderr
    assert "belong together" in cli("serve", vespa.url, "--tls-cert", str(certificate / "cert.pem"), code=2).stderr
