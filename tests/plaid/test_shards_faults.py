"""Shards whose processes are killed, stopped or orphaned, and commits that are killed between shards."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from plaid_tools import fake_bundle, finished, passage, token_vectors, worker_pids

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding, ShardSettings
from late_interaction.plaid.shards.layout import shard_path
from late_interaction.plaid.writing.writer import IndexWriter
from query.local import LocalSearch
from query.options import SearchOptions
from query.types import EncodedQuery

SCHEMA = MetadataSchema({"word": FieldType.STRING})
VECTORS = token_vectors(np.random.default_rng(0), 60)
PATIENT = ShardSettings(timeout=120, start=120)
SHORT = ShardSettings(timeout=2, start=120)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    codebook = train_codebook(np.concatenate(VECTORS), bits=4, centroids=32)
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", codebook=codebook)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bundle):
    """Sixty passages in two shards."""
    path = tmp_path_factory.mktemp("shards") / "i"
    with made(path, bundle) as index:
        put(index, range(60))
    return path


def made(path, bundle, field=None):
    return ShardedIndex.create(
        path, bundle=bundle, schema=SCHEMA, sharding=Sharding(2, field), storage=Storage("float32"), settings=PATIENT
    )


def put(index, numbers, word="a"):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", word=word), VECTORS[number])
        writer.commit()


def found(index, Q=VECTORS[0]):
    return index.search(Q, 60, exact=True)


def test_a_worker_killed_in_a_query_makes_part_of_an_answer_and_is_replaced(folder):
    with ShardedIndex.open(folder, PATIENT) as index:
        whole = found(index)
        assert (len(whole.hits), whole.coverage) == (60, 1.0)
        pids = worker_pids(index)
        os.kill(pids[0], signal.SIGSTOP)  # so that the query is under way when it is killed
        answers = []
        asking = threading.Thread(target=lambda: answers.append(found(index)))
        asking.start()
        os.kill(pids[0], signal.SIGKILL)
        asking.join()
        (part,) = answers
        if part.coverage == 1.0:  # the kill came before the query
            assert part.hits == whole.hits
        else:
            alive = index.readers()[1].passages
            assert len(part.hits) == alive and part.coverage == pytest.approx(alive / 60)
            assert part.missing == ("shard-0: its process ended (signal SIGKILL)",)
        assert found(index).hits == whole.hits
        assert worker_pids(index)[0] != pids[0] and worker_pids(index)[1] == pids[1]


def test_a_late_shard_makes_part_of_an_answer_and_its_late_answer_is_never_another_querys(folder):
    with ShardedIndex.open(folder, PATIENT) as index:
        one, other = found(index), found(index, VECTORS[1])
        index.settings = SHORT
        pids = worker_pids(index)
        os.kill(pids[1], signal.SIGSTOP)
        try:
            for _ in range(2):
                part = found(index)
                assert part.missing == ("shard-1: did not answer within 2 s",)
                assert part.coverage == pytest.approx(index.readers()[0].passages / 60)
                assert part.hits == [hit for hit in one.hits if index.readers()[0].passage(hit.passage.id)]
        finally:
            os.kill(pids[1], signal.SIGCONT)
        index.settings = PATIENT
        assert found(index, VECTORS[1]).hits == other.hits
        assert found(index).hits == one.hits
        assert worker_pids(index) == pids


def test_require_full_makes_a_late_shard_an_error(folder):
    strict = ShardSettings(timeout=2, start=120, require_full=True)
    with ShardedIndex.open(folder, PATIENT) as index:
        found(index)
        index.settings = strict
        os.kill(worker_pids(index)[0], signal.SIGSTOP)
        with pytest.raises(LocalIndexError, match="shard-0: did not answer within 2 s"):
            found(index)
        os.kill(worker_pids(index)[1], signal.SIGSTOP)
        index.settings = SHORT
        with pytest.raises(LocalIndexError, match="shard-0: .*; shard-1: "):  # no answer at all
            found(index)


def test_a_damaged_shard_makes_part_of_an_answer_until_it_is_mended(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "i")
    (file,) = (tmp_path / "i/shard-0/segments").glob("*/offsets.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    with ShardedIndex.open(tmp_path / "i", PATIENT) as index:
        part = found(index)
        assert part.coverage < 1 and "offsets.npy has" in part.missing[0]
        file.write_bytes(content)
        assert (found(index).coverage, len(found(index).hits)) == (1.0, 60)


@pytest.mark.parametrize("strategy", ["bm25", "hybrid"])
def test_words_of_a_damaged_shard_are_left_out_and_told(tmp_path, bundle, strategy):
    """Formerly the whole search failed."""
    path = tmp_path / "i"
    with made(path, bundle) as index:
        with index.writer() as writer:
            for number in range(60):
                writer.put(passage(f"d{number}", text=f"thread {number}", word="a"), VECTORS[number])
            writer.commit()
        sizes = [reader.passages for reader in index.readers().values()]
    (file,) = (path / "shard-1/segments").glob("*/texts.npy")
    content = file.read_bytes()
    file.write_bytes(content[:-3] + b"xyz")

    def asked(search):
        options = SearchOptions(60, where={"word": "a"}, candidates=strategy)
        return finished(search.search(EncodedQuery(VECTORS[0], "thread"), options, time.monotonic() + 60))

    with contextlib.closing(LocalSearch(path, time.monotonic)) as search:
        part = asked(search)
        assert len(part.hits) == sizes[0] and part.coverage == pytest.approx(sizes[0] / 60)
        assert len(part.degraded) == 1 and "shard-1" in part.degraded[0] and "texts.npy" in part.degraded[0]
        file.write_bytes(content)
        whole = asked(search)
        assert (len(whole.hits), whole.coverage, whole.degraded) == (60, 1.0, ())
    file.write_bytes(content[:-3] + b"xyz")
    with ShardedIndex.open(path, PATIENT) as index, pytest.raises(LocalIndexError, match="shard-1 cannot be read: .*texts"):
        index.verify()


READER = """
    import sys
    from late_interaction.plaid.shards import ShardedIndex
    path, last = sys.argv[1], int(sys.argv[2])
    with ShardedIndex.open(path) as index:
        print("ready", flush=True)
        seen = set()
        while last not in seen:
            index.refresh()
            texts = {p.document_id: p.text for p in index.iter_passages()}
            answer = index.search(rows, 60, exact=True)
            assert not answer.missing and not index.missing, (answer.missing, index.missing)
            hits = {hit.passage.document_id: hit.passage.text for hit in answer.hits}
            assert len(set(texts.values())) == 1 and len(set(hits.values())) == 1 and len(hits) == 20, (texts, hits)
            seen.add(int(texts["d0"]))
        print(f"seen {len(seen)}", flush=True)
"""


@pytest.mark.slow
def test_readers_in_other_processes_see_one_version_of_all_shards(tmp_path, bundle):
    """Each version has one text in all passages; no reader ever sees two, by its workers or in its own process."""
    path, last = tmp_path / "i", 40
    np.save(tmp_path / "rows.npy", VECTORS[0])
    code = textwrap.dedent(READER)
    code = code.replace("path, last =", f"import numpy\nrows = numpy.load({str(tmp_path / 'rows.npy')!r})\npath, last =")

    def write(index, version):
        with index.writer() as writer:
            for number in range(20):
                writer.put(passage(f"d{number}", text=str(version), word="a"), VECTORS[number])
            writer.commit()

    with made(path, bundle) as index:
        write(index, 0)
        command = [sys.executable, "-c", code, str(path), str(last)]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 2
        for version in range(1, last + 1):
            write(index, version)
        said = [reader.communicate(timeout=120) for reader in readers]
    for reader, (out, err) in zip(readers, said):
        assert reader.returncode == 0, err
        assert int(out.split()[-1]) >= 2


def test_a_commit_is_seen_after_refresh_in_all_shards(tmp_path, bundle):
    with made(tmp_path / "i", bundle) as index, ShardedIndex.open(tmp_path / "i", PATIENT) as reader:
        put(index, range(10))
        assert len(found(reader).hits) == 0
        assert reader.refresh() and not reader.refresh()
        assert len(found(reader).hits) == 10
        for numbers in (range(20), range(30), range(40)):
            put(index, numbers)
        assert len(found(reader).hits) == 10  # mapped, though pruned
        reader.refresh()
        assert len(found(reader).hits) == 40


def test_a_reader_whose_version_was_pruned_before_its_workers_began_moves_on(tmp_path, bundle):
    with made(tmp_path / "i", bundle) as index, ShardedIndex.open(tmp_path / "i", PATIENT) as reader:
        pinned = reader.pinned()
        for numbers in (range(20), range(30), range(40)):
            put(index, numbers)
        assert (reader.documents, reader.version) == (40, index.version)
        assert (pinned.version, len(found(pinned).hits)) == (0, 40)
        assert pinned.version == index.version


def test_a_reader_that_another_thread_has_moved_meanwhile_asks_again(tmp_path, bundle, monkeypatch):
    """Nothing was newer than what it had by then, so that it gave up with what the old version's absence had left."""
    with made(tmp_path / "i", bundle) as index, ShardedIndex.open(tmp_path / "i", PATIENT) as reader:
        for numbers in (range(20), range(30), range(40)):
            put(index, numbers)
        ask = reader._router.ask

        def meanwhile(requests, timeout):
            answers = ask(requests, timeout)
            reader.refresh()
            return answers

        monkeypatch.setattr(reader._router, "ask", meanwhile)
        assert len(found(reader).hits) == 40


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(3))
@pytest.mark.parametrize("resume", [False, True])
def test_a_commit_killed_between_shards_is_finished_by_the_next_writer(tmp_path, bundle, monkeypatch, after, resume):
    """Moves between shards included: of what was committed before nothing is lost or twice."""
    index = made(tmp_path / "i", bundle, "word")
    words = {index.sharding.of_passage(passage("x", word=word), SCHEMA): word for word in map(str, range(20))}
    put(index, range(20), words[0])
    reader = ShardedIndex.open(index.path, PATIENT)
    commits = []

    def killed(self, *args, **kwargs):
        if len(commits) == after:
            raise Killed
        commits.append(real(self, *args, **kwargs))
        return commits[-1]

    real = IndexWriter.commit
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(IndexWriter, "commit", killed)
        with index.writer() as writer:
            for number in range(10, 30):
                writer.put(passage(f"d{number}", word=words[1]), VECTORS[number])
            writer.delete_document("d3")
            writer.commit()
            raise Killed  # all shards are committed, and the process ends
    if after < 2:
        assert not reader.refresh() and reader.passages == 20  # readers wait for the end of the commit
    with ShardedIndex.open(index.path, PATIENT) as opened:
        with opened.writer(resume=resume) as writer:
            assert not writer.pending
            writer.commit()
        expected = {f"d{n}": words[0] for n in range(10) if n != 3} | {f"d{n}": words[1] for n in range(10, 30)}
        assert sorted(p.document_id for p in opened.iter_passages()) == sorted(expected)
        assert {p.document_id: p.metadata["word"] for p in opened.iter_passages()} == expected
        opened.verify()
        assert reader.refresh() and reader.passages == 29


def test_what_was_not_committed_is_taken_up_or_dropped_in_all_shards(tmp_path, bundle):
    index = made(tmp_path / "i", bundle)
    for resume, expected in ((False, 0), (True, 20)):
        with index.writer() as writer:
            for number in range(20):
                writer.put(passage(f"d{number}", word="a"), VECTORS[number])
            writer.flush()
        with index.writer(resume=resume) as writer:
            assert len(writer.pending) == expected
            if not resume:
                with pytest.raises(LocalIndexError, match="has uncommitted changes"):
                    writer.commit()
                writer.discard()
            writer.commit()
        assert index.passages == expected


def test_there_is_one_writer_of_all_shards(tmp_path, bundle):
    index = made(tmp_path / "i", bundle)
    with index.writer(), pytest.raises(LocalIndexError, match="being written"):
        index.writer()
    from late_interaction.plaid import LocalIndex

    with LocalIndex.open(shard_path(index.path, 1)).writer(), pytest.raises(LocalIndexError, match="shard-1 is being written"):
        index.writer()
    with index.writer():  # the refused ones left no lock behind
        pass


SCRIPT = """
import sys
from late_interaction.plaid.shards import ShardedIndex, ShardSettings
import numpy as np
index = ShardedIndex.open(sys.argv[1], ShardSettings(timeout=120, start=120))
index.search(np.ones((1, index.dim), np.float32), 3)
print(*(line.worker.pid for line in index._router._lines.values()), flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_workers_end_with_the_process_that_started_them(folder, end):
    wait = "wait" if end == "kill" else "leave"
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), wait], stdin=-1, stdout=-1, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids if end == "kill"]
        if end == "kill":
            process.kill()
        process.wait()
    assert len(pids) == 2
    for descriptor in watched:
        import select

        assert select.select([descriptor], [], [], 60)[0]  # readable once the process has ended
        os.close(descriptor)
    if end == "exit":
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_closing_ends_the_workers(folder):
    with ShardedIndex.open(folder, PATIENT) as index:
        found(index)
        pids = worker_pids(index).values()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_import_nothing_from_the_working_directory(folder, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ShardedIndex.open(folder, PATIENT) as index:
        assert found(index).coverage == 1.0
