"""Dense models, joined candidates and fusion: one suite for a local index and, marker live, for an index beside the others on a
Vespa node, of the same vectors. What each hit's stages say is compared with numpy over the float32 vectors, and its score with
the fusion of those stages."""

from __future__ import annotations

import dataclasses
import random

import pytest
from dense_bundles import made_bundle, with_dense

from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.dense import dense_encoders
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from query import Client, QueryVectors
from query.fusion import fused
from vespa_app import default_settings
from vespa_app.changes import build_beside
from vespa_app.deploying import deploy
from vespa_app.running import Application

WORDS = (
    "thread lock file path json number list sort parse option random mean socket wait split join text byte queue call".split()
)
QUERIES = ["wait for a thread", "sort a list of numbers", "parse json text"]
COUNT = 40
ALL = {"rerank": 500, "k": COUNT}
MODELS = {"dense": 16, "e5": 24}
SCHEMA = MetadataSchema({"n": FieldType.LONG})
TOLERANCE = {"maxsim": 0.06, "dense": 0.02}  # of bfloat16 there, and int8 of dense ones here
WEIGHTS = [
    {"dense": 1.0},
    {"bm25": 1.0, "dense": 1.0},
    {"maxsim": 1.0, "dense": 0.5},
    {"maxsim": 1.0, "bm25": 0.3, "dense": 0.7},
]


def documents():
    rng = random.Random(3)
    for n in range(COUNT):
        yield Document(f"d{n}", "", " ".join(rng.sample(WORDS, 7)), {"n": n})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    return with_dense(made_bundle(folder / "plain", 16, words=" ".join(WORDS)), folder / "bundle", MODELS)


@pytest.fixture(scope="module")
def encoded(bundle):
    """Documents with their vectors: of tokens, and by each dense model."""
    found, texts = list(documents()), [d.text for d in documents()]
    rows = Encoder(bundle).encode_documents(texts)
    dense = {name: model.encode_documents(texts) for name, model in dense_encoders(bundle).items()}
    return [(d, D, {name: made[n] for name, made in dense.items()}) for n, (d, D) in enumerate(zip(found, rows, strict=True))]


@pytest.fixture(scope="module", params=["local", pytest.param("vespa", marks=pytest.mark.live)])
def client(request, bundle, encoded, tmp_path_factory):
    if request.param == "local":
        folder = tmp_path_factory.mktemp("local") / "index"
        with LocalIndex.create(folder, bundle=bundle, schema=SCHEMA, codec="float32").writer() as writer:
            for document, D, dense in encoded:
                writer.put(Passage.of(document), D, dense=dense)
            writer.commit()
        with Client(folder, bundle) as opened:
            yield opened
        return
    world = request.getfixturevalue("world")
    settings = default_settings(bundle, SCHEMA, candidates=("pooled", "bm25", "dense", "hybrid", "exhaustive"))
    beside = build_beside(bundle, dataclasses.replace(settings, embedder=False), world.package, switch=False)
    deploy(beside.package.write(tmp_path_factory.mktemp("beside") / "app"), world.config_url, query_url=world.url)
    address = f"{world.url}#{beside.new[0]}"
    target = VespaTarget(Application.read(address), bundle)
    target.put([EncodedDocument(d, (Passage.of(d),), (D,), dense=(dense,)) for d, D, dense in encoded])
    assert all(outcome.failure is None for outcome in target.settled(wait=True))
    target.close()
    with Client(address, bundle) as opened:
        yield opened
    deploy(world.package, world.config_url, query_url=world.url, allow=("schema-removal",))


@pytest.fixture(scope="module")
def exact(bundle, encoded):
    """By query, dense model and score: what numpy gives each document."""
    models, encoder = dense_encoders(bundle), Encoder(bundle)
    found = {}
    for query in QUERIES:
        Q = encoder.encode_queries([query])[0]
        found[query] = {"maxsim": {d.id: maxsim(Q, D) for d, D, _ in encoded}}
        for name, model in models.items():
            q = model.encode_queries([query])[0]
            found[query][name] = {d.id: float(q @ dense[name]) for d, _, dense in encoded}
    return found


def bounds(scores, weights, id_):
    """The least and the most of reciprocal ranks: equal scores may stand in any order."""
    least = most = 0.0
    for name, weight in weights.items():
        if (own := scores[name].get(id_)) is not None:
            above = sum(score > own for score in scores[name].values())
            equal = sum(score == own for score in scores[name].values())
            least, most = least + weight / (60 + above + equal), most + weight / (61 + above)
    return least, most


def check_stages(hit, of_query, names, model="dense"):
    assert set(hit.stages) - {"candidates"} == set(names), hit.stages
    for name in set(names) & {"maxsim", "dense"}:
        truth = of_query[model if name == "dense" else name][hit.id]
        assert hit.stages[name] == pytest.approx(truth, abs=TOLERANCE[name])


@pytest.mark.parametrize("model", MODELS)
def test_dense_finds_by_its_model_and_maxsim_orders(client, exact, model):
    for query in QUERIES:
        result = client.search(query, candidates="dense", dense=model, **ALL)
        assert result.candidates == "dense" and len(result.hits) == COUNT
        assert [h.score for h in result.hits] == sorted((h.score for h in result.hits), reverse=True)
        for hit in result.hits:
            check_stages(hit, exact[query], ("maxsim", "dense"), model)
            assert hit.score == hit.stages["maxsim"]
        few = client.search(query, 5, candidates="dense", dense=model, rerank=5).hits
        near = sorted(exact[query][model], key=lambda id_: -exact[query][model][id_])
        assert {hit.id for hit in few} <= set(near[:7])  # those of the least distance, whose order rounding may change


def test_what_words_or_the_dense_model_find_is_ordered_by_maxsim(client, exact):
    for query in QUERIES:
        joined = client.search(query, candidates="bm25+dense", **ALL)
        assert joined.candidates == "bm25+dense" and len(joined.hits) == COUNT
        assert [h.score for h in joined.hits] == sorted((h.score for h in joined.hits), reverse=True)
        for hit in joined.hits:
            check_stages(hit, exact[query], ("maxsim", "bm25", "dense"))


@pytest.mark.parametrize("fusion", ["rrf", "sum"])
@pytest.mark.parametrize("weights", WEIGHTS, ids="+".join)
@pytest.mark.parametrize("model", MODELS)
def test_hybrid_is_the_fusion_of_its_stages(client, exact, model, weights, fusion):
    for query in QUERIES:
        result = client.search(query, candidates="hybrid", weights=weights, fusion=fusion, dense=model, **ALL)
        assert len(result.hits) == COUNT
        scores = {}
        for name in weights:
            found = {hit.id: hit.stages.get(name, 0.0) for hit in result.hits}
            scores[name] = {id_: score for id_, score in found.items() if name != "bm25" or score > 0}
        by_sum = fused(scores, weights, "sum")
        for hit in result.hits:
            check_stages(hit, exact[query], weights, model)
            least, most = (by_sum[hit.id],) * 2 if fusion == "sum" else bounds(scores, weights, hit.id)
            assert least - 1e-4 <= hit.score <= most + 1e-4
        assert [h.score for h in result.hits] == sorted((h.score for h in result.hits), reverse=True)


def test_a_filter_selects_before_a_dense_search(client):
    for candidates in ("dense", "bm25+dense", "hybrid"):
        hits = client.search(
            QUERIES[0], 5, candidates=candidates, where={"n": {"$lt": 3}}, weights={"dense": 1.0}, dense="e5"
        ).hits
        assert {hit.id for hit in hits} == {"d0", "d1", "d2"}


def test_ready_vectors_ask_what_their_text_asks(client, bundle):
    query = QUERIES[1]
    rows = Encoder(bundle).encode_queries([query])[0]
    dense = {name: model.encode_queries([query])[0] for name, model in dense_encoders(bundle).items()}
    asked = {"candidates": "hybrid", "weights": {"maxsim": 1.0, "dense": 1.0}, "dense": "dense"}
    by_text = client.search(query, 8, **asked).hits
    ready = client.search(QueryVectors(rows, dense), 8, **asked).hits
    assert [(h.id, pytest.approx(h.score, abs=1e-5)) for h in ready] == [(h.id, h.score) for h in by_text]
    with pytest.raises(UsageError, match="needs the query as text, or its vector of dense model 'dense'"):
        client.search(rows, 8, **asked)
    with pytest.raises(UsageError, match="must be 16 finite numbers, not all 0, got shape \\[15\\]"):
        client.search(QueryVectors(rows, {"dense": dense["dense"][:15]}), 8, **asked)


def test_several_models_want_a_name_unless_one_is_called_dense(client):
    assert client.search(QUERIES[0], 1, candidates="dense").hits  # the one that is called so
    with pytest.raises(UsageError, match="dense model 'bge' .* it has: dense, e5"):
        client.search(QUERIES[0], 1, candidates="dense", dense="bge")
