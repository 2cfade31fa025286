"""Order, retries, throttle and breaker, in a simulated time against a simulated Vespa: nothing waits and nothing is sent."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

import pytest

from feeder.sending.breaker import Breaker
from feeder.sending.dispatcher import Dispatcher
from feeder.sending.jobs import Job
from feeder.sending.operations import Operation, put, remove
from feeder.sending.throttle import Throttle
from feeder.sending.verdicts import HttpAnswer, Verdict, judge
from late_interaction.errors import VespaBusy, VespaRefused, VespaUnreachable

OK = HttpAnswer(200, b'{"id":"x"}')


class Simulation:
    """A dispatcher and a server: `serve(path, now, in_flight)` gives an answer and its delay in seconds."""

    def __init__(self, serve, *, throttle=None, grace=10.0, doom=120.0):
        self.now = 0.0
        self.serve = serve
        clock = lambda: self.now  # noqa: E731
        chance = random.Random(7)
        throttle = throttle or Throttle(clock, least=16, most=1024, chance=chance)
        self.breaker = Breaker(clock, grace=grace, doom=doom)
        self.dispatcher = Dispatcher("vespa", clock, throttle, self.breaker, chance)
        self.coming: list = []
        self.sent: list[tuple[float, str]] = []
        self.settled: list[Job] = []
        self.most = 0

    def run(self, until=10_000.0):
        number = 0
        while self.now < until and self.dispatcher.error is None:
            while (attempt := self.dispatcher.take()) is not None:
                self.sent.append((self.now, attempt.operation.path))
                answer, delay = self.serve(attempt.operation.path, self.now, self.dispatcher.in_flight)
                number += 1
                heapq.heappush(self.coming, (self.now + delay, number, attempt, answer))
                self.most = max(self.most, self.dispatcher.in_flight)
            self.settled += self.dispatcher.settled()
            wake = self.dispatcher.wake_at()
            if self.coming and (wake is None or self.coming[0][0] <= wake):
                self.now, _, attempt, answer = heapq.heappop(self.coming)
                self.dispatcher.answered(attempt, answer)
            elif wake is not None:
                self.now = max(self.now, wake)
            else:
                break
        self.settled += self.dispatcher.settled()
        return self

    def add(self, *jobs):
        for job in jobs:
            self.dispatcher.add(job)
        return self


def single(key, path=None):
    return Job(key, [[put(path or key, {})]])


def always(answer, delay=0.01):
    return lambda path, now, in_flight: (answer, delay)


def test_every_job_is_settled_once():
    run = Simulation(always(OK)).add(*(single(f"d{n}") for n in range(500))).run()
    assert sorted(job.key for job in run.settled) == sorted(f"d{n}" for n in range(500))
    assert not any(job.failure for job in run.settled)
    assert len(run.sent) == 500
    assert run.dispatcher.in_flight == 0
    assert run.dispatcher._queues == {}


def test_jobs_of_one_document_run_in_order_and_those_of_others_do_not_wait():
    delays = {"a1": 5.0, "a2": 0.1, "b1": 0.1}
    run = Simulation(lambda path, now, n: (OK, delays[path])).add(single("a", "a1"), single("a", "a2"), single("b", "b1")).run()
    assert [path for _, path in run.sent] == ["a1", "b1", "a2"]
    assert run.sent[2][0] == pytest.approx(5.0)
    assert [job.key for job in run.settled] == ["b", "a", "a"]


def test_a_retried_operation_still_comes_before_the_next_of_its_document():
    answers = iter([HttpAnswer(503, b"{}"), HttpAnswer(429, b"{}"), OK, OK])
    run = Simulation(lambda path, now, n: (next(answers), 0.01)).add(single("a", "a1"), single("a", "a2")).run()
    assert [path for _, path in run.sent] == ["a1", "a1", "a1", "a2"]


def test_stages_follow_each_other_and_empty_ones_are_passed_over():
    job = Job("a", [[], [put("p1", {}), put("p2", {})], [], [put("p0", {})], [remove("p3")]])
    run = Simulation(lambda path, now, n: (OK, 1.0)).add(job).run()
    assert run.sent == [(0.0, "p1"), (0.0, "p2"), (1.0, "p0"), (2.0, "p3")]
    assert [job.failure for job in run.settled] == [None]


def test_a_job_without_operations_is_settled_at_once():
    run = Simulation(always(OK)).add(Job("a", [[], []])).run()
    assert [(job.key, job.failure) for job in run.settled] == [("a", None)]


def test_a_refusal_settles_its_document_at_once_and_later_stages_are_not_sent():
    refused = HttpAnswer(400, b'{"message":"no field x"}')
    job = Job("a", [[put("p1", {}), put("p2", {})], [put("p0", {})]])
    run = Simulation(lambda path, now, n: (refused if path == "p1" else OK, 0.1)).add(job, single("a", "later")).run()
    assert [path for _, path in run.sent] == ["p1", "p2", "later"]
    first, second = run.settled
    assert (first.failure.status, first.failure.message) == (400, "vespa answered 400: no field x")
    assert second.failure is None


def test_operations_that_wait_are_dropped_with_their_failed_job():
    answers = {"p1": [HttpAnswer(503, b"{}"), OK], "p2": [HttpAnswer(413, b"too large")]}
    run = Simulation(lambda path, now, n: (answers[path].pop(0), 0.1)).add(Job("a", [[put("p1", {}), put("p2", {})]])).run()
    assert [path for _, path in run.sent] == ["p1", "p2"]
    assert [job.failure.message for job in run.settled] == ["vespa answered 413: too large"]


def test_429_is_retried_without_a_cap_and_fewer_are_in_flight():
    def serve(path, now, in_flight):
        return (HttpAnswer(429, b"{}") if in_flight > 20 or now < 300 else OK, 0.05)

    run = Simulation(serve, throttle=None).add(*(single(f"d{n}") for n in range(300))).run()
    assert len(run.settled) == 300
    assert run.now > 300
    assert max(Counter(path for _, path in run.sent).values()) > 100
    assert run.dispatcher.throttle.allowed <= 40
    assert run.dispatcher.error is None


def test_503_of_one_operation_is_retried_ten_times_and_then_ends_the_feed():
    def serve(path, now, in_flight):
        return (HttpAnswer(503, b'{"message":"overloaded"}') if path == "bad" else OK, 0.1)

    run = Simulation(serve)
    run.add(single("bad"), *(Job("good", [[put("good", {})]]) for _ in range(1000))).run()
    assert [path for _, path in run.sent].count("bad") == 10
    assert isinstance(run.dispatcher.error, VespaBusy)
    assert "vespa answered 503: overloaded; " in str(run.dispatcher.error)
    pauses = [b - a - 0.1 for a, b in pairs([when for when, path in run.sent if path == "bad"])]
    for pause, wanted in zip(pauses, [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10], strict=True):
        assert wanted * 0.75 <= pause + 1e-9 and pause <= wanted * 1.25 + 0.11


def pairs(items):
    return itertools.pairwise(items)


@pytest.mark.parametrize("outage", [1, 15, 60, 100])
def test_an_outage_shorter_than_doom_loses_nothing_and_is_probed_once_a_second(outage):
    def serve(path, now, in_flight):
        return (HttpAnswer(0, error="does not answer (refused)") if 5 <= now < 5 + outage else OK, 0.05)

    run = Simulation(serve).add(*(single(f"d{n}") for n in range(4000))).run()
    assert len(run.settled) == 4000 and not any(job.failure for job in run.settled)
    probes = [when for when, _ in run.sent if 16.1 <= when < 5 + outage]
    assert len(probes) <= max(0, outage - 11) + 1
    assert all(b - a >= 0.99 for a, b in pairs(probes))


def test_an_outage_longer_than_doom_ends_the_feed_and_what_was_settled_is_known():
    def serve(path, now, in_flight):
        return (OK if now < 2 else HttpAnswer(503, b"{}"), 0.05)

    run = Simulation(serve).add(*(single(f"d{n}") for n in range(5000))).run()
    assert isinstance(run.dispatcher.error, VespaBusy)
    assert "feed again with --resume" in str(run.dispatcher.error)
    assert 122 <= run.now <= 124
    assert 0 < len(run.settled) < 5000
    assert run.dispatcher.take() is None


def test_a_slow_vespa_is_waited_for():
    run = Simulation(always(OK, 55.0)).add(*(single(f"d{n}") for n in range(200))).run()
    assert len(run.settled) == 200 and run.dispatcher.error is None
    assert run.dispatcher.counts.retries == {}


def test_answers_that_never_come_do_not_stop_the_probing():
    silent = HttpAnswer(0, error="does not answer (timed out)")

    def serve(path, now, in_flight):
        return (silent, 65.0) if now < 60 else (OK, 0.05)

    run = Simulation(serve, doom=200.0).add(*(single(f"d{n}") for n in range(40))).run()
    assert len(run.settled) == 40 and run.dispatcher.error is None


def test_what_cannot_go_better_ends_the_feed_at_once():
    expired = HttpAnswer(0, error="does not answer (certificate has expired)", lasting=True)
    run = Simulation(always(expired)).add(single("a"), single("b")).run()
    assert isinstance(run.dispatcher.error, VespaUnreachable)
    assert run.now < 1


def test_a_token_that_is_not_accepted_any_more_ends_the_feed_and_condemns_no_document():
    """Formerly each document that was left became a dead letter."""
    answers = iter([OK, OK])
    run = Simulation(lambda path, now, n: (next(answers, HttpAnswer(401, b"Forbidden")), 0.01))
    run.add(*(single(f"d{n}") for n in range(200))).run()
    assert isinstance(run.dispatcher.error, VespaRefused) and run.dispatcher.error.status == 401
    assert "renew the token" in str(run.dispatcher.error) and "--resume" in str(run.dispatcher.error)
    assert not any(job.failure for job in run.settled)


def test_429_and_refusals_show_that_vespa_is_there():
    breaker_answers = iter(
        [HttpAnswer(503, b"{}"), HttpAnswer(429, b"{}"), HttpAnswer(429, b"{}"), *[HttpAnswer(429, b"{}")] * 100, OK]
    )
    run = Simulation(lambda path, now, n: (next(breaker_answers), 5.0), grace=10, doom=30).add(single("a")).run()
    assert run.dispatcher.error is None and len(run.settled) == 1


def test_the_breaker_opens_for_good():
    now = [0.0]
    breaker = Breaker(lambda: now[0], grace=10, doom=20)
    breaker.failed()
    now[0] = 10.5
    assert breaker.state == "half-open"
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    now[0] = 31.0
    assert breaker.state == "open"
    breaker.succeeded()
    assert breaker.state == "open"


def server_of(capacity, base, refuses=1 << 30):
    """Takes `base` seconds for each operation, and at most `capacity` a second; 429 where more than `refuses` are waiting."""
    free = [0.0]

    def serve(path, now, in_flight):
        if in_flight > refuses:
            return HttpAnswer(429, b"{}"), 0.001
        free[0] = max(free[0], now) + 1 / capacity
        return OK, max(base, free[0] - now + base)

    return serve


@pytest.mark.parametrize(("capacity", "base"), [(1000, 0.01), (5000, 0.02), (20000, 0.005)])
def test_the_throttle_finds_nearly_the_whole_throughput_without_a_long_queue(capacity, base):
    run = Simulation(server_of(capacity, base)).add(*(single(f"d{n}") for n in range(16000))).run()
    middle = [when for when, _ in run.sent[6000:]]
    rate = len(middle) / (middle[-1] - middle[0])
    assert rate > 0.85 * capacity
    assert run.dispatcher.throttle.allowed < 12 * max(16, capacity * base)


def test_the_throttle_stays_below_what_a_server_refuses():
    run = Simulation(server_of(20000, 0.05, refuses=100)).add(*(single(f"d{n}") for n in range(10000))).run()
    assert len(run.settled) == 10000
    assert run.dispatcher.counts.retries["429"] < 2500


def test_a_fixed_throttle_holds_its_level():
    throttle = Throttle(lambda: 0.0, least=4, most=4)
    run = Simulation(always(OK), throttle=throttle).add(*(single(f"d{n}") for n in range(200))).run()
    assert run.most == 4


POST, DELETE = Operation("POST", "/p"), Operation("DELETE", "/p")


@pytest.mark.parametrize(
    ("operation", "answer", "verdict"),
    [
        (POST, OK, Verdict.DONE),
        (DELETE, HttpAnswer(404, b'{"pathId":"/p","id":"id:n:s::a"}'), Verdict.DONE),
        (DELETE, HttpAnswer(404, b'{"pathId":"/p","message":"Nothing at"}'), Verdict.REFUSED),
        (DELETE, HttpAnswer(404, b"<html>"), Verdict.REFUSED),
        (POST, HttpAnswer(404, b"{}"), Verdict.REFUSED),
        (POST, HttpAnswer(412, b"{}"), Verdict.REFUSED),
        (POST, HttpAnswer(400, b"{}"), Verdict.REFUSED),
        (POST, HttpAnswer(500, b"{}"), Verdict.REFUSED),
        (POST, HttpAnswer(429, b"{}"), Verdict.THROTTLED),
        *((POST, HttpAnswer(status, b"{}"), Verdict.FAILED) for status in (502, 503, 504, 507)),
        (POST, HttpAnswer(200, b"<html>"), Verdict.FAILED),
        (POST, HttpAnswer(200, b"[1]"), Verdict.FAILED),
        (POST, HttpAnswer(200, b'{"id":'), Verdict.FAILED),
        (POST, HttpAnswer(302, b""), Verdict.FAILED),
        (POST, HttpAnswer(0, error="reset"), Verdict.FAILED),
        (POST, HttpAnswer(0, error="expired", lasting=True), Verdict.HOPELESS),
        (POST, HttpAnswer(401, b"{}"), Verdict.HOPELESS),
        (POST, HttpAnswer(403, b'{"message":"x"}'), Verdict.HOPELESS),
    ],
)
def test_what_answers_mean(operation, answer, verdict):
    found, message = judge(operation, answer)
    assert found is verdict
    assert (message == "") is (verdict is Verdict.DONE)


def test_statistics_count_kinds_outcomes_and_retries():
    answers = {"p": [HttpAnswer(503, b"{}"), OK], "r": [OK], "x": [HttpAnswer(400, b"{}")]}
    jobs = [Job("a", [[put("p", {"a": 1})]]), Job("b", [[remove("r")]]), Job("c", [[put("x", {})]])]
    run = Simulation(lambda path, now, n: (answers[path].pop(0), 0.02)).add(*jobs).run()
    found = run.dispatcher.statistics()
    assert found.operations == {"put": {"ok": 1, "refused": 1}, "remove": {"ok": 1}}
    assert found.retries == {"503": 1}
    assert found.bytes_sent == 2 * len(b'{"fields":{"a":1}}') + len(b'{"fields":{}}')
    assert (found.in_flight, found.waiting, found.circuit) == (0, 0, "closed")
    assert set(found.latency_ms) == {"p50", "p95", "p99"}
    assert found.to_json()["allowed"] == found.allowed
