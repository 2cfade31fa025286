"""The feed against a local HTTP server that answers as Vespa does, and against a local index."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_vespa import SkippedTime

from feeder import FeedOptions, start_feed
from feeder.digests import Digests
from feeder.encoding.batches import HereEncoding
from feeder.encoding.passages import Splitting
from feeder.encoding.ready import DocumentEncoding
from feeder.feeding.dead_letters import DeadLetters, read_letters
from feeder.feeding.journal import Journal
from feeder.feeding.pipeline import Feed
from feeder.feeding.survey import survey
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import (
    BundleError,
    CollectionError,
    LocalIndexError,
    MetadataError,
    UsageError,
    VespaBusy,
    VespaRefused,
    VespaUnreachable,
)
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.tokenizing import Tokenizing
from vespa_app.running import Application

DOCUMENTS = [Document(f"d{n}", f"title {n}", "wait for a thread to finish", {"year": 2000 + n}) for n in range(10)]


@pytest.fixture
def run(application, tiny_bundle, tmp_path):
    """Feeds, with pauses noted and skipped."""
    encoder = Encoder(tiny_bundle)
    time = SkippedTime()

    def go(documents, *, resume=False, batch_size=4, target=None):
        made = target or VespaTarget(application, tiny_bundle, clock=time.clock, sleep=time.sleep)
        journal = Journal(tmp_path / "journal", "test", resume=resume)
        letters = DeadLetters(tmp_path / "dead.jsonl", "put")
        own = encoder if made.needs_vectors else None
        encoding = DocumentEncoding(HereEncoding(Splitting(), Tokenizing(tiny_bundle), own), tiny_bundle, Splitting())
        surveyed = survey(documents)
        try:
            feed = Feed(
                documents, surveyed, made, journal, letters, Digests("made", "kept"), encoding=encoding, batch_size=batch_size
            )
            feed.run()
            ledger = vars(feed.ledger) | {"documents": surveyed.documents, "dead_letter_file": str(letters.path)}
            return SimpleNamespace(**ledger | {"skipped_blank_ids": surveyed.blank_ids})
        finally:
            encoding.close()
            journal.close(remove=False)
            letters.close(complete=False)
            made.close()

    go.pauses = time.pauses
    return go


def ids(vespa):
    return {id_ for id_ in vespa.documents if id_ != "current"}


def balanced(summary):
    parts = summary.acknowledged + summary.already_there + summary.dead_lettered + summary.skipped_blank + summary.duplicates
    return parts == summary.documents


def test_everything_arrives_once_with_its_fields(vespa, run):
    summary = run(DOCUMENTS)
    assert (summary.acknowledged, summary.dead_lettered) == (10, 0)
    assert balanced(summary)
    assert ids(vespa) == {f"d{n}#0" for n in range(10)}
    fields = vespa.documents["d3#0"]["fields"]
    assert (fields["id"], fields["document_id"], fields["title"], fields["year"]) == ("d3#0", "d3", "title 3", 2003)
    assert fields["present"] == ["year"]
    assert len([1 for method, _ in vespa.requests if method == "POST"]) == 10


@pytest.mark.parametrize("faults", [[429] * 25, [503, 503], ["reset", 503, "reset"], [507]])
def test_passing_faults_are_retried(vespa, run, faults):
    vespa.faults["d2#0"] = list(faults)
    summary = run(DOCUMENTS)
    assert (summary.acknowledged, summary.dead_lettered) == (10, 0)
    assert vespa.faults["d2#0"] == []
    assert all(0 <= pause <= 12.5 for pause in run.pauses)


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_refused_document_is_dead_lettered_at_once_with_vespas_message(vespa, run, status):
    vespa.faults["d2#0"] = [status]
    summary = run(DOCUMENTS)
    assert (summary.acknowledged, summary.dead_lettered) == (9, 1)
    assert balanced(summary)
    assert run.pauses == []
    letter = next(read_letters(Path(summary.dead_letter_file)))
    assert (letter["id"], letter["status"]) == ("d2", status)
    assert f"told to say {status}" in letter["message"]
    assert "d2#0" not in ids(vespa)


def test_503_for_ever_stops_the_feed_and_resume_sends_only_the_rest(vespa, run):
    vespa.faults["d6#0"] = [503] * 200
    with pytest.raises(VespaBusy, match="503"):
        run(DOCUMENTS)
    vespa.requests.clear()
    vespa.faults.clear()
    summary = run(DOCUMENTS, resume=True)
    assert summary.acknowledged + summary.already_there == 10
    assert summary.already_there >= 4
    assert balanced(summary)
    assert len(vespa.requests) == summary.acknowledged
    assert ids(vespa) == {f"d{n}#0" for n in range(10)}


def test_a_vespa_that_goes_away_stops_the_feed(vespa, run):
    vespa.faults.update({f"d{n}#0": ["reset"] * 500 for n in range(4)})
    with pytest.raises(VespaUnreachable, match="does not answer"):
        run(DOCUMENTS)


def test_resume_sends_what_changed(vespa, run):
    run(DOCUMENTS)
    changed = [dataclasses.replace(DOCUMENTS[0], text="new"), *DOCUMENTS[1:]]
    vespa.requests.clear()
    summary = run(changed, resume=True)
    assert (summary.acknowledged, summary.already_there) == (1, 9)
    assert vespa.documents["d0#0"]["fields"]["text"] == "new"


def test_blank_documents_are_skipped_counted_and_named_and_titles_alone_are_fed(vespa, run):
    documents = [*DOCUMENTS[:2], Document("blank", " ", "\n"), Document("title only", "Something", "")]
    summary = run(documents)
    assert (summary.acknowledged, summary.skipped_blank, summary.skipped_blank_ids) == (3, 1, ("blank",))
    assert balanced(summary)
    assert ids(vespa) == {"d0#0", "d1#0", "title only#0"}


@pytest.mark.parametrize("distance", [1, 3, 7])
def test_of_the_same_id_the_last_counts(vespa, run, distance):
    documents = list(DOCUMENTS)
    documents.insert(9, dataclasses.replace(DOCUMENTS[9 - distance], text="the last one"))
    summary = run(documents, batch_size=2)
    assert (summary.acknowledged, summary.duplicates) == (10, 1)
    assert balanced(summary)
    assert vespa.documents[f"d{9 - distance}#0"]["fields"]["text"] == "the last one"


def test_a_source_that_raises_in_the_middle_leaves_a_resumable_state(vespa, run, tmp_path):
    class Breaks:
        reads = 0

        def __iter__(self):
            self.reads += 1
            for place, document in enumerate(DOCUMENTS):
                if self.reads == 2 and place == 8:
                    raise CollectionError("broken.jsonl:9: not JSON")
                yield document

    with pytest.raises(CollectionError, match="broken"):
        run(Breaks())
    journal = Journal(tmp_path / "journal", "test", resume=True)
    journal.close(remove=False)
    brought = journal.brought
    assert 0 < brought <= len(ids(vespa))
    assert run(DOCUMENTS, resume=True).already_there == brought


def test_the_whole_source_is_surveyed_before_anything_is_sent(vespa, application, tiny_bundle, tmp_path):
    bad = [*DOCUMENTS, Document("x", "t", "x", {"year": "not a number"})]
    options = FeedOptions(to=vespa.url, bundle=tiny_bundle, journal=tmp_path / "j")
    with pytest.raises(MetadataError, match="'year'"), start_feed([bad], options):
        pass
    assert [method for method, _ in vespa.requests] == ["GET"]


def test_a_server_that_is_no_vespa_is_named(vespa, tiny_bundle, tmp_path):
    options = FeedOptions(to=vespa.url, bundle=tiny_bundle, journal=tmp_path / "j")
    with pytest.raises(VespaRefused, match="colbert-vespa deploy"), start_feed([DOCUMENTS], options):
        pass
    vespa.faults["current"] = ["garbage"]
    with pytest.raises(VespaRefused, match="did not return JSON"), start_feed([DOCUMENTS], options):
        pass


def test_another_bundle_than_the_applications_is_refused(vespa, application, tiny_bundle, tmp_path):
    other = dataclasses.replace(application.description, bundle_sha256="0" * 64)
    vespa.documents["current"] = {"fields": {"description": json.dumps(other.to_json())}}
    options = FeedOptions(to=vespa.url, bundle=tiny_bundle, journal=tmp_path / "j")
    with pytest.raises(BundleError, match="is not the bundle"), start_feed([DOCUMENTS], options):
        pass


def test_encoding_goes_on_while_a_batch_is_being_sent(vespa, run, application, tiny_bundle):
    encoder_waits = threading.Event()
    target = VespaTarget(application, tiny_bundle)
    seen = []
    put = target.put

    def slow(batch):
        seen.append(encoder_waits.wait(10))
        return put(batch)

    target.put = slow
    documents = iter_noting(DOCUMENTS, at=6, event=encoder_waits)
    assert run(documents, target=target).acknowledged == 10
    assert seen == [True] * 3


class iter_noting:
    """Documents that set `event` when the second batch is read for sending."""

    def __init__(self, documents, at, event):
        self.documents, self.at, self.event, self.reads = documents, at, event, 0

    def __iter__(self):
        self.reads += 1
        for place, document in enumerate(self.documents):
            if self.reads == 2 and place == self.at:
                self.event.set()
            yield document


def test_a_killed_local_feed_goes_on_where_it_was(tiny_bundle, tmp_path):
    encoder = Encoder(tiny_bundle)

    class Dies:
        bundle, precision = tiny_bundle, encoder.precision
        calls = 0

        def encode_documents(self, texts, rows=None):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return encoder.encode_documents(texts, rows)

    documents = [Document(f"d{n}", "", f"text number {n}") for n in range(700)]
    index = tmp_path / "index"
    options = FeedOptions(to=str(index), bundle=tiny_bundle, journal=tmp_path / "j", encoder=Dies())
    with pytest.raises(KeyboardInterrupt), start_feed([documents], options) as feed_run:
        feed_run.go()
    with start_feed([documents], dataclasses.replace(options, encoder=encoder, resume=True)) as feed_run:
        summary = feed_run.go()
    assert (summary.already_there, summary.acknowledged) == (512, 188)
    opened = LocalIndex.open(index)
    assert {p.document_id for p in opened.iter_passages()} == {d.id for d in documents}
    assert not (tmp_path / "j").exists()


def test_a_journal_without_its_pending_documents_is_not_believed(tiny_bundle, tmp_path):
    """A local index that lost its pending folder must get everything again."""
    index = tmp_path / "index"
    options = FeedOptions(to=str(index), bundle=tiny_bundle, journal=tmp_path / "j", resume=True)
    journal = Journal(tmp_path / "j", f"{index} {tiny_bundle.sha256} put", resume=False)
    digests = Digests(repr((tiny_bundle.sha256, ("none", 0, 0), Encoder(tiny_bundle).precision)), tiny_bundle.sha256)
    journal.acknowledge([(document.id, digests.of(document, document.metadata)) for document in DOCUMENTS])
    journal.close(remove=False)
    with start_feed([DOCUMENTS], options) as feed_run:
        assert feed_run.go().acknowledged == 10


def test_documents_that_vespa_encodes_are_not_encoded_here(vespa, application, run, tiny_bundle):
    settings = dataclasses.replace(application.settings, encoding="embedder", candidates=("bm25",))
    made = Application(vespa.url, dataclasses.replace(application.description, settings=settings))
    summary = run(DOCUMENTS, target=VespaTarget(made, tiny_bundle))
    assert (summary.acknowledged, summary.token_vectors) == (10, 0)
    fields = vespa.documents["d0#0"]["fields"]
    assert (fields["text"], fields["title"]) == ("wait for a thread to finish", "title 0")
    assert "vectors" not in fields


def test_a_document_without_its_group_is_a_dead_letter(vespa, application, run, tiny_bundle):
    settings = dataclasses.replace(
        application.settings, mode="streaming", group_field="owner", candidates=("exhaustive",),
        metadata=MetadataSchema({"owner": FieldType.STRING}),
    )  # fmt: skip
    made = Application(vespa.url, dataclasses.replace(application.description, settings=settings))
    summary = run([Document("x", "", "text")], target=VespaTarget(made, tiny_bundle))
    assert (summary.acknowledged, summary.dead_lettered) == (0, 1)


def test_a_new_local_index_is_stored_as_asked(tiny_bundle, tmp_path):
    def fed(storage, to="index"):
        options = FeedOptions(to=str(tmp_path / to), bundle=tiny_bundle, journal=tmp_path / "j", storage=storage)
        with start_feed([DOCUMENTS], options) as run:
            return run.go()

    assert fed(Storage("binary", refine=True)).acknowledged == 10
    index = LocalIndex.open(tmp_path / "index")
    assert (index.codec, index.snapshot.version.refine) == ("binary", True)
    fed(None)
    fed(Storage("binary", refine=True))
    for other in (Storage("binary"), Storage("float32", refine=True), Storage("binary", 2, True)):
        with pytest.raises(LocalIndexError, match="stores its vectors differently"):
            fed(other)
    with pytest.raises(UsageError, match="codec 'bfloat16' is unknown"):
        fed(Storage("bfloat16"), "other")
    with (
        pytest.raises(UsageError, match="to a local index only"),
        start_feed([DOCUMENTS], FeedOptions(to="http://localhost:1", journal=tmp_path / "j", storage=Storage())),
    ):
        pass
