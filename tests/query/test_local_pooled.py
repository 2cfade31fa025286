"""Candidates pooled in a local index, of shards too, alone and joined, against scores computed one by one."""

import time
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, finished, passage, token_vectors
from vespa_bundles import small_lemur, with_lemur

from late_interaction.bundle import MeasuredCandidates
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding
from query import Client, ClientSettings, QueryVectors
from query.local import LocalSearch
from query.options import SearchOptions
from query.types import EncodedQuery

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 60)
LEMUR = small_lemur(DIM, 8)
QUERY = QueryVectors(VECTORS[7][:3], {}, "stone")


def fill(index):
    with index.writer() as writer:
        for number, rows in enumerate(VECTORS):
            writer.put(passage(f"d{number}", text="stone" if number in (50, 51) else "river", n=number), rows)
        writer.commit()
    index.refresh()
    return index


@pytest.fixture(scope="module", params=["one", "shards"])
def client(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("pooled")
    bundle = with_lemur(fake_bundle(root / "b"), measured=MeasuredCandidates("pooled", 10, 0.99, 0.98, "lemur"))
    if request.param == "one":
        fill(LocalIndex.create(root / "i", bundle=bundle, schema=SCHEMA, codec="float32"))
    else:
        with ShardedIndex.create(
            root / "i", bundle=bundle, schema=SCHEMA, sharding=Sharding(2), storage=Storage("float32")
        ) as made:
            fill(made)
    with Client(str(root / "i"), settings=ClientSettings(timeout=120)) as opened:
        yield opened


def best(scores, count):
    return sorted(scores, key=lambda id_: (-scores[id_], id_))[:count]


@pytest.fixture(scope="module")
def truth():
    asked = LEMUR.query(QUERY.rows)
    close = {f"d{number}#0": float(LEMUR.passage(rows) @ asked) for number, rows in enumerate(VECTORS)}
    return close, {f"d{number}#0": float(maxsim(QUERY.rows, rows)) for number, rows in enumerate(VECTORS)}


def test_what_the_vectors_find_is_ordered_by_maxsim(client, truth):
    close, exact = truth
    found = best(close, 10)  # as many as the bundle's measurement says
    result = client.search(QUERY, k=5, candidates="pooled")
    assert [hit.passage_id for hit in result.hits] == best({id_: exact[id_] for id_ in found}, 5)
    assert result.candidates == "pooled" and result.reranked == 10
    for hit in result.hits:
        assert hit.score == pytest.approx(exact[hit.passage_id], abs=1e-4)
        wanted = {"maxsim": exact[hit.passage_id], "candidates": close[hit.passage_id]}
        assert hit.stages == pytest.approx(wanted, abs=0.02)


def test_rerank_and_filters(client, truth):
    _, exact = truth
    all_of_them = client.search(QUERY, k=60, candidates="pooled", rerank=60)
    assert [hit.passage_id for hit in all_of_them.hits] == best(exact, 60)
    few = client.search(QUERY, k=9, candidates="pooled", where={"n": {"$lt": 4}})
    assert {hit.passage_id for hit in few.hits} == {f"d{n}#0" for n in range(4)}
    assert client.search(QUERY, k=9, candidates="pooled", ids=["d9"]).hits[0].passage_id == "d9#0"


def test_joined_with_words(client, truth):
    close, exact = truth
    result = client.search(QUERY, k=60, candidates="pooled+bm25")
    found = {*best(close, 60)[:200], "d50#0", "d51#0"}
    assert {"d50#0", "d51#0"} <= {hit.passage_id for hit in result.hits} <= found
    for hit in result.hits:
        assert hit.stages["candidates"] == pytest.approx(close[hit.passage_id], abs=0.02)
        assert hit.score == pytest.approx(exact[hit.passage_id], abs=1e-4)


def test_the_first_stage_alone_is_ordered_by_the_vectors(client, truth):
    close, _ = truth
    options = SearchOptions(k=5, candidates="pooled").for_first_stage()
    search = LocalSearch(Path(client.address), version=None)
    result = finished(search.search(EncodedQuery(QUERY.rows, None), options, time.monotonic() + 60))
    search.close()
    ids = [hit.passage_id for hit in result.hits]
    assert [close[id_] for id_ in ids] == pytest.approx([close[id_] for id_ in best(close, 5)], abs=0.02)


def test_an_index_without_is_told(tmp_path):
    fill(LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA))
    with Client(str(tmp_path / "i")) as client, pytest.raises(UsageError, match="pooled"):
        client.search(QUERY, candidates="pooled")
