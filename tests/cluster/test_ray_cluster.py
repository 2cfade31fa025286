"""Encoding, feeding and searching by two workers of a cluster, against a server that answers as Vespa does."""

import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fake_vespa import FakeVespa

from colbert_vespa.ray import Workers, encode, feed, search
from feeder import FeedOptions
from feeder import feed as feed_alone
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import BundleError, ColbertVespaError, UsageError, VespaRefused
from query import Client
from query.options import SearchOptions

KINDS = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "UserWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in KINDS]  # Ray's own, of its settings and processes
COUNT = 120
TWO = Workers(2, batch=15)


class Watched(FakeVespa):
    """Kills the workers that feed it when it has taken `after` passages, and answers the next ten operations with 429."""

    after = busy = 0

    def __init__(self):
        super().__init__()
        self.killed: list[int] = []

    def answer(self, method, path, body, headers):
        if method == "POST" and self.busy and "/document/" in path:
            self.busy -= 1
            return 429, b'{"message":"too much"}'
        return super().answer(method, path, body, headers)

    def took(self, method, id_, body):
        answer = super().took(method, id_, body)
        if method == "POST" and self.after:
            self.after -= 1
            if not self.after:
                self.busy = 10
                self.killed = workers_of_this_process("FeedingWorker")
                for process in self.killed:
                    os.kill(process, signal.SIGKILL)
        return answer

    def times_put(self):
        """How often each passage was taken since the last call."""
        counts = Counter(id_ for method, id_ in self.requests if method == "POST")
        self.requests.clear()
        return counts


def workers_of_this_process(name):
    """Ids of processes that are actors of that name, in the cluster that this process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                named = name.encode() in (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if named and os.getpid() in parents(int(folder.name)):
                found.append(int(folder.name))
    return found


def parents(process):
    found = []
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return found
        found.append(process)
    return found


@pytest.fixture
def watched(describe):
    fake = Watched()
    describe(fake)
    yield fake
    fake.close()


def rows(count=COUNT):
    return [
        {"id": f"d{n}", "title": f"title {n}", "text": f"{n} waits for a thread to finish", "year": n} for n in range(count)
    ]


def stored(fake):
    return {id_ for id_ in fake.documents if id_ != "current"}


def balanced(summary):
    parts = (summary.acknowledged, summary.already_there, summary.absent, summary.dead_lettered, summary.skipped_blank)
    return sum(parts) + summary.duplicates + summary.pending == summary.documents


@pytest.mark.slow
def test_killed_workers_lose_nothing_and_a_second_feed_sends_what_is_missing(cluster, watched, tiny_bundle):
    watched.after = 40
    watched.faults["d7#0"] = [400] * 9
    dataset = cluster.data.from_items(rows(), override_num_blocks=8)
    told = []
    report = feed(dataset, tiny_bundle, watched.url, workers=TWO, progress=told.append)
    summary = report.summary
    assert watched.killed and summary.outcome == "complete" and balanced(summary)
    assert (summary.documents, summary.dead_lettered, summary.pending) == (COUNT, 1, 0)
    assert summary.already_there  # what the killed workers had sent
    assert stored(watched) == {f"d{n}#0" for n in range(COUNT) if n != 7}
    times = watched.times_put()
    assert sum(times.values()) - times["d7#0"] - (COUNT - 1) <= 32, times  # what was in flight when they were killed
    assert not watched.busy and 0 < summary.sending.retries["429"] <= 10
    assert summary.sending.operations["put"] == {"ok": summary.acknowledged, "refused": 1}
    assert [one.documents for one in told] == sorted(one.documents for one in told)
    letters = report.dead_letters.take_all()
    assert [(row["id"], row["refused"]["status"]) for row in letters] == [("d7", 400)]

    watched.documents.pop("d3#0")
    watched.faults.clear()
    again = feed(dataset, tiny_bundle, watched.url, workers=TWO).summary
    assert (again.acknowledged, again.already_there, again.documents) == (2, COUNT - 2, COUNT)
    assert watched.times_put() == {"d3#0": 1, "d7#0": 1}


def test_mistakes_are_told_before_anything_runs(cluster, watched, tiny_bundle, tmp_path):
    dataset = cluster.data.from_items(rows(1))
    with pytest.raises(UsageError, match="is not the address"):
        feed(dataset, tiny_bundle, str(tmp_path))
    with pytest.raises(UsageError, match="must be a Dataset of Ray Data, got list"):
        feed(rows(1), tiny_bundle, watched.url)
    with pytest.raises(UsageError, match="operation 'move' is unknown"):
        feed(dataset, tiny_bundle, watched.url, operation="move")
    with pytest.raises(BundleError):
        encode(dataset, tmp_path)
    with pytest.raises(BundleError, match="has no int8 model"):
        encode(dataset, tiny_bundle, workers=Workers(precision="int8"))
    with pytest.raises(UsageError, match="dtype 'float8'"):
        encode(dataset, tiny_bundle, dtype="float8")
    with pytest.raises(UsageError, match="omit explain"):
        search(dataset, watched.url, options=SearchOptions(explain=True))


@pytest.mark.slow
def test_what_a_cluster_encodes_is_what_one_machine_encodes(cluster, watched, tiny_bundle, tmp_path):
    encoded = encode(cluster.data.from_items(rows(), override_num_blocks=4), tiny_bundle, workers=TWO).materialize()
    own = Encoder(tiny_bundle)
    for row in encoded.take_all():
        expected = own.encode_documents([f"{row['title']} {row['text']}"])[0]
        np.testing.assert_allclose(np.array(list(row["vectors"][0])), expected, atol=1e-5)
    summary = feed(encoded, tiny_bundle, watched.url, workers=TWO).summary
    assert summary.acknowledged == COUNT and balanced(summary)
    assert (
        feed_alone(documents(), FeedOptions(watched.url, tmp_path / "journal", tiny_bundle, dry_run=True)).already_there
        == COUNT
    )


def documents():
    return [Document(row["id"], row["title"], row["text"], {"year": row["year"]}) for row in rows()]


@pytest.mark.slow
def test_a_vespa_that_lets_nobody_in_ends_the_run_at_once(cluster, watched, tiny_bundle):
    watched.always = 403
    with pytest.raises(VespaRefused, match=r"answered 403.* 0 acknowledged, .* pending: feed the dataset again"):
        feed(cluster.data.from_items(rows(), override_num_blocks=8), tiny_bundle, watched.url, workers=TWO)


@pytest.mark.slow
def test_an_error_of_the_dataset_itself_is_one_line(cluster, watched, tiny_bundle):
    def fails(batch):
        raise ValueError("of the user")

    dataset = cluster.data.from_items(rows(4)).map_batches(fails)
    with pytest.raises(ColbertVespaError, match=r"^the cluster ended the run: ValueError: of the user$"):
        feed(dataset, tiny_bundle, watched.url, workers=TWO)


@pytest.mark.slow
def test_queries_are_searched_as_a_client_does(cluster, tiny_bundle, tmp_path):
    index = tmp_path / "index"
    feed_alone(documents(), FeedOptions(index, tmp_path / "journal", tiny_bundle))
    queries = [{"query": f"does {n} wait for a thread", "id": n} for n in range(20)]
    found = search(cluster.data.from_items(queries), index, workers=TWO, options=SearchOptions(k=5)).take_all()
    with Client(index) as client:
        for row in found:
            expected = client.search(row["query"], k=5).hits
            assert [hit["id"] for hit in row["hits"]] == [hit.id for hit in expected]
            np.testing.assert_allclose([hit["score"] for hit in row["hits"]], [hit.score for hit in expected], rtol=1e-5)


@pytest.mark.slow
def test_a_dataset_larger_than_the_memory_of_a_worker_streams_through(cluster, tiny_bundle):
    """Vectors of more than the object store; neither it nor the workers grow."""
    texts = cluster.data.range(12_000, override_num_blocks=24).map_batches(
        lambda batch: {"id": batch["id"].astype(str), "text": np.array(["word " * 200 + str(n) for n in batch["id"]])},
    )  # fmt: skip
    seen, vectors, sizes = 0, 0, []
    for table in encode(texts, tiny_bundle, workers=Workers(2, batch=500)).iter_batches(
        batch_size=None, batch_format="pyarrow"
    ):
        seen += table.num_rows
        vectors += table["vectors"].nbytes
        sizes.append(max(map(resident, workers_of_this_process("EncodingWorker")), default=0))
    assert seen == 12_000
    assert vectors > 150 << 20
    grown = [size for size in sizes if size]
    assert max(grown[len(grown) // 2 :]) - max(grown[: len(grown) // 2]) < 128 << 20, sizes


def resident(process):
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
