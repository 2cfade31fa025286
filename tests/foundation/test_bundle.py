"""One named test for each way a bundle can be damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from late_interaction.bundle import Bundle, DensePart, Expansion, Manifest, SideRules, write_manifest
from late_interaction.bundle_cache import find_bundle, register_bundle
from late_interaction.errors import BundleError

MANIFEST = Manifest(
    source="test", layout="stanford", dim=8, query=SideRules(32, 1, expansion=Expansion(32, 103, False)),
    document=SideRules(180, 2, skip_ids=(5, 6)), pad_id=0, max_tokens=512, models={"fp32": "model.onnx"},
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "bundle"
    (root / "codebooks").mkdir(parents=True)
    (root / "model.onnx").write_bytes(b"model")
    (root / "tokenizer.json").write_bytes(b"{}")
    (root / "codebooks" / "x.npz").write_bytes(b"codebook")
    write_manifest(root, MANIFEST)
    return root


def edit(folder, change):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_manifest_round_trips(folder):
    bundle = Bundle.open(folder)
    assert bundle.manifest == Manifest.from_json(bundle.manifest.to_json().decode(), "x")
    assert bundle.manifest.query == MANIFEST.query
    assert set(bundle.manifest.files) == {"model.onnx", "tokenizer.json", "codebooks/x.npz"}


def test_bundles_that_read_more_or_less_of_a_document_are_comparable(folder):
    bundle = Bundle.open(folder)
    document = dataclasses.replace(MANIFEST.document, length=99)
    assert bundle.comparable(Bundle(folder, dataclasses.replace(bundle.manifest, document=document)))
    for other in (
        {"document": dataclasses.replace(document, skip_ids=(5,))}, {"query": SideRules(33)}, {"files": {}}, {"dim": 4},
    ):  # fmt: skip
        assert not bundle.comparable(Bundle(folder, dataclasses.replace(bundle.manifest, **other)))


def test_a_copy_is_the_same_bundle(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    Bundle.open(folder).copy_to(tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").sha256 == Bundle.open(folder).sha256


def test_a_changed_byte(folder):
    (folder / "model.onnx").write_bytes(b"moded")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        Bundle.open(folder)


def test_a_missing_file(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json.* is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "codebooks/../../outside"])
def test_an_unsafe_path(folder, name):
    edit(folder, lambda data: data["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleError, match="unsafe path"):
        Bundle.open(folder)


def test_files_may_be_links_as_in_a_snapshot_of_a_hub(folder, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    bundle = Bundle.open(folder)
    (tmp_path / "copy").mkdir()
    bundle.copy_to(tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").sha256 == bundle.sha256
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))
    before = {path: path.read_bytes() for path in blobs.iterdir()}
    write_manifest(folder, bundle.manifest)
    assert {path: path.read_bytes() for path in blobs.iterdir()} == before
    for verify in (False, True):
        (tmp_path / "outside").write_bytes(b"moded")
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").symlink_to(tmp_path / "outside")
        with pytest.raises(BundleError, match=r"model\.onnx has changed"):
            Bundle.open(folder, verify=verify)


def test_copying_reads_a_model_in_pieces(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read whole"))
    (tmp_path / "copy").mkdir()
    Bundle.open(folder).copy_to(tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=99), "format version 99"),
        (lambda d: d.update(surprise=1), "key surprise"),
        (lambda d: d["query"]["expansion"].update(colour=1), "key query.expansion.colour: .*known: length, token_id"),
        (lambda d: d.pop("dim"), "key dim: is missing"),
        (lambda d: d.update(dim="8"), "key dim: must be int, got str"),
        (lambda d: d.update(dim=0), "positive"),
        (lambda d: d["query"].update(length=True), "key query.length: must be int, got bool"),
        (lambda d: d["query"]["expansion"].pop("token_id"), "key query.expansion.token_id: is missing"),
        (lambda d: d["document"].update(skip_ids=["a"]), r"key document.skip_ids\[0\]: must be int"),
        (lambda d: d["files"].pop("model.onnx"), "no checksum"),
        (lambda d: d.update(models={}), "no fp32"),
    ],
)
def test_a_wrong_manifest(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\x00"])
def test_a_manifest_that_is_no_json_object(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(folder)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="does not exist"):
        Bundle.open(tmp_path / "absent")


def test_an_absent_precision_is_named(folder):
    with pytest.raises(BundleError, match="no int8 model"):
        Bundle.open(folder).model_path("int8")


def test_registered_bundles_are_found_by_checksum(folder, tmp_path):
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match="--bundle"):
        find_bundle(bundle.sha256, tmp_path)
    register_bundle(bundle, tmp_path)
    assert find_bundle(bundle.sha256, tmp_path).path == folder
    edit(folder, lambda data: data.update(source="another"))
    with pytest.raises(BundleError, match="has been replaced"):
        find_bundle(bundle.sha256, tmp_path)


DENSE = DensePart("m", 4, 64, models={"fp32": "dense/m/model.onnx"}, tokenizer="dense/m/tokenizer.json")


def test_a_bundle_without_dense_models_has_the_checksum_that_it_always_had():
    assert b"dense" not in MANIFEST.to_json()
    assert hashlib.sha256(MANIFEST.to_json()).hexdigest() == "5c147e9e8dad9ac081e68ed1b1bdb393cef59d3d45223757b571d23100cbad04"


def test_files_of_dense_models_are_checked_and_copied(folder, tmp_path):
    for name in DENSE.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    bundle = write_manifest(folder, dataclasses.replace(MANIFEST, dense={"m": DENSE, "ready": DensePart("r", 2)}))
    bundle.copy_to(tmp_path / "copy")
    copied = Bundle.open(tmp_path / "copy")
    assert (copied.sha256, copied.manifest.dense) == (bundle.sha256, bundle.manifest.dense)
    edit(folder, lambda data: data["files"].pop("dense/m/tokenizer.json"))
    with pytest.raises(BundleError, match=r"dense/m/tokenizer\.json' has no checksum"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("../m", {}, r"'\.\./m'"),
        ("M", {}, "'M'"),
        ("m", {"dim": 0}, r"dense\.m: dim must be from 1 to 65536"),
        ("m", {"dim": 1 << 20}, r"dense\.m: dim must be"),
        ("m", {"models": {"int8": "x"}}, "models has no fp32"),
        ("m", {"tokenizer": ""}, "models and tokenizer must both be there"),
        ("m", {"max_tokens": 2}, "max_tokens must be at least 3"),
        ("m", {"pad_id": -1}, r"dense\.m\.pad_id"),
    ],
)
def test_a_dense_model_that_cannot_be(folder, name, change, message):
    edit(folder, lambda data: data.update(dense={name: dataclasses.asdict(dataclasses.replace(DENSE, **change))}))
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)
