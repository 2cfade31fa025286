"""Parts of a feed that many workers share, fed one after the other by one of them."""

import dataclasses

import pytest

from feeder.encoding.batches import Text, encode_batch, encoding_basis
from feeder.encoding.passages import Splitting
from feeder.feeding.part import KnownPassages, PartFeeder
from feeder.sending.sender import open_sender
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import VespaRefused

DOCUMENTS = [Document(f"d{n}", f"title {n}", "wait for a thread to finish", {"year": 2000 + n}) for n in range(10)]


@pytest.fixture
def feeder(application, tiny_bundle):
    opened = []

    def open_feeder(**options):
        opened.append(PartFeeder(application.url, tiny_bundle, threads=1, **options))
        return opened[-1]

    yield open_feeder
    for one in opened:
        one.close()


def sent(vespa):
    found = [id_ for method, id_ in vespa.requests if method == "POST"]
    vespa.requests.clear()
    return found


def counted(outcome):
    ledger = outcome.ledger
    return {name: getattr(ledger, name) for name in ("acknowledged", "already_there", "dead_lettered", "skipped_blank",
                                                     "duplicates")} | {"pending": outcome.pending}  # fmt: skip


def balanced(outcome):
    return sum(counted(outcome).values()) == outcome.documents


def test_the_ledger_of_a_part_balances(feeder, vespa):
    odd = [Document("blank"), DOCUMENTS[0], dataclasses.replace(DOCUMENTS[1], metadata={"year": "soon"})]
    vespa.faults["d3#0"] = [400]
    outcome = feeder().feed([*DOCUMENTS, *odd])
    expected = {"acknowledged": 9, "already_there": 0, "dead_lettered": 2, "skipped_blank": 1, "duplicates": 1, "pending": 0}
    assert counted(outcome) == expected
    assert balanced(outcome) and outcome.error is None
    assert {(failure.document_id, failure.status, document.id) for failure, document in outcome.letters} == {
        ("d3", 400, "d3"), ("d1", 0, "d1"),
    }  # fmt: skip
    assert dict(outcome.ledger.errors) == {"HTTP 400": 1, "refused here": 1}


def test_a_part_that_is_given_out_again_sends_what_is_missing_alone(feeder, vespa):
    one, other = feeder(), feeder()
    one.feed(DOCUMENTS[:4])
    assert sorted(sent(vespa)) == [f"d{n}#0" for n in range(4)]
    outcome = other.feed(DOCUMENTS)
    assert sorted(sent(vespa)) == [f"d{n}#0" for n in range(4, 10)]
    assert counted(outcome) == {
        "acknowledged": 6, "already_there": 4, "dead_lettered": 0, "skipped_blank": 0, "duplicates": 0, "pending": 0,
    }  # fmt: skip


def test_what_was_encoded_before_is_sent_as_it_is_and_has_the_digest_of_its_text(feeder, vespa, tiny_bundle):
    encoder = Encoder(tiny_bundle, threads=1)
    texts = [(document.title, document.text) for document in DOCUMENTS]
    encoded = encode_batch([Text(*text) for text in texts], Splitting(), encoder.tokenizing, encoder)
    basis = encoding_basis(tiny_bundle, Splitting(), encoder.precision)
    known = KnownPassages(basis, dict(zip(texts, encoded, strict=True)))
    assert feeder().feed(DOCUMENTS[:5], known).ledger.acknowledged == 5
    before = dict(vespa.bodies)
    outcome = feeder().feed(DOCUMENTS)
    assert (outcome.ledger.acknowledged, outcome.ledger.already_there) == (5, 5)
    assert vespa.bodies == before | vespa.bodies


def test_a_sender_that_gave_up_says_what_is_pending_and_is_opened_anew(feeder, vespa):
    one = feeder()
    vespa.always = 403
    failed = one.feed(DOCUMENTS)
    assert isinstance(failed.error, VespaRefused)
    assert balanced(failed) and failed.pending == 10
    vespa.always = None
    whole = one.feed(DOCUMENTS)
    taken = whole.ledger.already_there  # of what was in flight when the sender gave up
    assert whole.error is None and whole.ledger.acknowledged + taken == 10
    assert whole.sender != failed.sender


def test_updates_and_deletions_are_of_parts_too(feeder, vespa):
    feeder().feed(DOCUMENTS[:3])
    updated = feeder(operation="update").feed([Document("d0", metadata={"year": 1999}), Document("d9", metadata={"year": 1})])
    assert counted(updated)["acknowledged"] == counted(updated)["dead_lettered"] == 1
    assert vespa.documents["d0#0"]["fields"]["year"] == 1999
    deleted = feeder(operation="delete").feed([Document("d1"), Document("d9")])
    assert (deleted.ledger.acknowledged, deleted.ledger.absent, deleted.ledger.absent_ids) == (1, 1, ["d9"])
    assert deleted.pending == 0 and "d1#0" not in vespa.documents


def test_senders_share_what_is_in_flight_while_vespa_has_too_much():
    alone, shared, many = (open_sender("http://127.0.0.1:9", senders=senders) for senders in (1, 4, 100))
    try:
        least = []
        for sender in (alone, shared, many):
            throttle = sender._dispatcher.throttle
            for _ in range(20):
                throttle.refused(2)
            least.append(throttle.allowed)
        assert least == [16, 4, 1]
    finally:
        for sender in (alone, shared, many):
            sender.close()
