"""Codebooks and searches at their limits: growth, files of earlier formats, hostile numbers, very long queries."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import DENSE, DIM, check_dense, dense_of, fake_bundle, passage, queries_from, token_vectors, totals_of, unit

from late_interaction import codebook_training, lookup
from late_interaction.codebook import Codebook
from late_interaction.codebook_training import grown, train_codebook
from late_interaction.errors import BundleError, LocalIndexError
from late_interaction.lookup import Groups
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.searching import candidates
from late_interaction.plaid.searching import search as searching
from late_interaction.plaid.store.versions import Tuned
from late_interaction.token_ids import UNKNOWN

GOLDEN = Path(__file__).parents[1] / "golden/indexes"
SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 900)


@pytest.fixture(scope="module")
def book():
    """Of 2,200 centroids in groups."""
    random = np.random.default_rng(0)
    return train_codebook(unit(random.standard_normal((20_000, DIM))), centroids=2_200, iterations=1)


@pytest.fixture(scope="module")
def layered():
    """The same with heads that are in groups themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook_training, "COMPARED_HEADS", 32)
        random = np.random.default_rng(0)
        return train_codebook(unit(random.standard_normal((20_000, DIM))), centroids=2_200, iterations=1)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("limits")
    made = LocalIndex.create(root / "i", bundle=fake_bundle(root / "b"), schema=SCHEMA)
    with made.writer() as writer:
        for number, rows in enumerate(VECTORS):
            writer.put(passage(f"d{number}", n=number), rows)
        writer.commit()
    return made


@pytest.mark.parametrize("peak", [0.0, 4.0])
def test_heads_of_a_grown_codebook_are_of_one_length(book, peak):
    """They are compared as whole numbers, so that a longer one would be chosen for rows far from it."""
    random = np.random.default_rng(1)
    new = random.standard_normal((400, DIM)) * 0.3 + (0 if peak else 1)
    new[:, 0] += peak
    more = grown(book, unit(new), 60)
    lengths = np.linalg.norm(more.groups.heads.astype(np.float64), axis=1)
    assert lengths.max() / lengths.min() < 1.05
    assert (more.groups.starts[: len(book.groups.starts)] == book.groups.starts).all()
    np.testing.assert_array_equal(more.cells[: book.size], book.cells)
    assert (more.assign_near(unit(new)) >= book.size).mean() > 0.9


def test_heads_in_groups_find_the_same_centroids(book, layered, tmp_path):
    """Nearly: three levels lose a little, and know the same similarities."""
    assert book.groups.above is None and len(layered.groups.above.heads) > 1
    np.testing.assert_array_equal(np.sort(book.cells, axis=0), np.sort(layered.cells, axis=0))
    Q = unit(np.random.default_rng(1).standard_normal((50, DIM)))
    S = Q @ layered.centroids.T
    best = np.argsort(-S, axis=1)[:, :32]
    ids, similarities = layered.lookup.nearest(Q, 32)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(best, ids, strict=True)]) > 0.9
    np.testing.assert_allclose(similarities, np.take_along_axis(S, ids, axis=1), atol=2e-3)
    assert all(len(set(row)) == layered.size for row in layered.lookup.nearest(Q[:2], layered.size)[0].tolist())
    layered.save(tmp_path / "c.npz")
    loaded = Codebook.load(tmp_path / "c.npz")
    assert loaded.sha256 == layered.sha256 != dataclasses.replace(layered, groups=book.groups).sha256
    np.testing.assert_array_equal(loaded.lookup.nearest(Q, 32)[0], ids)


def test_a_codebook_of_three_levels_grows(book, layered):
    random = np.random.default_rng(1)
    new = unit(random.standard_normal((2_400, DIM)) * 0.3 + 1)
    more = grown(layered, new, 1_500)
    groups, tops = more.groups, more.groups.above
    assert tops.starts[-1] == len(groups.heads) and groups.starts[-1] == more.size
    assert len(tops.heads) > len(layered.groups.above.heads)
    for heads in (groups.heads, tops.heads):
        lengths = np.linalg.norm(heads.astype(np.float64), axis=1)
        assert lengths.max() / lengths.min() < 1.05
    assert (more.assign_near(new) >= layered.size).mean() > 0.9
    assert grown(book, new, 1_500).groups.above is None


@pytest.mark.parametrize(
    "damage", [{"top_starts": np.array([0, 3])}, {"top_starts": None}, {"tops": np.zeros((2, DIM), np.int8)}]
)
def test_hostile_groups_of_heads_are_refused(layered, tmp_path, damage):
    layered.save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as whole:
        arrays = {name: array for name, array in {**whole, **damage}.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BundleError, match=r"bad\.npz"):
        Codebook.load(tmp_path / "bad.npz")


def test_a_query_of_many_rows_is_looked_at_in_parts(index, monkeypatch):
    """No table is larger than its limit, and the answer is that of one table."""
    Q = np.concatenate(queries_from(np.random.default_rng(5), VECTORS, 6, 30))
    settings = SearchSettings(8, 40)
    whole = index.search(Q, 10, settings=settings)
    limit = 50 * (index.codebook.size + 1)
    monkeypatch.setattr(lookup, "MOST_TABLE", limit)
    parts, sizes, look = index.codebook.lookup.parts(len(Q)), [], lookup.Lookup.look
    assert [part.start for part in parts] == [0, 48, 96, 144]

    def watched(self, rows, count):
        looked = look(self, rows, count)
        sizes.append(looked.table.nbytes)
        return looked

    monkeypatch.setattr(lookup.Lookup, "look", watched)
    found = index.search(Q, 10, settings=settings)
    assert len(sizes) == 4 and max(sizes) <= limit
    assert [hit.passage.id for hit in found.hits] == [hit.passage.id for hit in whole.hits]
    for hit, wanted in zip(found.hits, whole.hits, strict=True):
        assert hit.score == wanted.score
        assert hit.approximate == pytest.approx(wanted.approximate, abs=len(Q) * 2 / 255)


TRAINING = """
import numpy as np
from late_interaction.codebook_training import train_codebook
random = np.random.default_rng(0)
rows = random.standard_normal((24_000, 24))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
book = train_codebook(rows, centroids=2_500, token_ids=random.integers(60, size=len(rows)).astype(np.int32), iterations=2)
codes, residuals = book.encode(rows[:3_000])
print(book.sha256, codes.sum(), residuals.sum(dtype=np.int64))
"""


def test_a_codebook_is_the_same_whatever_the_threads():
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | dict.fromkeys(names, threads)
        done = subprocess.run([sys.executable, "-c", TRAINING], env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1 and found != {""}


def test_rare_ids_leave_centroids_to_the_frequent_ones():
    """With more ids than centroids, too: then one for each id would be all."""
    random = np.random.default_rng(0)
    ids = np.concatenate([np.repeat(np.arange(3_000), 2), np.repeat(np.arange(5_000, 5_014), 1_000)]).astype(np.int32)
    rows = unit(random.standard_normal((len(ids), DIM)))
    book = train_codebook(rows, centroids=2_200, token_ids=ids, iterations=1)
    assert book.size <= 2_200
    owners, counts = np.unique(book.owners, return_counts=True)
    assert owners.tolist() == [UNKNOWN, *range(5_000, 5_014)]
    assert counts.min() > 20
    near = book.nearness(rows, ids)
    assert near[ids < 3_000].mean() > 0.95 * near[ids >= 5_000].mean()


def test_answers_are_the_same_whatever_the_threads(index):
    queries = queries_from(np.random.default_rng(6), VECTORS, 12)
    one, two = (
        [
            [(hit.passage.id, hit.score, hit.approximate) for hit in result.hits]
            for result in index.search_many(queries, 10, threads=n)
        ]
        for n in (1, 2)
    )
    assert one == two == [[(hit.passage.id, hit.score, hit.approximate) for hit in index.search(Q, 10).hits] for Q in queries]


HOSTILE = {
    "wrapping": lambda groups, C: Groups(
        np.ones((6, DIM), np.int8), np.array([0, 1 << 62, (1 << 63) - 1, -(1 << 63), -(1 << 62), 0, C])
    ),
    "zero head": lambda groups, C: dataclasses.replace(groups, heads=np.zeros_like(groups.heads)),
    "too many groups": lambda groups, C: Groups(
        np.ones((70_000, DIM), np.int8), np.append(np.zeros(70_000, np.int64), C)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_groups_are_refused(book, name):
    with pytest.raises(ValueError, match=r"^(starts|heads) must"):
        dataclasses.replace(book, groups=HOSTILE[name](book.groups, book.size))


def test_inverted_lists_whose_differences_wrap_are_refused(index, tmp_path):
    """Kernels write as many places as differences of these numbers say."""
    segment = index.snapshot.living[0].segment
    offsets = np.array([0, 1 << 62, (1 << 63) - 1, -(1 << 63), -(1 << 62), 0, len(segment.ivf_passages)])
    assert (np.diff(offsets) >= 0).all()
    before = segment.ivf_offsets
    segment.ivf_offsets = offsets
    try:
        with pytest.raises(LocalIndexError, match="ivf_offsets"):
            segment._check(index.snapshot.form)
    finally:
        segment.ivf_offsets = before


def test_an_index_tuned_to_all_centroids_by_an_earlier_release(index):
    """It said 0 probes for that."""
    tuned = Tuned(0, 16, 1.0, 10, 5, index.snapshot.version.token_vectors)
    old = dataclasses.replace(index.snapshot.version, tuned=tuned)
    snapshot = type(index.snapshot)(index.path, old, index.snapshot)
    for Q in queries_from(np.random.default_rng(2), VECTORS, 3):
        found = [hit.passage.id for hit in searching.search(snapshot, Q, 10).hits]
        wanted = [hit.passage.id for hit in index.search(Q, 10, settings=SearchSettings(candidates.MOST_LISTS, 30)).hits]
        assert found == wanted


def test_the_lists_of_a_query_of_more_rows_than_two_bytes_name(index):
    """Each row counts once in a passage, and no sum passes the room for it."""
    Q = np.tile(VECTORS[0][:1], (70_000, 1))
    snapshot = index.snapshot
    lists, similarities = snapshot.codebook.lookup.nearest(Q[:1], 24)
    gains = similarities - similarities[:, -1:]
    masks = snapshot.select(None)
    selected = int(sum(map(np.count_nonzero, masks)))
    one = totals_of(candidates.gathered(snapshot, lists, gains, masks, selected))
    many = candidates.gathered(snapshot, np.tile(lists, (70_000, 1)), np.tile(gains, (70_000, 1)), masks, selected)
    totals = totals_of(many)
    most, largest = max(one.values()), max(totals.values())
    assert 0 < largest < 1 << 31
    for place, total in one.items():
        assert totals[place] / largest == pytest.approx(total / most, abs=1e-3)


@pytest.mark.parametrize("name", ["float32", "int8", "dense"])
def test_indexes_of_every_format_open_search_grow_and_compact(tmp_path, name, monkeypatch):
    monkeypatch.setattr(searching, "FEW_ROWS", 0)  # so that the first stages run
    with zipfile.ZipFile(GOLDEN / f"own-{name}.zip") as archive:
        archive.extractall(tmp_path)
    index = LocalIndex.open(tmp_path / "index")
    index.verify()
    assert index.codebook.cells.dtype == np.dtype("float32" if name == "float32" else "int8")
    check_dense(index, {f"d{number}#0": number for number in range(60) if number != 7})
    assert list(index.dense) == (list(DENSE) if name == "dense" else [])
    assert (index.codebook.groups is not None, index.codebook.owners is not None) == (name == "int8", name == "int8")
    results = json.loads((tmp_path / "results.json").read_text())
    vectors = token_vectors(np.random.default_rng(3), 60, 8, 6)
    queries = queries_from(np.random.default_rng(4), vectors, 4)

    def agrees():
        for Q, wanted in zip(queries, results, strict=True):
            exact = index.search(Q, 10, exact=True).hits
            assert [hit.passage.id for hit in exact] == [id_ for id_, _ in wanted]
            assert [hit.score for hit in exact] == pytest.approx([score for _, score in wanted], abs=2e-4)
            probed = [hit.passage.id for hit in index.search(Q, 10, settings=SearchSettings(64, 28)).hits]
            assert probed[0] == wanted[0][0] and len({id_ for id_, _ in wanted} & set(probed)) >= 7
            assert len(index.search(Q, 10, settings=SearchSettings(1, 10)).hits) == 10

    agrees()
    with index.writer() as writer:
        writer.commit(compact=True)
    if name == "int8":  # else the codebook is trained anew
        agrees()
    before = index.codebook.sha256
    for Q, wanted in zip(queries, results, strict=True):
        assert index.search(Q, 1).hits[0].score == pytest.approx(wanted[0][1], rel=0.1)
    far = unit(np.random.default_rng(5).standard_normal((600, 4, 8)))
    with index.writer() as writer:
        for number, rows in enumerate(far):
            writer.put(passage(f"new{number}", n=100 + number), rows, dense=dense_of(index, number))
        writer.commit()
    assert (index.codebook.sha256 != before) is (name != "int8")  # a codebook of a bundle never grows
    for number in (0, 299, 599):
        assert index.search(far[number], 1, settings=SearchSettings(8, 20)).hits[0].passage.document_id == f"new{number}"
    index.verify()


def test_the_end_of_reranking_leaves_room_for_what_was_not_seen(tmp_path):
    """Where centroids say little, what comes may pass its approximate score by more than any passage before did."""
    vectors = token_vectors(np.random.default_rng(0), 2_000, 64)
    made = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b", 64), schema=SCHEMA)
    with made.writer() as writer:
        for number, rows in enumerate(vectors):
            writer.put(passage(f"d{number}", n=number), rows)
        writer.commit()
    shares = []
    for Q in queries_from(np.random.default_rng(1), vectors, 30):
        exact = {hit.passage.id for hit in made.search(-Q, 10, exact=True).hits}
        result = made.search(-Q, 10)
        assert result.reranked <= 512
        shares.append(len(exact & {hit.passage.id for hit in result.hits}) / 10)
    assert np.mean(shares) >= 0.99
