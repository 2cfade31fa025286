"""Explanations come from the stored vectors; only what has none is encoded again."""

import dataclasses
import json

import httpx
import pytest

from late_interaction.bundle import Bundle, Pooling
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from query import Client, Hit, explain
from query.explain import explained
from query.types import EncodedQuery
from vespa_app.codecs import CODECS, bundle_codebooks
from vespa_app.running import Description
from vespa_app.settings import AppSettings

QUERY = "wait for a thread to finish"


@pytest.fixture
def encoded(monkeypatch):
    """Texts that were encoded as documents."""
    texts = []
    whole = Encoder.encode_documents

    def encode(self, given, rows=None, *, pooled=True):
        texts.extend(given)
        return whole(self, given, rows, pooled=pooled)

    monkeypatch.setattr(Encoder, "encode_documents", encode)
    return texts


def best(explanation):
    return [(match.query_word, match.start, match.end) for match in explanation.matches]


@pytest.mark.parametrize("candidates", ["centroid", "bm25", "hybrid"])
def test_a_local_index(sample_index, encoded, candidates):
    with Client(sample_index) as client:
        hits = client.search(QUERY, 100, candidates=candidates, explain=True).hits
        assert not encoded and all(hit.vectors is None for hit in hits)
        again = explain(client.encoder, QUERY, hits)
    same = sum(
        a == b for hit, one in zip(hits, again, strict=True) for a, b in zip(best(hit.explanation), best(one), strict=True)
    )
    assert same > 0.9 * 6 * len(hits)  # residuals of four bits
    for hit, one in zip(hits, again, strict=True):
        assert hit.explanation.words == one.words
        assert [m.similarity for m in hit.explanation.matches] == pytest.approx([m.similarity for m in one.matches], abs=0.1)


def test_nothing_is_explained_unasked(sample_index, encoded, cli, tmp_path):
    asked = ("search", QUERY, "--from", str(sample_index), "-k", "5", "--json")
    for more, whole in (((), False), (("--explain",), True), (("--heatmap", str(tmp_path / "h.html")), True)):
        hits = json.loads(cli(*asked, *more).stdout.splitlines()[-1])["hits"]
        assert {"explanation" in hit for hit in hits} == {whole}
    with Client(sample_index) as client:
        assert client.search(QUERY, 200).hits[0].explanation is None
    assert not encoded


@pytest.mark.parametrize("layout", ["passages", "chunks"])
def test_vespa(tiny_bundle, encoded, layout):
    """Rows travel with the hits where each passage has a document of its own, and none is missing."""
    settings = AppSettings(dim=16, query_rows=64, codec="float32", candidates=("exhaustive",), layout=layout)
    texts = ["a thread that waits", "the end of a file", "to finish is to wait"]
    rows = [CODECS["float32"].encode(D, bundle_codebooks(tiny_bundle)) for D in Encoder(tiny_bundle).encode_documents(texts)]
    encoded.clear()
    bodies = []

    def answer(request):
        if request.method == "GET":
            description = Description(settings, tiny_bundle.sha256, None)
            return httpx.Response(200, json={"fields": {"description": json.dumps(description.to_json())}})
        bodies.append(json.loads(request.content))
        carried = rows[:2] if bodies[-1]["presentation.summary"] == "passage_vectors" else []
        children = [
            {
                "relevance": 1.0,
                "fields": {"id": f"{n}#0", "document_id": str(n), "text": text, **(carried[n] if n < len(carried) else {})},
            }
            for n, text in enumerate(texts)
        ]
        return httpx.Response(200, json={"root": {"coverage": {"coverage": 100, "documents": 3}, "children": children}})

    with Client("http://node:8080", tiny_bundle, transport=httpx.MockTransport(answer)) as client:
        hits = client.search(QUERY, explain=True).hits
        assert encoded == (texts[2:] if layout == "passages" else texts)
        assert [best(hit.explanation) for hit in hits] == [best(one) for one in explain(client.encoder, QUERY, hits)]
        encoded.clear()
        client.search(QUERY)
    assert not encoded and bodies[1]["presentation.summary"] == "passage_hit"


def test_rows_that_are_no_words_are_not_taken(tiny_bundle, encoded):
    """Pooled ones, and those of another tokenizer."""
    pooled = Bundle(tiny_bundle.path, dataclasses.replace(tiny_bundle.manifest, pooling=Pooling(2)))
    for bundle, lost in ((tiny_bundle, 0), (tiny_bundle, 1), (pooled, 0)):
        encoder = Encoder(bundle)
        text = "a thread that waits"
        rows = encoder.encode_documents([text], pooled=False)[0]
        hit = Hit(1, "a", "a#0", 1.0, "", text, {}, vectors=rows[lost:])
        encoded.clear()
        question = EncodedQuery(encoder.encode_queries([QUERY])[0], QUERY)
        (found,) = explained(encoder, question, [hit])
        assert encoded == ([] if bundle is tiny_bundle and not lost else [passage_text("", text)])
        assert best(found.explanation) == best(explain(encoder, QUERY, [hit])[0]) and found.vectors is None
