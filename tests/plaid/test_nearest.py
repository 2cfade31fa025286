"""The nearest of many int8 rows: all compared, or along a graph that faiss has built."""

import numpy as np
import pytest

from late_interaction.plaid.store import linking, nearest

K = 20


def made_up(rng, count, dim=24, lengths=False):
    """Rows around 40 centres, as int8 with scales."""
    vectors = rng.normal(size=(40, dim))[rng.integers(0, 40, count)] + 0.7 * rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if lengths:
        vectors *= np.exp(rng.normal(size=(count, 1)) / 8)
    largest = np.abs(vectors).max(axis=1)
    return np.rint(vectors * (127 / largest)[:, None]).astype(np.int8), (largest / 127).astype(np.float32)


def linked(rows):
    return np.concatenate(list(linking._links(rows)))


@pytest.fixture(scope="module", params=[False, True], ids=["of-length-one", "of-any-length"])
def stored(request):
    pytest.importorskip("faiss")
    rows, scales = made_up(np.random.default_rng(1), 3000, lengths=request.param)
    return rows, scales, linked(rows)


@pytest.fixture(autouse=True)
def always_linked(monkeypatch):
    monkeypatch.setattr(nearest, "PAYS", 0)
    monkeypatch.setattr(nearest, "LEAST_WIDTH", 100)
    monkeypatch.setattr(nearest, "STARTS", 8)


def queries(rows):
    """Twenty near rows."""
    rng = np.random.default_rng(2)
    return (rows[rng.choice(len(rows), 20)] + 10 * rng.normal(size=(20, rows.shape[1]))).astype(np.float32)


def truth(rows, scales, query, selected):
    products = rows.astype(np.float32) @ query * scales
    places = np.flatnonzero(selected)
    return places[np.lexsort((places, -products[places]))][:K], products


def test_the_graph_finds_nearly_all_and_products_are_exact(stored):
    rows, scales, links = stored
    assert links.shape == (3000, nearest.LINKS) and links.max() < 3000
    everything, hits = np.ones(3000, np.bool_), 0
    for query in queries(rows):
        expected, products = truth(rows, scales, query, everything)
        places, found = nearest.nearest(rows, scales, links, query, K, everything)
        np.testing.assert_allclose(found, products[places], rtol=1e-4, atol=1e-2)
        assert len(set(places.tolist())) == K and (np.diff(found) <= 0).all()
        hits += len(set(places.tolist()) & set(expected.tolist()))
        exact, _ = nearest.nearest(rows, scales, links, query, K, everything, exact=True)
        assert exact.tolist() == expected.tolist()
    assert hits >= 0.97 * K * 20


def test_it_was_the_graph_that_found_them(stored, monkeypatch):
    rows, scales, links = stored
    monkeypatch.setattr(nearest, "dot_bytes", None)
    assert len(nearest.nearest(rows, scales, links, queries(rows)[0], K, np.ones(3000, np.bool_))[0]) == K


def test_only_what_is_selected_is_found_and_all_of_it_where_that_is_little(stored):
    rows, scales, links = stored
    rng = np.random.default_rng(3)
    hits = 0
    for query in queries(rows):
        selected = rng.random(3000) < 0.2
        places, _ = nearest.nearest(rows, scales, links, query, K, selected)
        assert selected[places].all() and len(places) == K
        hits += len(set(places.tolist()) & set(truth(rows, scales, query, selected)[0].tolist()))
        few = np.zeros(3000, np.bool_)
        few[rng.choice(3000, 7, replace=False)] = True
        assert sorted(nearest.nearest(rows, scales, links, query, K, few)[0]) == np.flatnonzero(few).tolist()
        assert not len(nearest.nearest(rows, scales, links, query, K, np.zeros(3000, np.bool_))[0])
    assert hits >= 0.97 * K * 20


def test_a_filter_that_leaves_little_is_compared(stored, monkeypatch):
    rows, scales, links = stored
    monkeypatch.setattr(nearest, "PAYS", 1)  # 548 of 3,000 rows and more for the least width
    monkeypatch.setattr(nearest, "_follow", None)
    selected = np.arange(3000) < 547
    query = queries(rows)[0]
    assert (
        nearest.nearest(rows, scales, links, query, K, selected)[0].tolist() == truth(rows, scales, query, selected)[0].tolist()
    )
    with pytest.raises(TypeError):
        nearest.nearest(rows, scales, links, query, K, np.arange(3000) < 548)


@pytest.mark.parametrize("damage", ["foreign", "negative", "none", "random"])
def test_damaged_links_read_no_foreign_memory_and_k_are_found_all_the_same(stored, damage):
    rows, scales, links = stored
    rng = np.random.default_rng(4)
    damaged = {
        "foreign": np.full_like(links, 2**31 - 1),
        "negative": np.full_like(links, -(2**31)),
        "none": np.full_like(links, -1),
        "random": rng.integers(-(2**31), 2**31 - 1, links.shape).astype(np.int32),
    }[damage]
    everything = np.ones(3000, np.bool_)
    for query in queries(rows):
        expected, _ = truth(rows, scales, query, everything)
        found, _ = nearest.nearest(rows, scales, damaged, query, K, everything)
        assert len(set(found.tolist())) == K
        if damage != "random":  # the starts alone are fewer than asked for: all are compared
            assert found.tolist() == expected.tolist()


def test_equal_products_stand_by_their_places(stored):
    rows, scales, links = stored
    query = np.zeros(24, np.float32)
    for exact in (False, True):
        places, products = nearest.nearest(rows, scales, links, query, K, np.ones(3000, np.bool_), exact=exact)
        assert (np.diff(places) > 0).all() and not products.any()
    assert places.tolist() == list(range(K))


def test_rows_of_zeros_and_of_one_cell_are_linked():
    pytest.importorskip("faiss")
    rows, _ = made_up(np.random.default_rng(5), 200)
    rows[::3] = 0
    rows[1, 1:] = 0
    assert linked(rows).shape == linked(np.zeros_like(rows)).shape == (200, nearest.LINKS)


def test_the_graph_of_one_thread_is_the_same_each_time():
    faiss = pytest.importorskip("faiss")
    before = faiss.omp_get_max_threads()
    rows, _ = made_up(np.random.default_rng(6), 500)
    try:
        faiss.omp_set_num_threads(1)
        np.testing.assert_array_equal(linked(rows), linked(rows))
    finally:
        faiss.omp_set_num_threads(before)
