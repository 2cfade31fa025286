"""What a connection can do to a feed, with a real local server: each fault and its outcome, as feeding.md states it."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_vespa import FakeVespa, SkippedTime

from feeder.sending import transport
from feeder.sending.jobs import Job
from feeder.sending.operations import Operation, put, remove, update
from feeder.sending.sender import open_sender
from feeder.sending.verdicts import HttpAnswer, Verdict, judge
from late_interaction.errors import UsageError, VespaBusy, VespaRefused, VespaUnreachable

PATH = "/document/v1/n/s/docid/"


class Feed:
    """A sender whose pauses are skipped."""

    def __init__(self, url, **options):
        self.time = SkippedTime()
        self.sender = open_sender(url, clock=self.time.clock, sleep=self.time.sleep, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sender.close()

    def send(self, *ids):
        for id_ in ids:
            self.sender.submit(Job(id_, [[put(PATH + id_, {"a": id_})]]))
        return {job.key: job.failure for job in self.sender.settled(wait=True)}


IDS = [f"d{number}" for number in range(50)]


def test_operations_share_few_connections(vespa):
    with Feed(vespa.url) as feed:
        assert feed.send(*IDS, *IDS) == dict.fromkeys(IDS)
    assert sorted(vespa.documents) == sorted(IDS)
    assert vespa.connections <= 8


def test_operations_as_vespa_takes_them(vespa):
    jobs = [
        Job("a", [[put(PATH + "a", {"x": 1})], [update(PATH + "a", {"y": None}, condition='s.x=="1 & 2"', create=True)]]),
        Job("b", [[put(PATH + "b", {"x": 2}, condition="true")], [remove(PATH + "b", condition="s.x==2")]]),
    ]
    with Feed(vespa.url) as feed:
        for job in jobs:
            feed.sender.submit(job)
        assert [job.failure for job in feed.sender.settled(wait=True)] == [None, None]
    paths = sorted(headers[":path"].removeprefix(PATH) for headers in vespa.headers)
    assert paths == [
        "a?condition=s.x%3D%3D%221%20%26%202%22&create=true&timeout=60000ms",
        "a?timeout=60000ms",
        "b?condition=s.x%3D%3D2&timeout=60000ms",
        "b?condition=true&timeout=60000ms",
    ]
    assert vespa.documents == {"a": {"fields": {"x": 1, "y": None}}}
    assert sorted(vespa.requests) == [("DELETE", "b"), ("POST", "a"), ("POST", "b"), ("PUT", "a")]
    assert update("/p", {"y": 1}, condition="a b", create=True).path == "/p?condition=a%20b&create=true"
    assert [operation.kind for stage in jobs[0].stages for operation in stage] == ["put", "update"]


def test_a_value_that_is_no_json_is_refused_before_it_is_sent():
    with pytest.raises(ValueError):
        put("/p", {"x": float("nan")})


def test_compressed_bodies_arrive_whole(vespa):
    operation = put(PATH + "a", {"x": "word " * 500}).compressed()
    assert operation.gzipped and len(operation.body) < 100
    assert not Operation("POST", "/p", b"{}").compressed().gzipped
    with Feed(vespa.url) as feed:
        feed.sender.submit(Job("a", [[operation], [put(PATH + "b", {})]]))
        feed.sender.settled(wait=True)
    assert vespa.documents["a"]["fields"]["x"] == "word " * 500
    assert "content-encoding" not in vespa.headers[-1]


@pytest.mark.parametrize("fault", ["reset", "cut", "garbage", 429, 502, 503, 504, 507])
def test_passing_faults_are_waited_out(vespa, fault):
    vespa.faults = {id_: [fault] * 3 for id_ in IDS[::10]}
    with Feed(vespa.url) as feed:
        assert feed.send(*IDS) == dict.fromkeys(IDS)
        sent_again = sum(feed.sender.statistics().retries.values())
    assert sent_again == 15 if fault not in ("reset", "cut") else sent_again > 0  # libcurl repeats some of these by itself
    assert not any(vespa.faults.values())
    assert sorted(vespa.documents) == sorted(IDS)


def test_a_storm_of_429_ends_with_everything_there(vespa):
    vespa.faults = {id_: [429] * 40 for id_ in IDS}
    with Feed(vespa.url) as feed:
        assert feed.send(*IDS) == dict.fromkeys(IDS)
        assert feed.sender.statistics().retries == {"429": 40 * len(IDS)}


@pytest.mark.parametrize("status", [400, 412, 413, 500])
def test_refusals_settle_their_document_at_once_with_vespas_message(vespa, status):
    vespa.faults = {"d7": [status]}
    with Feed(vespa.url) as feed:
        failures = {id_: failure for id_, failure in feed.send(*IDS).items() if failure}
    assert failures["d7"].message == f"{vespa.url} answered {status}: told to say {status}"
    assert list(failures) == ["d7"]
    assert vespa.requests.count(("POST", "d7")) == 1


def test_503_for_a_minute_loses_nothing(vespa):
    vespa.always = 503
    with Feed(vespa.url) as feed:
        sleep = feed.time.sleep

        def until_a_minute(seconds):
            sleep(seconds)
            if feed.time.skipped > 60:
                vespa.always = None

        feed.sender._sleep = until_a_minute
        assert feed.send(*IDS) == dict.fromkeys(IDS)
    assert sorted(vespa.documents) == sorted(IDS)


def test_503_for_three_minutes_ends_the_feed_and_known_outcomes_come_after_the_error(vespa):
    with Feed(vespa.url) as feed:
        feed.sender.submit(Job("early", [[put(PATH + "early", {})]]))
        while feed.sender._jobs:
            feed.time.clock()
        vespa.always = 503
        for id_ in IDS:
            feed.sender.submit(Job(id_, [[put(PATH + id_, {})]]))
        with pytest.raises(VespaBusy, match="answered 503: told to say 503; .*--resume"):
            feed.sender.settled(wait=True)
        assert [job.key for job in feed.sender.settled()] == ["early"]
        assert feed.sender._jobs == len(IDS)
        with pytest.raises(VespaBusy):
            feed.sender.submit(Job("late", [[]]))
    assert 115 < feed.time.skipped < 200  # and the time that really passed


def test_a_port_where_nothing_listens_ends_the_feed_after_two_minutes():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with Feed(url) as feed, pytest.raises(VespaUnreachable, match="does not answer"):
            feed.send("a")


def test_an_answer_that_never_comes_is_given_up_and_sent_again(vespa):
    vespa.faults = {"d3": ["stall", "stall"]}
    with Feed(vespa.url, timeout=0.3) as feed:
        assert feed.send(*IDS) == dict.fromkeys(IDS)
        assert feed.sender.statistics().retries["transport"] >= 2  # more where the machine is slow


def test_a_connection_that_goes_silent_while_others_answer_is_left(vespa):
    """The other side has the bytes, and its program hangs: nothing that was sent again may wait there once more."""
    vespa.faults = {id_: ["hush"] for id_ in ("d3", "d23")}
    with Feed(vespa.url, timeout=2) as feed:
        assert feed.send(*IDS) == dict.fromkeys(IDS)
        assert feed.send("late") == {"late": None}
        statistics = feed.sender.statistics()
        assert statistics.retries["transport"] >= 2
    assert sorted(vespa.documents) == sorted([*IDS, "late"])


def test_a_server_that_goes_silent_after_the_connection_is_given_up():
    """It takes connections and bytes, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Feed(url, timeout=0.05) as feed, pytest.raises(VespaUnreachable, match="does not answer"):
            feed.time.skipped = 0
            sender = feed.sender
            sender._dispatcher.breaker.doom = 0.5
            feed.send("a")


def test_closing_does_not_wait_for_answers(vespa):
    vespa.faults = {"a": ["stall"]}
    feed = Feed(vespa.url)
    feed.sender.submit(Job("a", [[put(PATH + "a", {})]]))
    feed.sender.close()
    assert not feed.sender._thread.is_alive()


def certificate(folder, name, *, days=1, issuer=None):
    """A certificate for 127.0.0.1, by itself or by `issuer`; days: until it expires."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signing = (subject, key) if issuer is None else issuer
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(pem)
    return subject, key


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """Starts servers with certificates of our own authority, which is trusted."""
    authority = certificate(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    opened = []

    def start(*, days=1, clients=False):
        certificate(tmp_path, "server", days=days, issuer=authority)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.num_tickets = 0  # a session that is taken up again shows no certificate
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(tmp_path / "authority.pem")
        opened.append(FakeVespa(context))
        return opened[-1]

    def renew(fake, *, days):
        """For the connections to come."""
        certificate(tmp_path, "server", days=days, issuer=authority)
        fake.tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    def client(*, days=1):
        certificate(tmp_path, "client", days=days, issuer=authority)
        monkeypatch.setenv("COLBERT_VESPA_CERT", str(tmp_path / "client.pem"))
        monkeypatch.setenv("COLBERT_VESPA_KEY", str(tmp_path / "client.key"))

    start.client, start.renew = client, renew
    start.folder = tmp_path
    yield start
    for fake in opened:
        fake.close()


def test_mutual_tls_and_a_token(secure, monkeypatch):
    vespa = secure(clients=True)
    secure.client()
    (secure.folder / "token").write_text("secret-token\n")
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(secure.folder / "token"))
    with Feed(vespa.url) as feed:
        assert feed.send(*IDS) == dict.fromkeys(IDS)
    assert vespa.headers[0]["authorization"] == "Bearer secret-token"
    assert vespa.connections <= 8


@pytest.mark.parametrize("case", ["server expired", "server unknown", "client expired", "client without"])
def test_certificates_that_do_not_hold_end_the_feed_at_once(secure, monkeypatch, case):
    vespa = secure(days=-1 if case == "server expired" else 1, clients=case.startswith("client"))
    if case == "server unknown":
        certificate(secure.folder, "authority")
    if case == "client expired":
        secure.client(days=-1)
    with Feed(vespa.url) as feed:
        with pytest.raises(VespaUnreachable, match="certificate"):
            feed.send("a")
        assert feed.time.skipped < 5  # a server may say so after a reset alone, which is tried again
    assert vespa.documents == {}


def test_a_certificate_that_is_renewed_in_its_file_is_used_for_the_next_connection(secure):
    vespa = secure(clients=True)
    secure.client()
    with Feed(vespa.url) as feed:
        assert feed.send("a") == {"a": None}
        secure.client()
        vespa.faults = {"b": ["reset"]}
        assert feed.send("b") == {"b": None}


def test_a_certificate_that_expires_in_the_middle_ends_the_feed_and_what_was_taken_is_known(secure):
    vespa = secure()
    with Feed(vespa.url) as feed:
        assert feed.send("a") == {"a": None}
        secure.renew(vespa, days=-1)
        vespa.faults = {"b": ["reset"]}
        with pytest.raises(VespaUnreachable, match=r"certificate.*renew.*--resume"):
            feed.send("b")
        assert feed.time.skipped < 2
    assert sorted(vespa.documents) == ["a"]


def test_a_token_is_not_sent_in_clear_text_to_another_machine(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret-token\n")
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(UsageError, match="over https only"):
        open_sender("http://vespa.example:8080")


def test_a_job_wakes_the_thread_also_between_its_look_into_the_inbox_and_its_wait(vespa):
    with Feed(vespa.url) as feed:
        assert feed.send("a") == {"a": None}
        transport, poll, slow = feed.sender._transport, feed.sender._transport.poll, []

        def late(seconds):
            if not slow:
                slow.append(time.monotonic())
                feed.sender.submit(Job("b", [[put(PATH + "b", {})]]))  # after the inbox was looked into
            return poll(seconds)

        transport.poll = late
        transport.wake()
        while "b" not in vespa.documents:
            assert not slow or time.monotonic() - slow[0] < 0.9


def test_what_was_settled_is_known_after_submit_has_raised(vespa):
    with Feed(vespa.url) as feed:
        feed.sender.submit(Job("early", [[put(PATH + "early", {})]]))
        while feed.sender._jobs:
            feed.time.clock()
        vespa.always = 401
        with pytest.raises(VespaRefused, match="401"):
            for id_ in IDS * 1000:
                feed.sender.submit(Job(id_, [[put(PATH + id_, {})]]))
        with pytest.raises(VespaRefused, match="401"):
            feed.sender.settled(wait=True)
        assert [(job.key, job.failure) for job in feed.sender.settled()] == [("early", None)]
        with pytest.raises(VespaRefused, match="401"):  # not taken for done the next time
            feed.sender.settled(wait=True)


def test_a_fault_of_the_sending_thread_leaves_what_was_settled_before(vespa):
    with Feed(vespa.url) as feed:
        dispatcher, both = feed.sender._dispatcher, threading.Event()
        answered = dispatcher.answered

        def breaks(attempt, answer):
            assert both.wait(60)
            answered(attempt, answer)
            raise RuntimeError("a fault")

        dispatcher.answered = breaks
        feed.sender.submit(Job("a", [[put(PATH + "a", {})]]))
        feed.sender.submit(Job("b", [[], [put(PATH + "b", {})], [put(PATH + "c", {})]]))
        both.set()
        with pytest.raises(RuntimeError, match="a fault"):
            feed.sender.settled(wait=True)
        assert {job.key for job in feed.sender.settled()} <= {"a"}
        assert feed.sender._jobs >= 1


@pytest.mark.parametrize("option", ["SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT"])
def test_a_kernel_that_refuses_a_socket_option_leaves_libcurls_descriptor_open(vespa, monkeypatch, option):
    class Refusing(socket.socket):
        def setsockopt(self, level, name, *value):
            if name == getattr(socket, option):
                raise OSError(92, "Protocol not available")
            super().setsockopt(level, name, *value)

    with Feed(vespa.url) as feed, socket.socket() as own:
        with monkeypatch.context() as patch:
            patch.setattr(transport.socket, "socket", Refusing)
            assert transport._notice_silence(own.fileno(), 0) == 0
            assert own.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            assert feed.send("a") == {"a": None}


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>no such page</html>"), (404, b'{"pathId":"/x","message":"Nothing at"}'), (200, b'{"message":"hello"}')],
)
def test_an_answer_that_names_no_document_is_no_success(status, body):
    assert judge(remove(PATH + "a"), HttpAnswer(status, body))[0] in (Verdict.REFUSED, Verdict.FAILED)
    assert judge(remove(PATH + "a"), HttpAnswer(404, b'{"pathId":"/x","id":"id:n:s::a"}'))[0] is Verdict.DONE
