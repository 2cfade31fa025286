"""What benchmarks.centroids counts, against products and sets that leave nothing out."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import centroids, engine_data
from late_interaction.maxsim import maxsim_many


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    engine_data.write_synthetic(folder, 300)
    return folder


def queries_of(data, count=3):
    rows, ends = np.load(data / "queries.npy"), np.load(data / "query_offsets.npy")
    return [rows[a:b] for a, b in itertools.pairwise(ends[: count + 1])]


def test_the_exact_top_is_that_of_maxsim(data, monkeypatch):
    monkeypatch.setattr(centroids, "BLOCK", 70)
    vectors, queries = centroids.Vectors(data, 300), queries_of(data)
    every = np.load(data / "vectors.npy").astype(np.float32)
    for Q, best in zip(queries, centroids.exact_top(vectors, queries)):
        scores = maxsim_many(Q, every, [engine_data.ROWS] * 300)
        assert np.allclose(scores[best], np.sort(scores)[::-1][: centroids.K], atol=1e-4)


def test_weights_and_postings_are_those_of_the_lists(data, monkeypatch):
    """Each row counts the best of its lists that a passage is in."""
    monkeypatch.setattr(centroids, "BLOCK", 70)
    vectors, [Q] = centroids.Vectors(data, 300), queries_of(data, 1)
    codebook = centroids.trained(vectors, 64, data)
    members, starts = centroids.assigned(vectors, codebook, np.ones(300, bool))
    codes = codebook.assign_near(np.load(data / "vectors.npy").astype(np.float32)).reshape(300, -1)
    assert all(set(members[starts[c] : starts[c + 1]]) == set(np.flatnonzero((codes == c).any(axis=1))) for c in range(64))
    found = np.zeros(300, np.int64)
    postings = centroids.total_weights(Q, codebook, 5, members, starts, found)
    ids, _, gains = codebook.lookup.lists(Q, 5)
    expected, counted = np.zeros(300, np.int64), 0
    for row, weights in zip(ids.tolist(), centroids.list_weights(gains).tolist()):
        asked = dict(zip(row, weights))
        expected += [max((asked.get(c, 0) for c in own), default=0) for own in codes.tolist()]
        counted += sum(c in own for c in row for own in map(set, codes.tolist()))
    assert found.tolist() == expected.tolist()
    assert postings == pytest.approx(counted / len(Q))


def test_the_script_answers_with_recall_by_lists_and_rerank(data, monkeypatch, capsys):
    monkeypatch.setattr(centroids, "data_folder", lambda *given, **more: data)
    arguments = ["centroids", "--passages", "300", "--centroids", "128", "--queries", "5", "--share", "0.5", "--json"]
    monkeypatch.setattr("sys.argv", arguments)
    centroids.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["lists"] for row in rows] == list(centroids.LISTS)
    assert rows[-1]["recall"]["1000"] == 1
    assert all(a["recall"]["200"] <= b["recall"]["500"] for a, b in zip(rows, rows))
