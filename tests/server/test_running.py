"""Load, deadlines, disconnects and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading

import numpy as np
import pytest
from animals import QUERY
from serving import made, refused, serving

from colbert_vespa.server.batching import Gathering
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.guard import Guard
from colbert_vespa.server.limits import Gate
from colbert_vespa.server.running import Listen, listening
from colbert_vespa.server.settings import ServedAddress
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder

LINES = {"accept": "application/x-ndjson"}


async def test_what_arrives_while_work_is_busy_is_taken_up_together():
    batches, go_on = [], asyncio.Event()

    async def work(items):
        batches.append(items)
        await go_on.wait()
        return [10 * item for item in items]

    gather = Gathering(work, most=3)
    first = asyncio.create_task(gather(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert batches == [[1]]  # at once, as it came alone
    others = [asyncio.create_task(gather(n)) for n in range(2, 8)]
    await asyncio.sleep(0)
    others[1].cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await first == 10
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [results[0], *results[2:]] == [20, 40, 50, 60, 70] and isinstance(results[1], asyncio.CancelledError)
    assert batches == [[1], [2, 4, 5], [6, 7]]


async def test_an_error_is_that_of_its_batch_alone():
    async def work(items):
        if "bad" in items:
            raise ValueError("bad")
        return items

    gather = Gathering(work, most=1)
    good, bad, later = await asyncio.gather(gather("a"), gather("bad"), gather("b"), return_exceptions=True)
    assert (good, str(bad), later) == ("a", "bad", "b")


async def test_a_small_answer_is_sent_at_once():
    """An answer is two packets, head and body: with Nagle's algorithm the second waits 40 ms for the first one's receipt."""
    accepted = asyncio.get_running_loop().create_future()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    with listening(Listen(port=0)) as on:
        server = await asyncio.get_running_loop().create_server(Connection, sock=on)
        async with server:
            _, writer = await asyncio.open_connection(*on.getsockname())
            assert await accepted
            writer.close()


async def test_requests_past_the_queue_are_refused_and_those_in_it_keep_their_order():
    gate, order, inside = Gate(1, 2), [], asyncio.Event()

    async def enter(name, left=60.0):
        async with gate.entered(left):
            order.append(name)
            await inside.wait()

    tasks = []
    for name in "abc":
        tasks.append(asyncio.create_task(enter(name)))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (gate.running, gate.waiting) == (1, 2)
    with pytest.raises(Refusal) as error:
        await enter("d")
    assert (error.value.status, error.value.headers["Retry-After"]) == (429, "1")
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert gate.waiting == 1
    with pytest.raises(Refusal, match="request timed out"):
        await enter("e", left=0.01)
    inside.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert order == ["a", "c"] and (gate.running, gate.waiting) == (0, 0)


def test_queries_encoded_together_are_those_encoded_alone(tiny_bundle: Bundle):
    encoder = Encoder(tiny_bundle)
    texts = [QUERY, "fish", "a much longer question about the cat that sat on the mat and looked at the moon", "x"]
    for together, alone in zip(encoder.encode_together(texts), encoder.encode_queries(texts), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert encoder.encode_together([]) == []


async def test_queries_that_arrive_together_are_encoded_together(animals, monkeypatch):
    sizes, busy, go_on = [], threading.Event(), threading.Event()
    encode = Encoder.encode_together

    def slow(self, texts):
        sizes.append(len(texts))
        busy.set()
        assert go_on.wait(60)
        return encode(self, texts)

    async with serving(animals) as http:
        monkeypatch.setattr(Encoder, "encode_together", slow)
        first = asyncio.create_task(http.post("/v1/search", json={"query": "first"}))
        await asyncio.to_thread(busy.wait, 60)
        others = [asyncio.create_task(http.post("/v1/search", json={"query": f"query {n}"})) for n in range(5)]
        others.append(asyncio.create_task(http.post("/v1/search", json={"query": "query 0"})))
        (gather,) = http.engine._queries.values()
        while gather.waiting < 6:
            await asyncio.sleep(0.01)
        go_on.set()
        answers = await asyncio.gather(first, *others)
        assert {answer.status_code for answer in answers} == {200}
        assert sizes == [1, 6]
        text = (await http.get("/metrics")).text
        assert 'encoder_batch_bucket{le="1.0"} 1.0' in text and "encoder_batch_sum 7.0" in text


async def test_a_full_queue_is_told_and_health_is_not_kept_waiting(animals, monkeypatch):
    busy, go_on = threading.Event(), threading.Event()

    def slow(self, texts):
        busy.set()
        assert go_on.wait(60)
        return [np.ones((1, self.dim), np.float32)] * len(texts)

    async with serving(animals, running=1, waiting=1) as http:
        monkeypatch.setattr(Encoder, "encode_together", slow)
        first = asyncio.create_task(http.post("/v1/search", json={"query": "x"}))
        await asyncio.to_thread(busy.wait, 60)
        second = asyncio.create_task(http.post("/v1/search", json={"query": "y"}))
        while not http.engine.gate.waiting:
            await asyncio.sleep(0.01)
        answer = await http.post("/v1/search", json={"query": "z"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert (await http.get("/health")).status_code == 200
        assert "waiting_requests 1.0" in (await http.get("/metrics")).text
        go_on.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]


async def test_a_deadline_ends_a_request_and_a_header_has_it_too(animals, monkeypatch):
    go_on = threading.Event()

    def slow(self, texts):
        assert go_on.wait(60)
        return [np.ones((1, self.dim), np.float32)] * len(texts)

    async with serving(animals) as http:
        monkeypatch.setattr(Encoder, "encode_together", slow)
        try:
            assert "request timed out" in await refused(http.post("/v1/search", json={"query": "x", "timeout": 0.05}), 504)
            late = http.post("/v1/search", json={"query": "x", "timeout": 50}, headers={"x-timeout": "0.05"})
            await refused(late, 504)
        finally:
            go_on.set()
        for header in ("x", "nan", "-1", "1e9"):
            await refused(http.post("/v1/search", json={"query": "x"}, headers={"x-timeout": header}), 422)


async def test_work_is_cancelled_when_the_caller_goes_away():
    began, cancelled, done = asyncio.Event(), [], []

    async def app(scope, receive, send):
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("nobody is there")

    guard = Guard(app, 100, lambda scope, status, seconds: done.append(status))
    task = asyncio.create_task(guard({"type": "http", "headers": []}, receive, send))
    await began.wait()
    gone.set()
    await task
    assert (cancelled, done) == ([True], [499])


async def test_a_body_that_is_too_large_is_refused(animals):
    async with serving(animals, max_body=100) as http:
        assert "more than 100 bytes" in await refused(http.post("/v1/search", json={"query": "x" * 200}), 413)
        assert (await http.post("/v1/search", json={"query": "x"})).status_code == 200


async def test_bodies_are_held_up_to_a_limit_of_all():
    async def app(scope, receive, send):
        await receive()
        await go_on.wait()

    go_on = asyncio.Event()
    messages = [{"type": "http.request", "body": b"x" * 60, "more_body": True}]
    guard = Guard(app, 60, lambda scope, status, seconds: None, max_held=100)

    async def ask():
        waiting = [*messages]

        async def receive():
            if waiting:
                return waiting.pop()
            return await asyncio.Event().wait()

        await guard({"type": "http", "headers": []}, receive, lambda message: asyncio.sleep(0))

    first = asyncio.create_task(ask())
    while not guard.held:
        await asyncio.sleep(0)
    await ask()  # refused, so that it ends at once
    assert guard.held == 60
    go_on.set()
    await first
    assert guard.held == 0


async def test_stages_come_line_by_line_of_one_version(http):
    async with http.stream("POST", "/v1/search", json={"query": QUERY, "k": 2}, headers=LINES) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) async for line in answer.aiter_lines()]
    assert [line["stage"] for line in lines][-1] == "reranked" and len(lines) <= 2
    (plain,) = (await http.post("/v1/search", json={"query": QUERY, "k": 2})).json()["results"]
    assert [hit["id"] for hit in lines[-1]["hits"]] == [hit["id"] for hit in plain["hits"]]
    await refused(http.post("/v1/search", json={"queries": ["x", "y"]}, headers=LINES), 422)
    await refused(http.post("/v1/search", json={"query": "x", "offset": 0}, headers=LINES), 422)
    await refused(http.post("/v1/search", json={"query": "x", "where": {"a": 1}}, headers=LINES), 422)


async def test_metrics_count_routes_and_never_texts(http):
    await http.post("/v1/search", json={"query": "a secret"})
    await http.get("/v1/indexes/animals/documents/horse")
    await http.request("BREW", "/nowhere/secret")
    text = (await http.get("/metrics")).text
    assert 'requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert 'route="/v1/indexes/{name}/documents/{id}",status="404"' in text.replace("{id:id}", "{id}")
    assert 'stage_seconds_count{stage="encode"} 1.0' in text
    assert "secret" not in text and "horse" not in text and "BREW" not in text


async def test_the_log_has_ids_and_no_texts(http, caplog):
    caplog.set_level(logging.INFO, "colbert_vespa.server")
    given = {"x-request-id": "mine-1", "authorization": "Bearer hush"}
    assert (await http.post("/v1/search", json={"query": "a secret"}, headers=given)).headers["x-request-id"] == "mine-1"
    answer = await http.get("/v1/indexes/animals/documents/secret", headers={"x-request-id": "no good\n" * 9})
    assert answer.headers["x-request-id"].isalnum()
    records = [vars(record) for record in caplog.records]
    assert {record["request_id"] for record in records} == {"mine-1", answer.headers["x-request-id"]}
    assert "secret" not in str(records) and "hush" not in str(records)


async def test_a_fault_is_told_without_its_words(http, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError("a secret")

    monkeypatch.setattr("colbert_vespa.server.routes.search.result_json", fail)
    said = await refused(http.post("/v1/search", json={"query": "x"}), 500)
    assert "secret" not in said and "secret" not in str([vars(record) for record in caplog.records])


async def test_other_origins_read_answers_where_they_are_named(animals):
    ask = {
        "origin": "https://friend.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-timeout",
    }
    async with serving(animals) as http:
        answer = await http.options("/v1/search", headers=ask)
        assert "access-control-allow-origin" not in answer.headers
    async with serving(animals, cors=("https://friend.example",)) as http:
        answer = await http.options("/v1/search", headers=ask)
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "access-control-allow-credentials" not in answer.headers
        other = await http.options("/v1/search", headers={**ask, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_warming_up_ends_when_the_server_is_told_to_stop(tmp_path, tiny_bundle, monkeypatch):
    asked, encode = iter([False, True]), []
    engine = Engine([ServedAddress(made(tmp_path / "index", tiny_bundle))])
    monkeypatch.setattr(
        Encoder, "encode_queries", lambda self, texts: encode.append(texts) or [np.ones((1, self.dim), np.float32)]
    )
    monkeypatch.setattr("colbert_vespa.server.engine.step", lambda plan, answer: pytest.fail("a search after the end"))
    engine.warm(lambda: next(asked))
    assert encode == [["warm"]]
    asyncio.run(engine.close())
