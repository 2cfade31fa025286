"""One index of each codec, with every candidate strategy, on a real node: scores against numpy over the decoded vectors."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from vespa_bundles import WITHOUT_DENSE

from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.bundle import Bundle, write_manifest
from late_interaction.codebook_training import train_codebook
from late_interaction.documents import Passage
from late_interaction.maxsim import maxsim
from late_interaction.metrics import overlap_at_k
from late_interaction.thresholds import Thresholds
from query import Client
from vespa_app import build_package
from vespa_app.codecs import CODECS
from vespa_app.deploying import deploy
from vespa_app.running import Application

pytestmark = [pytest.mark.live, pytest.mark.slow]

COUNT = 120  # documents
QUERIES = ("parse command line options", "wait for a thread to finish", "the arithmetic mean of numbers")
FORMS = {
    "float32": {"codec": "float32"},
    "bfloat16": {"codec": "bfloat16", "paged": True},
    "binary": {"codec": "binary", "thresholds": True},
    "plain_signs": {"codec": "binary"},
    "two_bits": {"codec": "residual", "residual_bits": 2, "paged": True},
}
EVERY = ("float32", "binary", "two_bits")  # codecs that have every strategy; the others say nothing new


@pytest.fixture(scope="module")
def indexes(world, tmp_path_factory):
    """The sample's application with an index of each form, and without them again at the end."""
    folder = tmp_path_factory.mktemp("codecs")
    documents = world.documents[:COUNT]
    sample = np.concatenate([world.vectors[d.id] for d in documents])
    bundle = bundle_with_books(world.bundle, folder / "bundle", sample)
    settings = dataclasses.replace(
        world.settings,
        indexes={
            name: {**form, "candidates": list(WITHOUT_DENSE) if name in EVERY else ["exhaustive"]}
            for name, form in FORMS.items()
        },
    )
    package = build_package(bundle, settings).write(folder / "package")
    report = deploy(package, world.config_url, query_url=world.url, allow=("refeed", "schema-removal"))  # one model, more books
    found = {}
    for name in FORMS:
        application = Application.read(f"{world.url}#{name}")
        target = VespaTarget(application, bundle)
        items = [EncodedDocument(d, (Passage.of(d),), (world.vectors[d.id],)) for d in documents]
        target.put(items)
        assert all(outcome.failure is None for outcome in target.settled(wait=True))
        target.close()
        codec, books = CODECS[application.settings.codec], application.books(bundle)
        stored = {d.id: codec.decode(codec.encode(world.vectors[d.id], books), books) for d in documents}
        found[name] = SimpleNamespace(stored=stored, retriever=Client(f"{world.url}#{name}", bundle))
    yield SimpleNamespace(report=report, **found)
    for name in FORMS:
        found[name].retriever.close()
    deploy(world.package, world.config_url, query_url=world.url, allow=("schema-removal", "refeed"))


def bundle_with_books(bundle, folder, sample):
    """The bundle with residuals of two bits, and thresholds."""
    shutil.copytree(bundle.path, folder)
    train_codebook(sample, bits=2, centroids=256).save(folder / "codebooks" / "residual.npz")
    cuts = np.median(sample, axis=0).astype(np.float32)
    Thresholds(cuts, np.abs(sample - cuts).mean(axis=0).astype(np.float32)).save(folder / "codebooks" / "binary.npz")
    manifest = Bundle.open(folder, verify=False).manifest
    books = {"residual": "codebooks/residual.npz", "binary": "codebooks/binary.npz"}
    return write_manifest(folder, dataclasses.replace(manifest, codebooks=books))


def test_the_package_is_deployed_without_a_warning(indexes):
    assert indexes.report.warnings == ()


@pytest.mark.parametrize("form", FORMS)
def test_max_sim_is_that_of_the_decoded_vectors(world, indexes, form):
    index = getattr(indexes, form)
    for query in QUERIES:
        Q = world.encoder.encode_queries([query])[0]
        hits = index.retriever.search(Q, COUNT, candidates="exhaustive", explain=True).hits
        truth = {id_: maxsim(Q, D) for id_, D in index.stored.items()}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(truth, abs=1e-4)
        for hit in hits[:5]:
            assert list(hit.rows) == pytest.approx((Q @ index.stored[hit.id].T).max(axis=1).tolist(), abs=1e-4)


@pytest.mark.parametrize("candidates", WITHOUT_DENSE)
@pytest.mark.parametrize("form", EVERY)
def test_every_strategy_over_every_kind_of_vector(world, indexes, form, candidates):
    index = getattr(indexes, form)
    overlaps = []
    for query in QUERIES:
        Q = world.encoder.encode_queries([query])[0]
        result = index.retriever.search(query, 10, candidates=candidates, rerank=COUNT)
        truth = {id_: maxsim(Q, D) for id_, D in index.stored.items()}
        assert result.hits
        for hit in result.hits:
            assert hit.stages["maxsim"] == pytest.approx(truth[hit.id], abs=1e-4)
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        overlaps.append(overlap_at_k([hit.id for hit in result.hits], sorted(truth, key=lambda id_: -truth[id_]), 10))
    if candidates not in ("bm25", "hybrid"):  # which order by, or find by, words
        assert np.mean(overlaps) >= 0.9


def test_hybrid_is_the_reciprocal_rank_of_both_orders(world, indexes):
    result = indexes.float32.retriever.search(QUERIES[0], COUNT, candidates="hybrid", rerank=COUNT)
    by_words = indexes.float32.retriever.search(QUERIES[0], COUNT, candidates="bm25", rerank=COUNT)
    found = {hit.id: hit.stages["candidates"] for hit in by_words.hits}
    words = {hit.id: found[hit.id] for hit in result.hits if found.get(hit.id, 0.0) > 0}
    orders = ({hit.id: hit.stages["maxsim"] for hit in result.hits}, words)
    for hit in result.hits:
        bounds = [reciprocal_ranks(order, hit.id) for order in orders if hit.id in order]
        assert sum(low for low, _ in bounds) - 1e-6 <= hit.score <= sum(high for _, high in bounds) + 1e-6
    exact = [
        hit
        for hit in result.hits
        if all(low == high for low, high in (reciprocal_ranks(o, hit.id) for o in orders if hit.id in o))
    ]
    assert len(exact) >= 3  # whose ranks are beyond doubt, so that the score is one number
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)


def reciprocal_ranks(order, id_):
    """The least and the most that 1 / (60 + rank) can be: equal scores may stand in any order."""
    above = sum(score > order[id_] for score in order.values())
    equal = sum(score == order[id_] for score in order.values())
    return 1 / (60 + above + equal), 1 / (60 + above + 1)
