"""One flipped byte anywhere in an index: refused, without effect, or in the bulk that only `verify` reads.

In what waits for a commit it is refused, or without effect."""

import struct
import zlib

import numpy as np
import pytest
from plaid_tools import DENSE, dense_of, fake_bundle, passage, token_vectors

import late_interaction.plaid.store.storage as storage_module
from late_interaction.errors import ColbertVespaError, LocalIndexError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.writing import pending

SCHEMA = MetadataSchema({"n": FieldType.LONG, "word": FieldType.STRING, "tags": FieldType.STRINGS, "b": FieldType.BOOL})
VECTORS = token_vectors(np.random.default_rng(0), 60)
WHERE = [{"word": "w1"}, {"tags": "t1"}, {"n": {"$gt": 30}}, {"b": True}, {"tags": {"$exists": True}}]
FILTERS = [parse_filter(where, SCHEMA) for where in WHERE]
SETTINGS = (SearchSettings(probes=1, rerank=5), SearchSettings(probes=32, rerank=5), None)
BULK = ("codes", "payload", "refine", "ivf_passages", "ids", "documents", "titles", "texts", "digests", "words")
BULK += ("dense-dense", "dense-other")
FLIPS = 3  # of every file, besides two in its header and its last byte


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("flipped")
    bundle = fake_bundle(root / "b", dense=DENSE)
    index = LocalIndex.create(root / "i", bundle=bundle, schema=SCHEMA, bits=2, refine=True)
    with index.writer() as writer:
        for i in range(50):
            new = passage(f"d{i}", n=i, word=f"w{i % 5}", tags=[f"t{i % 3}", "x"], b=i % 2 == 0)
            writer.put(new, VECTORS[i], dense=dense_of(index, i))
        writer.commit("kept")
        writer.delete_document("d2")
        writer.put(passage("d50", n=1, word="w0", tags=["y"]), VECTORS[50], dense=dense_of(index, 50))
        writer.commit()
    return index


def answers(index):
    """Everything that can be asked of it."""
    index = LocalIndex.open(index.path)
    Q = VECTORS[3]
    return [
        *(index.search(Q, 5, settings=settings).hits for settings in SETTINGS),
        *([hit.passage.id for hit in index.search(Q, 5, where=where).hits] for where in FILTERS),
        list(index.iter_passages()),
        index.documents,
        [index.passage(f"d{i}#0") for i in range(0, 50, 7)],
        [hit.passage.id for hit in index.search(Q, 5, ids=["d4", "d9"]).hits],
        index.vectors("d11#0").sum(),
        [dict(index.dense_search(name, np.ones(dim), 7).scores) for name, dim in DENSE.items()],
        [vector.tolist() for vector in index.dense_vectors(["d11#0"])["d11#0"].values()],
        [version.number for version in index.versions()],
        index.bundle.manifest.dim,
    ]


def flipped(index):
    """Name of each file and what it holds with one bit flipped; every file is put back."""
    random = np.random.default_rng(0)
    names = [named.name for version in index.versions() for named in version.files()]
    names += [path.relative_to(index.path).as_posix() for path in (index.path / "versions").iterdir()]
    for name in dict.fromkeys(["CURRENT", "bundle/manifest.json", *names]):
        path = index.path / name
        whole = path.read_bytes()
        for place in {60 % len(whole), 100 % len(whole), len(whole) - 1, *random.integers(0, len(whole), FLIPS).tolist()}:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            yield name, place
        path.write_bytes(whole)


def is_bulk(name, place):
    return place >= storage_module.HEADER_BYTES and name.rsplit("/", 1)[-1].split(".npy")[0].split(".")[-1] in BULK


@pytest.mark.parametrize("small", [True, False], ids=["small files", "large files"])
def test_a_flipped_byte_is_refused_or_harmless_or_in_the_bulk(index, monkeypatch, small):
    if not small:
        monkeypatch.setattr(storage_module, "IN_MEMORY_BYTES", storage_module.HEADER_BYTES)  # empty arrays cannot be mapped
    good = answers(index)
    refused = 0
    for name, place in flipped(index):
        try:
            found = answers(index)
        except ColbertVespaError as error:
            assert isinstance(error, LocalIndexError) or name.startswith("bundle/")
            refused += 1
        else:
            assert found == good or (not small and is_bulk(name, place)), (name, place)
    assert refused > 200
    assert answers(index) == good


def test_opening_with_verify_finds_every_flipped_byte(index, monkeypatch):
    monkeypatch.setattr(storage_module, "IN_MEMORY_BYTES", storage_module.HEADER_BYTES)
    for name, place in flipped(index):
        with pytest.raises(LocalIndexError):
            raise AssertionError((name, place, LocalIndex.open(index.path, verify=True)))
    LocalIndex.open(index.path, verify=True)


@pytest.fixture(params=[{}, {"dense": 3}], ids=["token vectors", "dense too"])
def waiting(request, tmp_path):
    """An index with a committed passage and a log: three flushes, of puts and a deletion."""
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b", dense=request.param), schema=SCHEMA)
    with index.writer() as writer:
        writer.put(passage("old"), VECTORS[0][:1], dense=dense_of(index, 0))
        writer.commit()
        for number in (1, 2):
            writer.put(passage(f"d{number}", n=number), VECTORS[number][:2], dense=dense_of(index, number))
            writer.flush()
        writer.delete_document("old")
        writer.flush()
    return index


def resumed(index):
    with index.writer(resume=True) as writer:
        return dict(writer.pending), writer.has("old#0")


def test_a_flipped_byte_in_a_log_that_waits_is_refused_or_without_effect(waiting):
    path = waiting.path / "pending/log"
    whole, good = path.read_bytes(), resumed(waiting)
    waiting.verify()
    assert good == ({"d1#0": 2, "d2#0": 2}, False)
    harmless = []
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert resumed(waiting) == good
            harmless.append(place)
        except LocalIndexError as error:
            assert "log is damaged" in str(error) and "index discard" in str(error)
            assert path.read_bytes() == changed  # left to whoever can mend it
            if place % 16 == 0:
                with pytest.raises(LocalIndexError, match="log is damaged"):
                    waiting.verify()
        path.write_bytes(whole)
    assert harmless == list(range(20, 44))  # the two notes of its durable bytes: one is enough


def test_the_older_note_of_durable_bytes_guards_what_it_counts(waiting):
    path = waiting.path / "pending/log"
    changed = bytearray(path.read_bytes())
    first, second = struct.unpack_from("<q", changed, 20)[0], struct.unpack_from("<q", changed, 32)[0]
    changed[20 if first > second else 32] ^= 1
    changed[100] ^= 1  # in the first record
    path.write_bytes(changed)
    with pytest.raises(LocalIndexError, match="log is damaged at byte 44"):
        resumed(waiting)


def test_a_record_of_another_form_with_the_right_checksum_is_refused(waiting):
    path = waiting.path / "pending/log"
    whole, good = path.read_bytes(), resumed(waiting)
    header, start = pending._HEADER, pending.FIRST + pending._HEADER.size
    mark, kind, rows, size, checksum = header.unpack_from(whole, pending.FIRST)
    width = rows * waiting.dim + waiting.snapshot.version.dense_width
    body, vectors = whole[start : start + size], whole[start + size :][: 4 * width]
    for text in (body, b"5", b"[]", b"[1]", b'["d1#0"]', b'["d1#0","d1","","",5,""]', b"[" * size, b"not JSON"):
        content = text.ljust(size) + vectors
        crc = zlib.crc32(content, zlib.crc32(struct.pack("<IQI", kind, rows, size)))
        path.write_bytes(
            whole[: pending.FIRST] + header.pack(mark, kind, rows, size, crc) + content + whole[start + len(content) :]
        )
        if text == body:
            assert crc == checksum and resumed(waiting) == good
        else:
            with pytest.raises(LocalIndexError, match="log is damaged at byte 44"):
                resumed(waiting)


def test_a_log_that_was_truncated_zeroed_or_replaced_is_refused(waiting):
    path = waiting.path / "pending/log"
    whole = path.read_bytes()
    for size in range(len(whole)):
        for changed in (whole[:size], whole[:size] + bytes(len(whole) - size), whole[:20] + bytes(24) + whole[44:]):
            path.write_bytes(changed)
            with pytest.raises(LocalIndexError, match="log is damaged at byte"):
                raise AssertionError((size, resumed(waiting)))


def test_a_damaged_log_can_be_discarded_and_until_then_nothing_else_is_done(waiting):
    path = waiting.path / "pending/log"
    path.write_bytes(b"something else")
    with waiting.writer() as writer:
        with pytest.raises(LocalIndexError, match="index discard"):
            writer.put(passage("new"), VECTORS[3], dense=dense_of(waiting, 3))
        writer.discard()
        writer.put(passage("new"), VECTORS[3], dense=dense_of(waiting, 3))
        assert writer.commit().passages == 2
