"""Feeds into a local index: several passages, changes, updates, deletions, worker processes, interruptions."""

import asyncio
import dataclasses
import os
import signal

import numpy as np
import pytest

from feeder import FeedOptions, Splitting, feed, feed_async, start_feed
from feeder.encoding.batches import Text
from feeder.encoding.workers import WorkerEncoding
from feeder.feeding.dead_letters import DeadLetterSource, read_letters
from feeder.feeding.pipeline import Feed, Pacing
from feeder.targets.local import LocalTarget
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import ColbertVespaError, CollectionError, LocalIndexError, MetadataError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.plaid import LocalIndex, open_index
from late_interaction.plaid.shards import Sharding
from late_interaction.vector_cache import VectorCache

SPLIT = Splitting("sentences", 16, 4)
SENTENCES = ["Wait for a thread to finish.", "Return the value of it.", "Close the file at once.", "Sort the list of names."]


def document(number, sentences=8, **metadata):
    text = " ".join(SENTENCES[(number + n) % 4] for n in range(sentences))
    return Document(f"d{number}", f"title {number}", text, {"year": 2000 + number, **metadata})


DOCUMENTS = [document(number, number % 9 + 1) for number in range(30)]


@pytest.fixture
def go(tiny_bundle, tmp_path):
    def go(documents, to="index", **options):
        options = {"splitting": SPLIT, "bundle": tiny_bundle, "journal": tmp_path / "j"} | options
        with start_feed([documents], FeedOptions(to=str(tmp_path / to), **options)) as run:
            summary = run.go()
        balanced(summary)
        return summary

    return go


def balanced(summary):
    parts = ("acknowledged", "already_there", "absent", "dead_lettered", "skipped_blank", "duplicates", "pending")
    assert sum(getattr(summary, part) for part in parts) == summary.documents


def passages(path):
    found = {}
    for item in LocalIndex.open(path).iter_passages():
        found.setdefault(item.document_id, {})[item.id] = item
    return found


def test_documents_of_several_passages(go, tmp_path):
    summary = go(DOCUMENTS)
    found = passages(tmp_path / "index")
    assert (summary.acknowledged, summary.passages, summary.truncated) == (30, sum(map(len, found.values())), 0)
    assert summary.passages > 60
    for item in DOCUMENTS:
        own = found[item.id]
        assert list(own) == [f"{item.id}#{n}" for n in range(len(own))]
        assert all(p.title == item.title and p.metadata == item.metadata and p.text in item.text for p in own.values())
        assert len({p.digest for p in own.values()}) == 1 and own[f"{item.id}#0"].digest.endswith(f"-{len(own)}")


def test_only_what_changed_is_encoded_and_lost_passages_go(go, tmp_path, tiny_bundle):
    go(DOCUMENTS)
    before = passages(tmp_path / "index")
    seen = []
    encoder = Encoder(tiny_bundle)

    class Counting:
        bundle, precision = tiny_bundle, encoder.precision

        def encode_documents(self, texts, rows=None):
            seen.extend(texts)
            return encoder.encode_documents(texts, rows)

    shorter = dataclasses.replace(DOCUMENTS[8], text=SENTENCES[0])
    other = dataclasses.replace(DOCUMENTS[3], metadata={"year": 1})
    summary = go([*DOCUMENTS[:3], other, *DOCUMENTS[4:8], shorter, *DOCUMENTS[9:]], encoder=Counting())
    after = passages(tmp_path / "index")
    assert (summary.acknowledged, summary.already_there) == (2, 28)
    assert summary.removed_passages == len(before["d8"]) - 1 > 0
    assert list(after["d8"]) == ["d8#0"]
    assert {p.metadata["year"] for p in after["d3"].values()} == {1}
    assert len(seen) == 1 + len(after["d3"])
    assert {id_: own for id_, own in after.items() if id_ not in ("d3", "d8")} == {
        id_: own for id_, own in before.items() if id_ not in ("d3", "d8")
    }


def test_another_splitting_feeds_everything_again(go, tmp_path):
    go(DOCUMENTS)
    summary = go(DOCUMENTS, splitting=Splitting())
    assert (summary.acknowledged, summary.already_there) == (30, 0)
    assert all(list(own) == [f"{id_}#0"] for id_, own in passages(tmp_path / "index").items())


def test_a_document_that_came_in_part_is_fed_again(go, tmp_path, tiny_bundle):
    """As after a crash between two of its passages: what is there agrees on the digest, but there is too little of it."""
    go(DOCUMENTS)
    with LocalIndex.open(tmp_path / "index").writer() as writer:
        writer.delete_passage("d8#1")
        writer.commit()
    summary = go(DOCUMENTS)
    assert (summary.acknowledged, summary.already_there) == (1, 29)


def test_update_changes_metadata_alone(go, tmp_path):
    go(DOCUMENTS)
    before = LocalIndex.open(tmp_path / "index")
    changed = [Document("d8", metadata={"year": 1}), Document("nobody", metadata={"year": 2})]
    summary = go(changed, operation="update")
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)
    [letter] = read_letters(tmp_path / "j.dead.jsonl")
    assert (letter["id"], letter["operation"], letter["document"]["metadata"]) == ("nobody", "update", {"year": 2})
    after = LocalIndex.open(tmp_path / "index")
    for item in after.iter_passages():
        old = before.passage(item.id)
        assert item.text == old.text and np.array_equal(after.vectors(item.id), before.vectors(item.id))
        assert item.metadata == ({"year": 1} if item.document_id == "d8" else old.metadata)
    assert go(DOCUMENTS).acknowledged == 1  # its digest is gone, so that it is fed as it was


def test_delete_takes_all_passages(go, tmp_path):
    go(DOCUMENTS)
    summary = go([Document("d8", metadata={"unknown": "x"}), Document("nobody")], operation="delete")
    assert (summary.acknowledged, summary.absent, summary.absent_ids) == (1, 1, ("nobody",))
    assert set(passages(tmp_path / "index")) == {item.id for item in DOCUMENTS} - {"d8"}


def test_a_dry_run_writes_nothing(go, tmp_path):
    assert go(DOCUMENTS, dry_run=True).pending == 30
    assert list(tmp_path.iterdir()) == []
    go(DOCUMENTS[:10])
    before = sorted(tmp_path.rglob("*"))
    summary = go(DOCUMENTS, dry_run=True)
    assert (summary.outcome, summary.pending, summary.already_there) == ("dry run", 20, 10)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("sharding", [None, Sharding(2)])
def test_a_dry_run_opens_no_writer(go, tmp_path, sharding):
    go(DOCUMENTS[:10], sharding=sharding)
    for lock in (tmp_path / "index").rglob("LOCK"):
        lock.unlink()
    staging = tmp_path / ".index.staging-of-another-process"
    staging.mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert go(DOCUMENTS, dry_run=True).pending == 20
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with open_index(tmp_path / "index").writer():
        assert go(DOCUMENTS, dry_run=True).pending == 20


def test_a_dry_run_counts_what_an_interrupted_run_left(go, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        interrupting(patch, at=2)
        assert go(DOCUMENTS).acknowledged == 10
    log = (tmp_path / "index/pending/log").read_bytes()
    assert go(DOCUMENTS, dry_run=True, resume=True).pending == 20
    assert (tmp_path / "index/pending/log").read_bytes() == log
    assert go(DOCUMENTS, resume=True).acknowledged == 20


@pytest.mark.parametrize("sharding", [None, Sharding(2)])
def test_a_feed_without_documents_fixes_no_metadata_fields(go, tmp_path, sharding):
    assert go([], sharding=sharding).acknowledged == 0
    assert dict(open_index(tmp_path / "index").schema.fields) == {}
    assert go(DOCUMENTS, dry_run=True).pending == 30
    assert go(DOCUMENTS).acknowledged == 30
    assert open_index(tmp_path / "index").schema.to_json() == {"year": "long"}


@pytest.mark.parametrize("sharding", [None, Sharding(2)])
def test_fields_are_added_where_that_is_asked_for(go, tmp_path, sharding):
    go(DOCUMENTS[:4], sharding=sharding)
    more = [document(number, lang="en") for number in range(4, 8)]
    with pytest.raises(MetadataError, match="document 'd4': .*'lang' is not in the index .*--add-fields"):
        go(more)
    with pytest.raises(MetadataError, match="document 'd9': .*'year'"):
        go([Document("d9", "", "text", {"year": "x", "lang": "en"})], add_fields=True)
    assert go(more, add_fields=True, dry_run=True).pending == 4
    assert open_index(tmp_path / "index").schema.to_json() == {"year": "long"}
    assert go(more, add_fields=True).acknowledged == 4
    index = open_index(tmp_path / "index")
    assert index.schema.to_json() == {"lang": "string", "year": "long"}
    assert set(index.documents_with(parse_filter({"lang": "en"}, index.schema))) == {"d4", "d5", "d6", "d7"}
    assert index.passages_of(["d1"])["d1"][0].metadata == {"year": 2001}


def test_limit(go, tmp_path):
    assert go(DOCUMENTS, limit=7).acknowledged == 7


def test_workers_make_the_same_index(go, tmp_path):
    alone = go(DOCUMENTS, "alone", workers=0)
    shared = go(DOCUMENTS, "shared", workers=2)
    assert (shared.passages, shared.token_vectors) == (alone.passages, alone.token_vectors)
    one, two = LocalIndex.open(tmp_path / "alone"), LocalIndex.open(tmp_path / "shared")
    assert list(one.iter_passages()) == list(two.iter_passages())
    for item in one.iter_passages():
        assert np.allclose(one.vectors(item.id), two.vectors(item.id), atol=1e-3)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_dies_is_replaced_once(go, tiny_bundle, monkeypatch, tmp_path, deaths):
    real = WorkerEncoding._start
    left = [deaths]

    def start(self, place):
        process = real(self, place)
        if left[0]:
            left[0] -= 1
            os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(WorkerEncoding, "_start", start)
    if deaths == 1:
        assert go(DOCUMENTS, workers=1).acknowledged == 30
        return
    with pytest.raises(ColbertVespaError, match=r"ended twice on the same documents \(signal SIGKILL\)"):
        go(DOCUMENTS, workers=1)
    monkeypatch.undo()
    assert go(DOCUMENTS, workers=1, resume=True).acknowledged == 30


def test_a_worker_that_cannot_start_says_why(tiny_bundle):
    encoding = WorkerEncoding(tiny_bundle, "no such precision", Splitting(), 1)
    try:
        with pytest.raises(ColbertVespaError, match="no such precision"):
            encoding.submit([Text("", "text")]).result(60)
    finally:
        encoding.close()


def test_vectors_that_are_no_numbers_are_a_dead_letter(go, tiny_bundle, tmp_path):
    encoder = Encoder(tiny_bundle)

    class Broken:
        bundle, precision = tiny_bundle, encoder.precision

        def encode_documents(self, texts, rows=None):
            found = encoder.encode_documents(texts, rows)
            return [rows * np.nan if "title 5 " in text else rows for text, rows in zip(texts, found, strict=True)]

    summary = go(DOCUMENTS, encoder=Broken())
    assert (summary.acknowledged, summary.dead_lettered, summary.errors) == (29, 1, {"refused here": 1})
    [letter] = read_letters(tmp_path / "j.dead.jsonl")
    assert letter["id"] == "d5" and "NaN" in letter["message"] and letter["document"]["text"] == DOCUMENTS[5].text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**70])
def test_metadata_that_is_no_number_is_refused_before_anything_is_sent(go, tmp_path, value):
    with pytest.raises(MetadataError, match="document 'd30'"):
        go([*DOCUMENTS, document(30, year=value)])
    assert not (tmp_path / "index").exists()


def test_vectors_come_from_the_cache(go, tiny_bundle, tmp_path):
    summary = go(DOCUMENTS, cache=tmp_path / "cache")
    cache = VectorCache(tmp_path / "cache", tiny_bundle.manifest.dim)
    kept = len(cache)
    cache.close()
    assert 0 < kept <= summary.passages

    class NoEncoder:
        bundle, precision = tiny_bundle, Encoder(tiny_bundle).precision

        def encode_documents(self, texts, rows=None):
            raise AssertionError("encoded again")

    assert go(DOCUMENTS, "other", cache=tmp_path / "cache", encoder=NoEncoder()).acknowledged == 30
    with pytest.raises(UsageError, match="omit workers"):
        go(DOCUMENTS, workers=2, cache=tmp_path / "cache")


def interrupting(monkeypatch, at, times=1):
    """Ctrl-C during the `at`th put."""
    real, calls = LocalTarget.put, [0]

    def put(self, batch):
        calls[0] += 1
        real(self, batch)
        for _ in range(times if calls[0] == at else 0):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LocalTarget, "put", put)
    monkeypatch.setattr(
        Feed.__init__,
        "__kwdefaults__",
        Feed.__init__.__kwdefaults__ | {"batch_size": 5},
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_drains_and_the_rest_can_be_resumed(go, monkeypatch, tmp_path, workers):
    with monkeypatch.context() as patch:
        interrupting(patch, at=2)
        summary = go(DOCUMENTS, workers=workers)
    assert (summary.outcome, summary.acknowledged, summary.pending, summary.version) == ("interrupted", 10, 20, None)
    assert LocalIndex.open(tmp_path / "index").passages == 0
    with pytest.raises(LocalIndexError, match="--resume"):
        go(DOCUMENTS)
    summary = go(DOCUMENTS, resume=True)
    assert (summary.outcome, summary.acknowledged, summary.already_there) == ("complete", 20, 10)
    assert set(passages(tmp_path / "index")) == {item.id for item in DOCUMENTS}


def test_a_second_ctrl_c_stops_at_once(go, monkeypatch):
    with monkeypatch.context() as patch:
        interrupting(patch, at=1, times=2)
        with pytest.raises(KeyboardInterrupt):
            go(DOCUMENTS)
    assert go(DOCUMENTS, resume=True).pending == 0


def test_a_failed_feed_says_how_far_it_came(tiny_bundle, tmp_path, monkeypatch):
    class Breaks:
        reads = 0

        def __iter__(self):
            self.reads += 1
            for place, item in enumerate(DOCUMENTS):
                if self.reads == 2 and place == 28:
                    raise CollectionError("broken.jsonl:29: not JSON")
                yield item

    defaults = Feed.__init__.__kwdefaults__ | {"batch_size": 5}
    monkeypatch.setattr(Feed.__init__, "__kwdefaults__", defaults)
    options = FeedOptions(to=str(tmp_path / "index"), bundle=tiny_bundle, journal=tmp_path / "j")
    with start_feed([Breaks()], options) as run:
        with pytest.raises(CollectionError, match="broken"):
            run.go()
        summary = run.summary
    balanced(summary)
    assert (summary.outcome, summary.error) == ("failed", "broken.jsonl:29: not JSON")
    assert 0 < summary.acknowledged < 30 and summary.pending == 30 - summary.acknowledged


def test_a_rate_is_kept(tiny_bundle):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    pacing = Pacing(50.0, clock=lambda: now[0], sleep=sleep)
    assert pacing.step == 5
    for _ in range(21):
        pacing.take(pacing.step)
    assert now[0] == pytest.approx(2.0)
    assert max(slept) <= 0.1 + 1e-9


async def some():
    for item in DOCUMENTS[:5]:
        yield item


def test_async_iterables(tiny_bundle, tmp_path):
    assert feed(some(), FeedOptions(to=str(tmp_path / "a"), bundle=tiny_bundle, journal=tmp_path / "j")).acknowledged == 5

    async def inside():
        with pytest.raises(UsageError, match="feed_async"):
            feed(some(), FeedOptions(to=str(tmp_path / "b"), bundle=tiny_bundle, journal=tmp_path / "j"))
        return await feed_async(some(), FeedOptions(to=str(tmp_path / "b"), bundle=tiny_bundle, journal=tmp_path / "j"))

    assert asyncio.run(inside()).acknowledged == 5


@pytest.mark.parametrize(
    "wrong", [{"operation": "patch"}, {"limit": 0}, {"workers": -1}, {"rate": 0.0}, {"rate": float("inf")}]
)
def test_options_that_cannot_be(tmp_path, wrong):
    with pytest.raises(UsageError):
        FeedOptions(to="x", journal=tmp_path / "j", **wrong)


def test_dead_letters_are_named_and_fed_again(go, tmp_path):
    go(DOCUMENTS[:1])
    summary = go([document(5)], operation="update")
    letters = tmp_path / "j.dead.jsonl"
    assert summary.dead_letter_file == str(letters)
    retried = DeadLetterSource(letters)
    assert (retried.operation, [item.id for item in retried]) == ("update", ["d5"])
    go([document(5)], journal=tmp_path / "other")
    assert go(retried, operation=retried.operation, journal=tmp_path / "again").dead_letter_file is None
    with pytest.raises(CollectionError, match="missing.* does not exist"):
        DeadLetterSource(tmp_path / "missing")
    (tmp_path / "ordinary.jsonl").write_text('{"id": "a", "text": "one"}\n')
    with pytest.raises(CollectionError, match="not dead letters"):
        DeadLetterSource(tmp_path / "ordinary.jsonl")
