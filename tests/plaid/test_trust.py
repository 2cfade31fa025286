"""Long random histories, writers killed at every file operation, files zeroed: nothing committed is lost or made up."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_points import before_every_file_operation
from plaid_tools import DENSE, DIM, check_dense, dense_of, fake_bundle, passage, token_vectors

from late_interaction.errors import LocalIndexError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.writing import committing

SCHEMA = MetadataSchema({"n": FieldType.LONG, "word": FieldType.STRING})
VECTORS = token_vectors(np.random.default_rng(0), 64)
FORMS = [{}, {"codec": "float32"}, {"codec": "binary"}, {"bits": 2, "refine": True}, {"dense": True}]

NUMBERS = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NUMBERS, st.integers(0, 63)),
        st.tuples(st.just("put"), NUMBERS, st.integers(0, 63)),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("search"), st.integers(0, 63)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("commit")),
        st.tuples(st.just("name")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("rollback"), st.integers(0, 3)),
        st.tuples(st.just("prune"), st.integers(1, 2)),
        st.tuples(st.just("reopen")),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def with_dense(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "dense", dense=DENSE)


@pytest.fixture(scope="module")
def created(bundle, with_dense):
    """Makes an index of a form; `dense`: of the bundle with dense models."""

    def create(path, form):
        rest = {name: value for name, value in form.items() if name != "dense"}
        return LocalIndex.create(path, bundle=with_dense if "dense" in form else bundle, schema=SCHEMA, **rest)

    return create


def agrees(index, model):
    """`model`: id -> (passage, which vectors)."""
    assert {p.id: p for p in index.iter_passages()} == {id_: p for id_, (p, _) in model.items()}
    assert index.passages == len(model)
    check_dense(index, {id_: number for id_, (_, number) in model.items()})
    for Q in (VECTORS[5][:3], VECTORS[40][:2]):
        found = index.search(Q, 100).hits
        assert {hit.passage.id for hit in found} == set(model)
        for hit in found:
            assert hit.score == pytest.approx(maxsim(Q, index.vectors(hit.passage.id)), abs=1e-4)
        scores = {hit.passage.id: hit.score for hit in found}
        for probes in (64, 1):  # with so few reranked, the first stages run from five passages on
            probed = index.search(Q, 2, settings=SearchSettings(probes=probes, rerank=2)).hits
            assert len({hit.passage.id for hit in probed}) == len(probed) == min(2, len(model))
            assert [hit.score for hit in probed] == pytest.approx([scores[hit.passage.id] for hit in probed], abs=1e-4)


def lived_through(index, steps):
    versions, model = {0: {}}, {}
    writer = index.writer()
    try:
        for turn, (name, *args) in enumerate(steps):
            if name == "put":
                new = passage(f"d{args[0]}", text=f"text {turn}", n=args[1], word=f"w{args[1] % 3}")
                writer.put(new, VECTORS[args[1]], dense=dense_of(index, args[1]))
                model.pop(new.id, None)
                model[new.id] = (new, args[1])
            elif name == "delete":
                assert writer.delete_document(f"d{args[0]}") == int(model.pop(f"d{args[0]}#0", None) is not None)
            elif name == "search":
                agrees(index, versions[index.version])
            elif name in ("commit", "name", "compact"):
                writer.commit(f"turn {turn}" if name == "name" else "", compact=name == "compact")
                versions[index.version] = dict(model)
                agrees(index, model)
            elif name == "rollback":
                known = index.versions()
                chosen = known[args[0] % len(known)]
                writer.rollback(chosen.name or chosen.number)
                model = dict(versions[chosen.number])
                versions[index.version] = dict(model)
                agrees(index, model)
            elif name == "prune":
                writer.prune(args[0])
                agrees(index, versions[index.version])
            else:
                writer.__exit__(None, None, None)
                index = LocalIndex.open(index.path)
                model = dict(versions[index.version])
                agrees(index, model)
                writer = index.writer()
        assert {v.number: v.passages for v in index.versions()} == {v.number: len(versions[v.number]) for v in index.versions()}
        index.verify()
    finally:
        writer.__exit__(None, None, None)


@settings(max_examples=25)
@given(st.sampled_from(FORMS), STEPS)
def test_histories(tmp_path_factory, created, form, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committing, "MAX_SEGMENTS", 2)
        lived_through(created(tmp_path_factory.mktemp("h") / "i", form), steps)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.sampled_from(FORMS), STEPS)
def test_a_thousand_histories(tmp_path_factory, created, form, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committing, "MAX_SEGMENTS", 2)
        folder = tmp_path_factory.mktemp("h")
        lived_through(created(folder / "i", form), steps)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("form", [{}, {"bits": 2, "refine": True}, {"dense": True}], ids=["plain", "refined", "dense"])
def test_a_build_an_add_and_a_compact_killed_anywhere_lose_nothing(tmp_path, created, form):
    index = created(tmp_path / "i", form)
    model, points = {}, 0

    def put(writer, numbers):
        for number in numbers:
            new = passage(f"d{number}", n=number)
            writer.put(new, VECTORS[number], dense=dense_of(index, number))
            model[new.id] = (new, number)
        writer.flush()

    def build(writer):
        put(writer, range(12))
        return writer.commit

    def add(writer):
        put(writer, range(8, 30))
        writer.delete_document("d1")
        del model["d1#0"]
        writer.flush()
        return writer.commit

    def name(writer):
        put(writer, range(30, 34))
        return lambda: writer.commit("named")

    def compact(writer):
        writer.delete_document("d2")
        del model["d2#0"]
        writer.flush()
        return lambda: writer.commit(compact=True)

    for step in (build, add, name, compact):
        before, number = dict(model), index.version
        with index.writer() as writer:
            copies = before_every_file_operation(index.path, tmp_path / step.__name__, step(writer))
        points += len(copies) if step is not name else 0
        agrees(index, model)
        for copy in copies:
            reader = LocalIndex.open(copy)
            agrees(reader, before if reader.version == number else model)
            with reader.writer(resume=True) as resumed:
                resumed.commit()
            agrees(reader, model)
            reader.verify()
            shutil.rmtree(copy)
    assert points >= 200  # of building, adding and compacting


def test_a_zeroed_file_is_an_error_or_found_by_verify(tmp_path, created):
    index = created(tmp_path / "i", {"bits": 2, "refine": True, "dense": True})
    with index.writer() as writer:
        for number in range(40):
            writer.put(passage(f"d{number}", n=number, word="w"), VECTORS[number], dense=dense_of(index, number))
        writer.commit()
        writer.delete_document("d2")
        writer.commit("named")
    names = [named.name for named in index.snapshot.version.files()]
    for name in names:
        path = index.path / name
        whole = path.read_bytes()
        head = 128 if name.endswith(".npy") else 0  # also behind an intact header
        for kept in {0, head}:
            path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
            if path.read_bytes() == whole:
                continue
            with pytest.raises(LocalIndexError):
                opened = LocalIndex.open(index.path)
                opened.search(VECTORS[3], 5)
                opened.dense_search("other", np.ones(7), 5)  # may succeed: contents are checked by verify
                opened.verify()
        path.write_bytes(whole)
    index.verify()


def test_vectors_of_any_length_never_break_the_kernels(tmp_path, bundle):
    """float32 rows need not have length one, and long passages cross the kernels' blocks."""
    random = np.random.default_rng(1)
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec="float32")
    rows = {f"d{n}": (random.standard_normal((int(random.integers(1, 400)), DIM)) * 10.0 ** random.integers(-4, 3)).astype("f4")
            for n in range(30)}  # fmt: skip
    with index.writer() as writer:
        for name, vectors in rows.items():
            writer.put(passage(name), vectors)
        writer.commit()
    Q = random.standard_normal((40, DIM)).astype(np.float32)
    truth = {f"{name}#0": maxsim(Q, vectors) for name, vectors in rows.items()}
    best = sorted(truth, key=lambda id_: -truth[id_])
    hits = index.search(Q, 5, exact=True).hits
    assert [hit.passage.id for hit in hits] == best[:5]
    assert [hit.score for hit in hits] == pytest.approx([truth[id_] for id_ in best[:5]], rel=1e-5)
