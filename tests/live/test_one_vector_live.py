"""Candidates pooled on a node, of each encoding and kind of cells: what the field holds means what the encoding says."""

import dataclasses
import random

import numpy as np
import pytest
from dense_bundles import made_bundle

from colbert_vespa.evaluation.recall import RecallGoal, measure_recall
from exporter.codebooks import record_candidates
from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector.lemur import Lemur
from late_interaction.one_vector.mean import MeanVector
from query import Client
from vespa_app import default_settings
from vespa_app.changes import build_beside
from vespa_app.deploying import deploy
from vespa_app.running import Application
from vespa_app.settings import OneVectorSettings

pytestmark = pytest.mark.live

WORDS = "thread lock file path json number list sort parse option random mean socket wait split join text byte queue call"
QUERIES = ["wait for a thread", "sort a list of numbers", "parse json text"]
COUNT, DIM = 60, 16
WAYS = {
    "lemur_int8": OneVectorSettings("lemur", 24, "int8"),
    "lemur_bfloat16": OneVectorSettings("lemur", 24, "bfloat16"),
    "mean_int8": OneVectorSettings(cells="int8"),
    "mean_bfloat16": OneVectorSettings(cells="bfloat16"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    plain = made_bundle(tmp_path_factory.mktemp("one") / "bundle", DIM, words=WORDS)
    return record_candidates(plain, None, Lemur.fit([D for _, D in encoded(plain)], dim=24))


def encoded(bundle):
    rng = random.Random(3)
    documents = [Document(f"d{n}", "", " ".join(rng.sample(WORDS.split(), 7))) for n in range(COUNT)]
    return list(zip(documents, Encoder(bundle).encode_documents([d.text for d in documents]), strict=True))


@pytest.fixture(scope="module", params=WAYS)
def way(request, world, bundle, tmp_path_factory):
    """The settings, and a client of an index that has them."""
    settings = default_settings(bundle, MetadataSchema({}), candidates=("pooled", "bm25+pooled", "exhaustive"))
    settings = dataclasses.replace(settings, embedder=False, one_vector=WAYS[request.param])
    beside = build_beside(bundle, settings, world.package, switch=False)
    deploy(beside.package.write(tmp_path_factory.mktemp("beside") / "app"), world.config_url, query_url=world.url)
    address = f"{world.url}#{beside.new[0]}"
    target = VespaTarget(Application.read(address), bundle)
    target.put([EncodedDocument(document, (Passage.of(document),), (D,)) for document, D in encoded(bundle)])
    assert all(outcome.failure is None for outcome in target.settled(wait=True))
    target.close()
    with Client(address, bundle) as opened:
        yield settings.one_vector, opened
    deploy(world.package, world.config_url, query_url=world.url, allow=("schema-removal",))


@pytest.mark.parametrize("query", QUERIES)
def test_all_that_is_found_is_ordered_by_maxsim(way, bundle, query):
    _, client = way
    Q = Encoder(bundle).encode_queries([query])[0]
    exact = {document.id: maxsim(Q, D) for document, D in encoded(bundle)}
    for candidates in ("pooled", "bm25+pooled"):
        hits = client.search(query, candidates=candidates, rerank=500, k=COUNT).hits
        assert {hit.id for hit in hits} == set(exact)
        assert [exact[hit.id] for hit in hits] == pytest.approx(sorted(exact.values(), reverse=True), abs=0.06)


@pytest.mark.parametrize("query", QUERIES)
def test_the_first_score_is_that_of_the_vectors(way, bundle, query):
    own, client = way
    encoding = MeanVector(DIM) if own.encoding == "mean" else Lemur.load(bundle.file(bundle.manifest.codebooks["lemur"]))
    asked = encoding.query(Encoder(bundle).encode_queries([query])[0])
    product = {document.id: float(encoding.passage(D) @ asked) for document, D in encoded(bundle)}
    hits = client.search(query, candidates="pooled", rerank=500, k=COUNT).hits
    found = {hit.id: hit.stages["candidates"] for hit in hits}
    if own.encoding == "lemur":  # closeness of dotproduct is the product itself
        assert found == pytest.approx(product, abs=0.03)
    ours, theirs = np.array([[product[id_], found[id_]] for id_ in found]).T
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_recall_of_the_vectors_is_measured_on_the_node(way, bundle):
    """Among so few passages the graph finds all that comparing one by one does."""
    own, client = way
    encoding = MeanVector(DIM) if own.encoding == "mean" else Lemur.load(bundle.file(bundle.manifest.codebooks["lemur"]))
    rows, passages = Encoder(bundle).encode_queries(QUERIES), [D for _, D in encoded(bundle)]
    report = measure_recall(client, QUERIES, RecallGoal(5, 1.0), strategies=["pooled"])
    for point in report.curve:
        shares = []
        for Q in rows:
            exact = set(np.argsort([-maxsim(Q, D) for D in passages])[:5].tolist())
            near = np.argsort(-(encoding.passages(passages) @ encoding.query(Q)))[: point.rerank].tolist()
            shares.append(len(exact & set(near)) / 5)
        assert point.candidates == pytest.approx(np.mean(shares), abs=0.15)  # cells are rounded
    assert report.curve[-1].recall >= 0.93
