"""A kind of source is a reader and its line in FORMATS, a target is a class with what Target asks: here is a toy of each."""

from feeder import FeedOptions, feed, open_sources
from feeder.copying.journal import CopyJournal
from feeder.copying.local import LocalSource
from feeder.copying.run import Copy
from feeder.outcomes import Finished, Settled, StoredDigest
from feeder.sources.opening import FORMATS, Kind
from feeder.sources.packed import lines
from feeder.targets import Kept
from late_interaction.documents import Document
from late_interaction.plaid import Storage


def read_pairs(path, name, limits):
    """`id: text`, a line each."""
    for number, line in lines(path, name, limits):
        id_, _, text = line.decode().strip().partition(": ")
        yield number, {"id": id_, "text": text}


def test_a_kind_of_source(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "pairs", Kind(read_pairs, (".pairs",)))
    (tmp_path / "a.pairs").write_text("one: words\ntwo: more words\n")
    documents = [Document("one", "", "words"), Document("two", "", "more words")]
    for source in (tmp_path / "a.pairs", tmp_path):
        assert [document for opened in open_sources([str(source)]) for document in opened] == documents


class Shelf:
    """A target that keeps documents in memory, as they were encoded."""

    name = place = "shelf"
    built = digest_basis = ""
    counted = needs_vectors = True
    unit_rows = False
    kept = Kept.as_encoded()

    def __init__(self, bundle, schema):
        self.bundle, self.schema = bundle, schema
        self.documents, self._outcomes = {}, []

    def size(self):
        return sum(len(item.passages) for item in self.documents.values())

    def still_updated(self, document_ids):
        return ()

    def stored(self, document_ids):
        there = {id_: self.documents[id_] for id_ in document_ids if id_ in self.documents}
        return {id_: StoredDigest(item.digest, tuple(p.id for p in item.passages)) for id_, item in there.items()}

    def put(self, batch):
        for item in batch:
            self.documents[item.document.id] = item
        self._outcomes += [Settled(item.document.id) for item in batch]

    def update(self, batch):
        raise NotImplementedError

    def delete(self, document_ids):
        self._outcomes += [Settled(id_, absent=self.documents.pop(id_, None) is None) for id_ in document_ids]

    def settled(self, *, wait=False):
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def statistics(self):
        return None

    def finish(self):
        return Finished()

    def close(self):
        pass


def test_a_target(tmp_path, tiny_bundle):
    documents = [Document(str(n), "", f"words {n}") for n in range(5)]
    options = FeedOptions(to=tmp_path / "index", journal=tmp_path / "j", bundle=tiny_bundle, storage=Storage("float32"))
    feed(documents, options)
    source = LocalSource(tmp_path / "index")
    shelf = Shelf(source.bundle, source.schema)
    for already_there in (0, 5):
        journal = CopyJournal(tmp_path / "copy", "toy", resume=False)
        summary = Copy(source, shelf, journal, merge=True).run()
        assert (summary.outcome, summary.passages, summary.already_there) == ("complete", 5, already_there)
    assert [item.passages[0].text for item in shelf.documents.values()] == [document.text for document in documents]
    assert all(item.vectors[0].shape[1] == tiny_bundle.manifest.dim for item in shelf.documents.values())
    source.close()
