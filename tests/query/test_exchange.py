"""Deadlines, retries, hedged requests, Vespa's errors: sync and async decide alike."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import pytest

from late_interaction.errors import UsageError, VespaBusy, VespaRefused, VespaTimeout, VespaUnreachable
from query import AsyncClient
from query.exchange import FIRST_PAUSE_S, AsyncExchange, Exchange
from query.options import ClientSettings
from query.plans import VespaQuery

URL = "http://vespa:8080"
FULL = {"root": {"coverage": {"coverage": 100, "documents": 3}, "children": []}}


def refusal(status, code, message):
    return httpx.Response(status, json={"root": {"errors": [{"code": code, "summary": "S", "message": message}]}})


class Vespa:
    """Answers in turn: a response, or an exception that is raised. `bodies` is what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.bodies = []
        self.now = 0.0
        self.slept = []

    def __call__(self, request):
        self.bodies.append(json.loads(request.content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content)  # a response has one use

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds):
        self.sleep(seconds)

    def ask(self, way, settings=None, deadline=10.0, count=1):
        settings, transport = settings or ClientSettings(), httpx.MockTransport(self)
        asks = [VespaQuery(URL, {"yql": "select", "n": n}, deadline) for n in range(count)]
        if way == "sync":
            exchange = Exchange(settings, transport=transport, clock=lambda: self.now, sleep=self.sleep)
            try:
                return exchange.ask(asks)
            finally:
                exchange.close()

        async def go():
            exchange = AsyncExchange(settings, transport=transport, clock=lambda: self.now, sleep=self.sleep_async)
            try:
                return await exchange.ask(asks)
            finally:
                await exchange.close()

        return asyncio.run(go())


@pytest.fixture(params=["sync", "async"])
def way(request):
    return request.param


def ok():
    return httpx.Response(200, json=FULL)


def test_the_deadline_is_passed_on(way):
    vespa = Vespa(ok())
    vespa.now = 4.0
    answer = vespa.ask(way, deadline=6.5)[0]
    assert answer.body == FULL and answer.sent == 1
    assert vespa.bodies == [{"yql": "select", "n": 0, "timeout": "2.500s", "ranking.softtimeout.enable": True}]
    vespa = Vespa(ok())
    vespa.ask(way, ClientSettings(soft_timeout=False))
    assert vespa.bodies[0]["ranking.softtimeout.enable"] is False


def test_nothing_is_sent_when_time_is_up(way):
    vespa = Vespa()
    vespa.now = 10.0
    with pytest.raises(VespaTimeout, match="before it was sent to http://vespa:8080"):
        vespa.ask(way)
    assert vespa.bodies == []


@pytest.mark.parametrize(
    "failure",
    [httpx.ConnectError("refused"), httpx.RemoteProtocolError("reset"), httpx.Response(503, text="no"),
     httpx.Response(429, json={"message": "slow down"}), refusal(503, 0, "no backends"), refusal(200, 10, "backend lost")],
)  # fmt: skip
def test_what_may_pass_is_tried_again_with_what_is_left_of_the_time(way, failure):
    vespa = Vespa(failure, ok())
    answer = vespa.ask(way)[0]
    assert answer.sent == 2
    assert len(vespa.slept) == 1 and 0 <= vespa.slept[0] <= 0.075
    assert vespa.bodies[1]["timeout"] == f"{10 - vespa.now:.3f}s"


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (refusal(400, 4, "Could not parse YQL"), VespaRefused, "refused the query: Could not parse YQL"),
        (refusal(504, 12, "Query timed out in passage"), VespaTimeout, "ran out of time: Query timed out in passage"),
        (httpx.ReadTimeout("slow"), VespaTimeout, "did not answer in time"),
        (httpx.Response(403, json={"message": "Forbidden"}), VespaRefused, "403: Forbidden"),
        (httpx.Response(200, text="<html>"), VespaRefused, "search result"),
        (httpx.Response(200, json={"root": []}), VespaRefused, "search result"),
        (httpx.Response(500, json={"root": {"errors": [{"code": 18, "message": "boom"}]}}), VespaRefused, "boom"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_not(way, failure, error, message):
    vespa = Vespa(failure)
    with pytest.raises(error, match=message):
        vespa.ask(way)
    assert len(vespa.bodies) == 1


def test_tries_are_counted_and_end_with_the_time(way):
    vespa = Vespa(*[httpx.Response(503, text="no")] * 9)
    with pytest.raises(VespaBusy):
        vespa.ask(way, ClientSettings(retries=3))
    assert len(vespa.bodies) == 4
    for number, pause in enumerate(vespa.slept):  # twice as long each time, give or take a half
        assert FIRST_PAUSE_S * 2**number * 0.5 <= pause <= FIRST_PAUSE_S * 2**number * 1.5
    vespa = Vespa(*[httpx.Response(503, text="no")] * 9)
    with pytest.raises(VespaBusy):
        vespa.ask(way, ClientSettings(retries=8), deadline=0.02)
    assert len(vespa.bodies) == 1  # a pause would outlast the time
    vespa = Vespa(httpx.ConnectError("refused"))
    with pytest.raises(VespaUnreachable):
        vespa.ask(way, ClientSettings(retries=0))


def test_hits_beside_errors_are_an_answer(way):
    body = {"root": {"errors": [{"code": 12, "message": "one node"}], "children": [{"relevance": 1.0}]}}
    assert Vespa(httpx.Response(200, json=body)).ask(way)[0].body == body


def test_several_are_asked_at_once_and_answered_in_order(way):
    vespa = Vespa(*[ok()] * 3)
    assert len(vespa.ask(way, count=3)) == 3
    assert sorted(body["n"] for body in vespa.bodies) == [0, 1, 2]


def test_half_a_character_is_refused_before_it_is_sent():
    """json would write a lone surrogate as an escape, and Vespa would search for something else."""
    vespa = Vespa(httpx.Response(200, json=FULL))
    exchange = Exchange(ClientSettings(), transport=httpx.MockTransport(vespa), clock=lambda: 0.0)
    with pytest.raises(UsageError, match="surrogates"):
        exchange.ask([VespaQuery(URL, {"text": "half \ud83d"}, 10.0)])
    assert not vespa.bodies
    exchange.close()


def test_a_silent_first_request_is_hedged_sync():
    free = threading.Event()
    asked = []

    def answer(request):
        asked.append(request)
        if len(asked) == 1:
            free.wait(10)
        return ok()

    exchange = Exchange(ClientSettings(hedge_after=0.01), transport=httpx.MockTransport(answer), clock=lambda: 0.0)
    try:
        assert exchange.ask([VespaQuery(URL, {}, 10.0)])[0].body == FULL
        assert len(asked) == 2
    finally:
        free.set()
        exchange.close()


def test_a_silent_first_request_is_hedged_async():
    asked, cancelled = [], []

    async def answer(request):
        asked.append(request)
        if len(asked) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request)
                raise
        return ok()

    async def go():
        exchange = AsyncExchange(ClientSettings(hedge_after=0.01), transport=httpx.MockTransport(answer))
        found = await exchange.ask([VespaQuery(URL, {}, exchange.clock() + 10)])
        await asyncio.sleep(0)
        await exchange.close()
        return found

    assert asyncio.run(go())[0].body == FULL
    assert (len(asked), len(cancelled)) == (2, 1)


def test_a_quick_answer_is_not_hedged(way):
    vespa = Vespa(ok())
    vespa.ask(way, ClientSettings(hedge_after=30.0))
    assert len(vespa.bodies) == 1


def test_first_callers_share_one_transport(monkeypatch):
    made, both = [], threading.Barrier(4)

    class Slow(httpx.MockTransport):
        def __init__(self, **_):
            made.append(self)
            super().__init__(lambda _: ok())

    monkeypatch.setattr(httpx, "HTTPTransport", Slow)
    exchange = Exchange(ClientSettings(hedge_after=5.0))

    def ask():
        both.wait()
        exchange.ask([VespaQuery(URL, {}, exchange.clock() + 10)] * 2)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exchange.close()
    assert len(made) == 1


def test_first_callers_of_several_event_loops_open_one_core(monkeypatch):
    opened, both = [], threading.Barrier(3)

    class Opened:
        def __init__(self, *_, **__):
            time.sleep(0.05)
            opened.append(self)

    monkeypatch.setattr("query.async_client.Core", Opened)
    client = AsyncClient("http://node:8080")
    found = []

    def loop():
        both.wait()

        async def several():
            return await asyncio.gather(*(client._opened() for _ in range(3)))

        found.extend(asyncio.run(several()))

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1 and len(found) == 9 and set(found) == set(opened)


def test_the_connections_of_all_event_loops_are_closed():
    closed = []

    class Line(httpx.AsyncBaseTransport):
        def __init__(self, **_):
            pass

        async def handle_async_request(self, request):
            return ok()

        async def aclose(self):
            closed.append(asyncio.get_running_loop())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "AsyncHTTPTransport", Line)
        exchange = AsyncExchange(ClientSettings())

        async def ask():
            await exchange.ask([VespaQuery(URL, {}, exchange.clock() + 10)])

        idle, running, gone = (asyncio.new_event_loop() for _ in range(3))
        thread = threading.Thread(target=running.run_forever)
        for loop in (idle, gone):
            loop.run_until_complete(ask())
        gone.close()
        thread.start()
        asyncio.run_coroutine_threadsafe(ask(), running).result(10)
        exchange.close_all()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), running).result(10)
        running.call_soon_threadsafe(running.stop)
        thread.join()
        assert set(closed) == {idle, running}
        idle.close()
        running.close()
