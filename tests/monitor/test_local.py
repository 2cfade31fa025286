"""A local index under watch, through the command line."""

from __future__ import annotations

import json
import shutil

import pytest

from colbert_vespa.monitor.canaries import Canaries
from colbert_vespa.monitor.checks import SELDOM_S, Monitor, Watched
from colbert_vespa.monitor.report import OK, UNKNOWN, WRONG
from late_interaction.plaid import LocalIndex


@pytest.fixture(scope="module")
def made(cli, sample_index, tmp_path_factory):
    """Canaries and a baseline of the sample, made by the commands."""
    folder = tmp_path_factory.mktemp("made")
    cli("monitor", "canaries", str(sample_index), "-o", str(folder / "canaries.json"), "-k", "5")
    cli("monitor", "baseline", str(sample_index), "-o", str(folder / "baseline.json"))
    return folder


@pytest.fixture
def index(sample_index, tmp_path):
    return shutil.copytree(sample_index, tmp_path / "index")


def rows(report):
    return {(row["area"], row["name"]): row for row in report["rows"]}


def look(cli, made, index, code):
    done = cli(
        "monitor", str(index), "--canaries", str(made / "canaries.json"), "--baseline", str(made / "baseline.json"), "--json",
        code=code,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    return rows(json.loads(done.stdout))


def test_an_index_that_is_well(cli, made, index, stdlib_sample):
    found = look(cli, made, index, 0)
    assert {row["state"] for row in found.values()} == {OK}
    assert f"{len(stdlib_sample)} documents" in found["documents", "index"]["says"]
    assert found["canaries", "all"]["says"].startswith("20 of 20")
    assert {name for area, name in found if area == "drift"} >= {"lengths", "scores", "unknown tokens", "passages", "centroids"}


def test_the_table_fits_80_columns(cli, made, index):
    done = cli("monitor", str(index), "--canaries", str(made / "canaries.json"))
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:2] == ["ok", "version"] for line in lines)
    assert done.stdout.rstrip().splitlines()[-1].endswith(" s")


def test_a_deleted_passage_breaks_its_canary(cli, made, index):
    first = Canaries.read(made / "canaries.json").canaries[0]
    lost = first.expected[0][0]
    with LocalIndex.open(index).writer() as writer:
        writer.delete_document(lost.rpartition("#")[0])
        writer.commit()
    found = look(cli, made, index, 1)
    assert found["canaries", "all"]["state"] == WRONG
    broken = [row for (area, name), row in found.items() if area == "canaries" and name != "all"]
    assert any(f"{lost} is no longer found" in row["says"] for row in broken)


def test_a_flipped_byte_is_found(cli, made, index):
    file = max(index.glob("segments/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = look(cli, made, index, 1)
    assert found["index", "files"]["state"] == WRONG
    assert "restore a backup" in found["index", "files"]["says"]


def test_no_index_is_one_line_in_the_table(cli, tmp_path):
    done = cli("monitor", str(tmp_path / "nothing"), code=1)
    assert "wrong" in done.stdout
    assert "no index" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--canaries", "no-such-file"], "cannot be read"),
        (["--timeout", "0"], "'--timeout': '0' is not above 0"),
        (["--p99", "nan"], "'--p99': 'nan' is not above 0"),
        (["--prometheus", "x"], "--prometheus must be PORT or HOST:PORT"),
        (["--config", "http://localhost:19071"], "a local index has no config server"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_usage(cli, sample_index, arguments, message):
    done = cli("monitor", str(sample_index), *arguments, code=2)
    assert message in " ".join(done.stderr.split())


def test_what_costs_much_is_looked_at_seldom(sample_index, made, monkeypatch):
    asked = []
    monkeypatch.setattr("colbert_vespa.monitor.local.look_at_files", lambda path: asked.append(path) or _nothing())
    now = [0.0]
    with Monitor(Watched(str(sample_index)), clock=lambda: now[0]) as monitor:
        for seconds in (0.0, SELDOM_S - 1, SELDOM_S + 1):
            now[0] = seconds
            monitor.look()
    assert len(asked) == 2


def _nothing():
    from colbert_vespa.monitor.report import Section

    return Section()


def test_a_bundle_that_is_not_known_is_a_row(cluster, made):
    """Of an application whose bundle nobody has here: the other rows are there all the same."""
    canaries = Canaries.read(made / "canaries.json")
    with Monitor(Watched(cluster.url, (cluster.url,), canaries=canaries, timeout=60.0)) as monitor:
        report = monitor.look()
    states = {(row.area, row.name): (row.state, row.says) for row in report.found.rows}
    state, says = states["canaries", "all"]
    assert state == UNKNOWN
    assert "--bundle" in says
    assert states["documents", "passage"][0] == OK
