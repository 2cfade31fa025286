"""Feeding on a real node: forms of ids, several passages, partial updates; and faults in the middle of a feed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from feeder.outcomes import StoredDigest
from feeder.targets import EncodedDocument
from feeder.targets.vespa import open_vespa
from late_interaction.documents import Document, Passage

pytestmark = pytest.mark.live

IDS = ["fed", "Fed", "it's", 'say "so"', """both "' """, "comma, and @ids) or true", "ünï ☃", "a/b?c=d#e%20", "tab\tx", " lead"]
NODE = os.environ.get("COLBERT_VESPA_NODE_TOOL", "")


@pytest.fixture(params=["passage", "chunked"])
def target(request, world):
    """An index of the shared application, from which all that a test fed is removed."""
    opened = open_vespa(f"{world.url}#{request.param}", world.bundle)
    made = SimpleNamespace(target=opened, url=world.url, schema=request.param, ids=set(IDS), dim=opened.bundle.manifest.dim)
    made.encoded = lambda id_, count=1, **changes: encoded(made, id_, count, **changes)
    yield made
    opened.delete(sorted(made.ids))
    assert failures(opened) == {}
    opened.close()


def encoded(made, id_, count, *, digest="D1", stale=(), text="text", metadata=None):
    document = Document(id_, "title", text, metadata or {})
    passages = tuple(dataclasses.replace(Passage.of(document, n), text=f"{text} {n}") for n in range(count))
    vectors = tuple(np.eye(3, made.dim, dtype=np.float32) for _ in passages)
    return EncodedDocument(document, passages, vectors, digest, tuple(stale))


def failures(target):
    return {done.document_id: done.failure for done in target.settled(wait=True) if done.failure}


def stored_ids(made, id_, count):
    return tuple(f"{id_}#{n}" for n in range(1 if made.schema == "chunked" else count))


def text_of(made, passage_id):
    answer = httpx.get(f"{made.url}/document/v1/colbert/{made.schema}/docid/{passage_id.replace('#', '%23')}", timeout=30)
    return answer.json()["fields"]["text"]


def test_ids_of_every_form_are_stored_found_and_removed(target):
    target.target.put([target.encoded(id_, 3) for id_ in IDS])
    assert failures(target.target) == {}
    assert target.target.stored([*IDS, "not there"]) == {id_: StoredDigest("D1", stored_ids(target, id_, 3)) for id_ in IDS}
    target.target.delete(IDS[:4])
    assert failures(target.target) == {}
    assert set(target.target.stored(IDS)) == set(IDS[4:])


def test_a_document_replaces_its_passages(target):
    target.target.put([target.encoded("fed", 3)])
    stale = () if target.schema == "chunked" else ("fed#1", "fed#2")
    target.target.put([target.encoded("fed", 1, digest="D2", text="new", stale=stale)])
    assert failures(target.target) == {}
    assert target.target.stored(["fed"]) == {"fed": StoredDigest("D2", ("fed#0",))}


def test_an_update_changes_metadata_and_what_filters_see(target, world):
    target.target.put([target.encoded("fed", 2, metadata={"pages": 1, "kind": "here"})])
    target.target.update(
        [Document("fed", metadata={"pages": 777777, "kind": None}), Document("not there", metadata={"pages": 1})]
    )
    assert list(failures(target.target)) == ["not there"]
    assert target.target.stored(["fed"])["fed"].digest == ""
    body = {"yql": f"select * from {target.schema} where pages = 777777 and present contains 'pages'"}
    found = httpx.post(f"{target.url}/search/", json=body, timeout=30).json()["root"]
    assert found["fields"]["totalCount"] == len(stored_ids(target, "fed", 2))
    body = {"yql": f"select * from {target.schema} where pages = 777777 and present contains 'kind'"}
    assert httpx.post(f"{target.url}/search/", json=body, timeout=30).json()["root"]["fields"]["totalCount"] == 0


def test_an_update_of_a_document_that_vanished_is_a_failure(target):
    """Vespa itself answers 200 to an update of nothing."""
    target.target.put([target.encoded("fed")])
    assert failures(target.target) == {}
    rows = target.target._rows.of(["fed"])
    target.target.delete(["fed"])
    assert failures(target.target) == {}
    target.target._rows = SimpleNamespace(of=lambda ids: rows, close=target.target._rows.close)
    target.target.update([Document("fed", metadata={"pages": 1})])
    assert failures(target.target)["fed"].status == 412
    target.ids.clear()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["content node", "container"])
def test_a_service_that_dies_in_the_middle_of_a_feed_loses_nothing(target, fault):
    """The content node is stopped and started, and operations wait for it in the container or are sent again; the container
    is killed, and its sentinel starts it again."""
    if not NODE:
        pytest.skip("COLBERT_VESPA_NODE_TOOL names no tool that stops services")
    ids = [f"many{n}" for n in range(3000)]
    target.ids = set(ids)
    target.target.put([target.encoded(id_, text="old") for id_ in ids[:1000]])
    assert failures(target.target) == {}
    breaking = threading.Thread(target=break_content if fault == "content node" else kill_container)
    breaking.start()
    first = 0
    while breaking.is_alive() or first < len(ids):  # the feed goes on for as long as the fault lasts
        part = ids[first : first + 100] or ids[:100]
        target.target.put([target.encoded(id_, text="new", digest="D2") for id_ in part])
        first += 100
        time.sleep(0.1)
    breaking.join()
    assert failures(target.target) == {}
    assert fault == "content node" or sum(target.target.statistics().retries.values()) > 0
    found = target.target.stored(ids)
    assert found == {id_: StoredDigest("D2", (f"{id_}#0",)) for id_ in ids}
    assert "new 0" in text_of(target, "many7#0")


def break_content() -> None:
    subprocess.run([NODE, "stop", "searchnode"], check=True, capture_output=True, timeout=120)
    time.sleep(5)
    subprocess.run([NODE, "start", "searchnode"], check=True, capture_output=True, timeout=120)


def kill_container() -> None:
    status = subprocess.run([NODE, "status"], check=True, capture_output=True, text=True, timeout=60).stdout
    line = next(line for line in status.splitlines() if line.split()[:1] == ["container"])
    pid = next(part.partition("=")[2] for part in line.split() if part.startswith("pid="))
    os.kill(int(pid), signal.SIGKILL)
