"""One question to several indexes."""

import json

import pytest

from feeder import FeedOptions, start_feed
from late_interaction.errors import UsageError
from query import Client


@pytest.fixture(scope="module")
def halves(tmp_path_factory, stdlib_sample, minilm_bundle, cached_encoder):
    folder = tmp_path_factory.mktemp("halves")
    for name, documents in (("a", stdlib_sample[:200]), ("b", stdlib_sample[200:])):
        journal = folder / f"{name}.journal"
        with start_feed([documents], FeedOptions(str(folder / name), journal, minilm_bundle, encoder=cached_encoder)) as run:
            run.go()
    return [folder / name for name in "ab"]


def test_two_halves_answer_as_the_whole(halves, sample_index):
    whole, client = Client(sample_index), Client(halves)
    for query in ("parse command line options", "wait for a thread to finish"):
        result = client.search(query, 10, rerank=400)
        alone = whole.search(query, 10, rerank=400)
        assert [hit.passage_id for hit in result.hits] == [hit.passage_id for hit in alone.hits]
        assert [hit.score for hit in result.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-4)
        assert [hit.rank for hit in result.hits] == list(range(1, 11))
        assert {hit.index for hit in result.hits} <= {"a", "b"}
        for hit in result.hits:
            assert hit.passage_id in {other.passage_id for other in client.search(query, 10, index=hit.index).hits}
    where = {"module": "pathlib"}
    assert {h.metadata["module"] for h in client.search("delete a file", 5, where=where).hits} == {"pathlib"}


def test_what_cannot_be_compared_is_refused(halves, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="each once"):
        Client([halves[0], halves[0]])
    with pytest.raises(UsageError, match="at least one"):
        Client([])
    from late_interaction.metadata import MetadataSchema
    from late_interaction.plaid import LocalIndex

    LocalIndex.create(tmp_path / "other", bundle=tiny_bundle, schema=MetadataSchema({}))
    with pytest.raises(UsageError, match="different bundles"):
        Client([halves[0], tmp_path / "other"]).search("x")


def test_the_command_line_makes_one_list_of_several_indexes(halves, cli):
    query = "parse command line options"
    command = ("search", query, "--from", str(halves[0]), "--from", str(halves[1]), "-k", "30")
    answer = json.loads(cli(*command, "--json").stdout.splitlines()[-1])
    expected = Client(halves).search(query, 30).hits
    assert answer["from"] == [str(path) for path in halves]
    assert [(hit["rank"], hit["passage_id"], hit["index"]) for hit in answer["hits"]] == [
        (hit.rank, hit.passage_id, hit.index) for hit in expected
    ]
    assert len({hit.index for hit in expected}) == 2
    shown = [line.strip() for line in cli(*command).stdout.splitlines()]
    assert [line for line in shown if line in ("a", "b")] == [hit.index for hit in expected]


def test_a_client_without_an_index_reranks(tiny_bundle):
    texts = ["a quick brown fox", "wait for a thread", ""]
    with Client([], tiny_bundle) as client:
        found = client.rerank("brown fox", texts, explain=True)
        assert sorted(hit.id for hit in found[:2]) == ["0", "1"] and found[2].id == "2"
        assert [match.query_word for match in found[0].explanation.matches] == ["brown", "fox"]
        assert (client.address, client.indexes, client.bundle) == ("", (), tiny_bundle)
        for use in (lambda: client.search("x"), lambda: client.score("x", ["a"]), lambda: client.schema):
            with pytest.raises(UsageError, match="a bundle but no index"):
                use()
