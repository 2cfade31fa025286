"""A source, a target and a backend of one's own, as architecture.md says under "Add one". Codecs and candidates:
tests/vespa_app/test_add_one.py; layouts of checkpoints: tests/exporter/test_checkpoint_folder.py."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from vespa_bundles import small_bundle

from feeder import FeedOptions, feed
from feeder.copying.journal import CopyJournal
from feeder.copying.local import LocalSource
from feeder.copying.run import Copy
from feeder.digests import Digests
from feeder.encoding.batches import HereEncoding
from feeder.encoding.passages import Splitting
from feeder.encoding.ready import DocumentEncoding
from feeder.feeding.dead_letters import DeadLetters
from feeder.feeding.journal import Journal
from feeder.feeding.pipeline import Feed
from feeder.feeding.survey import survey
from feeder.outcomes import Finished, Settled, StoredDigest
from feeder.sources import open_sources, opening
from feeder.targets import Kept, Target
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.tokenizing import Tokenizing
from query import Client
from query.backend import SearchIndex
from query.core import Core
from query.plans import at_once
from query.types import ById, Hit, Ids, SearchResult


def members(protocol) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol) if not name.startswith("_")}


def read_lines(path, name, limits):
    """A reader: the place of each record, and the record."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        id_, _, text = line.partition("=")
        yield number, {"id": id_, "text": text}


def test_a_source_is_a_reader_and_a_line_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setitem(opening.FORMATS, "toy", opening.Kind(read_lines, (".toy",)))
    (tmp_path / "one.toy").write_text("a=wait for a thread\nb=open a file\n")
    (source,) = open_sources([str(tmp_path / "one.toy")])
    assert [(document.id, document.text) for document in source] == [("a", "wait for a thread"), ("b", "open a file")]
    (folder,) = open_sources([str(tmp_path)])  # of files that the table knows
    assert [document.id for document in folder] == ["a", "b"]


class ToyTarget:
    """Passages with vectors, by document id."""

    name = place = "toy"
    built = digest_basis = ""
    counted, needs_vectors, unit_rows, kept = True, True, False, Kept.as_encoded()

    def __init__(self, bundle):
        self.bundle, self.schema = bundle, MetadataSchema({})
        self.documents, self.outcomes = {}, []

    def size(self):
        return sum(len(document.passages) for document in self.documents.values())

    def still_updated(self, document_ids):
        return ()

    def stored(self, document_ids):
        known = [self.documents[id_] for id_ in document_ids if id_ in self.documents]
        return {one.document.id: StoredDigest(one.digest, tuple(p.id for p in one.passages)) for one in known}

    def put(self, batch):
        self.documents |= {one.document.id: one for one in batch}
        self.outcomes += [Settled(one.document.id) for one in batch]

    def update(self, batch):
        raise NotImplementedError

    def delete(self, document_ids):
        self.outcomes += [Settled(id_, absent=self.documents.pop(id_, None) is None) for id_ in document_ids]

    def settled(self, *, wait=False):
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def statistics(self):
        return None

    def finish(self):
        return Finished()

    def close(self):
        pass


class ToyIndex:
    """Exact MaxSim over what a toy target has."""

    name = address = "toy"
    strategies = ("exhaustive",)

    def __init__(self, target):
        self.bundle, self.schema, self._documents = target.bundle, target.schema, target.documents

    def now(self, deadline):
        return self

    def _passages(self):
        return ((p, D) for one in self._documents.values() for p, D in zip(one.passages, one.vectors, strict=True))

    def search(self, query, options, deadline):
        return at_once(lambda: self._found(query, options))

    def settled(self, options):
        return options

    def dense_needed(self, options):
        return {}

    def search_many(self, queries, options, deadline):
        return at_once(lambda: [self._found(query, options) for query in queries])

    def _found(self, query, options):
        ranked = sorted(((maxsim(query.rows, D), p) for p, D in self._passages()), key=lambda pair: -pair[0])[: options.k]
        hits = (Hit(n, p.document_id, p.id, float(score), p.title, p.text, {}) for n, (score, p) in enumerate(ranked, 1))
        return SearchResult(tuple(hits), "exhaustive", len(ranked), len(ranked))

    def score(self, query, passage_ids, deadline):
        return at_once(lambda: ById({p.id: maxsim(query.rows, D) for p, D in self._passages() if p.id in passage_ids}))

    def get(self, document_ids, where, deadline):
        return at_once(lambda: ById({id_: self._documents[id_].passages for id_ in document_ids if id_ in self._documents}))

    def select(self, where, limit, deadline):
        return at_once(lambda: Ids(list(self._documents)[:limit]))

    def vectors(self, passage_ids, deadline):
        return at_once(lambda: ById({p.id: D for p, D in self._passages() if p.id in passage_ids}))

    def close(self):
        pass


@pytest.fixture
def fed(tmp_path):
    """A toy target, after a feed of two documents."""
    bundle = small_bundle(tmp_path / "bundle", onnx=True)
    target = ToyTarget(bundle)
    documents = [Document("a", text="hello hello"), Document("b", text="world")]
    journal, letters = Journal(tmp_path / "journal", "toy", resume=False), DeadLetters(tmp_path / "dead.jsonl", "put")
    encoding = DocumentEncoding(HereEncoding(Splitting(), Tokenizing(bundle), Encoder(bundle)), bundle, Splitting())
    feed = Feed(documents, survey(documents), target, journal, letters, Digests("made", ""), encoding=encoding)
    feed.run()
    encoding.close()
    journal.close(remove=True)
    letters.close(complete=True)
    return target


def test_a_target_is_what_keeps_the_protocol(fed):
    assert members(Target) <= members(fed)
    assert sorted(fed.documents) == ["a", "b"]
    assert isinstance(fed.documents["a"].passages[0], Passage)


def test_a_target_takes_copies_of_an_index(tmp_path, tiny_bundle):
    documents = [Document(str(n), "", f"words {n}") for n in range(5)]
    feed(documents, FeedOptions(to=tmp_path / "i", journal=tmp_path / "j", bundle=tiny_bundle, storage=Storage("float32")))
    source = LocalSource(tmp_path / "i")
    target = ToyTarget(source.bundle)
    for already_there in (0, 5):
        summary = Copy(source, target, CopyJournal(tmp_path / "copy", "toy", resume=False), merge=True).run()
        assert (summary.outcome, summary.passages, summary.already_there) == ("complete", 5, already_there)
    assert [item.passages[0].text for item in target.documents.values()] == [document.text for document in documents]
    assert all(item.vectors[0].shape[1] == tiny_bundle.manifest.dim for item in target.documents.values())
    source.close()


def test_a_backend_is_what_keeps_the_protocol(fed, monkeypatch):
    index = ToyIndex(fed)
    assert members(SearchIndex) <= members(index)
    monkeypatch.setattr(Core, "_opened", lambda *_: [(index, True)])
    with Client("toy") as client:
        assert [hit.id for hit in client.search("world", 1).hits] == ["b"]
        rows = client.encoder.encode_queries(["world"])[0]
        assert list(client.score(rows, ["b#0"])) == ["b#0"]
        assert client.select(None) == ("a", "b")
        assert np.allclose(client.vectors(["a#0"])["a#0"], fed.documents["a"].vectors[0])
        assert list(client.get(["b", "none"])) == ["b"]
        assert len(client.search_many(["hello", rows], 1)) == 2
