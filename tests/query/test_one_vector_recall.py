"""`evaluate --recall` measures candidates pooled as they are deployed: the local engine, and a stand-in for Vespa that finds,
reranks and cuts off as a node does, against recall counted one by one."""

import contextlib
import json
import re

import numpy as np
import pytest
from fake_vespa import FakeVespa
from plaid_tools import DIM, queries_from, token_vectors
from ready import ready_bundle
from vespa_bundles import small_lemur

from colbert_vespa.evaluation.recall import RecallGoal, measure_recall
from exporter.codebooks import record_candidates
from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.bundle import MeasuredCandidates
from late_interaction.documents import Document, Passage
from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector.mean import MeanVector
from late_interaction.plaid import LocalIndex
from query import Client, QueryVectors
from vespa_app.package import build_package
from vespa_app.running import Application
from vespa_app.settings import AppSettings, OneVectorSettings

RANDOM = np.random.default_rng(3)
PASSAGES = token_vectors(RANDOM, 150)
QUERIES = queries_from(RANDOM, PASSAGES, 6, rows=3)
K, TARGETS = 10, 15
ENCODINGS = {"lemur": small_lemur(DIM, 8), "mean": MeanVector(DIM)}
SETTINGS = {"lemur": OneVectorSettings("lemur", 8, "int8"), "mean": OneVectorSettings()}
ONE_BY_ONE = {n: [float(maxsim(Q, D)) for D in PASSAGES] for n, Q in enumerate(QUERIES)}


class SearchingVespa(FakeVespa):
    """Its graph finds the nearest of the stored vectors, all of them. MaxSim is over the rows that were fed."""

    def searched(self, body: dict) -> tuple[int, bytes]:
        ids = sorted(self.documents)
        cells = body["input.query(qt)"]
        rows = np.stack([numbers(cells[name], "float") for name in sorted(cells, key=int)])
        exact = {id_: float(maxsim(rows, PASSAGES[int(id_.partition("#")[0][1:])])) for id_ in ids}
        found, first = ids, exact
        if body["ranking.profile"] == "pooled":
            name = re.search(r"nearestNeighbor\(pooled, (\w+)\)", body["yql"])[1]
            kind = "int8" if name.endswith("int8") else "float"
            asked = numbers(body[f"input.query({name})"]["values"], kind) * body.get("input.query(qp_unit)", 1.0)
            stored = {id_: numbers(self.documents[id_]["fields"]["pooled"]["values"], kind) for id_ in ids}
            first = {id_: float(vector @ asked) for id_, vector in stored.items()}
            found = sorted(ids, key=lambda id_: -first[id_])[: int(re.search(r"totalTargetHits:(\d+)", body["yql"])[1])]
        best = sorted(found, key=lambda id_: -first[id_])
        count = body.get("ranking.secondPhase.totalRerankCount", len(best))
        order = [*sorted(best[:count], key=lambda id_: -exact[id_]), *best[count:]]
        hits = [
            {
                "relevance": exact[id_] if id_ in best[:count] else -1e9,
                "fields": {"id": id_, "document_id": id_.partition("#")[0]},
            }
            for id_ in order[: body["hits"]]
        ]
        root = {"fields": {"totalCount": len(found)}, "coverage": {"coverage": 100, "full": True}, "children": hits}
        return 200, json.dumps({"root": root}).encode()


def numbers(hexadecimal: str, kind: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(hexadecimal), ">f4" if kind == "float" else ">i1").astype(np.float32)


def bundle_with(folder, encoding):
    measured = MeasuredCandidates("pooled", 20, 0.9, 0.9, encoding)
    return record_candidates(ready_bundle(folder), measured, ENCODINGS[encoding])


@pytest.fixture(scope="module", params=[(way, name) for way in ("local", "vespa") for name in ENCODINGS], ids="-".join)
def opened(request, tmp_path_factory):
    """A client, and the name of the encoding."""
    way, encoding = request.param
    folder = tmp_path_factory.mktemp("recall")
    bundle = bundle_with(folder / "bundle", encoding)
    if way == "local":
        index = LocalIndex.create(folder / "index", bundle=bundle, schema=MetadataSchema({}), codec="float32")
        with index.writer() as writer:
            for number, rows in enumerate(PASSAGES):
                writer.put(Passage(f"d{number}#0", f"d{number}", "", "text", {}), rows)
            writer.commit()
        with Client(str(folder / "index")) as client:
            yield client, encoding
        return
    settings = AppSettings(
        dim=DIM, query_rows=32, embedder=False, codec="float32", candidates=("pooled", "exhaustive"), target_hits=TARGETS,
        one_vector=SETTINGS[encoding],
    )  # fmt: skip
    with contextlib.closing(SearchingVespa()) as fake:
        fake.description = json.dumps(build_package(bundle, settings).description.to_json())
        target = VespaTarget(Application.read(fake.url), bundle)
        documents = [Document(f"d{number}", text="text") for number in range(len(PASSAGES))]
        target.put([EncodedDocument(d, (Passage.of(d),), (D,)) for d, D in zip(documents, PASSAGES, strict=True)])
        assert all(outcome.failure is None for outcome in target.settled(wait=True))
        target.close()
        with Client(fake.url, bundle) as client:
            yield client, encoding


def counted(encoding, rerank):
    """Share of the exact best among the `rerank` nearest by the vectors, which int8 cells round."""
    stored = encoding.passages(PASSAGES)
    if not encoding.normalized:
        stored = encoding.cells(stored) * np.float32(encoding.unit)
    shares = []
    for number, Q in enumerate(QUERIES):
        exact = set(np.argsort(-np.array(ONE_BY_ONE[number]), kind="stable")[:K].tolist())
        near = np.argsort(-(stored @ encoding.query(Q)), kind="stable")[:rerank].tolist()
        shares.append(len(exact & set(near)) / K)
    return float(np.mean(shares))


def test_recall_is_that_of_the_vectors_one_by_one(opened):
    client, name = opened
    report = measure_recall(client, [QueryVectors(Q) for Q in QUERIES], RecallGoal(K, 0.95), strategies=["pooled"])
    points = {point.rerank: point for point in report.curve}
    assert min(points) == 10 and len(points) >= 4
    expected = {rerank: counted(ENCODINGS[name], rerank) for rerank in points}
    assert expected[10] < 0.8
    for rerank, point in points.items():
        assert point.candidates == point.recall == pytest.approx(expected[rerank], abs=1.01 / (K * len(QUERIES)))
    least = min(rerank for rerank, recall in expected.items() if recall >= 0.95)
    assert [point.rerank for point in report.chosen] == [least]


def test_candidates_pooled_are_measured_without_being_named(opened):
    client, _ = opened
    report = measure_recall(client, [QueryVectors(QUERIES[0])], RecallGoal(K, 0.5))
    assert "pooled" in {point.strategy for point in report.curve}
