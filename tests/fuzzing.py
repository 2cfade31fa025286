"""Reads files that were changed at random, in a process with little memory to spare; test_fuzz.py starts it.

python tests/fuzzing.py FOLDER KIND COUNT      FOLDER: to write in. Ends with 0 where every file gave what is in it or an
                                               error that names it; else the file is left in FOLDER and stderr says what it did
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import random
import resource
import signal
import sqlite3
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from exporter.weights import tensor_names
from feeder.copying.journal import CopyJournal, Stretch
from feeder.copying.manifest import BackupManifest, _checksum
from feeder.copying.parts import pack_part, read_part
from feeder.copying.source import stored_document
from feeder.feeding.journal import Journal
from feeder.sources.opening import open_sources
from feeder.sources.records import ColumnMapping, SourceSettings
from late_interaction.bundle import Bundle, FileEntry, Manifest, SideRules
from late_interaction.codebook import Codebook
from late_interaction.codebook_training import train_codebook
from late_interaction.documents import Passage
from late_interaction.errors import ColbertVespaError
from late_interaction.lookup import Groups
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.imports.colbert_ai import open_colbert_ai
from late_interaction.plaid.imports.databases import metadata_rows, stored_pairs
from late_interaction.plaid.imports.fast_plaid import _array, open_fast_plaid
from late_interaction.plaid.imports.json_lists import iterate_texts
from late_interaction.plaid.imports.pylate_ids import pylate_ids
from late_interaction.plaid.imports.torch_files import read_torch_file
from late_interaction.plaid.shards.intent import Intent, read_intent, write_intent
from late_interaction.plaid.shards.layout import Sharding, read_sharding, write_sharding
from late_interaction.plaid.store.storage import Strings, StringsWriter, open_array, write_array
from late_interaction.plaid.store.versions import SegmentEntry, Version
from late_interaction.plaid.writing.pending import PUT, PendingLog
from late_interaction.structured import sealed
from late_interaction.thresholds import Thresholds, plain_thresholds

MEMORY = 192 << 20  # bytes past what the process has before the first file
SECONDS = 20  # for one file
GOLDEN = Path(__file__).parent / "golden/indexes"
DIM = 4
SCHEMA = MetadataSchema.from_json({"year": "long"})
ROWS = np.eye(DIM, dtype=np.float32)
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    1 << 31,
    1 << 63,
    1 << 200,
    1e400,
    float("nan"),
    "",
    "x" * 300,
    "../../x",
    "/dev/zero",
    [],
    {},
]


@dataclasses.dataclass
class Kind:
    """whole: the bytes to change. file: from those bytes to the file's. read: what is in a file. same: whether what was read is
    what another reader reads; it may raise whatever it wants where the file is of no use to it."""

    name: str
    whole: list[bytes]
    read: Callable[[Path], object]
    file: Callable[[bytes], bytes] = lambda data: data
    same: Callable[[Path, object], bool] | None = None


# changes


def changed(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(9):
            case 0 if place < len(found):
                found[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(found):
                found[place] = chance.randrange(256)
            case 2:
                del found[place:]
            case 3:
                del found[place : place + chance.choice([1, 2, 4, 8, 100])]
            case 4:
                found[place:place] = chance.randbytes(chance.choice([1, 2, 4, 8, 100]))
            case 5:
                start = chance.randrange(len(found) + 1)
                found[place:place] = found[start : start + chance.choice([1, 4, 30, 1000])]
            case 6:
                size = chance.choice([1, 2, 4, 8])
                number = chance.choice(NUMBERS) & ((1 << 8 * size) - 1)
                found[place : place + size] = number.to_bytes(size, chance.choice(["little", "little", "big"]))
            case 7:
                digits = [index for index, byte in enumerate(found) if 48 <= byte < 58]
                if digits:
                    at = chance.choice(digits)
                    found[at : at + 1] = str(chance.choice([-1, 0, *NUMBERS])).encode()
            case _:
                if place < len(found):
                    found[place:place] = bytes([found[place]]) * chance.choice([2, 1000, 20_000])
    return bytes(found)


def changed_json(data: bytes, chance: random.Random) -> bytes:
    """One value somewhere in it, or one key; as bytes in one case of four."""
    if chance.randrange(4) == 0:
        return changed(data, chance)
    top = json.loads(data)
    places: list[tuple[object, object]] = []
    waiting = [top]
    while waiting:
        found = waiting.pop()
        keys = list(found) if isinstance(found, dict) else range(len(found))
        places += [(found, key) for key in keys]
        waiting += [found[key] for key in keys if isinstance(found[key], dict | list)]
    holder, key = chance.choice(places)
    if isinstance(holder, dict) and chance.randrange(3) == 0:
        value = holder.pop(key)
        if chance.randrange(2):
            holder[chance.choice(["x", "../x", ""])] = value
    else:
        holder[key] = chance.choice([*VALUES, chance.choice(places)[0] if isinstance(holder, list) else 7])
    try:
        return json.dumps(top).encode()
    except (ValueError, RecursionError):
        return b"[" * 100_000


# kinds


def zipped(data: bytes, whole: bytes) -> bytes:
    """A torch file with another pickle, and the right checksums."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            after.writestr(name, data if name.endswith("data.pkl") else before.read(name))
    return target.getvalue()


def saved(write: Callable[[Path], object], folder: Path, name: str) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def database(folder: Path) -> bytes:
    def write(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE METADATA (_subset_ INTEGER PRIMARY KEY, word TEXT)")
        connection.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
        connection.executemany("INSERT INTO METADATA VALUES (?, ?)", [(n, f"word {n}" * 5) for n in range(60)])
        connection.executemany("INSERT INTO unnamed VALUES (?, ?)", [(str(n), pickle.dumps(f"d{n}")) for n in range(60)])
        connection.commit()
        connection.close()

    return saved(write, folder, "x.sqlite")


def equal(ours: object, theirs: object) -> bool:
    if isinstance(ours, np.ndarray):
        other = theirs.float() if str(getattr(theirs, "dtype", "")) in ("torch.bfloat16", "torch.float16") else theirs
        return np.array_equal(ours, np.asarray(other), equal_nan=ours.dtype.kind == "f")
    if isinstance(ours, tuple | list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(equal(ours[key], theirs[key]) for key in ours)
    return ours == theirs or (ours != ours and theirs != theirs)


def as_torch(path: Path, ours: object) -> bool:
    import torch

    return equal(ours, torch.load(path, weights_only=True, map_location="cpu"))


def in_the_file(path: Path, ours: object) -> bool:
    """torch itself gives what happens to be in memory for some damaged archives."""
    parts = ours if isinstance(ours, tuple | list) else [ours]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    data = path.read_bytes()
    with np.errstate(all="ignore"):
        halves = [array.astype(np.float16) if array.dtype == np.float32 else array for array in arrays]
    return all(a.tobytes() in data or b.tobytes() in data for a, b in zip(arrays, halves, strict=True) if a.flags.c_contiguous)


def as_numpy(path: Path, ours: object) -> bool:
    return equal(ours, np.load(path, allow_pickle=False))


def peer_kind(name: str, opener: Callable[[Path], object]) -> Callable[[Path], Kind]:
    """All files of an index; the first byte says which one is changed."""
    source = GOLDEN / name
    files = sorted(path.name for path in source.iterdir() if path.suffix in (".json", ".pt", ".npy"))

    def kind(folder: Path) -> Kind:
        def read(path: Path) -> object:
            data = path.read_bytes()
            own = folder / "peer"
            own.mkdir(exist_ok=True)
            for number, file in enumerate(files):
                (own / file).write_bytes(data[1:] if data and data[0] % len(files) == number else (source / file).read_bytes())
            peer = opener(own)
            try:
                return [rows for codes, residuals in peer.encoded() for rows in peer.codebook.decode(codes, residuals)]
            finally:
                for file in files:
                    (own / file).unlink()

        return Kind(name, [bytes([n]) + (source / file).read_bytes() for n, file in enumerate(files)], read)

    return kind


def npz_kind(folder: Path) -> Kind:
    book = train_codebook(np.tile(ROWS, (20, 1)), bits=1)
    return Kind("codebook", [saved(book.save, folder, "x.npz")], lambda path: Codebook.load(path).decode(*book.encode(ROWS)))


def npz_header_kind(folder: Path) -> Kind:
    """An array of it with other bytes, and the right checksums."""
    book = train_codebook(np.tile(ROWS, (20, 1)), bits=1)
    whole = saved(book.save, folder, "x.npz")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def file(data: bytes) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, data if name == "cells.npy" else content)
        return target.getvalue()

    return Kind("npz", [members["cells.npy"]], lambda path: Codebook.load(path).dim, file)


def groups_kind(member: str) -> Callable[[Path], Kind]:
    """A codebook in groups: one array of it with other bytes, and the right checksums. What can be read can be looked up in."""

    def kind(folder: Path) -> Kind:
        plain = train_codebook(np.tile(np.concatenate([ROWS, -ROWS]), (20, 1)), bits=1)
        starts = np.append(np.arange(0, plain.size, 2), plain.size)
        owners = np.arange(plain.size, dtype=np.int32)
        book = dataclasses.replace(plain, owners=owners, groups=Groups(plain.cells[::2].copy(), starts))
        with zipfile.ZipFile(io.BytesIO(saved(book.save, folder, "x.npz"))) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}

        def file(data: bytes) -> bytes:
            target = io.BytesIO()
            with zipfile.ZipFile(target, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, data if name == member else content)
            return target.getvalue()

        return Kind(f"codebook-{member}", [members[member]], lambda path: Codebook.load(path).lookup.look(ROWS, 3).lists, file)

    return kind


def array_kind(folder: Path) -> Kind:
    """Of our own index, as it would be with the right checksum."""
    whole = [saved(lambda path: write_array(path, array), folder, "x.npy") for array in (np.arange(40, dtype="<i4"),)]

    def read(path: Path) -> object:
        entry = FileEntry(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        return open_array(path.parent, path.name, entry, "<i4")

    return Kind("array", whole, read, same=as_numpy)


def strings_kind(folder: Path) -> Kind:
    writer = StringsWriter(folder, "texts")
    writer.append(["a", "text", "Überraschung"])
    files = writer.close()
    offsets = (folder / "texts.offsets.npy").read_bytes()

    def read(path: Path) -> object:
        (folder / "texts.offsets.npy").write_bytes(data := path.read_bytes())
        entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
        return list(Strings(folder, "texts", files | {"texts.offsets.npy": entry}))

    return Kind("texts", [offsets], read)


def bundle_kind(folder: Path) -> Kind:
    own = folder / "bundle"
    own.mkdir()
    side = SideRules(length=32, skip_ids=(1, 2))
    files = {}
    for name in ("model.onnx", "tokenizer.json"):
        (own / name).write_bytes(b"{}")
        files[name] = FileEntry(hashlib.sha256(b"{}").hexdigest(), 2)
    manifest = Manifest("test", "test", DIM, side, side, 0, 64, models={"fp32": "model.onnx"}, files=files)

    def read(path: Path) -> object:
        (own / "manifest.json").write_bytes(path.read_bytes())
        return Bundle.open(own).sha256

    return Kind("bundle", [manifest.to_json()], read)


def version_kind(_: Path) -> Kind:
    entry = FileEntry("0" * 64, 10)
    segment = SegmentEntry("1", 3, 9, {"codes.npy": entry}, fit=0.5)
    whole = Version(1, 4, DIM, SCHEMA, "0" * 64, segments=(segment,)).to_json()

    def read(path: Path) -> object:
        return Version.from_json(path.read_bytes(), str(path))

    def signed(data: bytes) -> bytes:
        first = data.find(b'"format_version"')
        text = b"{\n " + data[first:]
        return b'{\n "sha256": "' + hashlib.sha256(text).hexdigest().encode() + b'",\n' + text[2:]

    return Kind("version", [whole], read, signed)


def signed_json(data: bytes, of: Callable[[dict], str] = lambda data: sealed(data)["sha256"]) -> bytes:
    try:
        found = json.loads(data)
        found.pop("sha256", None)
        return json.dumps(found | {"sha256": of(found)}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return data


def backup_kind(folder: Path) -> Kind:
    source = {
        "format": "colbert-vespa backup", "version": 1, "source": "index", "bundle_sha256": "0" * 64,
        "metadata": {"year": "long"},
        "kept": {"key": "a", "shown": "b", "exact": True}, "storage": {"codec": "residual", "bits": 4, "refine": False},
        "codebook": {"name": "codebook.npz", "bytes": 7, "sha256": "0" * 64}, "documents": 1, "passages": 1, "token_vectors": 2,
        "parts": [{"file": {"name": "000000.gz", "bytes": 9, "sha256": "0" * 64}, "unpacked": 9, "documents": 1, "passages": 1,
                   "token_vectors": 2}],
    }  # fmt: skip
    own = folder / "backup"
    own.mkdir()

    def read(path: Path) -> object:
        (own / "manifest.json").write_bytes(path.read_bytes())
        return BackupManifest.read(own).parts

    return Kind("backup", [json.dumps(source).encode()], read, lambda data: signed_json(data, _checksum))


def part_kind(_: Path) -> Kind:
    """Of a backup, packed again after the change."""
    passage = Passage("d#0", "d", "title", "text", {"year": 1}, "x")
    data, size = pack_part([stored_document([passage], [ROWS], [], counted=False)], DIM)

    def read(path: Path) -> object:
        return [document.vectors for document in read_part(path.read_bytes(), sizes[-1], str(path), SCHEMA, DIM, None)]

    sizes = [size]

    def file(plain: bytes) -> bytes:
        sizes.append(len(plain))
        packer = zlib.compressobj(1, wbits=31)
        return packer.compress(plain) + packer.flush()

    return Kind("part", [zlib.decompress(data, wbits=31)], read, file)


def journal_kind(folder: Path) -> Kind:
    journal = Journal(folder / "j", "feed", resume=False)
    journal.acknowledge([(f"d{n}", f"{n:032x}") for n in range(9)])
    journal.close(remove=False)
    whole = (folder / "j").read_bytes()
    return Kind("journal", [whole], lambda path: Journal(path, "feed", resume=True, read_only=True).brought)


def progress_kind(folder: Path) -> Kind:
    progress = CopyJournal(folder / "p", "copy", resume=False)
    progress.begin()
    progress.note(Stretch("1", 1, 2, 3, 4))
    progress.close(remove=False)
    return Kind("progress", [(folder / "p").read_bytes()], lambda path: CopyJournal(path, "copy", resume=True).last)


def pending_kind(folder: Path) -> Kind:
    log = PendingLog(folder / "own", DIM, 0)
    (folder / "own").mkdir()
    log.append(PUT, "d#0", Passage("d#0", "d", "title", "text", {"year": 1}), (ROWS, np.arange(len(ROWS), dtype=np.int32)))
    log.flush()
    log.close()

    def read(path: Path) -> object:
        (folder / "own/pending/log").write_bytes(path.read_bytes())
        return PendingLog(folder / "own", DIM, 0).check()

    return Kind("pending", [(folder / "own/pending/log").read_bytes()], read)


def shards_kind(folder: Path) -> Kind:
    own = folder / "shards"
    own.mkdir()
    write_sharding(own, Sharding(3))

    def read(path: Path) -> object:
        (own / "SHARDS.json").write_bytes(path.read_bytes())
        return read_sharding(own)

    return Kind("shards", [(own / "SHARDS.json").read_bytes()], read, signed_json)


def intent_kind(folder: Path) -> Kind:
    own = folder / "intent"
    own.mkdir()
    write_intent(own, Intent(3, "name"))

    def read(path: Path) -> object:
        (own / "COMMITTING").write_bytes(path.read_bytes())
        return read_intent(own)

    return Kind("intent", [(own / "COMMITTING").read_bytes()], read, signed_json)


def safetensors_kind(folder: Path) -> Kind:
    from safetensors.numpy import save_file

    own = folder / "weights"
    own.mkdir()

    def read(path: Path) -> object:
        (own / "model.safetensors").write_bytes(path.read_bytes())
        return tensor_names(own)

    whole = saved(lambda path: save_file({"a": ROWS, "b.weight": ROWS[0]}, path), folder, "x.safetensors")
    return Kind("safetensors", [whole], read)


def array_file_kind(suffix: str) -> Callable[[Path], Kind]:
    """Vectors of documents: an array each, and a table."""

    def kind(folder: Path) -> Kind:
        own = folder / f"own{suffix}"

        def read(path: Path) -> object:
            own.write_bytes(path.read_bytes())
            return [document.vectors for document in open_sources([str(own)], SourceSettings(ColumnMapping(id="@row")))[0]]

        tables = ({"a": ROWS, "b": ROWS[:2]}, {"vectors": ROWS, "lengths": np.array([1, 3]), "year": np.array([1, 2])})
        write = np.savez if suffix == ".npz" else lambda path, **arrays: save_tensors(arrays, path)
        whole = [saved(lambda path, table=table: write(path, **table), folder, f"x{suffix}") for table in tables]
        return Kind(suffix, whole, read)

    return kind


def save_tensors(arrays: dict, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def ids_kind(folder: Path) -> Kind:
    def read(path: Path) -> object:
        (folder / "plaid_ids_to_documents_ids.pkl").write_bytes(path.read_bytes())
        return pylate_ids(folder)

    table = {n: f"d{n}" for n in range(40)}
    whole = [pickle.dumps(table, protocol) for protocol in (2, 4, 5)]
    return Kind("ids", whole, read, same=lambda path, ours: equal(ours, pickle.loads(path.read_bytes())))


TORCH = [GOLDEN / "colbert-ai-1" / name for name in ("buckets.pt", "centroids.pt", "0.codes.pt", "0.residuals.pt")]
WITHIN = TORCH[0].read_bytes()
KINDS: dict[str, Callable[[Path], Kind]] = {
    "torch": lambda _: Kind("torch", [path.read_bytes() for path in TORCH], read_torch_file, same=in_the_file),
    "torch-pickle": lambda _: Kind(
        "torch-pickle", [zipfile.ZipFile(TORCH[0]).read("buckets/data.pkl")], read_torch_file,
        lambda data: zipped(data, WITHIN), as_torch,
    ),
    "npy": lambda _: Kind(
        "npy", [(GOLDEN / "fast-plaid-1" / name).read_bytes() for name in ("centroids.npy", "0.residuals.npy")],
        lambda path: _array(path, "f" if b"f2" in path.read_bytes()[:60] else "u", 2), same=as_numpy,
    ),
    "codebook": npz_kind,
    "npz": npz_header_kind,
    **{f"codebook-{name}": groups_kind(f"{name}.npy") for name in ("starts", "heads", "owners", "unit")},
    "thresholds": lambda folder: Kind(
        "thresholds", [saved(plain_thresholds(DIM).save, folder, "x.npz")], lambda path: Thresholds.load(path).cuts
    ),
    "ids": ids_kind,
    "metadata-db": lambda folder: Kind("metadata-db", [database(folder)], lambda path: list(metadata_rows(path))),
    "ids-db": lambda folder: Kind("ids-db", [database(folder)], lambda path: list(stored_pairs(path))),
    "texts-json": lambda _: Kind("texts-json", [b'["one", "two", "three"]'], lambda path: list(iterate_texts(path))),
    "colbert-ai": peer_kind("colbert-ai-1", open_colbert_ai),
    "fast-plaid": peer_kind("fast-plaid-2", open_fast_plaid),
    "array": array_kind,
    "texts": strings_kind,
    "bundle": bundle_kind,
    "version": version_kind,
    "backup": backup_kind,
    "part": part_kind,
    "journal": journal_kind,
    "progress": progress_kind,
    "pending": pending_kind,
    "shards": shards_kind,
    "intent": intent_kind,
    "safetensors": safetensors_kind,
    "vectors-npz": array_file_kind(".npz"),
    "vectors-safetensors": array_file_kind(".safetensors"),
}  # fmt: skip
JSON = {"bundle", "version", "backup", "shards", "intent", "texts-json"}


def too_long(*_: object) -> None:
    raise TimeoutError(f"a file took more than {SECONDS} seconds")


def main(folder: Path, name: str, count: int) -> None:
    warnings.simplefilter("ignore")
    kind = KINDS[name](folder)
    chance = random.Random(name)
    path = folder / "changed"
    for whole in kind.whole:
        path.write_bytes(kind.file(whole))
        kind.read(path)
        if kind.same is not None:
            assert kind.same(path, kind.read(path))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, too_long)
    read = 0
    for number in range(count):
        change = changed_json if name in JSON else changed
        path.unlink(missing_ok=True)
        path.write_bytes(kind.file(change(chance.choice(kind.whole), chance)))
        signal.alarm(SECONDS)
        try:
            found = kind.read(path)
        except ColbertVespaError as error:
            assert "\n" not in str(error), f"{number}: {error}"
            continue
        except BaseException:
            print(f"file {number} of {name}:", file=sys.stderr)
            raise
        finally:
            signal.alarm(0)
        read += 1
        if kind.same is not None:
            try:
                same = kind.same(path, found)
            except Exception:  # noqa: BLE001  the other reader refuses, or is the one that breaks
                continue
            assert same, f"file {number} of {name} was read as something else"
    print(json.dumps({"kind": name, "files": count, "read": read}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
