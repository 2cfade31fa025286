"""Stored documents from one place to another: a local index, an application in a Vespa that is a local server, a backup."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest

from feeder import FeedOptions, start_feed
from feeder.copying import CopyOptions, backup_index, copy_index, restore_index
from feeder.copying.backup import BackupTarget
from feeder.copying.run import Copy
from feeder.digests import moved_digest
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import (
    BundleError,
    CollectionError,
    LocalIndexError,
    MetadataError,
    UsageError,
    VespaBusy,
    VespaRefused,
)
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, open_index
from late_interaction.plaid.shards import ShardedIndex, Sharding
from vespa_app import Application, default_settings
from vespa_app.codecs import CODECS
from vespa_app.running import Description

SCHEMA = MetadataSchema.from_json(
    {"year": "long", "lang": "string", "tags": "array<string>", "at": "timestamp", "place": "position", "ok": "bool"}
)
METADATA = {
    "year": 2001,
    "lang": "",
    "tags": ["", "b"],
    "at": 1_700_000_000_000,
    "place": {"lat": 63.43, "lng": 10.39},
    "ok": False,
}
DIM = 16
DOCUMENTS = 30


@pytest.fixture(autouse=True)
def _own_journals(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(random, count):
    found = random.standard_normal((count, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def passages_of(number, digest=""):
    """A document of one to three passages; one passage has no rows."""
    random, id_, count = np.random.default_rng(number), f"d#{number} ü", number % 3 + 1
    metadata = SCHEMA.check(METADATA | {"year": number} if number % 2 else {})
    for n in range(count):
        passage = Passage(
            f"{id_}#{n}", id_, f"title {number}", f"text {n} of {number}" * (n != 1), metadata, f"{digest}-{count}"
        )
        yield passage, rows(random, 0 if (number, n) == (4, 1) else 3 + n)


@pytest.fixture
def local(tmp_path, codebook_bundle):
    """Makes an index whose documents do not lie together, and some of whose passages are deleted."""

    def make(name="index", *, codec="float32", documents=DOCUMENTS, sharding=None, **form):
        path = tmp_path / name
        if sharding:
            ShardedIndex.create(path, bundle=codebook_bundle, schema=SCHEMA, sharding=sharding).close()
        else:
            LocalIndex.create(path, bundle=codebook_bundle, schema=SCHEMA, codec=codec, **form)
        digest = moved_digest("ab" * 16, codebook_bundle.sha256)
        items = [item for number in range(documents) for item in passages_of(number, digest)]
        with open_index(path).writer() as writer:
            for passage, vectors in items[::2]:
                writer.put(passage, vectors)
            writer.commit()
            gone = dataclasses.replace(items[0][0], id="gone#0", document_id="gone")
            for passage, vectors in [*items[1::2], (gone, items[0][1])]:
                writer.put(passage, vectors)
            writer.commit()
            writer.delete_document("gone")
            writer.commit()
        return path

    return make


@pytest.fixture
def application(vespa, codebook_bundle):
    """The server becomes an application with some settings changed, and empty."""

    def make(**changes):
        vespa.documents.clear()
        settings = default_settings(codebook_bundle, SCHEMA, candidates=("exhaustive",))
        settings = dataclasses.replace(settings, **{"codec": "float32", **changes})
        sha256 = changes.get("sha256", codebook_bundle.sha256)
        vespa.description = json.dumps(Description(settings, sha256, None).to_json())
        return vespa.url

    return make


def contents(path):
    """Passages and vectors of a local index, by id."""
    index = open_index(path)
    found = {passage.id: (passage, index.vectors(passage.id)) for passage in index.iter_passages()}
    if index.sharding:
        index.close()
    return found


def same(found, wanted, *, atol=0.0, digests=True):
    assert found.keys() == wanted.keys()
    for id_, (passage, vectors) in wanted.items():
        assert found[id_][0] == passage
        assert not digests or found[id_][0].digest == passage.digest
        np.testing.assert_allclose(found[id_][1], vectors, atol=atol)


def options(**changes):
    return CopyOptions(**changes)


@pytest.mark.parametrize("layout", ["passages", "chunks"])
@pytest.mark.parametrize(("codec", "atol"), [("float32", 0), ("bfloat16", 0.004), ("residual", 0.6), ("binary", 0.6)])
def test_push_and_pull_bring_everything_back(local, application, vespa, codebook_bundle, tmp_path, layout, codec, atol):
    if (layout, codec) == ("chunks", "residual"):
        pytest.skip("no such application")
    url, index = application(layout=layout, codec=codec), local()
    wanted = contents(index)
    pushed = copy_index(str(index), url)
    assert (pushed.outcome, pushed.documents, pushed.passages) == ("complete", DOCUMENTS, len(wanted))
    assert len(vespa.documents) == (DOCUMENTS if layout == "chunks" else len(wanted))
    assert pushed.notes == (() if codec == "float32" else (pushed.notes[0],))
    pulled = copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    assert pulled.passages == len(wanted)
    back = contents(tmp_path / "back")
    same(back, wanted, atol=atol, digests=False)
    kept = {passage.digest == wanted[id_][0].digest for id_, (passage, _) in back.items()}
    assert kept == {codec in ("float32", "residual")}  # the others are pulled into float32, as a feed would not store them


def test_vectors_in_vespa_are_those_of_the_codec(local, application, vespa, codebook_bundle):
    """The very values that a feed would have sent."""
    for codec in ("float32", "bfloat16", "binary"):
        url, index = application(codec=codec), local(codec)
        copy_index(str(index), url)
        for id_, (_, vectors) in contents(index).items():
            assert vespa.documents[id_]["fields"]["vectors"] == CODECS[codec].encode(vectors)["vectors"]


@pytest.mark.parametrize("codec", ["residual", "binary", "float32"])
def test_the_same_codec_there_and_back_loses_next_to_nothing(local, application, tmp_path, codebook_bundle, codec):
    index = local(codec=codec)
    url = application(codec=codec, thresholds=codec == "binary")
    assert copy_index(str(index), url).notes == ()
    summary = copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    assert summary.notes == ()
    assert LocalIndex.open(tmp_path / "back").codec == codec
    wanted, back = contents(index), contents(tmp_path / "back")
    same(back, wanted, atol=0.2)
    cosines = np.concatenate(
        [(back[id_][1] * vectors).sum(1) / np.linalg.norm(vectors, axis=1) ** 2 for id_, (_, vectors) in wanted.items()]
    )
    assert cosines.mean() > 0.999


def test_a_later_feed_of_the_same_documents_encodes_nothing(codebook_bundle, application, tmp_path, vespa):
    """Where vectors arrive as a feed would have sent them; else everything is encoded again."""
    documents = [Document(f"d{n}", f"title {n}", "wait for a thread to finish " * (n + 1)) for n in range(5)]

    def fed(to):
        feed = FeedOptions(to=to, bundle=codebook_bundle, encoder=Encoder(codebook_bundle), journal=tmp_path / "j")
        with start_feed([documents], feed) as run:
            return run.go().already_there

    for codec, there in (("float32", 5), ("residual", 0)):
        index = tmp_path / codec
        LocalIndex.create(index, bundle=codebook_bundle, schema=MetadataSchema({}), codec=codec)
        fed(str(index))
        for layout in ("passages", "chunks"):
            url = application(codec="bfloat16", layout=layout)
            copy_index(str(index), url)
            assert fed(url) == there
            if not there:
                vespa.documents.clear()
        copy_index(str(index), str(tmp_path / f"{codec}-2"))
        assert fed(str(tmp_path / f"{codec}-2")) == 5


def test_shards_are_copied_whole_and_made(local, application, codebook_bundle, tmp_path):
    index = local(sharding=Sharding(3))
    wanted = contents(index)
    copy_index(str(index), application(codec="residual"))
    summary = copy_index(str(index), str(tmp_path / "two"), options(sharding=Sharding(2)))
    assert summary.passages == len(wanted)
    same(contents(tmp_path / "two"), wanted, atol=0.2)


def test_streaming_keeps_groups(local, application, vespa, tmp_path, codebook_bundle):
    index = tmp_path / "index"
    LocalIndex.create(index, bundle=codebook_bundle, schema=SCHEMA, codec="float32")
    with LocalIndex.open(index).writer() as writer:
        for number in range(6):
            for passage, vectors in passages_of(number):
                writer.put(dataclasses.replace(passage, metadata={"lang": "en" if number % 2 else "de"}), vectors)
        writer.commit()
    url = application(mode="streaming", group_field="lang")
    copy_index(str(index), url)
    assert {id_.partition("/")[0] for id_ in vespa.documents} == {"en", "de"}
    copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    same(contents(tmp_path / "back"), contents(index), digests=False)


def test_an_application_that_encodes_itself_gets_texts(local, application, vespa, tmp_path, codebook_bundle):
    url = application(encoding="embedder", codec="float32")
    summary = copy_index(str(local()), url)
    assert "makes its own vectors" in summary.notes[0]
    assert all("vectors" not in document["fields"] for document in vespa.documents.values())
    for document in vespa.documents.values():  # as Vespa would
        document["fields"]["vectors"] = CODECS["float32"].encode(np.eye(2, DIM, dtype=np.float32))["vectors"]
    pulled = copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    assert "made by Vespa's embedder" in pulled.notes[0]
    assert all(len(vectors) == 2 and not passage.digest for passage, vectors in contents(tmp_path / "back").values())


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"sha256": "0" * 64}, BundleError, "not the bundle that the application"),
        ({"metadata": MetadataSchema.from_json({**SCHEMA.to_json(), "year": "int"})}, MetadataError, "'year' is long.*has int"),
        ({"metadata": MetadataSchema({})}, MetadataError, "'year' is long.*has no such field"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(local, application, vespa, changes, error, said):
    settings = {name: value for name, value in changes.items() if name != "sha256"}
    url = application(**settings)
    if "sha256" in changes:
        vespa.description = vespa.description.replace(json.loads(vespa.description)["bundle_sha256"], changes["sha256"])
    with pytest.raises(error, match=said):
        copy_index(str(local()), url)
    assert vespa.documents == {}


@pytest.mark.parametrize("name", ["copying.opening._identity", "targets.local.kept_locally"])
def test_a_target_is_closed_where_a_later_step_fails(local, tmp_path, monkeypatch, name):
    index, target = local(), local("target")
    with monkeypatch.context() as patch:
        patch.setattr(f"feeder.{name}", lambda *_: pytest.fail("no"))
        with pytest.raises(pytest.fail.Exception):
            copy_index(str(index), str(target), options(merge=True))
    with LocalIndex.open(target).writer():
        pass


def test_nothing_is_written_to_the_users_cache_by_choosing_a_bundle(application, codebook_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Application.read(application()).choose_bundle(codebook_bundle) is codebook_bundle
    assert not (tmp_path / "cache").exists()


def test_a_target_that_is_not_empty_needs_merge(local, application, vespa, tmp_path):
    url, small, index = application(), local("small", documents=5), local()
    copy_index(str(small), url)
    for resume in (False, True):  # a copy that was refused is none that could go on
        with pytest.raises(UsageError, match="9 passages"):
            copy_index(str(index), url, options(resume=resume))
    with LocalIndex.open(index).writer() as writer:  # one that is shorter now: a passage of it is stale there
        writer.delete_passage("d#2 ü#2")
        writer.commit()
    vespa.documents["other#0"] = {"fields": {**vespa.documents["d#0 ü#0"]["fields"], "id": "other#0", "document_id": "other"}}
    before = len(vespa.requests)
    summary = copy_index(str(index), url, options(merge=True))
    assert summary.already_there == 4
    assert ("DELETE", "d#2 ü#2") in vespa.requests[before:]
    assert set(vespa.documents) == {*contents(index), "other#0"}


def test_a_refused_document_ends_the_copy_with_its_reason(local, application, vespa):
    vespa.faults["d#7 ü#0"] = [400]
    with pytest.raises(CollectionError, match=r"refuses document 'd#7 ü'.*told to say 400"):
        copy_index(str(local()), application())


def test_passages_that_are_not_numbered_are_no_documents_of_vespa(tmp_path, codebook_bundle, application, vespa):
    LocalIndex.create(tmp_path / "odd", bundle=codebook_bundle, schema=SCHEMA, codec="float32")
    with LocalIndex.open(tmp_path / "odd").writer() as writer:
        writer.put(Passage("mine", "a", "", "text", {}), np.eye(2, DIM, dtype=np.float32))
        writer.commit()
    with pytest.raises(CollectionError, match="has no passage 'a#0'"):
        copy_index(str(tmp_path / "odd"), application())
    copy_index(str(tmp_path / "odd"), str(tmp_path / "copy"))
    same(contents(tmp_path / "copy"), contents(tmp_path / "odd"))


def test_a_visit_is_asked_again_and_paged(local, application, vespa, tmp_path, codebook_bundle, monkeypatch):
    url, index = application(), local()
    copy_index(str(index), url)
    monkeypatch.setattr("feeder.copying.vespa.PAGE", 4)
    monkeypatch.setattr("feeder.sending.retrying.pause", lambda count: 0.0)
    vespa.visit_faults = [503, "reset", 429]
    copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    assert len([visit for visit in vespa.visits if "continuation" in visit]) == 7
    same(contents(tmp_path / "back"), contents(index))
    vespa.visit_faults = [503] * 10
    with pytest.raises(VespaBusy):
        copy_index(url, str(tmp_path / "again"), options(bundle=codebook_bundle))
    vespa.visit_faults = [400]
    with pytest.raises(VespaRefused, match="told to"):
        copy_index(url, str(tmp_path / "more"), options(bundle=codebook_bundle))


def test_passages_without_their_document_are_not_lost_in_silence(local, application, vespa, tmp_path, codebook_bundle):
    url = application()
    copy_index(str(local()), url)
    del vespa.documents["d#2 ü#0"]
    with pytest.raises(CollectionError, match="2 passages of .* were not copied"):
        copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))


def test_an_updated_document_has_no_digest_and_is_copied_whole(local, application, vespa, tmp_path, codebook_bundle):
    url, index = application(), local()
    copy_index(str(index), url)
    for n in range(3):
        vespa.documents[f"d#2 ü#{n}"]["fields"]["digest"] = ""
    copy_index(url, str(tmp_path / "back"), options(bundle=codebook_bundle))
    found = contents(tmp_path / "back")
    same(found, contents(index), digests=False)
    assert [found[f"d#2 ü#{n}"][0].digest for n in range(3)] == ["", "", ""]


def test_a_shard_that_is_missing_stops_the_copy(local, tmp_path):
    index = local(sharding=Sharding(3))
    (index / "shard-1" / "CURRENT").unlink()
    with pytest.raises(LocalIndexError, match="cannot be copied"):
        copy_index(str(index), str(tmp_path / "copy"))


@pytest.mark.parametrize("killed", [False, True])
def test_what_vespa_gives_is_cut_by_bytes(local, application, vespa, tmp_path, codebook_bundle, monkeypatch, killed):
    """Formerly all passages of 256 documents were in memory at once, and in one part."""
    url, index = application(), local()
    copy_index(str(index), url)
    monkeypatch.setattr("feeder.copying.vespa.BATCH_BYTES", 1000)
    batches = []

    def put(target, batch, real=BackupTarget.put):
        batches.append([sum(rows.nbytes for rows in document.vectors) for document in batch])
        if killed and len(batches) == 4:
            raise Killed
        real(target, batch)

    with monkeypatch.context() as patch:
        patch.setattr(BackupTarget, "put", put)
        if killed:
            with pytest.raises(Killed):
                backup_index(url, tmp_path / "backup", options(bundle=codebook_bundle))
            assert (tmp_path / "backup/progress.jsonl").exists()
        summary = backup_index(url, tmp_path / "backup", options(bundle=codebook_bundle, resume=killed))
    assert len(batches) > 5 and all(sum(sizes) <= 2000 for sizes in batches)  # judged by first passages
    assert summary.documents == DOCUMENTS
    restore_index(tmp_path / "backup", str(tmp_path / "back"))
    assert contents(tmp_path / "back").keys() == contents(index).keys()


class Killed(BaseException):
    """Nobody catches it, as nobody catches a kill."""


@pytest.mark.parametrize("kind", ["push", "pull", "backup", "restore"])
@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_copy_that_was_killed_goes_on(local, application, vespa, tmp_path, codebook_bundle, monkeypatch, kind, after):
    monkeypatch.setattr("feeder.copying.local.BATCH_DOCUMENTS", 6)
    monkeypatch.setattr("feeder.copying.vespa.PAGE", 6)
    url, index, back = application(), local(), tmp_path / "back"
    if kind in ("pull", "restore"):
        copy_index(str(index), url) if kind == "pull" else backup_index(str(index), tmp_path / "backup")
    go = {
        "push": lambda **how: copy_index(str(index), url, options(**how)),
        "pull": lambda **how: copy_index(url, str(back), options(bundle=codebook_bundle, **how)),
        "backup": lambda **how: backup_index(str(index), tmp_path / "backup", options(**how)),
        "restore": lambda **how: restore_index(tmp_path / "backup", str(back), options(**how)),
    }[kind]
    put = []

    def fitted(copy, document, real=Copy._fitted):
        put.append(document.document.id)
        if len(put) == 6 * after - 2:
            raise Killed
        return real(copy, document)

    with monkeypatch.context() as patch:
        patch.setattr(Copy, "_fitted", fitted)
        with pytest.raises(Killed):
            go()
    again = []
    with monkeypatch.context() as patch:
        real = Copy._fitted
        patch.setattr(Copy, "_fitted", lambda copy, document: again.append(document.document.id) or real(copy, document))
        summary = go(resume=True)
    assert (summary.outcome, summary.documents) == ("complete", DOCUMENTS)
    if kind != "push":  # the outcomes of a push may come later
        assert len(again) == DOCUMENTS - 6 * (after - 1)
    if kind == "push":
        assert set(vespa.documents) == set(contents(index))
    else:
        if kind == "backup":
            restore_index(tmp_path / "backup", str(back))
        same(contents(back), contents(index))


def test_a_journal_of_another_copy_is_refused(local, application, tmp_path, vespa):
    index = local()
    vespa.faults["d#7 ü#0"] = [400]
    with pytest.raises(CollectionError):
        copy_index(str(index), application(), options(journal=tmp_path / "j"))
    with LocalIndex.open(index).writer() as writer:
        writer.delete_document("d#7 ü")
        writer.commit()
    with pytest.raises(CollectionError, match="another copy"):
        copy_index(str(index), vespa.url, options(journal=tmp_path / "j", resume=True))


def test_the_commands(cli, local, application, vespa, tmp_path, codebook_bundle):
    index, url = local(), application()
    done = cli("index", "push", str(index), "--to", url, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["documents"] == DOCUMENTS
    assert "30 documents" in cli("index", "pull", url, "-o", str(tmp_path / "back"), "--codec", "residual").stdout
    assert LocalIndex.open(tmp_path / "back").codec == "residual"
    cli("index", "backup", url, "-o", str(tmp_path / "backup"))
    vespa.documents.clear()
    cli("index", "restore", str(tmp_path / "backup"), "--to", url)
    assert set(vespa.documents) == set(contents(index))
    assert "60 passages" in cli("index", "restore", str(tmp_path / "backup"), "--to", url, code=2).stderr
    assert "URL of a Vespa" in cli("index", "push", str(index), "--to", str(tmp_path / "x"), code=2).stderr


def test_a_relative_place_and_an_absolute_one_are_the_same_copy(local, application, tmp_path, vespa, monkeypatch):
    local()
    vespa.faults["d#7 ü#0"] = [400]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CollectionError, match="refuses document"):
        copy_index("index", application(), options())
    monkeypatch.chdir("/")
    summary = copy_index(str(tmp_path / "index"), vespa.url, options(resume=True))
    assert (summary.outcome, summary.documents) == ("complete", DOCUMENTS)


def test_a_target_that_was_built_anew_is_not_where_the_copy_stopped(local, tmp_path, monkeypatch):
    index, target = local(), tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr("feeder.copying.run.Stop.__call__", lambda self: True)
        assert copy_index(str(index), str(target), options()).outcome == "interrupted"
    shutil.rmtree(target)
    with pytest.raises(CollectionError, match="another copy"):
        copy_index(str(index), str(target), options(resume=True))


def test_a_visit_that_vespa_cut_off_or_another_server_answers_is_not_the_end(local, application, tmp_path, vespa, monkeypatch):
    copy_index(str(local()), application(), options())
    visited = vespa.visited

    def cut_off(query):
        status, body = visited(query)
        answer = json.loads(body) | {"message": "a node went away"}
        answer.pop("continuation", None)
        return status, json.dumps(answer).encode()

    monkeypatch.setattr("feeder.copying.vespa.insistent", lambda ask, *_: ask())
    for fault, error in ((cut_off, VespaBusy), (lambda query: (404, b"<html>no such page</html>"), VespaRefused)):
        monkeypatch.setattr(vespa, "visited", fault)
        with pytest.raises(error):
            backup_index(vespa.url, tmp_path / "backup", options())
        assert not (tmp_path / "backup" / "manifest.json").exists()
        shutil.rmtree(tmp_path / "backup")


@pytest.mark.parametrize("name", ["000000.gz", "manifest.json"])
def test_a_full_disk_ends_a_backup_in_one_line(local, tmp_path, monkeypatch, name):
    import feeder.copying.backup as backup

    write = backup.atomic_write

    def full(path, data, **more):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data, **more)

    index = local()
    with monkeypatch.context() as patch:
        patch.setattr(backup, "atomic_write", full)
        with pytest.raises(CollectionError, match="backup .* cannot be written .*--resume"):
            backup_index(str(index), tmp_path / "backup", options())
    assert backup_index(str(index), tmp_path / "backup", options(resume=True)).outcome == "complete"
