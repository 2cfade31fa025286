"""Hub names, by huggingface_hub's own client against a small server here that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import huggingface_hub
from golden.loaders.make_checkpoints import FOLDER as GOLDEN
from huggingface_hub import constants

from colbert_vespa import RAGTrainer
from colbert_vespa.training import TrainingData, train
from exporter import export
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from late_interaction.errors import CheckpointError, UsageError

CHECKPOINT = GOLDEN / "pylate-bert"
COMMIT = "a" * 40
TOKEN = "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """some/model: public. some/private: with TOKEN only. some/gated: for nobody. Nothing else is there."""

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name == "some/gated":
            return self.answer(403 if known else 401, {"X-Error-Code": "GatedRepo"}, b"", body)
        if name not in ("some/model", "some/private") or (name == "some/private" and not known):
            return self.answer(404 if known else 401, {"X-Error-Code": "RepoNotFound"}, b"", body)
        if path.startswith("/api/models/"):
            rest = path.removeprefix(f"/api/models/{name}").strip("/").split("/")
            if rest[0] == "revision" and rest[1] not in ("main", "v1", COMMIT):
                return self.answer(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
            if rest[0] == "tree":
                return self.answer(200, {"Content-Type": "application/json"}, json.dumps(tree()).encode(), body)
            files = [{"rfilename": item["path"]} for item in tree()]
            info = {"id": name, "sha": COMMIT, "siblings": files, "private": False, "gated": False, "tags": [], "downloads": 0}
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)
        file = CHECKPOINT / path.split(f"/{COMMIT}/", 1)[1]
        content = file.read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        return self.answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, content, body)

    def answer(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def tree() -> list[dict]:
    files = [path for path in sorted(CHECKPOINT.rglob("*")) if path.is_file()]
    return [
        {
            "type": "file",
            "path": path.relative_to(CHECKPOINT).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """huggingface_hub pointed at the server, with an empty cache and no token."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield SimpleNamespace(asked=server.asked, stop=lambda: (server.shutdown(), server.server_close()), env=monkeypatch.setenv)
    server.shutdown()
    server.server_close()
    thread.join()
    huggingface_hub.close_session()


def find(name, revision=None, *, offline=False):
    return find_checkpoint(name, revision=revision, local_files_only=offline)


def refusal(name, revision=None, *, offline=False) -> str:
    with pytest.raises(CheckpointError) as caught:
        find(name, revision, offline=offline)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    return str(caught.value)


def test_a_model_is_downloaded_once_and_then_comes_from_the_cache(hub):
    folder = find("some/model")
    assert {path.name for path in folder.rglob("*")} >= {"config.json", "model.safetensors", "modules.json", "1_Dense"}
    assert scan_checkpoint(folder).layout == "pylate"
    hub.asked.clear()
    assert find("some/model", offline=True) == folder
    assert hub.asked == []
    assert find("some/model", COMMIT) == folder


def test_the_cache_serves_when_the_hub_is_down(hub):
    folder = find("some/model")
    hub.stop()
    assert find("some/model") == folder


def test_nothing_cached_and_nothing_asked(hub):
    assert "some/model is not in the hub's local cache, and the hub is not used" in refusal("some/model", offline=True)
    assert hub.asked == []


def test_nothing_cached_and_no_hub(hub):
    hub.stop()
    assert "is not in the hub's local cache, and the model hub cannot be reached" in refusal("some/model")


def test_a_revision_is_taken_or_named(hub):
    assert find("some/model", "v1").name == COMMIT
    assert refusal("some/model", "v9") == "some/model has no revision v9 on the model hub"


def test_private_models_need_the_token(hub):
    assert "or set HF_TOKEN" in refusal("some/private")
    hub.env("HF_TOKEN", TOKEN)
    assert (find("some/private") / "config.json").is_file()


def test_gated_models_say_so(hub):
    assert refusal("some/gated").startswith("some/gated is gated; ")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_models_that_are_not_there(hub, token):
    if token:
        hub.env("HF_TOKEN", token)
    assert "some/thing is neither a folder nor" in refusal("some/thing")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "/nowhere/at/all", "../x/y"])
def test_names_that_are_neither_are_not_asked_for(hub, name):
    assert refusal(name).startswith(f"folder {name} does not exist")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["", " ", None])
def test_an_empty_name_is_not_the_current_folder(tmp_path, name):
    for call in (
        lambda: find(name),
        lambda: export(name, tmp_path / "bundle"),
        lambda: RAGTrainer("m", name),
        lambda: train(name, TrainingData([]), tmp_path / "checkpoint"),
    ):
        with pytest.raises(UsageError, match="empty|string or a Path"):
            call()
    assert not list(tmp_path.iterdir())
