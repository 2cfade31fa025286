"""Codecs of the local engine, sixteen-bit scoring, int8 rows, subsets, batches: against exact MaxSim over decoded vectors."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plaid_tools import DIM, fake_bundle, passage, queries_from, token_vectors, unit

from late_interaction import simd
from late_interaction.bundle import Bundle, write_manifest
from late_interaction.codebook_training import train_codebook
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.maxsim import maxsim, maxsim_many
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.store import storage
from late_interaction.plaid.store.codecs import CODECS, Binary, Float32, Residual
from late_interaction.plaid.store.int16_scoring import Query16
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.thresholds import Thresholds

SCHEMA = MetadataSchema({"n": FieldType.LONG})
FORMS = [("residual", 1), ("residual", 2), ("residual", 4), ("binary", None), ("float32", None)]


@numba.njit
def run_block(vectors, query, sums, plain):
    if plain:
        simd._dot_plain(vectors, query, sums)
    else:
        simd.dot_block(vectors, query, sums)


@numba.njit
def run_add(vector, base, plain):
    return simd._add_plain(vector, base) if plain else simd.add_base(vector, base)


class Stored:
    def __init__(self, codec, vectors, codes, lengths):
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.codes = codes
        self.payload = codec.encode(vectors, codes)


@settings(max_examples=60)
@given(
    dim=st.sampled_from([1, 2, 3, 8, 15, 16, 48, 96, 128, 129]),
    rows=st.integers(1, 70),
    lengths=st.lists(st.integers(0, 140), min_size=1, max_size=5),
    form=st.sampled_from(FORMS),
    length=st.floats(0.01, 100),
    seed=st.integers(0, 1 << 16),
)
def test_sixteen_bit_maxsim_is_maxsim_of_the_decoded_vectors(dim, rows, lengths, form, length, seed):
    random = np.random.default_rng(seed)
    total = max(1, sum(lengths))
    vectors = unit(random.standard_normal((total, dim)))
    codebook = train_codebook(vectors, bits=form[1] or 4)
    spread = random.uniform(0.01, 1, dim).astype(np.float32)
    cuts = (0.1 * random.standard_normal(dim)).astype(np.float32)
    codec = {"residual": Residual(codebook), "binary": Binary(Thresholds(cuts, spread)), "float32": Float32()}[form[0]]
    vectors = vectors[: sum(lengths)]
    stored = Stored(codec, vectors, codebook.assign_near(vectors), lengths)
    assert (stored.payload.dtype.str, stored.payload.shape[1]) == CODECS[form[0]].row(form[1], dim)
    Q = (length * random.standard_normal((rows, dim))).astype(np.float32)
    chosen = np.arange(len(lengths), dtype=np.int64)[::-1].copy()
    found, errors = (array[::-1] for array in codec.score(Query16(Q), chosen, stored))
    decoded = codec.decode(stored.codes, stored.payload)
    wanted = maxsim_many(Q, decoded, lengths)
    scale = np.linalg.norm(Q, axis=1).max() * max(1, np.linalg.norm(decoded, axis=1).max(initial=0))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    filled = ~np.isinf(wanted)
    assert (np.abs(found[filled] - wanted[filled]) <= errors[filled]).all()
    assert np.abs(found[filled] - wanted[filled]).max(initial=0) <= 2e-4 * rows * scale


@pytest.mark.slow
def test_plain_loops_and_the_vector_instruction_give_the_same_sums():
    random = np.random.default_rng(1)
    for pairs in (1, 2, 7, 64):
        vectors = random.integers(-4000, 4000, (4, 2 * pairs)).astype(np.int16)
        query = random.integers(-4000, 4000, (pairs, 16, 2)).astype(np.int16)
        wanted = vectors.astype(np.int32) @ query.transpose(1, 0, 2).reshape(16, -1).astype(np.int32).T
        for plain in (False, True):
            sums = np.empty((4, 16), np.int32)
            run_block(vectors, query, sums, plain)
            np.testing.assert_array_equal(sums, wanted)


def test_a_base_is_added_and_squares_are_summed():
    random = np.random.default_rng(1)
    for width in (16, 48, 128):
        vector, base = (random.integers(-4000, 4000, width).astype(np.int16) for _ in range(2))
        wanted = vector.astype(np.int64) + base
        for plain in (False, True):
            sum_ = vector.copy()
            assert run_add(sum_, base, plain) == (wanted**2).sum()
            np.testing.assert_array_equal(sum_, wanted)


@pytest.fixture(scope="module")
def vectors():
    return token_vectors(np.random.default_rng(3), 600)


@pytest.fixture(scope="module")
def queries(vectors):
    return queries_from(np.random.default_rng(4), vectors, 20)


def made(path, bundle, vectors, **options):
    index = LocalIndex.create(path, bundle=bundle, schema=SCHEMA, **options)
    with index.writer() as writer:
        for number, rows in enumerate(vectors):
            writer.put(passage(f"d{number}", text=f"text {number}", n=number), rows)
        writer.commit()
    return index


@pytest.fixture(scope="module", params=[*FORMS, ("refine", 2)], ids=str)
def index(request, tmp_path_factory, vectors):
    folder = tmp_path_factory.mktemp("form")
    codec, bits = request.param
    options = {"codec": "residual", "refine": True} if codec == "refine" else {"codec": codec}
    return made(folder / "index", fake_bundle(folder / "bundle"), vectors, bits=bits, **options)


def test_every_form_finds_what_exact_maxsim_over_its_vectors_finds(index, vectors, queries):
    opened = LocalIndex.open(index.path)
    opened.verify()
    refined = opened.snapshot.version.refine
    for Q in queries:
        result = opened.search(Q, 10, exact=True)
        for hit in result.hits:
            stored = opened.vectors(hit.passage.id)
            assert hit.score == pytest.approx(maxsim(Q, stored), abs=1e-5 * len(Q))
        if opened.codec == "float32" or refined:
            truth = sorted(range(len(vectors)), key=lambda n: -maxsim(Q, vectors[n]))[:10]
            found = [int(hit.passage.document_id[1:]) for hit in result.hits]
            assert len(set(truth) & set(found)) >= (10 if not refined else 8)
        scores = opened.score(Q, [hit.passage.id for hit in result.hits])
        assert [scores[hit.passage.id] for hit in result.hits] == pytest.approx([hit.score for hit in result.hits], abs=1e-5)


def test_every_stage_scores_from_one_source(index, queries):
    """What a search, an exact search and `score` say of a passage is the same number, with int8 rows too."""
    for Q in queries[:5]:
        exact = {hit.passage.id: hit.score for hit in index.search(Q, 600, exact=True).hits}
        for effort in (SearchSettings(probes=64, rerank=40), SearchSettings(probes=2, rerank=40)):
            hits = index.search(Q, 10, settings=effort).hits
            assert [hit.score for hit in hits] == pytest.approx([exact[hit.passage.id] for hit in hits], abs=1e-5)
        scores = index.score(Q, list(exact))
        assert list(scores.values()) == pytest.approx(list(exact.values()), abs=1e-5)


@settings(max_examples=25)
@given(
    form=st.sampled_from([*FORMS, ("refine", 1)]),
    nearness=st.sampled_from([3e-6, 1e-4, 0.02, 1]),
    sign=st.sampled_from([1, -1]),
    length=st.sampled_from([1e-3, 1, 300]),
    seed=st.integers(0, 1 << 16),
)
def test_exact_is_exact(tmp_path_factory, form, nearness, sign, length, seed):
    """No passage scores better than the hits, in float64: near-duplicates, negative similarities, scaled queries."""
    random = np.random.default_rng(seed)
    base = unit(np.abs(random.standard_normal((6, DIM))) + 0.1)
    passages = [unit(base + nearness * random.standard_normal(base.shape)) for _ in range(150)]
    folder = tmp_path_factory.mktemp("exact")
    codec, bits = form
    options = {"codec": "residual", "refine": True} if codec == "refine" else {"codec": codec}
    index = made(folder / "index", fake_bundle(folder / "bundle"), passages, bits=bits, **options)
    Q = (sign * length * unit(base[:4] + 0.05 * random.standard_normal((4, DIM)))).astype(np.float32)
    wanted = [maxsim(Q.astype(np.float64), index.vectors(f"d{n}#0").astype(np.float64)) for n in range(150)]
    hits = index.search(Q, 10, exact=True).hits
    found = [wanted[int(hit.passage.document_id[1:])] for hit in hits]
    np.testing.assert_allclose(found, np.sort(wanted)[::-1][:10], rtol=0, atol=1e-5 * length)
    np.testing.assert_allclose([hit.score for hit in hits], found, rtol=0, atol=1e-5 * length)


def test_stages_find_what_exact_finds(index, queries):
    wide = SearchSettings(probes=64, rerank=299)
    for Q in queries:
        exact = {hit.passage.id for hit in index.search(Q, 10, exact=True).hits}
        found = {hit.passage.id for hit in index.search(Q, 10, settings=wide).hits}
        assert len(exact & found) >= 9


def test_a_batch_answers_as_its_queries_alone(index, queries):
    together = index.search_many(queries, 7, threads=3, settings=SearchSettings(probes=2, rerank=50))
    for Q, result in zip(queries, together, strict=True):
        alone = index.search(Q, 7, settings=SearchSettings(probes=2, rerank=50))
        assert [(h.passage.id, h.score) for h in result.hits] == [(h.passage.id, h.score) for h in alone.hits]
    assert index.search_many([], 3) == []
    with pytest.raises(UsageError, match="finite"):
        index.search_many([np.full((2, DIM), np.nan, np.float32)], 3)


def test_a_subset_by_ids(index, queries):
    ids = [f"d{n}" for n in range(0, 600, 40)]
    for Q in queries[:5]:
        hits = index.search(Q, 100, ids=[*ids, "unknown", ids[0]]).hits
        assert {hit.passage.document_id for hit in hits} == set(ids)
        assert index.search(Q, 100, ids=[]).hits == []
        assert index.search(Q, 100, ids=["nobody"]).hits == []


def test_ids_that_share_a_hash_are_told_apart(tmp_path, vectors, monkeypatch):
    """Also ids that are beginnings of others, and of more bytes than characters."""
    names = ["a", "ab", "abc", "", "ä", "日本", "b", "xb"]
    monkeypatch.setattr(storage, "string_hash", lambda text: len(text) % 2)
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA)
    with index.writer() as writer:
        for turn in range(2):
            for number, name in enumerate(names):
                writer.put(Passage(f"{turn}{name}#0", f"{turn}{name}", "", "", {}), vectors[number])
                writer.put(Passage(f"{turn}{name}#1", f"{turn}{name}", "", "", {}), vectors[number])
            writer.commit()
    for wanted in (["0a"], ["1ab", "0日本", "nobody", "1"], ["0", "0ä", "1xb", "1b"], []):
        hits = index.search(vectors[0], 100, ids=wanted).hits
        assert sorted(hit.passage.document_id for hit in hits) == sorted(2 * [name for name in wanted if name != "nobody"])


def test_a_batch_selects_once(index, queries, monkeypatch):
    calls = []
    real = Snapshot.select
    monkeypatch.setattr(Snapshot, "select", lambda *args: calls.append(1) or real(*args))
    found = index.search_many(queries, 5, ids=iter([f"d{n}" for n in range(90)]))
    assert len(calls) == 1
    assert all({hit.passage.document_id for hit in result.hits} <= {f"d{n}" for n in range(90)} for result in found)


def test_one_bit_too_many(tmp_path):
    with pytest.raises(UsageError, match="bits must be 1, 2 or 4"):
        LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA, bits=3)
    with pytest.raises(UsageError, match="codec 'int7' is unknown"):
        LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "c"), schema=SCHEMA, codec="int7")


def test_binary_cuts_at_the_thresholds_of_the_bundle(tmp_path, vectors):
    sample = np.concatenate(vectors)
    bundle = fake_bundle(tmp_path / "b")
    (bundle.path / "codebooks").mkdir()
    cuts = np.median(sample, axis=0).astype(np.float32)
    Thresholds(cuts, np.full(DIM, 0.2, np.float32)).save(bundle.path / "codebooks/binary.npz")
    bundle = write_manifest(bundle.path, dataclasses.replace(bundle.manifest, codebooks={"binary": "codebooks/binary.npz"}))
    index = made(tmp_path / "i", Bundle.open(bundle.path), vectors[:50], codec="binary")
    np.testing.assert_allclose(np.abs(index.vectors("d3#0") - cuts), 0.2, atol=1e-5)
    (index.path / "bundle/codebooks/binary.npz").write_bytes(b"nonsense")
    with pytest.raises(LocalIndexError, match=r"binary\.npz"):
        LocalIndex.open(index.path).search(vectors[0], 3)


@pytest.mark.slow
def test_the_plain_loops_pass_the_same_tests(tmp_path):
    """In a process whose numba compiles for a processor without AVX2, kernels and all."""
    settings = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    check = "from late_interaction import simd; assert not simd.SHARED and simd.dot_block is simd._dot_plain"
    subprocess.run([sys.executable, "-c", check], env=settings, check=True)
    chosen = "sixteen_bit or every_form or stages_find or lookups_are or candidates_are"
    files = [__file__, Path(__file__).with_name("test_stages.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files]
    done = subprocess.run(command, env=settings, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
