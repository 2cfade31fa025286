"""A whole feed, as its user runs it, killed (SIGKILL) and resumed, until everything is there."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_vespa import FakeVespa

from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from vespa_app import default_settings
from vespa_app.description import Description

COUNT = 600
PARTS = ("acknowledged", "already_there", "dead_lettered", "skipped_blank", "duplicates", "pending")


class Deadly(FakeVespa):
    """Kills the process `victim` when it has taken `after` documents; neither the last of them nor what comes behind it gets an
    answer, and what comes behind it is not taken."""

    victim: subprocess.Popen | None = None
    after = 0
    dead = False

    def took(self, method, id_, body):
        if self.dead:
            return "reset"
        answer = super().took(method, id_, body)
        if method == "POST" and self.victim is not None:
            self.after -= 1
            if not self.after:
                self.victim.send_signal(signal.SIGKILL)
                self.victim, self.dead = None, True
                return "reset"
        return answer


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{n}", "text": f"text number {n}"}) + "\n" for n in range(COUNT)))
    return file


@pytest.fixture
def deadly(tiny_bundle):
    fake = Deadly()
    description = Description(default_settings(tiny_bundle, MetadataSchema({})), tiny_bundle.sha256, None)
    fake.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}
    yield fake
    fake.close()


def begin(source: Path, to: str, bundle, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "colbert_vespa", "feed", str(source), "--to", to, "--bundle", str(bundle.path)]
    command += ["--workers", "0", "--journal", str(source.with_name("journal")), "--json", *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def ended(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    summary = json.loads(out.splitlines()[-1])
    assert sum(summary[part] for part in PARTS) == summary["documents"] == COUNT
    return summary


def kill_and_resume(vespa: Deadly, source: Path, bundle, points: list[int]) -> dict:
    """points: of one run after the other, how many documents it gets to hand over."""
    for number, point in enumerate(points):
        there = set(vespa.documents)
        vespa.requests.clear()
        vespa.after = point
        vespa.victim = process = begin(source, vespa.url, bundle, *(["--resume"] if number else []))
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, err.decode()
        while vespa.open_connections:  # what the dead had sent is still taken
            time.sleep(0.01)
        vespa.dead = False
        assert not {id_ for method, id_ in vespa.requests if method == "POST"} & there
    there = set(vespa.documents)
    vespa.requests.clear()
    summary = ended(begin(source, vespa.url, bundle, "--resume"))
    sent = [id_ for method, id_ in vespa.requests if method == "POST"]
    assert not set(sent) & there and len(sent) == len(set(sent)) == summary["acknowledged"]
    fields = {id_: taken["fields"]["text"] for id_, taken in vespa.documents.items() if id_ != "current"}
    assert fields == {f"d{n}#0": f"text number {n}" for n in range(COUNT)}
    return summary


def test_a_feed_that_is_killed_sends_the_rest_and_nothing_twice(deadly, source, tiny_bundle):
    summary = kill_and_resume(deadly, source, tiny_bundle, [300])
    assert 0 < summary["acknowledged"] <= 300 and summary["outcome"] == "complete"


@pytest.mark.slow
def test_a_feed_that_is_killed_thirty_times_loses_nothing(deadly, source, tiny_bundle):
    chance = random.Random(9)
    kill_and_resume(deadly, source, tiny_bundle, [chance.randint(1, 25) for _ in range(30)])


@pytest.mark.slow
def test_a_local_feed_that_is_killed_at_any_moment_loses_nothing(source, tiny_bundle):
    """The moments are by the clock, so that each run has others."""
    index = source.with_name("index")
    chance = random.Random(10)
    for number in range(12):
        process = begin(source, str(index), tiny_bundle, *(["--resume"] if number else []))
        time.sleep(chance.uniform(0.5, 6))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        if not process.returncode:
            break  # it was quicker
    summary = ended(begin(source, str(index), tiny_bundle, "--resume"))
    assert summary["pending"] == summary["dead_lettered"] == 0
    texts = {passage.document_id: passage.text for passage in LocalIndex.open(index).iter_passages()}
    assert texts == {f"d{n}": f"text number {n}" for n in range(COUNT)}
