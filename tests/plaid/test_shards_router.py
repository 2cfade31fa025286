"""The router with workers that the test speaks for: late, stale, broken and overdue ones. No process, no waiting."""

import socket

import numpy as np
import pytest

from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.filters import And, Exists, In, Near, Not, Or, Range
from late_interaction.plaid.shards.merging import merged
from late_interaction.plaid.shards.settings import ShardSettings
from late_interaction.plaid.shards.wire import filter_from_json, filter_to_json
from late_interaction.plaid.types import LocalResult, ShardCoverage
from late_interaction.workers.frames import HELLO, pack, serve, split_rows, take_frame
from late_interaction.workers.router import Router


class Spoken:
    """A worker: `says` are the numbers of the frames it has sent already; what it was sent is in `heard`."""

    def __init__(self, *says, error=None):
        ours, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.peer, self.pid, self.stopped, self.dead = ours, 0, False, False
        for number in says:
            self.say(number, error)

    def say(self, number, error=None):
        self.peer.sendall(pack(number, {"error": error} if error and number != HELLO else {"number": number}))

    def heard(self):
        self.peer.setblocking(False)
        buffer, frames = bytearray(), []
        try:
            while data := self.peer.recv(1 << 20):
                buffer += data
        except BlockingIOError:
            pass
        while (frame := take_frame(buffer)) is not None:
            frames.append(frame)
        return frames

    def ended(self):
        return self.dead

    def stop(self):
        self.stopped = True
        self.socket.close()
        self.peer.close()
        return "signal SIGTEST"


@pytest.fixture
def router_of():
    routers = []

    def make(*workers, start=60.0, clock=None):
        """Launches `workers` one after the other, whatever the shard."""
        waiting = list(workers)
        clock = clock or Clock(0)
        routers.append(
            Router(lambda shard: waiting.pop(0), start=start, clock=clock, wait=lambda selector, seconds: selector.select(0))
        )
        return routers[-1]

    yield make
    for router in routers:
        router.close()


class Clock:
    """Each look takes `step` seconds."""

    def __init__(self, step=1.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def ask(router, *shards, timeout=60.0):
    return router.ask({shard: ({"q": shard}, b"rows") for shard in shards}, timeout)


def test_a_worker_is_asked_when_it_has_said_hello_and_its_answer_is_taken(router_of):
    worker = Spoken(HELLO, 1)
    answers = ask(router_of(worker), 0)
    assert (answers.bodies, answers.silent) == ({0: {"number": 1}}, {})
    (frame,) = worker.heard()
    assert (frame.number, frame.body, frame.rows) == (1, {"q": 0}, b"rows")


def test_a_late_answer_is_dropped_and_the_worker_is_not_asked_twice_meanwhile(router_of):
    worker = Spoken(HELLO)
    router = router_of(worker, clock=Clock())
    assert ask(router, 0, timeout=0.5).silent == {0: "did not answer within 0.5 s"}
    assert [frame.number for frame in worker.heard()] == [1]
    assert "did not answer" in ask(router, 0, timeout=0.5).silent[0]
    assert worker.heard() == []  # it still owes the first
    worker.say(1)
    worker.say(3)
    assert ask(router, 0, timeout=60).bodies == {0: {"number": 3}}
    assert [frame.number for frame in worker.heard()] == [3]


def test_an_answer_with_a_wrong_number_ends_the_worker(router_of):
    wrong, right = Spoken(HELLO, 7), Spoken(HELLO, 2)
    router = router_of(wrong, right)
    assert ask(router, 0).silent == {0: "its process ended (signal SIGTEST)"}
    assert wrong.stopped
    assert ask(router, 0).bodies == {0: {"number": 2}}


def test_bytes_that_are_no_frame_end_the_worker(router_of):
    worker = Spoken(HELLO)
    worker.peer.sendall(b"x" * 100)
    assert "ended" in ask(router_of(worker), 0).silent[0] and worker.stopped


def test_a_worker_that_hangs_up_is_replaced_for_the_next_query(router_of):
    gone, other, new = Spoken(HELLO), Spoken(HELLO, 1), Spoken(HELLO, 2)
    gone.peer.close()
    router = router_of(gone, other, new)
    first = ask(router, 0, 1)
    assert (first.bodies, first.silent) == ({1: {"number": 1}}, {0: "its process ended (signal SIGTEST)"})
    other.say(2)
    assert set(ask(router, 0, 1).bodies) == {0, 1}


def test_a_worker_found_dead_is_replaced_at_once(router_of):
    first, second = Spoken(HELLO, 1), Spoken(HELLO, 2)
    router = router_of(first, second)
    ask(router, 0)
    first.dead = True
    assert ask(router, 0).bodies == {0: {"number": 2}} and first.stopped


def test_a_worker_that_owes_an_answer_for_too_long_is_replaced(router_of):
    stuck, new = Spoken(HELLO), Spoken(HELLO, 3)
    clock = Clock()
    router = router_of(stuck, new, start=50, clock=clock)
    ask(router, 0, timeout=0.5)
    ask(router, 0, timeout=0.5)
    assert not stuck.stopped
    clock.now += 50
    assert ask(router, 0).bodies == {0: {"number": 3}} and stuck.stopped


def test_a_worker_that_never_says_hello_is_given_the_time_to_start(router_of):
    mute = Spoken()
    clock = Clock()
    assert ask(router_of(mute, start=20, clock=clock), 0, timeout=0.5).silent == {0: "did not answer within 20 s"}
    assert clock.now > 20


def test_an_error_of_one_shard_is_its_own(router_of):
    answers = ask(router_of(Spoken(HELLO, 1, error="disk gone"), Spoken(HELLO, 1)), 0, 1)
    assert (answers.silent, answers.bodies) == ({0: "disk gone"}, {1: {"number": 1}})


def test_a_worker_that_cannot_be_started_is_one_silent_shard():
    def launch(shard):
        raise LocalIndexError("no process")

    assert ask(Router(launch, start=1), 0).silent == {0: "no process"}


def test_requests_larger_than_the_socket_holds_are_sent_in_parts(router_of):
    worker = Spoken(HELLO)
    router = router_of(worker, start=1e9, clock=Clock(0.1))
    rows = bytes(range(256)) * 4_000
    assert 0 in router.ask({0: ({}, rows)}, 0.5).silent
    received = bytearray()
    while take_frame(bytearray(received)) is None:
        worker.peer.setblocking(False)
        try:
            received += worker.peer.recv(1 << 20)
        except BlockingIOError:
            router.ask({0: ({}, b"")}, 0.5)  # goes on sending the first
    frame = take_frame(received)
    assert (frame.number, frame.rows) == (1, rows)


def test_a_closed_router_has_stopped_its_workers_and_refuses(router_of):
    worker = Spoken(HELLO, 1)
    router = router_of(worker)
    ask(router, 0)
    router.close()
    router.close()
    assert worker.stopped
    with pytest.raises(UsageError, match="closed"):
        ask(router, 0)


# frames


def test_frames_come_out_of_a_buffer_whole_and_in_order():
    sent = pack(1, {"text": "ü\ud800"}, b"abc") + pack(2, {})
    buffer, found = bytearray(), []
    for byte in sent:
        buffer.append(byte)
        while (frame := take_frame(buffer)) is not None:
            found.append((frame.number, frame.body, frame.rows))
    assert found == [(1, {"text": "ü\ud800"}, b"abc"), (2, {}, b"")] and not buffer


@pytest.mark.parametrize(
    "bad", [b"no frame at all, but long enough for one", pack(1, {})[:-2] + b"[]", pack(1, {})[:-2] + b"{["]
)
def test_bytes_that_are_no_frame_are_refused(bad):
    with pytest.raises(ValueError):
        take_frame(bytearray(bad))


@pytest.mark.parametrize(
    "where",
    [
        None,
        In("word", ("a", "ü\ud800", "")),
        In("n", (True, 1, 2.5, -(2**62))),
        And((Range("n", "<=", 3), Or((Exists("n"), Not(Near("at", 63.4, 10.4, 5.0)))))),
        And(()),
    ],
)
def test_filters_round_trip_with_their_types(where):
    import json

    back = filter_from_json(json.loads(json.dumps(filter_to_json(where))))
    assert back == where and repr(back) == repr(where)


def test_rows_are_split_into_matrices():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    parts = split_rows(rows.tobytes(), [1, 0, 3], 3)
    assert [part.tolist() for part in parts] == [rows[:1].tolist(), [], rows[1:].tolist()]
    assert split_rows(b"", [0], 3)[0].shape == (0, 3)


def test_a_worker_answers_in_order_and_ends_with_its_socket():
    class Echo:
        def answer(self, request):
            return {"was": request.number}

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack(4, {}) + pack(9, {}))
        ours.shutdown(socket.SHUT_WR)
        serve(Echo().answer, theirs)
        buffer = bytearray(ours.recv(1 << 16))
        assert [take_frame(buffer).number for _ in range(3)] == [HELLO, 4, 9]


def test_a_worker_whose_router_has_gone_ends_without_a_word():
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        serve(None, theirs)


# merging


def test_coverage_counts_passages():
    assert ShardCoverage.of([60, 30, 10], {}) == ShardCoverage(1.0, ())
    assert ShardCoverage.of([60, 30, 10], {1: "late", 2: "gone"}) == ShardCoverage(0.6, ("shard-1: late", "shard-2: gone"))
    assert ShardCoverage.of([60, None, 40], {1: "unread"}).share == pytest.approx(2 / 3)
    assert ShardCoverage.of([0, 0], {1: "late"}) == ShardCoverage(1.0, ("shard-1: late",))
    assert ShardCoverage.of([5, 5], {0: "late", 1: "late"}).share == 0.0


def test_stages_take_as_long_as_in_the_slowest_shard():
    results = [LocalResult([], 3, 2, True, {"rerank": 0.2}), LocalResult([], 4, 1, False, {"rerank": 0.1, "read": 0.3})]
    found = merged(results, 5, ShardCoverage(0.5, ("shard-2: late",)), 0.9)
    assert (found.candidates, found.reranked, found.widened) == (7, 3, True)
    assert found.seconds == {"rerank": 0.2, "read": 0.3, "shards": pytest.approx(0.5)}
    assert (found.coverage, found.missing) == (0.5, ("shard-2: late",))


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"start": -1}])
def test_times_that_are_refused(options):
    with pytest.raises(UsageError, match="above 0 seconds"):
        ShardSettings(**options)
