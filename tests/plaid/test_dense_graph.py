"""The graph of dense vectors as a part of an index: when it is written, merged, checked and said to be missing."""

import json

import numpy as np
import pytest
from plaid_tools import DENSE, check_dense, dense_of, fake_bundle, passage, token_vectors
from typer.testing import CliRunner

from colbert_vespa.cli.commands import app
from colbert_vespa.index_info import index_info
from late_interaction.errors import LocalIndexError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.store import dense, linking, nearest
from late_interaction.plaid.store.storage import write_array
from late_interaction.plaid.writing import committing
from late_interaction.workers.process import WorkerProcess

pytest.importorskip("faiss")
SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 200)
FROM = 60  # vectors from which on there is a graph


def links_here(rows):
    """As linking.write_links, without a process."""
    name = linking.row_files(rows.stem)[2]
    return {name: write_array(rows.with_name(name), np.concatenate(list(linking._links(np.load(rows)))).astype("<i4"))}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(nearest, "LINKED_FROM", FROM)
    monkeypatch.setattr(nearest, "PAYS", 0)
    monkeypatch.setattr(nearest, "STARTS", 4)
    monkeypatch.setattr(dense, "write_links", links_here)


@pytest.fixture
def index(tmp_path):
    return LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b", dense=DENSE), schema=SCHEMA)


def put(index, numbers, **options):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", n=number), VECTORS[number], dense=dense_of(index, number))
        return writer.commit(**options)


def linked(index, name="dense"):
    return [part.segment.dense[name].links is not None for part in index.snapshot.living]


def info(index):
    return {name: (said["linked"], said["unlinked"]) for name, said in index_info(index)["dense"].items()}


def numbers_of(numbers):
    return {f"d{number}#0": number for number in numbers}


def test_large_segments_have_a_graph_of_each_model_built_in_a_process_of_its_own(index, monkeypatch):
    monkeypatch.setattr(dense, "write_links", linking.write_links)
    put(index, range(FROM))
    assert linked(index) == linked(index, "other") == [True]
    files = json.loads((index.path / "versions/1.json").read_bytes())["segments"][0]["files"]
    assert files["dense-other.links.npy"]["bytes"] == 128 + FROM * 4 * nearest.LINKS
    check_dense(index, numbers_of(range(FROM)))
    index.verify()


def test_small_segments_have_none_and_what_merging_makes_of_them_has(index, monkeypatch):
    monkeypatch.setattr(committing, "MAX_SEGMENTS", 2)
    put(index, range(40))
    put(index, range(40, 70))
    assert linked(index) == [False, False] and info(index) == {"dense": (0, 0), "other": (0, 0)}
    put(index, range(70, 90))
    assert True in linked(index)
    check_dense(index, numbers_of(range(90)))
    with index.writer() as writer:
        writer.delete_document("d3")
        writer.commit(compact=True)
    assert linked(index) == [True] and info(index)["dense"] == (89, 0)
    check_dense(index, numbers_of([number for number in range(90) if number != 3]))
    index.verify()


def test_what_is_deleted_or_not_selected_is_not_found(index):
    put(index, range(80))
    with index.writer() as writer:
        for number in range(0, 80, 3):
            writer.delete_document(f"d{number}")
        writer.commit()
    living = [number for number in range(80) if number % 3]
    assert linked(index) == [True]
    check_dense(index, numbers_of(living))
    check_dense(index, numbers_of([n for n in living if n < 30]), parse_filter({"n": {"$lt": 30}}, SCHEMA))


def test_exact_compares_all(index, monkeypatch):
    put(index, range(80))
    vector = dense_of(index, 5)["dense"]
    monkeypatch.setattr(nearest, "_follow", None)
    assert next(iter(index.dense_search("dense", vector, 3, exact=True).scores)) == "d5#0"
    with pytest.raises(TypeError):
        index.dense_search("dense", vector, 3)


def test_an_index_that_was_written_without_faiss_says_so_and_compacting_mends_it(index, monkeypatch):
    for module in (dense, committing):
        monkeypatch.setattr(module, "can_link", lambda: False)
    put(index, range(80))
    assert linked(index) == [False] and info(index) == {"dense": (0, 80), "other": (0, 80)}
    shown = CliRunner().invoke(app, ["index", "info", str(index.path)])
    assert "80 compared one by one; pip install 'colbert-vespa[hnsw]'" in " ".join(shown.stdout.split())
    assert put(index, [], compact=True).version == 2 and linked(index) == [False]
    for module in (dense, committing):
        monkeypatch.setattr(module, "can_link", lambda: True)
    put(index, [], compact=True)
    assert linked(index) == [True] and info(index) == {"dense": (80, 0), "other": (80, 0)}
    segment = index.snapshot.version.segments[0].name
    put(index, [], compact=True)
    assert index.snapshot.version.segments[0].name == segment  # not written again
    shown = CliRunner().invoke(app, ["index", "info", str(index.path)])
    assert "80 vectors in an HNSW graph" in " ".join(shown.stdout.split())


def test_a_build_that_ends_early_leaves_the_last_version_and_what_waits(index, monkeypatch):
    put(index, range(5))
    monkeypatch.setattr(dense, "write_links", linking.write_links)
    ends = lambda rows, threads, module: WorkerProcess(rows, threads, "late_interaction.no_such_module")  # noqa: E731
    monkeypatch.setattr(linking, "WorkerProcess", ends)
    with pytest.raises(LocalIndexError, match="uninstall faiss-cpu"):
        put(index, range(5, 80))
    assert index.passages == 5
    monkeypatch.setattr(dense, "can_link", lambda: False)
    with index.writer(resume=True) as writer:
        writer.commit()
    assert index.passages == 80
    check_dense(index, numbers_of(range(80)))


@pytest.mark.parametrize(
    ("damage", "message"), [("remove", "missing"), ("cut", "bytes"), ("shape", "shape"), ("flip", "changed")]
)
def test_damage_is_named(index, damage, message):
    put(index, range(80))
    (path,) = index.path.glob("segments/*/dense-dense.links.npy")
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-4])
    elif damage == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.write_bytes(data.replace(b"(80, 32)", b"(40, 64)"))
    with pytest.raises(LocalIndexError, match=message) as refused:
        LocalIndex.open(index.path, verify=True)
    assert "dense-dense.links.npy" in str(refused.value)
