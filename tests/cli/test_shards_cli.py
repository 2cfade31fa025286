"""Shards through the command line: feed, resume, delete, move, search, upkeep; and what is refused, in one line."""

import json
import os
import re
import shutil
import signal
import socket

import pytest
from plaid_tools import worker_pids

from feeder import FeedOptions, start_feed
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.plaid import Storage
from late_interaction.plaid.shards import Sharding
from query import Client, ClientSettings

WORDS = ("thread", "socket", "parser", "random", "date", "queue", "file", "json")


def lines(documents):
    return "".join(json.dumps(d) + "\n" for d in documents)


def document(number, lang):
    word = WORDS[number % len(WORDS)]
    return {"id": f"d{number}", "text": f"how to use a {word}, number {number}", "metadata": {"lang": lang, "n": number}}


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "documents.jsonl"
    file.write_text(lines(document(n, "en" if n % 2 else "de") for n in range(30)))
    return file


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_bundle):
    """Thirty documents in one index, and in two shards."""
    folder = tmp_path_factory.mktemp("two")
    documents = [
        Document(d["id"], "", d["text"], d["metadata"]) for d in (document(n, "en" if n % 2 else "de") for n in range(30))
    ]
    for name, sharding in (("one", None), ("many", Sharding(2))):
        options = FeedOptions(
            to=str(folder / name), bundle=tiny_bundle, encoder=Encoder(tiny_bundle), journal=folder / "j", sharding=sharding,
            storage=Storage("float32"),
        )  # fmt: skip
        with start_feed([documents], options) as run:
            assert run.go().acknowledged == 30
    return folder


def last(done):
    return json.loads(done.stdout.splitlines()[-1])


def refused(done):
    text = " ".join(done.stderr.split())
    assert text.startswith("error: ") and "Traceback" not in text
    return text


def test_feed_search_delete_move_and_upkeep(cli, source, tiny_bundle, tmp_path):
    index = str(tmp_path / "i")
    fed = last(cli("feed", str(source), "--bundle", str(tiny_bundle.path), "--to", index, "--shards", "3", "--shard-by", "lang",
                   "--codec", "binary", "--json"))  # fmt: skip
    assert (fed["acknowledged"], fed["documents"]) == (30, 30)
    info = last(cli("index", "info", index, "--json"))
    assert (info["shards"], info["key"], info["documents"], info["codec"]) == (3, "lang", 30, "binary")
    assert sorted(shard["passages"] for shard in info["shard_sizes"])[-1] >= 15
    found = last(cli("search", "use a socket", "--from", index, "--where", '{"lang": "en"}', "-k", "30", "--json"))
    assert {hit["id"] for hit in found["hits"]} == {f"d{n}" for n in range(1, 30, 2)}
    assert (found["coverage"], found["notes"]) == (1.0, [])

    moved, gone = tmp_path / "moved.jsonl", tmp_path / "gone.jsonl"
    moved.write_text(lines(document(n, f"lang {n}") for n in range(8)))
    gone.write_text(lines([document(20, "en"), document(21, "de")]))
    cli("feed", str(moved), "--to", index)
    cli("feed", str(gone), "--to", index, "--delete")
    found = last(cli("search", "use a socket", "--from", index, "-k", "99", "--json"))
    assert sorted(hit["id"] for hit in found["hits"]) == sorted(f"d{n}" for n in range(30) if n not in (20, 21))
    assert {hit["metadata"]["lang"] for hit in found["hits"] if hit["id"] == "d3"} == {"lang 3"}

    assert last(cli("index", "compact", index, "--json"))["passages"] == 28
    assert last(cli("index", "verify", index, "--json"))["ok"]
    versions = last(cli("index", "versions", index, "--json"))["versions"]
    assert [(row["version"], row["passages"], row["current"]) for row in versions] == [(3, 28, False), (4, 28, True)]
    assert last(cli("index", "name", index, "small", "--json")) == {"version": 5, "name": "small"}
    cli("feed", str(source), "--to", index)
    assert "28 passages  small" in cli("index", "versions", index).stdout
    tuned = last(cli("index", "tune", index, "--recall", "0.9", "--json"))
    info = last(cli("index", "info", index, "--json"))
    assert (info["version"], info["passages"]) == (7, 30) and f"rerank {tuned['rerank']}" in info["effort"]
    assert last(cli("index", "prune", index, "--json"))["removed"] == [6]
    assert last(cli("index", "rollback", index, "small", "--json")) == {"version": 8, "passages": 28}
    assert "it has: 5 (small), 7, 8" in refused(cli("index", "rollback", index, "none", code=1))


def test_metrics_on_a_port_that_is_taken_are_refused_before_anything_is_written(cli, source, tiny_bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli(
            "feed", str(source), "--bundle", str(tiny_bundle.path), "--to", str(tmp_path / "new"), "--metrics", port, code=2
        )
    assert f"port {port} of 127.0.0.1" in done.stderr
    assert not (tmp_path / "new").exists()


def test_an_interrupted_feed_resumes(cli, source, tiny_bundle, tmp_path, monkeypatch):
    from feeder.feeding import pipeline
    from feeder.targets.local import LocalTarget

    monkeypatch.setattr(pipeline, "BATCH", 8)
    monkeypatch.setattr(pipeline.Feed.__init__, "__kwdefaults__", pipeline.Feed.__init__.__kwdefaults__ | {"batch_size": 8})
    real = LocalTarget.put

    def put(self, batch):
        if any(item.document.id == "d20" for item in batch):
            raise KeyboardInterrupt
        return real(self, batch)

    index = str(tmp_path / "i")
    arguments = ("feed", str(source), "--bundle", str(tiny_bundle.path), "--to", index, "--shards", "2", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(LocalTarget, "put", put)
        cli(*arguments, code=130)
    resumed = last(cli(*arguments, "--resume"))
    assert resumed["already_there"] == 16 and resumed["acknowledged"] == 14
    assert last(cli("index", "info", index, "--json"))["documents"] == 30


@pytest.mark.parametrize(
    "options, message, code",
    [
        (("--shards", "0"), "not from 1 to 64", 2),
        (("--shard-by", "lang"), "--shard-by needs --shards", 2),
        (("--shards", "2", "--shard-by", "colour"), "'colour'", 2),
    ],
)
def test_shards_that_cannot_be_are_refused(cli, source, tiny_bundle, tmp_path, options, message, code):
    done = cli("feed", str(source), "--bundle", str(tiny_bundle.path), "--to", str(tmp_path / "i"), *options, code=code)
    assert message in refused(done)
    assert not (tmp_path / "i").exists()


def test_other_shards_than_an_index_has_are_refused(cli, source, two):
    for name, shards, message in (("one", "2", "has no shards"), ("many", "3", "has 2 shards by id, not 3 shards by id")):
        assert message in refused(cli("feed", str(source), "--to", str(two / name), "--shards", shards, code=1))
    assert "Vespa distributes" in refused(cli("feed", str(source), "--to", "http://localhost:1", "--shards", "2", code=2))


def test_verify_finds_a_flipped_byte_and_a_damaged_description(cli, two, tmp_path):
    shutil.copytree(two / "many", tmp_path / "i")
    (file,) = (tmp_path / "i/shard-1/segments").glob("*/texts.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "shard-1" in refused(cli("index", "verify", str(tmp_path / "i"), code=1))
    (tmp_path / "i/SHARDS.json").write_text("{")
    for command in (("index", "verify", str(tmp_path / "i")), ("search", "x", "--from", str(tmp_path / "i"))):
        assert "SHARDS.json cannot be read" in refused(cli(*command, code=1))


@pytest.mark.parametrize("strategy", ["centroid", "bm25", "hybrid", "exhaustive"])
def test_every_strategy_answers_as_one_index_does(two, strategy):
    one, many = Client(str(two / "one")), Client(str(two / "many"))
    try:
        for query, where in (("use a socket", None), ("random number 3", {"lang": "de"}), ("queue", {"n": {"$gt": 99}})):
            expected = one.search(query, 30, where=where, candidates=strategy)
            found = many.search(query, 30, where=where, candidates=strategy)
            assert sorted(hit.id for hit in found.hits) == sorted(hit.id for hit in expected.hits)
            if strategy != "hybrid":  # ranks of equal scores differ, and so do their reciprocals
                assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], abs=1e-5)
            words = {hit.id: hit.stages["bm25"] for hit in expected.hits if "bm25" in hit.stages}
            assert {hit.id: hit.stages["bm25"] for hit in found.hits if "bm25" in hit.stages} == pytest.approx(words)
            assert (found.coverage, found.matched) == (1.0, expected.matched)
    finally:
        many.close()


@pytest.mark.parametrize("strategy", ["centroid", "bm25", "hybrid"])
def test_a_late_shard_is_told_with_the_coverage(two, strategy):
    client = Client(two / "many", settings=ClientSettings(timeout=60))
    try:
        client.search("use a socket", 30)
        index = client._core.indexes["many"].index
        assert index.sharding
        os.kill(worker_pids(index)[0], signal.SIGSTOP)
        found = client.search("use a socket", 30, candidates=strategy, timeout=2)
        alive = index.readers()[1].passages
        assert found.coverage == pytest.approx(alive / 30) and 0 < len(found.hits) <= alive
        assert not found.full
        assert re.fullmatch(rf"only {alive / 30:.0%} of the passages were searched: shard-0: .*", found.notes[0])
    finally:
        client.close()


def test_shards_among_several_indexes(two):
    with Client([two / "one", two / "many"]) as client:
        found = client.search("use a socket", 60)  # all: many documents are alike, and ties have no order between indexes
        scores = [[hit.score for hit in found.hits if hit.index == name] for name in ("one", "many")]
        assert len(scores[0]) == 30
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_evaluate_works_on_shards(cli, two, tmp_path):
    (tmp_path / "corpus.jsonl").write_text(lines(document(n, "en") for n in range(30)))
    (tmp_path / "queries.jsonl").write_text(lines([{"id": "q", "text": "use a socket, number 1"}]))
    (tmp_path / "qrels.tsv").write_text("query-id\tdoc-id\trelevance\nq\td1\t1\n")
    done = cli("evaluate", "--from", str(two / "many"), "--collection", str(tmp_path), "--candidates", "exhaustive", "--json")
    assert last(done)["recall_at_10"] >= 0.8


def test_evaluate_refuses_an_answer_without_some_of_the_passages(cli, two, tmp_path):
    shutil.copytree(two / "many", tmp_path / "i")
    shutil.rmtree(tmp_path / "i/shard-1")
    (tmp_path / "corpus.jsonl").write_text(lines(document(n, "en") for n in range(30)))
    (tmp_path / "queries.jsonl").write_text(lines([{"id": "q", "text": "use a socket, number 1"}]))
    (tmp_path / "qrels.tsv").write_text("query-id\tdoc-id\trelevance\nq\td1\t1\n")
    assert "shard-1" in refused(cli("evaluate", "--from", str(tmp_path / "i"), "--collection", str(tmp_path), code=1))
