"""Every option that names an output, given what is the user's: refused by name before the work, and nothing is changed."""

import json
import os
import stat
from pathlib import Path

import pytest

from late_interaction.bundle import MANIFEST, is_bundle_folder
from late_interaction.errors import UsageError
from late_interaction.files import claim_folder
from late_interaction.plaid.shards.layout import is_index_folder
from vespa_app import build_package, default_settings
from vespa_app.package.building import is_package_folder

COMMANDS = {
    "export": ("export", "no/such/checkpoint", "-o"),
    "app": ("app", "no/such/bundle", "-o"),
    "demo": ("demo", "--collection", "no/such/collection", "-o"),
    "train": ("train", "no/such/data.jsonl", "--model", "no/such/model", "-o"),
    "pull": ("index", "pull", "http://localhost:1", "-o"),
    "backup": ("index", "backup", "no/such/index", "-o"),
    "restore": ("index", "restore", "no/such/backup", "--to"),
    "feed": ("feed", "home/documents.jsonl", "--bundle", "no/such/bundle", "--to"),
    "import": ("index", "import", "no/such/index", "-o"),
}


def tree(root):
    """Everything below: kind, content and inode's number, links included."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            found[path] = (status.st_mode, status.st_ino, path.read_bytes() if stat.S_ISREG(status.st_mode) else None)
    return found


@pytest.fixture
def home(tmp_path, monkeypatch):
    root = tmp_path / "home"
    (root / "work" / ".git").mkdir(parents=True)
    (root / "work" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (root / "documents.jsonl").write_text('{"id": "a", "text": "one"}\n')
    (root / "hard.jsonl").hardlink_to(root / "documents.jsonl")
    (root / "link").symlink_to("work")
    (root / "application" / "schemas").mkdir(parents=True)
    (root / "application" / "services.xml").write_text("<services/>")
    for name in ("bundle", "package", "index", "vectors", "known-item"):
        (root / "demo" / name).mkdir(parents=True)
        (root / "demo" / name / "mine").write_text("mine")
    (root / "manifest").mkdir()
    (root / "manifest" / "manifest.json").write_text('{"name": "a web page"}')
    monkeypatch.chdir(root / "work")
    monkeypatch.setenv("HOME", str(root))
    return root


TARGETS = (
    ".", "..", "/", "../work", "../link", "../link/.git", "../documents.jsonl", "../hard.jsonl", "../application", "../demo",
    "../manifest", ".git/HEAD", ".git/HEAD/below", "",
)  # fmt: skip


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("feed", "import")])
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_the_users_stays(cli, home, tmp_path, command, target):
    before = tree(tmp_path)
    with pytest.raises(AssertionError, match="exit [12], wanted 0"):
        cli(*COMMANDS[command], target)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["export", "app", "demo", "train"])
def test_it_is_refused_by_name_before_the_work(cli, home, command):
    for target, reason in (("..", "did not write"), ("../documents.jsonl", "is a file"), ("../link", "did not write")):
        said = " ".join(cli(*COMMANDS[command], target, code=2).stderr.split())
        assert f"{target} " in said and reason in said
    assert ".git/HEAD/below" in cli(*COMMANDS[command], ".git/HEAD/below", code=2).stderr


@pytest.fixture
def ours(tmp_path, tiny_bundle):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    tiny_bundle.copy_to(bundle)
    package = build_package(tiny_bundle, default_settings(tiny_bundle, _no_fields())).explained().write(tmp_path / "package")
    return {is_bundle_folder: bundle, is_package_folder: package}


def _no_fields():
    from late_interaction.metadata import MetadataSchema

    return MetadataSchema({})


def test_ours_is_known_with_nothing_else_in_it(ours, sample_index):
    for owned, folder in ours.items():
        assert owned(folder), folder
        for other in ours:
            assert other is owned or not other(folder)
    assert is_index_folder(sample_index)
    for owned, folder in ours.items():
        (folder / "notes").mkdir()
        assert owned(folder)
        (folder / "notes" / "mine.txt").write_text("mine")
        assert not owned(folder), folder


def test_a_bundle_of_another_format_version_may_be_replaced(ours):
    folder = ours[is_bundle_folder]
    manifest = json.loads((folder / MANIFEST).read_text()) | {"format_version": 99}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert is_bundle_folder(folder)
    for text in ("[]", "{}", "null", "[" * 100_000, '{"files": 1, "models": 1, "format_version": 1}'):
        (folder / MANIFEST).write_text(text)
        assert not is_bundle_folder(folder)


def test_a_package_is_replaced_by_one_of_other_settings(ours, tiny_bundle):
    package = build_package(tiny_bundle, default_settings(tiny_bundle, _no_fields(), codec="binary"))
    package.write(ours[is_package_folder])
    (ours[is_package_folder] / "components").mkdir()
    (ours[is_package_folder] / "components" / "mine.jar").write_bytes(b"mine")
    with pytest.raises(UsageError, match="files that this command did not write"):
        package.write(ours[is_package_folder])


def test_the_model_that_is_trained_from_is_not_replaced(tmp_path):
    from colbert_vespa.training import TrainingData, train
    from colbert_vespa.training.data import Example
    from colbert_vespa.training.saving import MARKER

    model = tmp_path / "model"
    model.mkdir()
    (model / MARKER).write_text(json.dumps({"colbert-vespa": "checkpoint", "files": []}))
    data = TrainingData([Example("q", "d")])
    for output, bundle in ((model, None), (tmp_path / "new", model), (tmp_path / "new", tmp_path / "new")):
        with pytest.raises(UsageError, match="are the same file or folder|did not write"):
            train(model, data, output, bundle=bundle)
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "scores.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.run is not a training run folder"):
        train(model, data, tmp_path / "out")
    assert (tmp_path / "out.run" / "scores.jsonl").read_text() == "mine"


def test_a_backup_that_is_resumed_touches_no_folder_of_others(cli, sample_index, tmp_path):
    folder = tmp_path / "mine"
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "mine.txt").write_text("mine")
    (folder / "manifest.json").write_text("{}")
    for progress in (None, '{"id": "a"}\n'):
        if progress is not None:
            (folder / "manifest.json").unlink()
            (folder / "progress.jsonl").write_text(progress)
        before = tree(folder)
        for more in ((), ("--resume",)):
            cli("index", "backup", str(sample_index), "-o", str(folder), *more, code=2)
        assert tree(folder) == before


def test_monitoring_writes_over_no_file_of_others(cli, tmp_path):
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus" / "prometheus.yml").write_text("scrape_configs: []\n")
    before = tree(tmp_path)
    assert "was not written by this command" in " ".join(cli("monitor", "files", str(tmp_path), code=2).stderr.split())
    assert tree(tmp_path) == before
    for _ in range(2):
        cli("monitor", "files", str(tmp_path / "new"))


def test_a_demo_folder_keeps_what_else_is_in_it(cli, tmp_path):
    claim_folder(tmp_path / "demo", "demo")
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    cli("demo", "--collection", "/no/such", "-o", str(tmp_path / "demo"), code=1)
    assert (tmp_path / "demo" / "notes.txt").read_text() == "mine"


REPORTS = {
    "heatmap.html": ("search", "x", "--from", "no/such/index", "--heatmap"),
    "junit.xml": ("parity", "--bundle", "no/such/bundle", "--junit"),
    "page.html": ("parity", "--bundle", "no/such/bundle", "--html"),
    "run.txt": ("evaluate", "--from", "no/such/index", "--run"),
    "recall.png": ("evaluate", "--from", "no/such/index", "--plot"),
    "trained.svg": ("train", "no/such/data.jsonl", "--model", "no/such/model", "-o", "no-such-output", "--plot"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_written_over_no_file_of_others(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    for content in ("mine\n", "<!doctype html>\n<html><title>about colbert-vespa</title>", "q1 Q0 d1 1 2.5 another\n"):
        file.write_text(content)
        assert "was not written by this command" in " ".join(cli(*REPORTS[name], name, code=2).stderr.split())
        assert file.read_text() == content


def test_a_report_is_written_over_one_of_before(cli, sample_index, tmp_path):
    page = tmp_path / "heatmap.html"
    for query in ("a thread", "a list"):
        cli("search", query, "--from", str(sample_index), "--heatmap", str(page))
        assert f"<title>{query}</title>" in page.read_text()


def test_every_kind_of_report_is_known_as_ours(tmp_path):
    from colbert_vespa.cli.option_types import JUNIT, PAGE, PLOT, TREC_RUN
    from colbert_vespa.evaluation.parity.report import html_page, junit_xml
    from colbert_vespa.evaluation.parity.run import ParityReport
    from colbert_vespa.evaluation.plots import new_figure, save_figure
    from colbert_vespa.evaluation.runs import write_run

    report = ParityReport("bundle", 0, 0, (), (), ())
    (tmp_path / "junit.xml").write_bytes(junit_xml(report))
    (tmp_path / "page.html").write_text(html_page(report))
    write_run(tmp_path / "run.txt", {"q": [("d", 1.0)]})
    for name in ("plot.png", "plot.svg"):
        save_figure(new_figure(2, 2), tmp_path / name)
        assert PLOT(str(tmp_path / name))
    for kind, name in ((JUNIT, "junit.xml"), (PAGE, "page.html"), (TREC_RUN, "run.txt")):
        assert kind(str(tmp_path / name)) == tmp_path / name
    with pytest.raises(UsageError, match=r"ends in \.png or \.svg"):
        save_figure(new_figure(2, 2), tmp_path / "plot.txt")
