"""`doctor`, and completion."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
from serving import made

from colbert_vespa.cli.commands import main
from colbert_vespa.cli.doctor_command import _extras, extras_of, missing_packages

REQUIREMENTS = [
    "numpy>=1.26",
    'tomli>=2; python_version < "3.11"',
    "numba>=0.60; extra == 'local'",
    "scipy>=1.11 ; extra == 'local'",
    "colbert-vespa[local,feed]; extra == 'all'",
    "pycurl>=7.45; extra == 'feed'",
    'httpx[http2]>=0.27; extra == "web"',
]


def test_extras_are_read_from_the_distribution():
    local = {"numba", "scipy"}
    assert extras_of(REQUIREMENTS) == {"local": local, "feed": {"pycurl"}, "all": {*local, "pycurl"}, "web": {"httpx"}}


def test_packages_that_are_missing_are_named():
    def installed(name):
        if name in ("numba", "Zeta"):
            raise PackageNotFoundError(name)
        return "1.0"

    assert missing_packages({"Zeta", "scipy", "numba"}, installed) == ["numba", "Zeta"]


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as end:
            main(["doctor", "--json", *map(str, arguments)])
        assert (end.value.code or 0) == code
        said = capsys.readouterr()
        assert max(map(len, said.err.splitlines())) <= 80
        return {area: {row["name"]: row for row in rows} for area, rows in json.loads(said.out.splitlines()[-1]).items()}

    return call


def test_what_is_there_and_what_to_do_about_what_is_not(run, monkeypatch, tmp_path, tiny_bundle):
    secret = tmp_path / "token"
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(secret))
    monkeypatch.setenv("PATH", str(tmp_path))
    index = made(tmp_path / "index", tiny_bundle)
    found = run("--from", index)
    assert found["extras"]["local"]["state"] == "ok" and found["devices"]["cpu"]["state"] == "ok"
    assert found["docker"]["docker"]["state"] == "missing" and "install docker" in found["docker"]["docker"]["says"]
    assert found["address"][index] == {"name": index, "state": "ok", "says": "answers, with index"}
    assert "cannot be read" in found["credentials"]["COLBERT_VESPA_TOKEN_FILE"]["says"]
    secret.write_text("hush")
    monkeypatch.delenv("COLBERT_VESPA_TOKEN_FILE")
    (address,) = run("--from", "http://127.0.0.1:9", "--timeout", 2, code=1)["address"].values()
    assert address["state"] == "warning" and "does not answer" in address["says"]
    (address,) = run("--from", tmp_path / "nope", code=1)["address"].values()
    assert address["state"] == "warning" and "nope" in address["says"]
    monkeypatch.setattr("colbert_vespa.cli.doctor_command.LOCAL_VESPA", "http://127.0.0.1:9")
    assert run("--timeout", 2)["address"]["http://127.0.0.1:9"]["state"] == "warning"  # nobody asked for it
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(secret))
    found = run("--from", index)
    assert found["credentials"]["COLBERT_VESPA_TOKEN_FILE"]["state"] == "ok" and "hush" not in str(found)


def test_docker_that_does_not_run_is_a_warning(run, monkeypatch, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\ntest \"$1\" = compose && echo v2.40 && exit\necho 'cannot connect to the engine' >&2\nexit 1\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = run("--from", "http://127.0.0.1:9", code=1)["docker"]
    assert (found["compose"]["state"], found["engine"]["state"]) == ("ok", "warning")
    assert found["engine"]["says"].startswith("cannot connect to the engine; ")


def test_an_extra_that_is_missing_is_a_line_with_its_command(monkeypatch):
    monkeypatch.setattr("colbert_vespa.cli.doctor_command.distribution", lambda name: SimpleNamespace(requires=REQUIREMENTS))
    absent = {"numba"}
    monkeypatch.setattr("colbert_vespa.cli.doctor_command.missing_packages", lambda packages: sorted(packages & absent))
    rows = {name: (state, says) for name, state, says in _extras()}
    assert rows["feed"] == ("ok", "installed")
    assert rows["local"] == ("missing", "pip install 'colbert-vespa[local]' (lacks numba)")
    absent |= {"scipy", "pycurl", "httpx"}
    rows = {name: says for name, _, says in _extras()}
    assert rows["all"] == "pip install 'colbert-vespa[all]'"


def test_shells_complete_commands():
    asked = {"COMP_WORDS": "colbert-vespa ex", "COMP_CWORD": "1", "_COLBERT_VESPA_COMPLETE": "complete_bash"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['colbert-vespa']; from colbert_vespa.__main__ import main; main()",
    ]
    done = subprocess.run(command, env={**os.environ, **asked}, text=True, capture_output=True, check=False)
    assert done.stdout.split() == ["export"]
