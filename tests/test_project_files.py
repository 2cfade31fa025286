"""What a stranger finds beside the code: files for the forge against their makers' schemas, and what a release has in it."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md")]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMAS = [
    *(("github-workflows", file) for file in WORKFLOWS),
    *(("github-issue-config" if file.name == "config.yml" else "github-issue-forms", file) for file in FORMS),
    ("dependabot", ROOT / ".github" / "dependabot.yml"),
    ("citation-file-format", ROOT / "CITATION.cff"),
    ("compose-spec", ROOT / "docker-compose.yml"),
]


def release_script():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_files_fit_their_schemas():
    by_schema = {}
    for schema, file in SCHEMAS:
        by_schema.setdefault(schema, []).append(str(file))
    for schema, files in by_schema.items():
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_run_targets_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    steps = [
        step["run"]
        for file in WORKFLOWS
        for job in yaml.safe_load(file.read_text("utf-8"))["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert len(steps) > 6
    for step in steps:
        words = shlex.split(step)
        assert words[0] in ("make", "docker"), step
        if words[0] == "make":
            assert words[1] in targets, step


def test_hooks_are_checks_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    check = (ROOT / "Makefile").read_text("utf-8").partition("\ncheck:")[2].partition("\n\n")[0]
    assert {hook["entry"].split()[0] for hook in hooks} == set(re.findall(r"\.venv/bin/[\w-]+", check))


def test_versions_agree(project):
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == project["version"]
    assert (ROOT / "LICENSE").read_text("utf-8").lstrip().startswith("Apache License")
    assert project["license"] == "Apache-2.0"


def test_a_wheel_with_a_fault_is_named():
    check = release_script().wheel_faults
    packages = release_script().PACKAGES
    info = "colbert_vespa-1.dist-info"
    good = [
        *(f"{package}/py.typed" for package in packages),
        f"{info}/licenses/LICENSE",
        "colbert_vespa/server/page/index.html",
    ]
    assert check(good) == []
    assert check(good[1:]) == ["colbert_vespa/py.typed is missing"]
    assert check([*good, "tests/test_x.py"]) == ["tests does not belong into the wheel"]
    assert check([*good, "query/sample.npz"]) == ["query/sample.npz is not ours to ship"]


def test_a_tag_is_the_version_of_an_entry(project):
    check = release_script().version_faults
    entry = f"## [{project['version']}] - 2026-01-01"
    assert check(f"v{project['version']}", project, entry) == [] == check("", project, "")
    assert len(check("v9.9.9", project, "")) == 2


def test_figures_of_the_readme_are_checked_by_the_release():
    check, readme = release_script().readme_faults, (ROOT / "README.md").read_text("utf-8")
    assert check(readme, {}) == []
    assert check(readme, {"base MB": 184.5}) == []
    assert check(readme, {"base MB": 150.0}) == ["README.md states base MB as 180, it is 150"]
    assert check(readme.replace("below 220 MB", "below 300 MB"), {}) == ["README.md states limit base MB as 300, it is 220"]
    assert check("", {}) == [f"README.md does not state {name}" for name in release_script().STATED]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_beside_the_code_lead_somewhere(page):
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for link in links:
        path, _, place = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if place:
            assert place in {slug(line) for line in target.read_text("utf-8").splitlines() if line.startswith("#")}, link


def slug(heading):
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lstrip("# ").lower()))


def test_the_readme_is_short_and_its_commands_are_known():
    typer = pytest.importorskip("typer")
    from colbert_vespa.cli.commands import app

    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("\n") < 150
    group = typer.main.get_command(app)
    commands = re.findall(r"^    colbert-vespa (.+)$", text.replace("\\\n", " "), re.MULTILINE)
    assert len(commands) >= 10
    for line in commands:
        name, *words = shlex.split(line, comments=True)
        command = group.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not re.match(r"--?[a-z]", word) or word in options, line


@pytest.mark.slow
def test_sdist_and_wheel_have_what_they_should(tmp_path):
    script = release_script()
    uv = next((str(tool) for tool in [ROOT / ".tools" / "bin" / "uv"] if tool.exists()), "uv")
    try:
        subprocess.run([uv, "build", "--quiet", "--out-dir", tmp_path, ROOT], check=True)
    except FileNotFoundError:
        pytest.skip("needs uv")
    listed = [sys.executable, "-m"]
    names = subprocess.check_output([*listed, "zipfile", "-l", *tmp_path.glob("*.whl")], text=True).splitlines()[1:]
    assert script.wheel_faults([line.split()[0] for line in names]) == []
    names = subprocess.check_output([*listed, "tarfile", "-l", *tmp_path.glob("*.tar.gz")], text=True).splitlines()
    assert script.sdist_faults([name.strip().partition("/")[2] for name in names]) == []
