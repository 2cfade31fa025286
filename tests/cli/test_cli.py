"""The command line as users meet it: one clear line for every mistake, exit codes, JSON on the last line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from late_interaction.bundle import Bundle


@pytest.fixture
def documents(tmp_path):
    lines = [
        {"id": "a", "title": "Threads", "text": "wait for a thread to finish", "metadata": {"year": 2020, "lang": "en"}},
        {"id": "b", "title": "", "text": " \n "},
        {"id": "c", "title": "Only a title"},
        {"id": "d", "title": "Files", "text": "delete a file", "metadata": {"year": 2024, "lang": "de"}},
    ]
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def last(done):
    return json.loads(done.stdout.splitlines()[-1])


def one_line(done):
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_the_module_runs_as_a_process_and_keeps_its_exit_code():
    command = [sys.executable, "-m", "colbert_vespa", "search", "x", "--from", "/no/such/index"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no index at /no/such/index" in one_line(done)


def test_feed_search_delete_in_a_local_index(cli, documents, minilm_bundle, tmp_path):
    index = tmp_path / "index"
    fed = cli("feed", str(documents), "--bundle", str(minilm_bundle.path), "--to", str(index), "--json")
    summary = last(fed)
    assert len(fed.stdout.splitlines()) == 1
    assert (summary["documents"], summary["acknowledged"], summary["skipped_blank"]) == (4, 3, 1)
    assert summary["skipped_blank_ids"] == ["b"]
    answer = last(cli("search", "threads", "--from", str(index), "--json", "-k", "2"))
    assert answer["hits"][0]["id"] == "a"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    assert [h["id"] for h in last(cli("search", "only title", "--from", str(index), "--json"))["hits"]][0] == "c"
    filtered = last(cli("search", "threads", "--from", str(index), "--json", "--where", '{"year": {"$gte": 2022}}'))
    assert [hit["id"] for hit in filtered["hits"]] == ["d"]
    assert filtered["hits"][0]["metadata"] == {"year": 2024, "lang": "de"}
    gone = tmp_path / "gone.jsonl"
    gone.write_text('{"id": "a"}\n')
    cli("feed", str(gone), "--to", str(index), "--delete")
    (tmp_path / "ids.txt").write_text("a\nnever\n")
    done = cli("feed", str(tmp_path / "ids.txt"), "--to", str(index), "--delete")
    assert "deleted 0 documents" in done.stdout and "2 ids did not exist: a, never" in done.stdout
    assert "a" not in [hit["id"] for hit in last(cli("search", "threads", "--from", str(index), "--json"))["hits"]]
    shown = cli("search", "delete a file", "--from", str(index), "--explain").stdout
    assert "similarity" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_feeding_from_standard_input(cli, minilm_bundle, tmp_path):
    line = '{"id": "x", "text": "a text from a pipe"}\n'
    fed = cli("feed", "-", "--bundle", str(minilm_bundle.path), "--to", str(tmp_path / "i"), "--json", stdin=line)
    assert last(fed)["acknowledged"] == 1


def test_evaluate_has_the_documented_keys(cli, sample_index, sample_collection):
    answer = last(cli("evaluate", "--from", str(sample_index), "--collection", str(sample_collection), "--json"))
    for key in ("ndcg_at_10", "mrr_at_10", "recall_at_100", "recall_at_10"):
        assert 0 <= answer[key] <= 1
    assert answer["recall_at_10"] >= 0.95
    assert set(answer["latency_ms"]) == {"p50", "p95"}
    assert answer["baselines"]["bm25"]["ndcg_at_10"] > 0
    assert answer["collection"] == "sample"


def test_app_writes_a_package_from_a_sample(cli, documents, minilm_bundle, tmp_path):
    package = tmp_path / "package"
    answer = last(cli("app", str(minilm_bundle.path), "-o", str(package), "--sample", str(documents), "--json"))
    assert answer["metadata"] == {"lang": "string", "year": "long"}
    assert (package / "services.xml").is_file()
    assert (package / "schemas" / "passage.sd").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x", "--from", "/no/such"), "/no/such"),
        (("search", "x", "--from", "{tmp}"), "{tmp}"),
        (("feed", "/no/such.jsonl", "--to", "{tmp}/i", "--bundle", "{bundle}"), "/no/such.jsonl"),
        (("feed", "{bad}", "--to", "{tmp}/i", "--bundle", "{bundle}"), "bad.jsonl:2"),
        (("feed", "{good}", "--to", "{tmp}/i", "--bundle", "{tmp}"), "is not a bundle"),
        (("feed", "{good}", "--to", "{tmp}/i"), "--bundle"),
        (("feed", "{good}", "--to", "http://localhost:1", "--bundle", "{bundle}"), "does not answer"),
        (("search", "x", "--from", "http://localhost:1"), "does not answer"),
        (("evaluate", "--from", "{tmp}", "--collection", "/no/such"), "/no/such"),
        (("app", "/no/such", "-o", "{tmp}/p"), "/no/such"),
        (("app", "{bundle}", "-o", "{tmp}/p", "--settings", "{good}"), "good.jsonl"),
        (("deploy", "{tmp}", "--target", "http://localhost:1"), "{tmp}"),
        (("export", "{tmp}", "-o", "{tmp}/b"), "{tmp}"),
        (("export", "/no/such/checkpoint", "-o", "{tmp}/b"), "/no/such/checkpoint"),
        (("feed", "{good}", "--to", "{tmp}/i", "--delete", "--bundle", "{bundle}"), "nothing to change"),
        (("demo", "--collection", "/no/such", "-o", "{tmp}/demo"), "/no/such"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(cli, tmp_path, minilm_bundle, arguments, message):
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "text": "x"}\n{broken\n')
    (tmp_path / "good.jsonl").write_text('{"id": "a", "text": "x"}\n')
    names = {"tmp": work, "bundle": minilm_bundle.path, "bad": tmp_path / "bad.jsonl", "good": tmp_path / "good.jsonl"}
    done = cli(*(argument.format(**names) for argument in arguments), code=1)
    assert message.format(**names) in one_line(done)
    assert not list(work.iterdir()), "something half-written was left"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x", "--from", "{index}", "-k", "0"), "'-k'"),
        (("search", " ", "--from", "{index}"), "blank"),
        (("search", "x", "--from", "{index}", "--where", "{{"), "--where"),
        (("search", "x", "--from", "{index}", "--where", "[1]"), "object"),
        (("search", "x", "--from", "{index}", "--candidates", "magic"), "magic"),
        (("search", "x", "--from", "ftp://host"), "neither a URL nor a folder"),
        (("nonsense",), None),
        (("search",), None),
    ],
)
def test_wrong_usage_exits_2(cli, sample_index, arguments, message):
    done = cli(*(argument.format(index=sample_index) for argument in arguments), code=2)
    if message:
        assert message in one_line(done)


def test_an_unknown_filter_field_is_an_error(cli, sample_index):
    done = cli("search", "x", "--from", str(sample_index), "--where", '{"nope": 1}', code=1)
    assert "'nope' unknown" in one_line(done)


def test_a_changed_bundle_is_refused_by_name(cli, documents, minilm_bundle, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(minilm_bundle.path, copy)
    model = copy / Bundle.open(copy).manifest.models["fp32"]
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    done = cli("feed", str(documents), "--bundle", str(copy), "--to", str(tmp_path / "i"), code=1)
    assert "model.onnx has changed" in one_line(done)
    assert not (tmp_path / "i").exists()


def test_feeding_another_type_into_an_index_is_refused_and_changes_nothing(cli, documents, minilm_bundle, tmp_path):
    index = tmp_path / "index"
    cli("feed", str(documents), "--bundle", str(minilm_bundle.path), "--to", str(index))
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"id": "a", "text": "changed", "year": 2021}\n{"id": "z", "text": "x", "year": "new"}\n')
    done = cli("feed", str(wrong), "--to", str(index), code=1)
    assert "'year'" in one_line(done)
    texts = [hit["text"] for hit in last(cli("search", "threads", "--from", str(index), "--json"))["hits"]]
    assert "changed" not in texts
