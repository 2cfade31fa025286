"""The benchmark of candidates: MUVERA's encoding is near MaxSim, and the graph finds what comparing one by one finds."""

import numpy as np
import pytest

from benchmarks.candidates import Fde, by_hnsw, encodings_of, table
from colbert_vespa.evaluation.candidates import exact_best, stored_cells
from late_interaction.maxsim import maxsim_many

DIM, COUNT = 16, 500
RANDOM = np.random.default_rng(0)
WORDS = RANDOM.standard_normal((60, DIM))


def passages(count, rows):
    made = WORDS[RANDOM.integers(0, 60, (count, rows))] + 0.2 * RANDOM.standard_normal((count, rows, DIM))
    return list((made / np.linalg.norm(made, axis=2, keepdims=True)).astype(np.float32))


STORED, ASKED = passages(COUNT, 12), passages(10, 4)


def test_muvera_s_products_follow_maxsim_the_better_the_more_numbers_it_has():
    correlations = []
    for repetitions, size in ((2, 64), (40, 20_480)):
        fde = Fde(4, repetitions, DIM, size, np.zeros(DIM, np.float32))
        products = np.stack([fde.query(rows) for rows in ASKED]) @ fde.passages(STORED).T
        exact = [maxsim_many(rows, np.concatenate(STORED), [12] * COUNT) for rows in ASKED]
        correlations.append(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(products, exact, strict=True)]))
    assert correlations[1] > 0.8 > correlations[0] + 0.1, correlations


def test_muvera_in_one_part_is_the_sum_of_the_query_and_the_mean_of_the_passage():
    fde = Fde(0, 1, DIM, 4096, np.zeros(DIM, np.float32))  # 16 numbers in 4,096 places: none meet
    product = float(fde.query(ASKED[0]) @ fde.passage(STORED[0]))
    assert product == pytest.approx(float(ASKED[0].sum(axis=0) @ STORED[0].mean(axis=0)), abs=1e-4)


def test_the_graph_finds_nearly_what_comparing_one_by_one_finds():
    pytest.importorskip("faiss")
    encodings = encodings_of(STORED, ["mean"])
    mean, exact = encodings["mean"], exact_best(STORED, ASKED, 10)
    stored, asked = stored_cells(STORED, mean), np.stack([mean.query(rows) for rows in ASKED])
    found = by_hnsw(mean, stored, asked, exact)
    order = np.argsort(-(asked @ stored.T), axis=1)
    for count, (recall, compared) in found.items():
        one_by_one = np.mean([len(best & set(row[:count].tolist())) / 10 for best, row in zip(exact, order, strict=True)])
        assert recall == pytest.approx(one_by_one, abs=0.02)
        assert compared > 0
    row = {"bytes": 9.0, "recall": {50: 0.5}, "work": {}, "hnsw": found}
    shown = table({"collection": "c", "passages": 1, "queries": 1, "ways": {"mean": row}})
    assert f"0.500 ({found[50][0]:.3f})" in shown
