"""Vectors in NPZ and safetensors files: an array for each document, or a table of all."""

import json

import numpy as np
import pytest
from ready import DIM, unit_rows

from feeder import open_sources
from feeder.sources.opening import open_id_lists
from feeder.sources.records import ColumnMapping, SourceLimits, SourceSettings
from late_interaction.errors import CollectionError

PAGES = [unit_rows(n + 2, n) for n in range(3)]
FLAT = np.concatenate(PAGES)
LENGTHS = np.array([len(D) for D in PAGES])
BY_ROW = SourceSettings(ColumnMapping(id="@row"))


def read(path, settings=None):
    return list(open_sources([str(path)], settings)[0])


def is_pages(documents, atol=0.0):
    for document, D in zip(documents, PAGES, strict=True):
        np.testing.assert_allclose(document.vectors[0], D, atol=atol)
    return True


def write(path, arrays, metadata=None):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        numpy = pytest.importorskip("safetensors.numpy")
        numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_an_array_for_each_document(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", {f"p/{n}": D.astype(np.float16) for n, D in enumerate(PAGES)})
    documents = sorted(read(path), key=lambda document: document.id)
    assert [document.id for document in documents] == ["p/0", "p/1", "p/2"]
    assert documents[0].vectors[0].dtype == np.float16
    assert is_pages(documents, 1e-3)
    assert [document.id for document in open_id_lists([str(path)])[0]] == [document.id for document in read(path)]


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_table_has_lengths_or_three_dimensions(tmp_path, suffix):
    padded = np.zeros((3, 4, DIM), np.float32)
    for n, D in enumerate(PAGES):
        padded[n, : len(D)] = D
    years = {"year": np.array([1, 2, 3])}
    flat = read(write(tmp_path / f"flat.{suffix}", {"vectors": FLAT, "lengths": LENGTHS, **years}), BY_ROW)
    assert is_pages(flat)
    assert [(d.id, d.metadata) for d in flat] == [(f"flat.{suffix}:{n}", {"year": n}) for n in (1, 2, 3)]
    assert is_pages(read(write(tmp_path / f"cut.{suffix}", {"vectors": padded, "lengths": LENGTHS}), BY_ROW))
    whole = read(write(tmp_path / f"whole.{suffix}", {"vectors": padded}), BY_ROW)
    np.testing.assert_array_equal(whole[0].vectors[0], padded[0])
    with pytest.raises(CollectionError, match=r"no id.*--column id=@row"):
        read(tmp_path / f"flat.{suffix}")


def test_texts_and_ids_of_a_table(tmp_path):
    texts = {"ids": np.array(["a", "bb", "c"]), "text": np.array(["x", "yy", "ü"]), "title": np.array(["t", "", "u"])}
    documents = read(write(tmp_path / "a.npz", {"vectors": FLAT, "lengths": LENGTHS, **texts}))
    assert [(d.id, d.title, d.text) for d in documents] == [("a", "t", "x"), ("bb", "", "yy"), ("c", "u", "ü")]
    ids = {"ids": json.dumps(["a", "b", "c"])}
    assert [d.id for d in read(write(tmp_path / "a.safetensors", {"vectors": FLAT, "lengths": LENGTHS}, ids))] == list("abc")


def test_bfloat16_of_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    halves = (PAGES[0].view(np.uint32) >> 16).astype("<u2")
    tensor = {"dtype": "BF16", "shape": list(halves.shape), "data_offsets": [0, halves.nbytes]}
    header = json.dumps({"one": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    np.testing.assert_allclose(read(tmp_path / "a.safetensors")[0].vectors[0], PAGES[0], atol=4e-3)


WRONG = {
    "flat without lengths": ({"vectors": FLAT}, r"\[n, t, d\].*\[9, 16\]"),
    "too few": ({"vectors": FLAT, "lengths": LENGTHS - 1}, "do not fit"),
    "more than there are, together too large for an integer": (
        {"vectors": FLAT, "lengths": np.array([2**63 - 1, 2**63 - 1, len(FLAT) + 2])},
        "does not fit",
    ),
    "more than an integer holds": (
        {"vectors": FLAT, "lengths": np.array([2**64 - 1, len(FLAT) + 1, 0], np.uint64)},
        "does not fit|unknown type U64",
    ),
    "negative": ({"vectors": FLAT, "lengths": -LENGTHS}, "whole numbers"),
    "fractions": ({"vectors": FLAT, "lengths": LENGTHS * 1.0}, "whole numbers"),
    "another column": ({"vectors": FLAT, "lengths": LENGTHS, "year": np.array([1])}, "'year' must have shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_does_not_fit_is_told(tmp_path, name):
    arrays, message = WRONG[name]
    for suffix in ("npz", "safetensors"):
        with pytest.raises(CollectionError, match=message):
            read(write(tmp_path / f"a.{suffix}", arrays), BY_ROW)


def test_damaged_and_foreign_files_are_errors_of_one_line(tmp_path):
    np.savez_compressed(tmp_path / "packed.npz", a=FLAT)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    whole = write(tmp_path / "whole.npz", {"a": FLAT}).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-40])
    tensors = write(tmp_path / "whole.safetensors", {"a": FLAT}).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(tensors[:-40])
    (tmp_path / "short.safetensors").write_bytes(b"\xff" * 8)
    for name in ("packed.npz", "objects.npz", "cut.npz", "cut.safetensors", "short.safetensors"):
        with pytest.raises(CollectionError, match=name):
            read(tmp_path / name)
    with pytest.raises(CollectionError, match="larger than 0 MiB"):
        read(tmp_path / "whole.npz", SourceSettings(limits=SourceLimits(line_mb=0)))


def test_a_folder_leaves_weights_of_models_alone(tmp_path):
    write(tmp_path / "model.safetensors", {"weight": FLAT})
    (tmp_path / "page.txt").write_text("words")
    assert [document.id for document in read(tmp_path)] == ["page.txt"]
