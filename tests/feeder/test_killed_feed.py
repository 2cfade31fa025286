"""A whole feed, as its user runs it, killed (SIGKILL) and resumed: everything is there, and nothing that was is sent again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dense_bundles import made_bundle, with_dense
from fake_vespa import FakeVespa
from ready import ready_bundle, unit_rows

from feeder import FeedOptions, Splitting, open_sources, start_feed
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from vespa_app import default_settings
from vespa_app.running import Description

COUNT = 400
REFUSED = "d7"
PARTS = ("acknowledged", "already_there", "dead_lettered", "skipped_blank", "duplicates", "pending")
SPLITTING = Splitting("sentences", 16, 0)
SETTINGS = '[passages]\nmethod = "sentences"\ntokens = 16\n'
KILLED = Path(__file__).parent.parent / "killed_feed.py"


class Deadly(FakeVespa):
    """Kills the process `victim` when it has taken `after` passages; neither the last of them nor what comes behind it gets an
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

    def put_documents(self):
        """Ids of documents of which something was put since the last call."""
        sent = {id_.rpartition("#")[0] for method, id_ in self.requests if method == "POST"}
        self.requests.clear()
        return sent

    def whole(self):
        """Ids of documents whose first passage is there, which is put last."""
        return {id_.removesuffix("#0") for id_ in self.documents if id_.endswith("#0")}


@pytest.fixture
def source(tmp_path):
    """Documents of one to four passages."""
    file = tmp_path / "documents.jsonl"
    with file.open("w") as lines:
        for n in range(COUNT):
            text = " ".join(f"Sentence {k} of document {n} waits for a thread to finish." for k in range(n % 4 + 1))
            lines.write(json.dumps({"id": f"d{n}", "text": text}) + "\n")
    (tmp_path / "feed.toml").write_text(SETTINGS)
    return file


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """A bundle with dense models beside that of the token vectors."""
    folder = tmp_path_factory.mktemp("two")
    return with_dense(made_bundle(folder / "tokens"), folder / "bundle", {"dense": 16, "small": 4})


def open_deadly(bundle):
    fake = Deadly()
    description = Description(default_settings(bundle, MetadataSchema({})), bundle.sha256, None)
    fake.documents["current"] = {"fields": {"description": json.dumps(description.to_json())}}
    fake.faults[f"{REFUSED}#0"] = [400] * 1000
    return fake


@pytest.fixture
def deadly(tiny_bundle):
    fake = open_deadly(tiny_bundle)
    yield fake
    fake.close()


def begin(source, to, bundle, *more, at: int | None = None):
    """at: the operation on files before which it kills itself."""
    program = ["-m", "colbert_vespa"] if at is None else [str(KILLED), str(at)]
    command = [sys.executable, *program, "feed", str(source), "--to", str(to), "--bundle", str(bundle.path)]
    command += ["--settings", str(source.with_name("feed.toml")), "--journal", str(source.with_name("journal"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*command, "--workers", "0", "--json", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def killed(process):
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


def ended(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err.decode()
    summary = json.loads(out.splitlines()[-1])
    assert sum(summary[part] for part in PARTS) == summary["documents"] == COUNT
    assert (summary["pending"], summary["outcome"]) == (0, "complete")
    return summary, err.decode()


def expected(source, to, bundle, journal):
    """What a feed that nobody kills brings."""
    options = FeedOptions(to=str(to), bundle=bundle, journal=journal, splitting=SPLITTING, workers=0)
    with start_feed(open_sources([str(source)]), options) as run:
        run.go()


def noted(journal):
    lines = journal.read_text().splitlines()[1:] if journal.exists() else []
    return {id_ for line in lines for id_, _ in json.loads(line)}


def kill_and_resume(vespa, source, bundle, points):
    """points: of one run after the other, how many passages it gets to hand over."""
    for number, point in enumerate(points):
        whole = vespa.whole()
        vespa.put_documents()
        vespa.after = point
        vespa.victim = process = begin(source, vespa.url, bundle, *(["--resume"] if number else []))
        killed(process)
        while vespa.open_connections:  # what the dead had sent is still taken
            time.sleep(0.01)
        vespa.dead = False
        assert not vespa.put_documents() & whole
        assert noted(source.with_name("journal")) <= vespa.whole()
    whole = vespa.whole()
    summary, _ = ended(begin(source, vespa.url, bundle, "--resume"), code=1)
    sent = vespa.put_documents()
    assert not sent & whole and sent - {REFUSED} == {f"d{n}" for n in range(COUNT)} - whole - {REFUSED}
    assert (summary["acknowledged"], summary["already_there"], summary["dead_lettered"]) == (len(sent) - 1, len(whole), 1)
    assert json.loads(Path(summary["dead_letter_file"]).read_text().splitlines()[1])["id"] == REFUSED
    clean = open_deadly(bundle)
    try:
        expected(source, clean.url, bundle, source.with_name("journal of the clean one"))
        assert without_refused(vespa) == without_refused(clean)
    finally:
        clean.close()


def without_refused(vespa):
    return {id_: taken for id_, taken in vespa.documents.items() if not id_.startswith(f"{REFUSED}#")}


def test_a_feed_that_is_killed_sends_the_rest_and_nothing_twice(deadly, source, tiny_bundle):
    kill_and_resume(deadly, source, tiny_bundle, [COUNT])


def test_a_feed_of_ready_rows_that_is_killed_sends_the_rest_and_nothing_twice(tmp_path):
    bundle, source = ready_bundle(tmp_path / "bundle"), tmp_path / "pages.jsonl"
    with source.open("w") as lines:
        for n in range(COUNT):
            pages = [unit_rows(3, seed=8 * n + page).tolist() for page in range(n % 4 + 1)]
            lines.write(json.dumps({"id": f"d{n}", "vectors": pages}) + "\n")
    (tmp_path / "feed.toml").write_text(SETTINGS)
    vespa = open_deadly(bundle)
    try:
        kill_and_resume(vespa, source, bundle, [COUNT])
    finally:
        vespa.close()


@pytest.mark.slow
def test_a_feed_with_dense_models_that_is_killed_sends_the_rest_and_nothing_twice(source, two_models):
    vespa = open_deadly(two_models)
    try:
        kill_and_resume(vespa, source, two_models, [COUNT])
        passages = [taken["fields"] for id_, taken in vespa.documents.items() if "#" in id_]
        assert passages and all({"dense", "dense_small"} <= set(fields) for fields in passages)
    finally:
        vespa.close()


@pytest.mark.slow
def test_a_feed_that_is_killed_thirty_times_loses_nothing(deadly, source, tiny_bundle):
    chance = random.Random(9)
    kill_and_resume(deadly, source, tiny_bundle, [chance.randint(1, 31) for _ in range(30)])


def brought(index):
    opened = LocalIndex.open(index, verify=True)
    dense = opened.dense_vectors([passage.id for passage in opened.iter_passages()])
    vectors = {id_: {name: vector.tolist() for name, vector in own.items()} for id_, own in dense.items()}
    return {passage.id: (passage.text, passage.digest, vectors[passage.id]) for passage in opened.iter_passages()}


@pytest.fixture
def local(source, tmp_path):
    """Kills a feed into a new index at a share of its operations on files, resumes it, and says what was noted before."""
    operations = {}

    def run(bundle, share, name):
        if not operations:
            expected(source, tmp_path / "clean", bundle, tmp_path / "journal of the clean one")
            _, said = ended(begin(source, tmp_path / "counted", bundle, at=0))
            operations["all"] = int(said.splitlines()[-1])
        index = tmp_path / name
        killed(begin(source, index, bundle, at=max(1, round(share * operations["all"]))))
        before = noted(source.with_name("journal"))
        summary, _ = ended(begin(source, index, bundle, "--resume"))
        assert summary["already_there"] >= len(before)
        assert brought(index) == brought(tmp_path / "clean")
        return len(before)

    return run


def test_a_local_feed_that_is_killed_sends_the_rest(local, tiny_bundle):
    assert 0 < local(tiny_bundle, 0.5, "index") <= COUNT


@pytest.mark.slow
def test_a_local_feed_with_dense_models_that_is_killed_sends_the_rest(local, two_models):
    assert 0 < local(two_models, 0.5, "index") <= COUNT


@pytest.mark.slow
@pytest.mark.parametrize("models", ["one", "three"])
def test_a_local_feed_that_is_killed_at_any_of_thirty_moments_loses_nothing(local, tiny_bundle, two_models, models):
    bundle, chance = {"one": tiny_bundle, "three": two_models}[models], random.Random(10)
    found = {local(bundle, (place + chance.random()) / 31, f"index {place}") for place in range(30)}
    assert {0, COUNT} < found  # before and after everything was acknowledged, and between
