"""The Dockerfile and the compose file. There is no container engine here: their syntax is read by parsers, and the steps of the
build and the start are taken in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from page_documents import page_documents
from serving import made

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
WITH_TORCH = {"export", "train", "demo", "all"}


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Instructions of each stage."""
    found: list[list[tuple[str, str]]] = []
    for step in DockerfileParser(path=str(ROOT)).structure:
        if step["instruction"] == "FROM":
            found.append([])
        if step["instruction"] != "COMMENT" and found:
            found[-1].append((step["instruction"], step["value"]))
    return found


def values(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [value for instruction, value in stage if instruction == name]


def exec_form(value: str) -> list[str]:
    return json.loads(value[value.index("[") :])


def command(stages) -> list[str]:
    return exec_form(values(stages[-1], "ENTRYPOINT")[0]) + exec_form(values(stages[-1], "CMD")[-1])


def health_check(stages) -> list[str]:
    return exec_form(values(stages[-1], "HEALTHCHECK")[0])


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def test_every_instruction_is_one(stages):
    assert len(stages) == 2
    assert {name for stage in stages for name, _ in stage} <= KNOWN
    assert all("-slim" in values(stage, "FROM")[0] for stage in stages)


def test_what_is_copied_is_what_the_wheel_is_made_of(stages, project):
    sources = [source for value in values(stages[0], "COPY") for source in value.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(sources) == {*packages, "pyproject.toml", "requirements.lock", project["project"]["readme"]}
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").split() if line.startswith("!")]
    assert set(let_in) == set(sources)


def test_no_torch(stages, project):
    installs = [value for value in values(stages[0], "RUN") if "install" in value]
    extras = {extra for value in installs for names in re.findall(r"\[([a-z,]+)\]", value) for extra in names.split(",")}
    known = project["project"]["optional-dependencies"]
    assert extras and extras <= set(known) - WITH_TORCH
    assert not any("torch" in line or "colbert-vespa[" in line for extra in extras for line in known[extra])


def test_it_does_not_run_as_root(stages):
    names = [name for name, _ in stages[-1]]
    assert values(stages[-1], "USER") == ["10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "--uid 10001" in values(stages[-1], "RUN")[0]


def test_the_health_check_needs_python_alone(stages):
    assert health_check(stages)[:2] == ["python", "-c"]
    compile(health_check(stages)[2], "health check", "exec")
    assert "--start-period" in values(stages[-1], "HEALTHCHECK")[0]


def test_the_command_is_one_that_the_command_line_knows(stages, cli):
    shown = cli("serve", "--help").stdout
    asked = command(stages)
    assert asked[:2] == ["colbert-vespa", "serve"]
    assert {option for option in asked if option.startswith("--")} <= set(re.findall(r"--[a-z-]+", shown))
    port = asked[asked.index("--port") + 1]
    assert values(stages[-1], "EXPOSE") == [port] and f":{port}/health" in health_check(stages)[2]
    assert asked[-1] in exec_form(values(stages[-1], "VOLUME")[0])


def test_compose_serves_beside_vespa_and_monitoring(compose, stages):
    services = compose["services"]
    assert set(services) == {"vespa", "serve", "prometheus", "grafana"}
    serve = services["serve"]
    assert serve["profiles"] == ["serve"] and serve["build"] == "."
    assert serve["read_only"] and serve["cap_drop"] == ["ALL"] and "user" not in serve
    inside = [volume.removesuffix(":ro").split(":")[-1] for volume in serve["volumes"]]
    assert {*exec_form(values(stages[-1], "VOLUME")[0]), "/keys.json"} == set(inside)
    assert re.search(r"--bundle (/\w+)", serve["command"]).group(1) in inside
    for name, service in services.items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith((".", "$")) or source in compose["volumes"], volume


@pytest.mark.slow
def test_the_steps_in_an_empty_folder(stages, tmp_path, tiny_bundle):
    """The wheel is built and installed as the file says, the same command starts, and the health check passes. Not taken: the
    steps that need root (the user) and those of an image (layers, volumes)."""
    index = made(tmp_path / "index", tiny_bundle, page_documents())
    places = {"/wheels": tmp_path / "wheels", "/opt/colbert-vespa": tmp_path / "opt", "/source": tmp_path / "source"}
    for place in (places["/wheels"], places["/source"]):
        place.mkdir()
    build(stages[0], places)
    scripts = places["/opt/colbert-vespa"] / "bin"
    site = next((places["/opt/colbert-vespa"] / "lib").glob("python*/site-packages"))
    assert (site / "colbert_vespa" / "server" / "page" / "index.html").is_file()
    installed = {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}
    assert "colbert_vespa" in installed and not installed & {"torch", "transformers", "sentence_transformers"}

    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {"PATH": f"{scripts}:/usr/bin:/bin", "HOME": str(empty), "XDG_CACHE_HOME": str(empty)}
    environment["NUMBA_CACHE_DIR"] = str(empty / "numba")
    keys = tmp_path / "keys.json"
    make_key(scripts / "colbert-vespa", keys, environment)
    port = str(free_port())
    changed = {"8000": port, "/keys.json": str(keys), "/index": index}
    started = [changed.get(word, word) for word in command(stages)]
    check = [word.replace(":8000/", f":{port}/") for word in health_check(stages)]
    running = subprocess.Popen([str(scripts / started[0]), *started[1:]], cwd=empty, env=environment, stderr=subprocess.PIPE)
    try:
        for _ in range(24):  # the start period, in the interval of the file or less
            health = ran(check, cwd=empty, env=environment)
            if health.returncode == 0 or running.poll() is not None:
                break
        assert running.poll() is None and health.returncode == 0, health.stderr.decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert b"colbert-vespa" in page.read()
    finally:
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=300)  # a search that compiles is waited for
    assert running.returncode == 0, said.decode()
    assert ran(check, cwd=empty, env=environment).returncode != 0


def ran(words: list[str], **where) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, check=False, **where)


def build(stage: list[tuple[str, str]], places: dict[str, Path]) -> None:
    """Copies what the stage copies, and runs what it runs."""
    python = Path(sys._base_executable).parent
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}
    environment.pop("VIRTUAL_ENV", None)
    for instruction, value in stage:
        if instruction == "COPY":
            for name in value.split()[:-1]:
                source, to = ROOT / name, places["/source"] / name
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, to, ignore=ignored) if source.is_dir() else shutil.copy(source, to)
        elif instruction == "RUN":
            line = value
            for inside, outside in places.items():
                line = re.sub(rf"(?<![\w.]){re.escape(inside)}\b", str(outside), line)
            done = ran(["sh", "-ec", line], cwd=places["/source"], env=environment)
            assert done.returncode == 0, f"{line}\n{done.stderr.decode()[-2000:]}"


def make_key(program: Path, keys: Path, environment: dict[str, str]) -> None:
    subprocess.run([str(program), "serve", "keys", "make", "--keys", str(keys), "--name", "tests"], env=environment, check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
