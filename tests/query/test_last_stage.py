"""A cross-encoder as the last stage: the same call, pages, grouping and explanations, on every backend."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cross_encoders import expected, made_cross_encoder
from dense_bundles import made_bundle

from colbert_vespa.evaluation.evaluating import EvaluationSettings, Judged, evaluate
from colbert_vespa.store import DocumentStore
from feeder import Splitting
from late_interaction.cross_encoder import CrossEncoder, CrossEncoderManifest, write_cross_encoder
from late_interaction.documents import Document
from late_interaction.errors import BundleError, IncompleteAnswer, UsageError
from query import AsyncClient, Client
from query.last_stage import LATE, RERANKED_TOP

WORDS = "the cat dog bird fish sat barks flies swims on under over mat moon sea ice old new tree"
QUERY = "the old cat"


def documents(count: int, prefix: str = "d") -> list[Document]:
    random = np.random.default_rng(len(prefix))
    words = WORDS.split()
    texts = [" ".join(random.choice(words, random.integers(3, 12))) for _ in range(count)]
    return [Document(f"{prefix}{n}", f"title {n % 3}" if n % 2 else "", text) for n, text in enumerate(texts)]


def made_index(folder: Path, bundle, given, **more) -> str:
    store = DocumentStore(folder, bundle, **more)
    assert store.put(given).failed == {}
    store.close()
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_cross_encoder(tmp_path_factory.mktemp("cross") / "folder", words=WORDS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return made_bundle(tmp_path_factory.mktemp("bundle") / "bundle", words=WORDS)


@pytest.fixture(scope="module")
def address(tmp_path_factory, bundle):
    return made_index(tmp_path_factory.mktemp("index") / "index", bundle, documents(70))


@pytest.fixture(scope="module")
def client(address):
    with Client(address) as opened:
        yield opened


def by_hand(folder, hits, top):
    """Ids in the order of the cross-encoder's own scores, then the others."""
    read = [(hit, expected(folder, QUERY, f"{hit.title} {hit.text}".strip())) for hit in hits[:top]]
    ordered = sorted(read, key=lambda pair: -pair[1])
    return [hit.passage_id for hit, _ in ordered] + [hit.passage_id for hit in hits[top:]], [score for _, score in ordered]


def ids(result):
    return [hit.passage_id for hit in result.hits]


@pytest.mark.parametrize("candidates", ["auto", "bm25", "hybrid", "exhaustive"])
def test_the_best_hits_are_put_in_order_and_the_others_stay_behind(client, folder, candidates):
    before = client.search(QUERY, 60, candidates=candidates)
    found = client.search(QUERY, 60, candidates=candidates, rerank_with=folder.path, rerank_with_top=20)
    wanted, scores = by_hand(folder, before.hits, 20)
    assert ids(found) == wanted
    np.testing.assert_allclose([hit.score for hit in found.hits[:20]], scores, atol=1e-4)
    assert [hit.stages["cross_encoder"] for hit in found.hits[:20]] == [hit.score for hit in found.hits[:20]]
    assert all("cross_encoder" not in hit.stages for hit in found.hits[20:])
    assert [hit.rank for hit in found.hits] == list(range(1, len(found.hits) + 1))
    assert all(a.score >= b.score for a, b in itertools.pairwise(found.hits))
    maxsim = {hit.passage_id: hit.stages["maxsim"] for hit in before.hits}
    assert all(hit.stages["maxsim"] == pytest.approx(maxsim[hit.passage_id]) for hit in found.hits)
    assert (found.reranked_with, before.reranked_with) == ("made", "")
    assert found.timings_ms["cross_encoder"] > 0 and "cross_encoder" not in before.timings_ms
    assert found.full and found.notes == before.notes


def test_it_reads_more_than_the_page_holds(client, folder):
    fifty = client.search(QUERY, RERANKED_TOP).hits
    wanted, _ = by_hand(folder, fifty, RERANKED_TOP)
    found = client.search(QUERY, 3, rerank_with=CrossEncoder(folder))
    assert ids(found) == wanted[:3]


@pytest.mark.parametrize("group", [False, True])
def test_pages_are_cut_from_one_list(client, folder, group):
    options = {"rerank_with": folder.path, "rerank_with_top": 12, "group": group}
    whole = client.search(QUERY, 40, offset=0, **options)
    pages = [client.search(QUERY, 8, offset=first, **options) for first in range(0, 40, 8)]
    assert [hit for page in pages for hit in ids(page)] == ids(whole)
    assert [hit.rank for page in pages for hit in page.hits] == list(range(1, 41))
    assert [hit.score for page in pages for hit in page.hits] == pytest.approx([hit.score for hit in whole.hits])


def test_one_hit_a_document(tmp_path, bundle, folder):
    texts = [f"{d.text}. {e.text}. {d.text} {e.text}." for d, e in zip(documents(12), documents(12, "other"), strict=True)]
    splitting = Splitting("sentences", 8)
    given = [Document(f"d{n}", text=text) for n, text in enumerate(texts)]
    with Client(made_index(tmp_path / "index", bundle, given, splitting=splitting)) as client:
        before = client.search(QUERY, 8, group=True)
        found = client.search(QUERY, 8, group=True, rerank_with=folder.path, rerank_with_top=8)
        assert ids(found) == by_hand(folder, before.hits, 8)[0]
        assert len({hit.id for hit in found.hits}) == 8


def test_several_indexes_are_read_as_one_list(tmp_path, bundle, folder):
    halves = [made_index(tmp_path / name, bundle, documents(30, name)) for name in ("a", "bb")]
    with Client(halves) as client:
        before = client.search(QUERY, 40)
        found = client.search(QUERY, 40, rerank_with=folder.path, rerank_with_top=15)
        assert ids(found) == by_hand(folder, before.hits, 15)[0]
        assert {hit.index for hit in found.hits[:15]} == {"a", "bb"}
        options = {"rerank_with": folder.path, "rerank_with_top": 15}
        pages = [client.search(QUERY, 10, offset=first, **options) for first in (0, 10, 20)]
        assert [id_ for page in pages for id_ in ids(page)] == ids(client.search(QUERY, 30, offset=0, **options))


def test_the_words_that_matched_are_explained_as_ever(client, folder):
    plain = {hit.passage_id: hit for hit in client.search(QUERY, RERANKED_TOP, explain=True).hits}
    found = client.search(QUERY, 5, explain=True, rerank_with=folder.path)
    for hit in found.hits:
        assert hit.explanation.to_json() == plain[hit.passage_id].explanation.to_json()
        assert sum(hit.rows) == pytest.approx(hit.stages["maxsim"], abs=1e-3)
        assert hit.vectors is None


def test_past_the_deadline_the_order_of_maxsim_stands_and_the_result_says_so(address, folder):
    def clock():
        return next(seconds)

    seconds = itertools.count()  # each look at the clock takes a second
    with Client(address, clock=clock) as client:
        late = client.search(QUERY, 10, rerank_with=folder.path, timeout=4.0)
        assert (late.reranked_with, late.notes[-1]) == ("", LATE)
        assert ids(late) == ids(client.search(QUERY, 10))
        assert all("cross_encoder" not in hit.stages for hit in late.hits)
        assert late.full and late.check_full() is late  # all documents were searched
        in_time = client.search(QUERY, 10, rerank_with=folder.path, timeout=1000.0)
        assert in_time.reranked_with == "made" and LATE not in in_time.notes


def test_many_queries_and_the_async_client(client, folder):
    queries = [QUERY, "fish under the ice", "a new tree"]
    options = {"rerank_with": CrossEncoder(folder), "rerank_with_top": 9}
    wanted = [ids(client.search(query, 6, **options)) for query in queries]
    assert [ids(result) for result in client.search_many(queries, 6, **options)] == wanted

    async def asked():
        async with AsyncClient.from_client(client) as many:
            results = await asyncio.gather(*(many.search(query, 6, **options) for query in queries))
            stages = [result async for result in many.stages(QUERY, 6, **options)]
            return results, stages

    results, stages = asyncio.run(asked())
    assert [ids(result) for result in results] == wanted
    assert ids(stages[-1]) == wanted[0]
    assert all(stage.reranked_with == "" for stage in stages[:-1])


def test_what_is_refused_in_one_line(client, folder, bundle):
    cases = [
        ({"rerank_with_top": 5}, UsageError, "rerank_with_top needs rerank_with"),
        ({"rerank_with": folder.path, "rerank_with_top": 0}, UsageError, "rerank_with_top must be a whole number from 1"),
        ({"rerank_with": 5}, UsageError, "rerank_with must be a CrossEncoder or its folder, got int"),
        ({"rerank_with": ""}, UsageError, "cross-encoder"),
        ({"rerank_with": folder.path / "none"}, BundleError, "does not exist"),
        ({"rerank_with": bundle.path}, BundleError, "is not the manifest of a cross-encoder"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            client.search(QUERY, **options)
    with pytest.raises(UsageError, match="needs the query's text"):
        client.search(client.encoder.encode_queries([QUERY])[0], rerank_with=folder.path)
    with pytest.raises(UsageError, match="raise rerank"):
        client.search(QUERY, offset=0, rerank=10, rerank_with=folder.path)


def test_a_folder_that_is_replaced_is_read_again(client, folder, tmp_path):
    place = shutil.copytree(folder.path, tmp_path / "folder")
    assert client.search(QUERY, rerank_with=place).reranked_with == "made"
    manifest = CrossEncoderManifest("another", 64, 0, models={"fp32": "model.onnx"})
    write_cross_encoder(place, manifest)
    assert client.search(QUERY, rerank_with=place).reranked_with == "another"


def test_on_the_command_line(address, folder, client, cli):
    command = ("search", QUERY, "--from", address, "-k", "4", "--rerank-with", str(folder.path), "--rerank-top", "10")
    answer = json.loads(cli(*command, "--json").stdout.splitlines()[-1])
    wanted = client.search(QUERY, 4, rerank_with=folder.path, rerank_with_top=10)
    assert [hit["passage_id"] for hit in answer["hits"]] == ids(wanted)
    assert answer["reranked_with"] == "made"
    assert "cross_encoder" in cli(*command, "--explain").stdout
    assert "has no manifest.json" in cli(*command[:-3], str(folder.path.parent), code=1).stderr


def test_evaluated_with_it(client, folder, monkeypatch):
    queries = {f"q{n}": text for n, text in enumerate(["the old cat", "fish under the ice"])}
    given = documents(70)
    qrels = {id_: {given[n].id: 1} for n, id_ in enumerate(queries)}
    from colbert_vespa.evaluation.collection import CollectionQuery

    judged = Judged.of("made", given, [CollectionQuery(id_, text) for id_, text in queries.items()], qrels)
    settings = EvaluationSettings(rerank_with=folder.path, rerank_with_top=10)
    run = evaluate(client, judged, None, settings).run
    for id_, text in queries.items():
        found = client.search(text, 100, rerank_with=folder.path, rerank_with_top=10)
        assert [hit for hit, _ in run[id_]] == [hit.id for hit in found.hits]
    monkeypatch.setattr(CrossEncoder, "scores", lambda *_, **__: None)
    with pytest.raises(IncompleteAnswer, match="would not have finished in time.*raise --timeout, or lower --rerank-top"):
        evaluate(client, judged, None, settings)


def test_a_server_has_its_own(address, folder, client):
    serving = pytest.importorskip("serving", reason="the serve extra is not installed")
    wanted = client.search(QUERY, 5, rerank_with=folder.path, rerank_with_top=11)
    with serving.listening_server(address, rerank_with=folder.path) as url, Client(url) as served:
        found = served.search(QUERY, 5, rerank_with_top=11)
        assert ids(found) == ids(wanted)
        assert [hit.stages["cross_encoder"] for hit in found.hits] == pytest.approx([hit.score for hit in wanted.hits])
        assert found.reranked_with == "made"
        assert served.search(QUERY, 5).reranked_with == ""
        own = served.search(QUERY, 5, rerank_with=folder.path, rerank_with_top=11)  # read here, over the server's hits
        assert ids(own) == ids(wanted) and "server" in own.timings_ms
        pages = [served.search(QUERY, 5, offset=first, rerank_with_top=11) for first in (0, 5, 10)]
        assert [id_ for page in pages for id_ in ids(page)] == ids(
            client.search(QUERY, 15, offset=0, rerank_with=folder.path, rerank_with_top=11)
        )
        with pytest.raises(UsageError, match="rerank_with_top are at most 1,000 here"):
            served.search(QUERY, 5, rerank_with_top=2000)


def test_a_server_without_one_says_so(address):
    serving = pytest.importorskip("serving", reason="the serve extra is not installed")
    with serving.listening_server(address) as url, Client(url) as served:
        with pytest.raises(UsageError, match="this server has no cross-encoder, as it was started without --rerank-with"):
            served.search(QUERY, 5, rerank_with_top=11)


async def test_a_server_takes_no_path_and_streams_the_order_of_the_first_stage_first(address, folder):
    serving = pytest.importorskip("serving", reason="the serve extra is not installed")
    async with serving.serving(address, rerank_with=folder.path) as http:
        why = await serving.refused(http.post("/v1/search", json={"query": QUERY, "rerank_with": str(folder.path)}), 422)
        assert "rerank_with" in why and str(folder.path) not in why
        body = {"query": QUERY, "k": 5, "rerank_with_top": 7}
        lines = (await http.post("/v1/search", json=body, headers={"Accept": "application/x-ndjson"})).text.splitlines()
        last = json.loads(lines[-1])
        (plain,) = (await http.post("/v1/search", json=body)).json()["results"]
        assert [hit["id"] for hit in last["hits"]] == [hit["id"] for hit in plain["hits"]]
        assert last["reranked_with"] == "made"


async def test_a_server_whose_time_is_up_answers_with_the_order_of_maxsim(address, folder, monkeypatch):
    serving = pytest.importorskip("serving", reason="the serve extra is not installed")
    async with serving.serving(address, rerank_with=folder.path) as http:
        with http.engine.cross_encoder._turn:  # another request has it all the time
            answer = await http.post("/v1/search", json={"query": QUERY, "rerank_with_top": 9, "timeout": 0.5})
            plain = await http.post("/v1/search", json={"query": QUERY})
        (late,), (found,) = answer.json()["results"], plain.json()["results"]
        assert [hit["id"] for hit in late["hits"]] == [hit["id"] for hit in found["hits"]]
        assert (late["reranked_with"], late["notes"][-1]) == ("", LATE)
