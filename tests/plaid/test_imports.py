"""Indexes of colbert-ai and fast-plaid (golden/make_indexes.py) are taken over bit by bit; damaged and hostile ones are not."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import fake_bundle, unit
from typer.testing import CliRunner

from colbert_vespa.cli.commands import app
from late_interaction.codebook_training import train_codebook
from late_interaction.documents import Document, Passage
from late_interaction.errors import LocalIndexError, MetadataError
from late_interaction.filters import parse_filter
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.imports import TsvCollection, import_index
from late_interaction.plaid.imports.databases import metadata_rows
from late_interaction.plaid.imports.json_lists import iterate_texts
from late_interaction.plaid.imports.peer import from_lowest_bit_first
from late_interaction.plaid.imports.pylate_ids import pylate_ids
from late_interaction.plaid.imports.torch_files import read_tensor, read_torch_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden/indexes"
NAMES = ("colbert-ai-1", "colbert-ai-4", "fast-plaid-1", "fast-plaid-2", "fast-plaid-4", "ragatouille-2")
DIM = 32
HALF = 2e-3  # fast-plaid computes in half precision


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("imports") / "bundle", DIM)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def peers_numbers(name: str, count: int) -> list[int]:
    """The peer's number of each passage in the imported index."""
    return [n for n in range(count + 2) if n not in (7, 30)] if name == "ragatouille-2" else list(range(count))


@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_rankings_are_the_peers(name: str, bundle, tmp_path: Path) -> None:
    index = import_index(GOLDEN / name, tmp_path / "index", bundle=bundle)
    index.verify()
    tolerance = HALF if name.startswith("fast") else 1e-6
    ids = [passage.id for passage in index.iter_passages()]
    decoded = np.load(GOLDEN / f"{name}.decoded.npy")
    ours = np.concatenate([index.vectors(passage) for passage in ids])
    assert ours.shape == decoded.shape
    assert np.abs(ours - decoded).max() < tolerance
    numbers = peers_numbers(name, len(ids))
    rankings = json.loads((GOLDEN / f"{name}.results.json").read_text())
    for query, ranking in zip(np.load(GOLDEN / "queries.npy"), rankings, strict=True):
        theirs = dict(ranking)
        assert sorted(theirs) == numbers
        least = -1 if name.startswith("fast") else 0  # a query row counts at least 0 in colbert-ai
        for number, passage in zip(numbers, ids, strict=True):
            score = np.maximum((query @ index.vectors(passage).T).max(axis=1), least).sum()
            assert score == pytest.approx(theirs[number], abs=5e-3 if name.startswith("fast") else 1e-4)
        best = [numbers[ids.index(hit.passage.id)] for hit in index.search(query, 5).hits]
        assert [theirs[number] for number in best] == pytest.approx([score for _, score in ranking[:5]], abs=HALF)


@pytest.mark.parametrize("name", ["colbert-ai-4", "fast-plaid-4"])
def test_what_is_stored_of_an_import(name: str, bundle, tmp_path: Path) -> None:
    index = import_index(GOLDEN / name, tmp_path / "index", bundle=bundle)
    version = index.snapshot.version
    assert (version.number, index.codec, index.bits, index.dim) == (1, "residual", 4, DIM)
    assert version.trained_on == index.token_vectors == len(np.load(GOLDEN / f"{name}.decoded.npy"))
    assert version.fit is not None and 0.5 < version.fit.mean < 1 and version.fit.low < version.fit.mean
    assert abs(index.drift) < 0.02
    codebook = index.codebook
    assert (codebook.cutoffs == codebook.cutoffs[0]).all() and (codebook.weights == codebook.weights[0]).all()
    assert [passage.id for passage in index.iter_passages()][:2] == ["0#0", "1#0"]
    assert index.passage("0#0") == Passage("0#0", "0", "", "", {})


def test_an_import_can_be_added_to_and_compacted(bundle, tmp_path: Path) -> None:
    index = import_index(GOLDEN / "colbert-ai-4", tmp_path / "index", bundle=bundle)
    before = index.passages
    vectors = unit(np.random.default_rng(0).standard_normal((5, DIM)))
    with index.writer() as writer:
        writer.put(Passage("new#0", "new", "", "text", {}), vectors)
        writer.delete_document("0")
        writer.commit()
    assert index.passages == before
    assert index.search(vectors, 1).hits[0].passage.id == "new#0"
    with index.writer() as writer:
        writer.commit(compact=True)
    index.verify()
    assert index.passages == before


def test_ragatouille_documents_and_metadata(bundle, tmp_path: Path) -> None:
    index = import_index(GOLDEN / "ragatouille-2", tmp_path / "index", bundle=bundle)
    assert (index.passages, index.documents) == (38, 20)
    assert index.schema.to_json() == {"lang": "string", "year": "long"}
    assert index.passage("doc-3#0") == Passage("doc-3#0", "doc-3", "", "text of passage 6", {"lang": "en", "year": 2003})
    assert index.passage("doc-3#1") is None, "passage 7 was removed"
    assert index.passage("doc-4#1").text == "text of passage 9"
    assert index.passage("doc-15#0").text == "text of passage 31"
    assert index.selected(parse_filter({"year": {"$lt": 2002}}, index.schema)).sum() == 4


def test_fast_plaids_metadata(bundle, tmp_path: Path) -> None:
    index = import_index(GOLDEN / "fast-plaid-2", tmp_path / "index", bundle=bundle)
    assert index.schema.to_json() == {"lang": "string", "ratio": "double", "year": "long"}
    assert index.passage("5#0").metadata == {"lang": "en", "ratio": 1.25, "year": 2005}
    assert index.passage("6#0").metadata == {"ratio": 1.5, "year": 2006}


def test_pylates_ids_from_its_pickled_table(bundle, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "fast-plaid-1", tmp_path / "pylate/fast_plaid_index")
    names = {number: f"name {number}" for number in range(40)}
    table = tmp_path / "pylate/plaid_ids_to_documents_ids.pkl"
    table.write_bytes(pickle.dumps(names))
    for source, target in (("pylate", "a"), ("pylate/fast_plaid_index", "b")):
        index = import_index(tmp_path / source, tmp_path / target, bundle=bundle)
        assert [passage.document_id for passage in index.iter_passages()] == list(names.values())
    table.write_bytes(pickle.dumps({0: "one"}))
    refused(tmp_path / "pylate", bundle, tmp_path, "has 1 ids.* 40 passages")
    table.write_bytes(pickle.dumps({0: 1}))
    refused(tmp_path / "pylate", bundle, tmp_path, "not a table of passage numbers")
    table.write_bytes(pickle.dumps(os.system))
    refused(tmp_path / "pylate", bundle, tmp_path, "refused: it refers to posix.system")


def test_pylates_ids_from_its_older_database(copy, bundle, tmp_path: Path) -> None:
    folder = copy("colbert-ai-1")
    with sqlite3.connect(folder / "plaid_ids_to_documents_ids.sqlite") as database:
        database.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
        rows = [(str(number), pickle.dumps(f"d{number}")) for number in range(40)]
        database.executemany("INSERT INTO unnamed VALUES (?, ?)", rows)
    database.close()
    index = import_index(folder, tmp_path / "index", bundle=bundle)
    assert [passage.document_id for passage in index.iter_passages()] == [f"d{number}" for number in range(40)]


def test_documents_that_the_user_names(bundle, tmp_path: Path) -> None:
    documents = [Document(f"d{n // 2}", f"title {n}", f"text {n}", {"n": n // 2}) for n in range(40)]
    index = import_index(GOLDEN / "colbert-ai-1", tmp_path / "a", bundle=bundle, documents=iter(documents))
    assert index.passage("d3#1") == Passage("d3#1", "d3", "title 7", "text 7", {"n": 3})
    index = import_index(GOLDEN / "ragatouille-2", tmp_path / "b", bundle=bundle, documents=documents)
    assert index.passage("d3#1") is None, "passage 7 was removed"
    assert index.passage("d4#0").text == "text 8"
    with pytest.raises(LocalIndexError, match="documents given number 39, but there are 40 passages"):
        import_index(GOLDEN / "colbert-ai-1", tmp_path / "c", bundle=bundle, documents=documents[1:])
    with pytest.raises(MetadataError, match="is long in document 'd0' but string in 'd1'"):
        mixed = [Document(f"d{n}", metadata={"x": "one" if n == 1 else n}) for n in range(40)]
        import_index(GOLDEN / "colbert-ai-1", tmp_path / "c", bundle=bundle, documents=mixed)
    assert not (tmp_path / "c").exists()


def test_tsv_collections(tmp_path: Path) -> None:
    file = tmp_path / "collection.tsv"
    file.write_text("0\tfirst text\n1\tsecond text\ttitle\n", encoding="utf-8")
    assert list(TsvCollection(file)) == [Document("0", "", "first text"), Document("1", "title", "second text")]
    file.write_text("0\tfirst text\n7\tsecond text\n")
    with pytest.raises(LocalIndexError, match=r"collection.tsv:2: expected 1, a tab"):
        list(TsvCollection(file))


def test_lists_of_texts_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "collection.json"
    texts = ["", "a", "x" * 50, 'quote " and \\ and \n', "é😀" * 10, "]", ",["]
    for block in (1, 7, 1 << 20):
        monkeypatch.setattr("late_interaction.json_arrays.BLOCK", block)
        for ascii_only in (True, False):
            file.write_text(json.dumps(texts, indent=1, ensure_ascii=ascii_only), encoding="utf-8")
            assert list(iterate_texts(file)) == texts
        file.write_text(" [ ] ")
        assert list(iterate_texts(file)) == []
        for broken in ("", "[", '["a"', '["a",]', '["a" "b"]', '{"a": 1}', '["a]', '"a"', '[,"a"]'):
            file.write_text(broken)
            with pytest.raises(LocalIndexError, match="collection"):
                list(iterate_texts(file))
    file.write_text("[1]")
    with pytest.raises(LocalIndexError, match=r"collection\.json .*\bint"):
        list(iterate_texts(file))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_buckets_are_turned_round(bits: int) -> None:
    buckets = np.random.default_rng(bits).integers(1 << bits, size=(20, 16))
    lowest = np.packbits((buckets[..., None] >> np.arange(bits)) & 1, axis=None).reshape(20, -1)
    highest = np.packbits((buckets[..., None] >> np.arange(bits)[::-1]) & 1, axis=None).reshape(20, -1)
    assert (from_lowest_bit_first(lowest, bits) == highest).all()


# the command


def test_index_import_command(bundle, tmp_path: Path) -> None:
    target = tmp_path / "index"
    arguments = ["index", "import", str(GOLDEN / "colbert-ai-1"), "-o", str(target), "--bundle", str(bundle.path), "--json"]
    collection = tmp_path / "texts.jsonl"
    collection.write_text("".join(json.dumps({"id": f"d{n}", "text": f"text {n}", "n": n}) + "\n" for n in range(40)))
    result = CliRunner().invoke(app, [*arguments, "--collection", str(collection)], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["passages"] == 40
    assert LocalIndex.open(target).passage("d5#0") == Passage("d5#0", "d5", "", "text 5", {"n": 5})
    with pytest.raises(LocalIndexError, match="exists and is not an empty folder"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


# what is refused


def refused(source: Path, bundle, tmp_path: Path, message: str) -> None:
    with pytest.raises(LocalIndexError, match=message) as caught:
        import_index(source, tmp_path / "none", bundle=bundle)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if "none" in path.name], "a failed import leaves nothing"


def test_no_index_names_what_is_missing(copy, bundle, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", bundle, tmp_path, "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", bundle, tmp_path, "not an index that can be imported: as a colbert-ai .* it lacks metadata")
    folder = copy("colbert-ai-1")
    (folder / "buckets.pt").unlink()
    refused(folder, bundle, tmp_path, "colbert-ai or RAGatouille index it lacks buckets.pt; .*fast-plaid index it lacks")


def test_another_bundle_is_refused(bundle, tmp_path: Path) -> None:
    other = fake_bundle(tmp_path / "other", 16)
    refused(GOLDEN / "colbert-ai-1", other, tmp_path, "vectors of 32 dimensions, .* 16")
    book = train_codebook(unit(np.random.default_rng(0).standard_normal((500, DIM))), bits=2)
    other = fake_bundle(tmp_path / "with codebook", DIM, book)
    refused(GOLDEN / "colbert-ai-1", other, tmp_path, "1 bits per dimension, .*codebook.* 2")


def changed(path: Path, **values: object) -> None:
    data = json.loads(path.read_text())
    data.update(values)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("fast-plaid-2", "metadata.json", {"nbits": 8}, "has 8 bits per dimension"),
        ("fast-plaid-2", "metadata.json", {"nbits": "2"}, "has '2' bits per dimension"),
        ("fast-plaid-2", "metadata.json", {"nbits": 4}, r"weights \(4,\) for 4 bits"),
        ("fast-plaid-2", "metadata.json", {"num_chunks": 2}, "doclens.1.json is missing"),
        ("fast-plaid-2", "metadata.json", {"num_chunks": -1}, "num_chunks is -1"),
        ("fast-plaid-2", "metadata.json", {"num_chunks": None}, "num_chunks is 'None', not a whole number"),
        ("colbert-ai-1", "metadata.json", {"config": None}, "has no config"),
        ("colbert-ai-1", "metadata.json", {"config": {"dim": 64, "nbits": 1}}, "32 dimensions, .* 64"),
        ("ragatouille-2", "docid_metadata_map.json", {"doc-1": 3}, "docid_metadata_map.json is damaged"),
        ("ragatouille-2", "pid_docid_map.json", {"50": "more"}, "has 39 passages, but the index has 38"),
        ("ragatouille-2", "pid_docid_map.json", {"0": None}, "pid_docid_map.json is damaged"),
    ],
)  # fmt: skip
def test_damaged_json(name: str, file: str, change: dict, message: str, copy, bundle, tmp_path: Path) -> None:
    folder = copy(name)
    changed(folder / file, **change)
    refused(folder, bundle, tmp_path, message)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("colbert-ai-1", "metadata.json", b"[]", "is list, not dict"),
        ("colbert-ai-1", "metadata.json", b"{", "metadata.json cannot be read"),
        ("colbert-ai-1", "metadata.json", b"[" * 100_000, "metadata.json cannot be read"),
        ("colbert-ai-1", "doclens.0.json", b"[-1]", "not a list of lengths"),
        ("colbert-ai-1", "doclens.0.json", b"[0]", "has no passages"),
        ("colbert-ai-1", "doclens.0.json", b"[3, 4]", "its passages have 7 rows"),
        ("colbert-ai-1", "centroids.pt", b"", "torch 1.6 or newer"),
        ("colbert-ai-1", "centroids.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch 1.6 or newer"),
        ("colbert-ai-1", "centroids.pt", b"PK\x03\x04 and more", "centroids.pt is damaged"),
        ("ragatouille-2", "collection.json", b'["only one"]', "has 1 passages, but the index has 38"),
        ("fast-plaid-1", "centroids.npy", b"\x93NUMPY", "centroids.npy is damaged"),
        ("fast-plaid-2", "metadata.db", b"no database" * 100, "cannot be read as a SQLite database"),
    ],
)  # fmt: skip
def test_damaged_files(name: str, file: str, content: bytes, message: str, copy, bundle, tmp_path: Path) -> None:
    folder = copy(name)
    (folder / file).write_bytes(content)
    refused(folder, bundle, tmp_path, message)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("0.codes.npy", np.full(285, 10_000), "a code in chunk 0 is outside the 32 centroids"),
        ("0.codes.npy", np.full(285, -1), "a code in chunk 0 is outside"),
        ("0.codes.npy", np.zeros(200, np.int64), r"chunk 0 has codes \(200,\)"),
        ("0.codes.npy", np.zeros(285, np.float32), "0.codes.npy is damaged: it holds float32"),
        ("0.residuals.npy", np.zeros((285, 4), np.uint8), r"residuals \(285, 4\)"),
        ("centroids.npy", np.full((32, 32), np.nan, np.float16), "a centroid is not finite"),
        ("centroids.npy", np.full((32, 32), 1.0, np.float16), "length is not one"),
        ("bucket_cutoffs.npy", np.array([3, 2, 1], np.float32), "cutoffs must ascend"),
        ("bucket_weights.npy", np.array([3, 2, np.inf, 1], np.float32), "weights must be finite"),
        ("centroids.npy", np.array([os.system], object), "centroids.npy is damaged"),
    ],
)
def test_damaged_arrays(file: str, array: np.ndarray, message: str, copy, bundle, tmp_path: Path) -> None:
    folder = copy("fast-plaid-2")
    np.save(folder / file, array)
    refused(folder, bundle, tmp_path, message)


def test_centroids_a_little_off_are_mended_and_empty_clusters_are_no_matter(copy, bundle, tmp_path: Path) -> None:
    folder = copy("fast-plaid-2")
    centroids = np.load(folder / "centroids.npy").astype(np.float32)
    np.save(folder / "centroids.npy", np.concatenate([centroids * 1.005, np.zeros((1, DIM), np.float32)]))
    index = import_index(folder, tmp_path / "index", bundle=bundle)
    ours = np.concatenate([index.vectors(passage.id) for passage in index.iter_passages()])
    assert np.abs(ours - np.load(GOLDEN / "fast-plaid-2.decoded.npy")).max() < HALF


@pytest.mark.parametrize("times", [1, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_cut_and_flipped_files_never_end_in_a_traceback(name: str, times: int, copy, bundle, tmp_path: Path) -> None:
    """Any one file cut at some place, or with a byte changed, is imported or refused by name."""
    folder = copy(name)
    random = np.random.default_rng(times)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(times):
            content = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.4 else whole)
            for _ in range(min(len(content), 2)):
                content[random.integers(len(content))] = random.integers(256)
            path.write_bytes(bytes(content))
            try:
                import_index(folder, tmp_path / "index", bundle=bundle)
            except (LocalIndexError, MetadataError) as error:
                assert "\n" not in str(error)
                assert not (tmp_path / "index").exists()
            else:
                shutil.rmtree(tmp_path / "index")
        path.write_bytes(whole)


# torch files


class Reference:
    """A storage in a pickle that is being written."""

    def __init__(self, kind: str, key: str, count: object) -> None:
        self.parts = ("storage", Named("torch", kind), key, "cpu", count)


class Named:
    def __init__(self, module: str, name: str) -> None:
        self.where = (module, name)


class Call:
    def __init__(self, function: Named, *arguments: object) -> None:
        self.function, self.arguments = function, arguments


def pickled(value: object) -> bytes:
    """Pickle opcodes of protocol 2, written by hand so that they can name what is not installed."""
    if isinstance(value, Named):
        return f"c{value.where[0]}\n{value.where[1]}\n".encode()
    if isinstance(value, Call):
        return pickled(value.function) + pickled(value.arguments) + b"R"
    if isinstance(value, Reference):
        return pickled(value.parts) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, dict):
        return b"}"
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(kind: str, key: str, count: object, offset: object, size: object, stride: object) -> Call:
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Reference(kind, key, count), offset, size, stride, False, Call(Named("collections", "OrderedDict")))


def torch_file(path: Path, value: object, compress: int = zipfile.ZIP_STORED, **data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + (value if isinstance(value, bytes) else pickled(value) + b"."))
        for name, content in data.items():
            archive.writestr(f"archive/data/{name.removeprefix('n')}", content)
    return path


def test_tensors_of_every_type_and_shape(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    numbers = np.arange(12, dtype="<i8")
    found = read_tensor(torch_file(file, tensor("LongStorage", "0", 12, 0, (3, 4), (4, 1)), n0=numbers.tobytes()), "i", 2)
    assert (found == numbers.reshape(3, 4)).all() and not found.flags.writeable
    turned = tensor("LongStorage", "0", 12, 1, (2, 3), (1, 4))
    assert (read_torch_file(torch_file(file, turned, n0=numbers.tobytes())) == numbers.reshape(3, 4).T[1:3]).all()
    half = np.array([0.5, -2], "<f2")
    found = read_torch_file(torch_file(file, (tensor("HalfStorage", "0", 2, 0, (2,), (1,)), {}), n0=half.tobytes()))
    assert found[0].dtype == np.float32 and found[0].tolist() == [0.5, -2] and found[1] == {}
    brain = (np.array([0.5, -3], "<f4").view("<u4") >> 16).astype("<u2")
    found = read_torch_file(torch_file(file, tensor("BFloat16Storage", "0", 2, 0, (2,), (1,)), n0=brain.tobytes()))
    assert found.dtype == np.float32 and found.tolist() == [0.5, -3]
    assert read_torch_file(torch_file(file, tensor("ByteStorage", "0", 0, 0, (0, 4), (4, 1)), n0=b"")).shape == (0, 4)
    assert read_torch_file(torch_file(file, tensor("BoolStorage", "0", 1, 0, (), ()), n0=b"\x01")).item() is True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(Named("os", "system"), "touch {ran}"), "refused: it refers to os.system, which no tensor needs"),
        (Call(Named("posix", "system"), "touch {ran}"), "refused: it refers to posix.system"),
        (Call(Named("builtins", "eval"), "open('{ran}', 'w')"), "refused: it refers to builtins.eval"),
        (Call(Named("builtins", "getattr"), Named("torch", "FloatStorage"), "_dtype"), "it refers to builtins.getattr"),
        (Call(Named("torch", "load"), "x"), "it refers to torch.load"),
        (Named("torch._utils", "_rebuild_tensor_v2.__class__"), "it refers to torch._utils._rebuild_tensor_v2.__class__"),
        (Call(Named("torch", "FloatStorage"), 3), "refused: it calls something that is not a function"),
        (Call(Named("torch._utils", "_rebuild_tensor_v2"), 1), "ValueError"),
        (Call(Named("torch._utils", "_rebuild_tensor_v2"), 1, 0, (1,), (1,)), "a tensor of unknown form"),
        (Call(Named("collections", "OrderedDict"), ((1, 2),)), "TypeError"),
        (tensor("FloatStorage", "0", 2, 0, (3,), (1,)), "outside the 2 numbers stored"),
        (tensor("FloatStorage", "0", 2, 1, (2,), (1,)), "outside the 2 numbers stored"),
        (tensor("FloatStorage", "0", 2, 0, (1 << 40,), (0,)), "outside the 2 numbers stored"),
        (tensor("FloatStorage", "0", 2, 0, (2,), (1 << 70,)), "outside the 2 numbers stored"),
        (tensor("FloatStorage", "0", 2, -1, (1,), (1,)), "impossible shape"),
        (tensor("FloatStorage", "0", 2, 0, (1, 1), (1,)), "impossible shape"),
        (tensor("FloatStorage", "0", 2, 0, (-1,), (1,)), "impossible shape"),
        (tensor("FloatStorage", "0", 2, 0, (1,) * 9, (1,) * 9), "impossible shape"),
        (tensor("FloatStorage", "0", 3, 0, (1,), (1,)), "has 8 bytes, but its 3 numbers take 12"),
        (tensor("FloatStorage", "0", "2", 0, (1,), (1,)), "a storage of unknown form"),
        (tensor("FloatStorage", "../0", 2, 0, (1,), (1,)), "it has no archive/data/../0"),
        (tensor("FloatStorage", "9", 2, 0, (1,), (1,)), "it has no archive/data/9"),
        (tensor("ComplexStorage", "0", 2, 0, (1,), (1,)), "it refers to torch.ComplexStorage"),
        (b"", "is damaged: data.pkl"),
        (b"\xff.", "is damaged: data.pkl"),
        (b"\x8a\x04\xff\xff\xff\x7f.", "must hold a tensor"),
        (b"cposix\nsystem\n(S'touch x'\ntR.", "it refers to posix.system"),
        (b"(X\x01\x00\x00\x00xiposix\nsystem\n.", "it has the pickle opcode INST"),
        (b"(cposix\nsystem\no.", "it refers to posix.system"),
        (b"(c" + b"torch\nFloatStorage\no.", "it has the pickle opcode OBJ"),
        (b")" + b"ctorch\nFloatStorage\n\x81.", "it has the pickle opcode NEWOBJ"),
        (b"\x82\x01.", "it has the pickle opcode EXT1"),
        (b"\x97.", "it has the pickle opcode NEXT_BUFFER"),
        (b"\x96" + bytes(7) + b"\x40.", "is damaged: data.pkl"),
        (b"]r\xff\xff\xff\x7f.", "must hold a tensor"),
        (b"}" + b"N" + b"\x85" * 1000 + b"Ns.", "a dict key is neither"),
        (b"]" * (1 << 17) + b".", "more than 65536 lists"),
        (b"\x8c\x05posix\x8c\x06system\x93.", "it refers to posix.system"),
        (b"(c__main__\nX\n}b.", "it refers to __main__.X"),
        (b"ctorch\nFloatStorage\n}\x8c\x06_dtype\x8c\x01Osb.", "refused: it has the pickle opcode BUILD"),
        (b"ctorch\nFloatStorage\nN}\x8c\x06_dtype\x8c\x01Os\x86b.", "refused: it has the pickle opcode BUILD"),
    ],
)
def test_hostile_pickles_are_refused_and_nothing_runs(value: object, message: str, copy, bundle, tmp_path: Path) -> None:
    folder = copy("colbert-ai-1")
    ran = tmp_path / "ran"
    if isinstance(value, Call):
        value.arguments = tuple(a.format(ran=ran) if isinstance(a, str) else a for a in value.arguments)
    torch_file(folder / "centroids.pt", value, n0=bytes(8))
    with pytest.raises(LocalIndexError, match=message) as caught:
        read_tensor(folder / "centroids.pt", "f", 2)
    assert "centroids.pt" in str(caught.value) and "\n" not in str(caught.value)
    refused(folder, bundle, tmp_path, message)
    assert not ran.exists() and not Path("x").exists()


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    good = tensor("FloatStorage", "0", 2, 0, (2,), (1,))
    torch_file(file, good, zipfile.ZIP_DEFLATED, n0=bytes(8))
    with pytest.raises(LocalIndexError, match="compressed or encrypted"):
        read_torch_file(file)
    torch_file(file, b"\x80\x02" + b"N0" * (1 << 20) + b"N.")
    with pytest.raises(LocalIndexError, match="1048576"):
        read_torch_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(LocalIndexError, match="it has no PREFIX/data.pkl"):
        read_torch_file(file)
    torch_file(file, good, n0=bytes(8))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(LocalIndexError, match="another byte order"):
        read_torch_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(2000):
            archive.writestr(f"archive/{number}", b"")
    with pytest.raises(LocalIndexError, match="more than 1024 members"):
        read_torch_file(file)
    content = io.BytesIO()
    torch_file(file, good, n0=struct.pack("<ff", 1, 2))
    content.write(file.read_bytes().replace(struct.pack("<ff", 1, 2), struct.pack("<ff", 1, 3)))
    file.write_bytes(content.getvalue())
    with pytest.raises(LocalIndexError, match="Bad CRC-32"):
        read_torch_file(file)
    torch_file(file, (good,) * 17, n0=bytes(8))
    with pytest.raises(LocalIndexError, match="more than 16 tensors"):
        read_torch_file(file)
    torch_file(file, (good, tensor("FloatStorage", "0", 1, 0, (1,), (1,))), n0=bytes(8))
    with pytest.raises(LocalIndexError, match="has 8 bytes, but its 1 numbers take 4"):
        read_torch_file(file)
    torch_file(file, good, n0=bytes(8))
    file.write_bytes(b"PK\x03\x04" + file.read_bytes())
    with pytest.raises(LocalIndexError, match="first member"):
        read_torch_file(file)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Two entries of the table of contents for the same place: what they claim is more than the file has."""
    file = torch_file(tmp_path / "x.pt", tensor("FloatStorage", "0", 20_000, 0, (1,), (1,)), n0=bytes(80_000))
    data = bytearray(file.read_bytes())
    contents = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    ending = data.index(b"PK\x05\x06")
    more = data[contents:ending].replace(b"data/0", b"data/1")
    data[ending:ending] = more
    struct.pack_into("<HHI", data, ending + len(more) + 8, 3, 3, ending + len(more) - data.index(b"PK\x01\x02"))
    file.write_bytes(data)
    with pytest.raises(LocalIndexError, match="exceed the size of the file|Overlapped"):
        read_torch_file(file)


@pytest.mark.parametrize("file", ["metadata.json", "doclens.0.json", "centroids.npy", "0.codes.npy", "metadata.db"])
def test_pipes_and_devices_in_an_index_are_not_read(file: str, copy, bundle, tmp_path: Path) -> None:
    """They may never end."""
    folder = copy("fast-plaid-2")
    (folder / file).unlink()
    os.mkfifo(folder / file)
    if file != "metadata.db":  # which is used where it is a file
        refused(folder, bundle, tmp_path, "not a regular file")
    (folder / file).unlink()
    (folder / file).symlink_to("/dev/zero")
    if file != "metadata.db":
        refused(folder, bundle, tmp_path, "not a regular file")


def test_torch_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    for path in (tmp_path / "x.pt", tmp_path, Path("/dev/zero")):
        with pytest.raises(LocalIndexError, match="not a regular file"):
            read_torch_file(path)


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE VIEW METADATA AS WITH RECURSIVE n(_subset_) AS (SELECT 0 UNION ALL SELECT _subset_ + 1 FROM n) SELECT * FROM n",
        "CREATE TABLE METADATA (_subset_ INTEGER, big AS (zeroblob(_subset_)))",
        "CREATE VIEW METADATA AS SELECT 0 AS _subset_, load_extension('x') AS y",
    ],
)
def test_databases_that_compute_are_refused(schema: str, copy, bundle, tmp_path: Path) -> None:
    folder = copy("fast-plaid-2")
    (folder / "metadata.db").unlink()
    with sqlite3.connect(folder / "metadata.db") as database:
        database.execute(schema)
        if "TABLE" in schema:
            database.execute("INSERT INTO METADATA (_subset_) VALUES (0)")
    database.close()
    refused(folder, bundle, tmp_path, "metadata.db (cannot be read as a SQLite database|is refused)")


def test_a_long_table_of_ids(tmp_path: Path) -> None:
    table = {number: f"name {number}" for number in range(100_000)}
    (tmp_path / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps(table))
    assert pylate_ids(tmp_path) == table


def test_rows_that_nobody_reads_on_may_end_in_another_thread(copy) -> None:
    rows = metadata_rows(copy("fast-plaid-2") / "metadata.db")
    next(rows)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(rows.close).result()
