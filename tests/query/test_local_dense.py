"""Dense candidates, joined ones and fusion in a local index, of shards too, against scores computed one by one."""

import itertools

import numpy as np
import pytest
from plaid_tools import DENSE, dense_of, fake_bundle, passage, token_vectors, unit

from late_interaction.bm25 import Bm25
from late_interaction.documents import passage_text
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.shards import ShardedIndex, Sharding
from query import Client, ClientSettings, QueryVectors
from query.fusion import fused

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 60)
WORDS = ["apple", "river", "stone", "cloud", "engine", "violin", "paper", "garden"]
TEXT = "river stone"


def text_of(number):
    """Of another length each, so that no two have the same BM25."""
    return " ".join([*np.random.default_rng(number).choice(WORDS, 3).tolist(), *["pebble"] * number])


def fill(index, numbers=range(60)):
    with index.writer() as writer:
        for number in numbers:  # two passages a document
            new = passage(f"d{number // 2}", number % 2, text=text_of(number), n=number)
            writer.put(new, VECTORS[number], dense=dense_of(index, number))
            if number == 30:
                writer.commit()
        writer.commit()
    return index


@pytest.fixture(scope="module", params=["one", "shards"])
def index(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("dense")
    bundle = fake_bundle(root / "b", dense=DENSE)
    if request.param == "one":
        return fill(LocalIndex.create(root / "i", bundle=bundle, schema=SCHEMA, codec="float32"))
    with ShardedIndex.create(root / "i", bundle=bundle, schema=SCHEMA, sharding=Sharding(2)) as made:
        return fill(made)


@pytest.fixture(scope="module")
def client(index):
    with Client(str(index.path), settings=ClientSettings(timeout=120)) as opened:
        yield opened


@pytest.fixture(scope="module")
def query(index):
    random = np.random.default_rng(5)
    dense = {name: unit(random.standard_normal(dim)) for name, dim in DENSE.items()}
    return QueryVectors(VECTORS[7][:3], dense, TEXT)


@pytest.fixture(scope="module")
def truth(index, query):
    """Every score of every passage that has it."""
    passages = {p.id: p for p in index.iter_passages()}
    texts = {id_: passage_text(p.title, p.text) for id_, p in passages.items()}
    words = Bm25(list(texts), list(texts.values())).search(TEXT, len(texts), None)
    stored = index.dense_vectors(passages)
    return {
        "maxsim": {id_: float(maxsim(query.rows, index.vectors(id_))) for id_ in passages},
        "bm25": {id_: score for id_, score in words if score > 0},
        "dense": {id_: float(stored[id_]["dense"] @ query.dense["dense"]) for id_ in passages},
        "other": {id_: float(stored[id_]["other"] @ query.dense["other"]) for id_ in passages},
    }


def best(scores, count):
    return sorted(scores, key=lambda id_: (-scores[id_], id_))[:count]


def check(result, ids, scores, stages):
    assert [hit.passage_id for hit in result.hits] == ids
    for hit in result.hits:
        assert hit.score == pytest.approx(scores[hit.passage_id], abs=1e-4)
        wanted = {name: of.get(hit.passage_id, 0.0) for name, of in stages.items()}
        assert hit.stages == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("model", ["dense", "other"])
def test_what_is_nearest_is_ordered_by_maxsim(client, query, truth, model):
    result = client.search(query, 5, candidates="dense", dense=model, rerank=20)
    ids = best({id_: truth["maxsim"][id_] for id_ in best(truth[model], 20)}, 5)
    check(result, ids, truth["maxsim"], {"maxsim": truth["maxsim"], "dense": truth[model]})
    assert (result.candidates, result.matched, result.reranked) == ("dense", 20, 20)


@pytest.mark.parametrize("candidates", ["bm25+dense", "dense+bm25", "centroid+dense", "centroid+bm25+dense"])
def test_joined_candidates_are_what_any_of_them_finds(client, query, truth, candidates):
    names = [{"centroid": "maxsim"}.get(name, name) for name in candidates.split("+")]
    result = client.search(query, 8, candidates=candidates, dense="dense", rerank=10)
    found = {id_ for name in names for id_ in best(truth[name], 10)}
    ids = best({id_: truth["maxsim"][id_] for id_ in found}, 8)
    check(result, ids, truth["maxsim"], {name: truth[name] for name in {"maxsim", *names}})
    assert (result.candidates, result.matched) == (candidates, len(found))


WEIGHTS = [
    {"dense": 1.0}, {"bm25": 1.0, "dense": 2.0}, {"maxsim": 1.0, "dense": 0.5}, {"maxsim": 1.0, "bm25": 0.3, "dense": 1.0},
    {"maxsim": 0.0, "bm25": 1.0, "dense": 1.0}, {"bm25": 3.0},
]  # fmt: skip


@pytest.mark.parametrize(("weights", "fusion"), list(itertools.product(WEIGHTS, ["rrf", "sum", None])))
def test_hybrid_fuses_the_scores_that_have_a_weight(client, query, truth, weights, fusion):
    result = client.search(query, 6, candidates="hybrid", weights=weights, fusion=fusion, dense="dense", rerank=12)
    weights = {name: weight for name, weight in weights.items() if weight}
    found = {id_ for name in weights for id_ in best(truth[name], 12)}
    scores = {name: {id_: score for id_, score in truth[name].items() if id_ in found} for name in weights}
    total = dict.fromkeys(found, 0.0)
    for name, weight in weights.items():
        order, values = best(scores[name], len(found)), scores[name].values()
        for rank, id_ in enumerate(order, start=1):
            share = (scores[name][id_] - min(values)) / (max(values) - min(values))
            total[id_] += weight * (share if fusion == "sum" else 1 / (60 + rank))
    check(result, best(total, 6), total, scores)
    assert (result.matched, result.reranked) == (len(found), len(found) if "maxsim" in weights else 0)


def test_filters_ids_groups_and_pages_hold(client, query, truth):
    options = {"candidates": "hybrid", "weights": {"bm25": 1.0, "dense": 1.0}, "dense": "dense", "rerank": 40}
    few = client.search(query, 60, **options, where={"n": {"$lt": 9}})
    assert {hit.metadata["n"] for hit in few.hits} == set(range(9))
    assert {hit.id for hit in client.search(query, 60, **options, ids=["d3", "d4"]).hits} == {"d3", "d4"}
    assert client.search(query, 5, **options, where={"n": 100}).hits == ()
    for candidates in ("dense", "bm25+dense", "hybrid"):
        options = {**options, "candidates": candidates}
        whole = client.search(query, 12, **options, offset=0)
        pages = [client.search(query, 4, **options, offset=start) for start in (0, 4, 8)]
        assert [hit.passage_id for page in pages for hit in page.hits] == [hit.passage_id for hit in whole.hits]
        assert [hit.rank for page in pages for hit in page.hits] == list(range(1, 13))
        documents = [hit.id for hit in client.search(query, 7, **options, group=True).hits]
        assert len(set(documents)) == len(documents) == 7


def test_explanations_have_rows_that_add_up(client, query):
    ready = QueryVectors(query.rows, query.dense)
    for hit in client.search(ready, 3, candidates="dense", dense="other", explain=True).hits:
        assert sum(hit.rows) == pytest.approx(hit.score, abs=1e-3)


def test_several_indexes_are_searched_as_one(client, index, query, tmp_path):
    more = fill(LocalIndex.create(tmp_path / "more", bundle=index.bundle, schema=SCHEMA, codec="float32"), range(0, 60, 5))
    with Client([str(index.path), str(more.path)], settings=ClientSettings(timeout=120)) as both:
        result = both.search(query, 9, candidates="dense", dense="dense", rerank=20, index=["i", "more"])
        assert {hit.index for hit in result.hits} == {"i", "more"}
        assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
        single = [hit.passage_id for hit in client.search(query, 9, candidates="dense", dense="dense", rerank=20).hits]
        own = [hit.passage_id for hit in result.hits if hit.index == "i"]
        assert own == single[: len(own)]


def test_a_query_that_lacks_what_is_asked_is_refused(client, index, query, tmp_path):
    with pytest.raises(UsageError, match="dense model 'nothing' .*: dense, other"):
        client.search(query, 3, candidates="dense", dense="nothing")
    for candidates, weights in (("dense", None), ("dense+bm25", None), ("hybrid", {"dense": 1.0})):
        with pytest.raises(UsageError, match="its vector of dense model 'other'"):
            client.search(query.rows, 3, candidates=candidates, weights=weights, dense="other")
    with pytest.raises(UsageError, match="must be 12 finite numbers"):
        client.search(QueryVectors(query.rows, {"dense": np.ones(5)}), 3, candidates="dense", dense="dense")
    plain = LocalIndex.create(tmp_path / "plain", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA)
    with Client(str(plain.path)) as without, pytest.raises(UsageError, match="has no dense model"):
        without.search(query, 3, candidates="dense")
    assert "dense" in client.strategies and "dense" not in without.strategies


def test_scores_that_are_equal_count_half():
    """As Vespa's normalize_linear has it, of one candidate alone too."""
    assert fused({"maxsim": {"a": 3.0, "b": 3.0}}, {"maxsim": 2.0}, "sum") == {"a": 1.0, "b": 1.0}
    assert fused({"dense": {"a": 7.0}, "bm25": {}}, {"dense": 1.0, "bm25": 5.0}, "sum") == {"a": 0.5}
    assert fused({"dense": {"a": 1.0, "b": 3.0, "c": 2.0}}, {"dense": 1.0}, "sum") == {"a": 0.0, "b": 1.0, "c": 0.5}
