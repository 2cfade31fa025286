"""The backup format: what is written comes back as it was, and damage is found before anything is restored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dense_bundles import with_dense
from plaid_tools import DENSE, dense_of

from feeder.copying import CopyOptions, backup_index, restore_index
from feeder.copying.parts import read_part
from feeder.digests import moved_digest
from late_interaction.documents import Passage
from late_interaction.errors import BundleError, ColbertVespaError, CollectionError, LocalIndexError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, open_index
from late_interaction.plaid.shards import ShardedIndex, Sharding

SCHEMA = MetadataSchema.from_json({"year": "long"})


def make_index(path, bundle, **form):
    return fill(LocalIndex.create(path, bundle=bundle, schema=SCHEMA, **form), bundle)


def fill(index, bundle):
    random = np.random.default_rng(1)
    digest = moved_digest("d" * 32, bundle.sha256) + "-1"
    with index.writer() as writer:
        for number in range(12):
            vectors = random.standard_normal((5, 16)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            new = Passage(f"d{number}#0", f"d{number}", "title", "text", {"year": number}, digest)
            writer.put(new, vectors, dense=dense_of(index, number))
        writer.commit()
    return index.path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, codebook_bundle):
    """A backup of three parts."""
    folder = tmp_path_factory.mktemp("backup")
    make_index(folder / "index", with_dense(codebook_bundle, folder / "bundle", {}, ready=DENSE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feeder.copying.local.BATCH_DOCUMENTS", 5)
        backup_index(str(folder / "index"), folder / "backup")
    return folder / "backup"


@pytest.fixture
def backup(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "backup")
    return tmp_path / "backup"


def stored(path):
    index = LocalIndex.open(path)
    dense = index.dense_vectors([p.id for p in index.iter_passages()])
    return {p.id: (p, p.digest, index.vectors(p.id), dense[p.id]) for p in index.iter_passages()}


@pytest.mark.parametrize("dense", [{}, DENSE], ids=["no dense", "dense"])
@pytest.mark.parametrize("form", [{}, {"bits": 4, "refine": True}, {"codec": "binary"}, {"codec": "float32"}])
def test_a_local_index_comes_back(codebook_bundle, tmp_path, form, dense):
    bundle = with_dense(codebook_bundle, tmp_path / "bundle", {}, ready=dense) if dense else codebook_bundle
    make_index(tmp_path / "index", bundle, **form)
    made = backup_index(str(tmp_path / "index"), tmp_path / "backup")
    restored = restore_index(tmp_path / "backup", str(tmp_path / "back"))
    assert (made.documents, restored.documents, restored.notes) == (12, 12, ())
    before, after = stored(tmp_path / "index"), stored(tmp_path / "back")
    assert before.keys() == after.keys()
    for id_, (passage, digest, vectors, dense_vectors) in before.items():
        assert after[id_][:2] == (passage, digest)
        assert np.array_equal(after[id_][2], vectors)
        assert list(after[id_][3]) == list(dense_vectors) == list(dense)
        for name, vector in dense_vectors.items():
            np.testing.assert_allclose(after[id_][3][name], vector, rtol=1e-6)
    assert json.loads((tmp_path / "backup/manifest.json").read_bytes())["version"] == (2 if dense else 1)
    one, two = LocalIndex.open(tmp_path / "index"), LocalIndex.open(tmp_path / "back")
    assert (one.codec, one.bits, one.refine) == (two.codec, two.bits, two.refine)


@pytest.mark.parametrize("form", [{}, {"bits": 2}, {"refine": True}, {"codec": "binary"}, {"codec": "float32"}])
def test_an_index_that_trained_its_codebook_comes_back_bit_by_bit(tiny_bundle, tmp_path, form):
    """Formerly another codebook was trained, and every score was another one."""
    one = LocalIndex.open(make_index(tmp_path / "index", tiny_bundle, **form))
    with one.writer() as writer:
        writer.delete_document("d3")
        writer.commit()
    backup_index(str(tmp_path / "index"), tmp_path / "backup")
    assert restore_index(tmp_path / "backup", str(tmp_path / "back")).notes == ()
    two = LocalIndex.open(tmp_path / "back")
    two.verify()
    before, after = stored(tmp_path / "index"), stored(tmp_path / "back")
    assert before.keys() == after.keys()
    for id_, (passage, digest, vectors, _) in before.items():
        assert after[id_][:2] == (passage, digest)
        assert np.array_equal(after[id_][2], vectors)
    Q = before["d1#0"][2]
    assert [(h.passage.id, h.score) for h in two.search(Q, 11).hits] == [
        (h.passage.id, h.score) for h in one.search(Q, 11).hits
    ]
    if form in ({}, {"bits": 2}):
        assert one.codebook.sha256 == two.codebook.sha256
        assert two.snapshot.version.trained_on == 11 * 5
    with two.writer() as writer:  # it goes on as any other
        writer.put(Passage("new#0", "new", "", "", {"year": 1}), Q)
        writer.update_metadata("d1", {"year": 7})
        writer.commit(compact=True)
    assert np.array_equal(two.vectors("d2#0"), before["d2#0"][2])


def test_shards_that_trained_a_codebook_come_back_bit_by_bit(tiny_bundle, tmp_path):
    """Formerly each trained its own, and a copy encoded all vectors again."""
    with ShardedIndex.create(tmp_path / "i", bundle=tiny_bundle, schema=SCHEMA, sharding=Sharding(3)) as one:
        fill(one, tiny_bundle)
        assert len({reader.codebook.sha256 for reader in one.readers().values()}) == 1
        backup_index(str(one.path), tmp_path / "backup")
        assert restore_index(tmp_path / "backup", str(tmp_path / "back")).notes == ()
        with open_index(tmp_path / "back") as two:
            for number in range(12):
                assert np.array_equal(two.vectors(f"d{number}#0"), one.vectors(f"d{number}#0"))


def test_a_restore_into_shards_keeps_vectors(tiny_bundle, tmp_path):
    make_index(tmp_path / "index", tiny_bundle)
    backup_index(str(tmp_path / "index"), tmp_path / "backup")
    restore_index(tmp_path / "backup", str(tmp_path / "back"), CopyOptions(sharding=Sharding(2)))
    with ShardedIndex.open(tmp_path / "back") as index:
        for id_, (_, _, vectors, _) in stored(tmp_path / "index").items():
            assert np.array_equal(index.vectors(id_), vectors)


def test_codes_of_a_killed_restore_are_not_committed_without_their_codebook(tiny_bundle, tmp_path, monkeypatch):
    make_index(tmp_path / "index", tiny_bundle)
    backup_index(str(tmp_path / "index"), tmp_path / "backup")
    with monkeypatch.context() as patch:
        patch.setattr("feeder.targets.local.LocalTarget.finish", lambda target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore_index(tmp_path / "backup", str(tmp_path / "back"))
    with LocalIndex.open(tmp_path / "back").writer(resume=True) as writer:
        with pytest.raises(LocalIndexError, match="--resume"):
            writer.commit()
    restore_index(tmp_path / "backup", str(tmp_path / "back"), CopyOptions(resume=True))
    before, after = stored(tmp_path / "index"), stored(tmp_path / "back")
    assert before.keys() == after.keys() and all(np.array_equal(before[id_][2], after[id_][2]) for id_ in before)


def test_a_backup_keeps_codes_and_residuals_as_they_are(whole, tmp_path):
    """Some 13 bytes a row instead of 64."""
    manifest = json.loads((whole / "manifest.json").read_text())
    unpacked = sum(part["unpacked"] for part in manifest["parts"])
    assert (manifest["documents"], manifest["passages"], manifest["token_vectors"], len(manifest["parts"])) == (12, 12, 60, 3)
    assert unpacked < 12 * (200 + 4 * sum(DENSE.values())) + 60 * 16
    assert sorted(path.name for path in whole.iterdir()) == ["bundle", "codebook.npz", "manifest.json", "parts"]


def flipped(path, place=-20):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped byte of a part": (lambda b: flipped(b / "parts/000001.gz"), "000001.gz is damaged"),
    "a part cut off": (lambda b: (b / "parts/000001.gz").write_bytes(b"x"), "length differs"),
    "a part that is missing": (lambda b: (b / "parts/000002.gz").unlink(), "000002.gz cannot be read"),
    "two parts swapped": (lambda b: (b / "parts/000000.gz").replace(b / "parts/000001.gz"), "000000.gz cannot be read"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "not a complete backup: it has no manifest.json"),
    "a manifest cut off": (
        lambda b: (b / "manifest.json").write_bytes((b / "manifest.json").read_bytes()[:-9]),
        "cannot be read",
    ),
    "a codebook changed": (lambda b: flipped(b / "codebook.npz"), "codebook.npz is missing or damaged"),
    "a codebook missing": (lambda b: (b / "codebook.npz").unlink(), "codebook.npz is missing or damaged"),
    "a bundle changed": (lambda b: flipped(b / "bundle/tokenizer.json"), "has changed"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_found_before_anything_is_written(backup, tmp_path, damage):
    do, said = DAMAGE[damage]
    do(backup)
    with pytest.raises((CollectionError, BundleError), match=said):
        restore_index(backup, str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_every_flipped_byte_of_the_manifest_is_found(backup, tmp_path):
    path = backup / "manifest.json"
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data)
        flipped(path, place)
        if json_of(path) == json.loads(data):
            continue  # a blank that became another
        with pytest.raises(ColbertVespaError):
            restore_index(backup, str(tmp_path / "back"))
        assert not (tmp_path / "back").exists()


def json_of(path):
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def test_another_version_is_refused(backup, tmp_path):
    path = backup / "manifest.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(CollectionError, match="version 3 .* reads 2"):
        restore_index(backup, str(tmp_path / "back"))


def test_a_part_that_unpacks_to_more_than_it_says_is_not_unpacked(whole):
    data = (whole / "parts/000000.gz").read_bytes()
    with pytest.raises(CollectionError, match="length"):
        read_part(data, 100, "part", SCHEMA, 16, None)


def test_an_unfinished_backup_is_none(codebook_bundle, tmp_path, monkeypatch):
    index = make_index(tmp_path / "index", codebook_bundle)
    monkeypatch.setattr("feeder.copying.local.BATCH_DOCUMENTS", 5)
    with monkeypatch.context() as patch:
        patch.setattr("feeder.copying.backup.BackupTarget.finish", lambda target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            backup_index(str(index), tmp_path / "backup")
    with pytest.raises(CollectionError, match="is not a complete backup"):
        restore_index(tmp_path / "backup", str(tmp_path / "back"))
    flipped(tmp_path / "backup/parts/000001.gz")
    with pytest.raises(CollectionError, match="has changed since it was written"):
        backup_index(str(index), tmp_path / "backup", CopyOptions(resume=True))
    assert backup_index(str(index), tmp_path / "backup").documents == 12
    with pytest.raises(UsageError, match="already contains a backup"):
        backup_index(str(index), tmp_path / "backup")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    with pytest.raises(UsageError, match="not an empty folder"):
        backup_index(str(index), tmp_path / "mine")


def test_an_empty_index_has_an_empty_backup(codebook_bundle, tmp_path):
    LocalIndex.create(tmp_path / "index", bundle=codebook_bundle, schema=SCHEMA)
    assert backup_index(str(tmp_path / "index"), tmp_path / "backup").documents == 0
    restore_index(tmp_path / "backup", str(tmp_path / "back"))
    assert LocalIndex.open(tmp_path / "back").schema == SCHEMA
