"""Ready rows of queries over an index of ready rows: every strategy; a text without a model is refused, but for its words."""

import numpy as np
import pytest
from ready import DIM, ready_bundle, unit_rows

from feeder import FeedOptions, feed
from late_interaction.documents import Document
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim_many
from late_interaction.metadata import MetadataSchema
from query import Client, QueryVectors
from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_request import search_request, unfit_strategies
from vespa_app import default_settings
from vespa_app.codecs import NO_CODEBOOKS
from vespa_app.running import Description

WORDS = ["red apple", "green pear", "blue plum", "red pear"]
PAGES = [Document(f"d{n}", text=WORDS[n % 4], metadata={"n": n}, vectors=unit_rows(5 + n % 3, n)) for n in range(40)]
Q = np.concatenate([PAGES[7].vectors[0][:3], unit_rows(1, 99)])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    bundle = ready_bundle(folder / "bundle")
    feed(PAGES, FeedOptions(to=folder / "index", bundle=bundle, journal=folder / "journal"))
    with Client(folder / "index") as opened:
        yield opened


def test_every_strategy_takes_ready_rows(client):
    exact = client.search(Q, candidates="exhaustive", explain=True)
    scores = maxsim_many(Q, np.concatenate([d.vectors[0] for d in PAGES]), [len(d.vectors[0]) for d in PAGES])
    assert exact.hits[0].id == "d7" == PAGES[int(scores.argmax())].id
    assert sum(exact.hits[0].rows) == pytest.approx(exact.hits[0].score, abs=1e-4)
    assert client.search(Q.tolist() and np.asarray(Q, np.float64)).hits[0].id == "d7"
    assert [hit.id for hit in client.search(Q, where={"n": {"$lt": 3}}).hits] and client.search(Q, candidates="centroid").hits
    both = QueryVectors(Q, text="red pear")
    assert {hit.text for hit in client.search(both, 40, candidates="bm25").hits} <= {"red apple", "green pear", "red pear"}
    fused = client.search(both, 40, candidates="hybrid", explain=True).hits
    best = next(hit for hit in fused if hit.id == "d7")  # ten others have the same words
    assert best.stages["maxsim"] == max(hit.stages["maxsim"] for hit in fused) and best.stages["bm25"] > 0
    assert client.score(Q, ["d7#0"])["d7#0"] == pytest.approx(exact.hits[0].score, abs=1e-4)


def test_a_text_is_refused_in_one_line(client):
    for call in (
        lambda: client.search("red pear"),
        lambda: client.search("red pear", candidates="centroid"),
        lambda: client.search("red pear", candidates="hybrid"),
        lambda: client.score("red pear", ["d7#0"]),
    ):
        with pytest.raises(UsageError, match="the bundle has no model to encode it"):
            call()
    with pytest.raises(UsageError, match="the bundle has no model to encode it"):
        client.rerank("red pear", ["red"])


def test_words_alone_are_ranked_by_bm25(client):
    result = client.search("red pear", 40, candidates="bm25", explain=True)
    assert result.hits[0].text == "red pear"
    assert result.hits[0].score > result.hits[-1].score > 0
    assert (result.stage, result.reranked, set(result.hits[0].stages)) == ("candidates", 0, {"bm25"})
    pages = [hit.id for page in (0, 3) for hit in client.search("red pear", 3, candidates="bm25", offset=page).hits]
    assert pages == [hit.id for hit in result.hits[:6]]
    mixed = client.search_many(["red pear", QueryVectors(Q, text="red pear")], candidates="bm25")
    assert "maxsim" in mixed[1].hits[0].stages and "maxsim" not in mixed[0].hits[0].stages


def test_documents_with_vectors_are_reranked_without_a_model(client):
    hits = client.rerank(Q, PAGES[:12], 3, explain=True)
    assert hits[0].id == "d7" and len(hits) == 3
    assert sum(hits[0].rows) == pytest.approx(hits[0].score, abs=1e-4)
    with pytest.raises(UsageError, match="document 'x': vectors must have shape"):
        client.rerank(Q, [Document("x", vectors=unit_rows(2, dim=8))])
    with pytest.raises(UsageError, match="document 'x': .*several passages"):
        client.rerank(Q, [Document("x", vectors=[unit_rows(2), unit_rows(2)])])
    with pytest.raises(UsageError, match="has no model"):
        client.rerank(Q, [PAGES[0], "a text"])


def test_rows_of_another_dimension_are_refused(client):
    with pytest.raises(UsageError, match=rf"\[q, {DIM}\]"):
        client.search(unit_rows(2, dim=8))


def test_rows_too_large_for_float32_or_complex_are_refused(client):
    with pytest.raises(UsageError, match="must be finite numbers"):
        client.search(QueryVectors(Q.astype(np.float64) * 1e300))
    with pytest.raises(UsageError, match="rows of numbers"):
        client.search(QueryVectors(Q.astype(np.complex64)))


def test_all_numbers_of_a_query_in_one_list_are_its_rows(client):
    whole, flat = (client.search(QueryVectors(rows), 5).hits for rows in (Q, Q.reshape(-1)))
    assert [(hit.id, hit.score) for hit in flat] == [(hit.id, hit.score) for hit in whole]


def test_vespa_is_asked_for_words_without_rows(tmp_path):
    bundle = ready_bundle(tmp_path / "bundle")
    settings = default_settings(bundle, MetadataSchema({}))
    query = EncodedQuery(np.zeros((0, DIM), np.float32), "red pear")
    options = SearchOptions(candidates="bm25").by_candidates()
    assert unfit_strategies(settings, query, options).keys() >= {"pooled", "exhaustive"}
    request = search_request(Description(settings, bundle.sha256, None), NO_CODEBOOKS, query, options, "bm25")
    assert request.parameters["text"] == "red pear"
    assert request.parameters["ranking.secondPhase.totalRerankCount"] == 1  # 0 would be the profile's
    assert "input.query(qt)" not in request.parameters
