"""The documentation site: it builds without a warning, its links lead somewhere, and the reference has all that there is."""

import importlib
import re
from pathlib import Path

import pytest
from page_browser import chromium, visit

ROOT = Path(__file__).parents[2]
pytest.importorskip("zensical", reason="the site's generator needs Python 3.11")


@pytest.fixture(scope="module")
def site_builder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / ".ci"))
        yield importlib.import_module("build_docs")


@pytest.fixture(scope="module")
def built(site_builder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    assert site_builder.build(folder / "work", folder / "site") == []
    return folder / "site"


def test_the_site_builds_without_a_warning_and_is_searched_from_disk(built):
    with chromium() as browser, visit(browser) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((built / "index.html").as_uri())
        page.locator(".md-search__button").first.click()
        page.get_by_placeholder("Search").fill("canaries")
        page.locator("a", has_text="monitor canaries").first.wait_for()
        assert [url for url in asked if url.startswith("http")] == []


def test_every_page_is_in_the_navigation():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / ".ci" / "zensical.toml").read_text("utf-8"))["project"]
    named = set(re.findall(r"'([\w/-]+\.md)'", str(project["nav"])))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert named - pages == {"contributing.md", "changelog.md"}
    assert pages <= named


def test_no_page_names_what_only_its_writers_have():
    for page in (ROOT / "docs").rglob("*.md"):
        assert not re.search(r"\.\./shared|/work/", page.read_text("utf-8")), page


def test_links_that_lead_nowhere_and_pages_that_load_from_elsewhere_are_found(site_builder, tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="/d">4</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><img src="https://example.org/x.png"><a href="https://example.org">5</a>'
    )
    assert site_builder.faults(tmp_path) == [
        "a.html: b.html#gone: the page has no such place",
        "a.html: c.html does not exist",
        "a.html: /d leaves the site",
        "b.html: loads https://example.org/x.png",
    ]


def test_the_reference_has_every_command_name_error_metric_and_setting(site_builder):
    import typer

    import colbert_vespa
    from colbert_vespa.cli.commands import app
    from late_interaction import errors
    from vespa_app.settings import AppSettings

    made = {name: site_builder.reference.part(name) for name in site_builder.reference.PARTS}
    for name, command in typer.main.get_command(app).commands.items():
        assert f"\n## {name}\n" in f"\n{made['command-line']}", name
        assert getattr(command, "commands", {}).keys() <= set(re.findall(rf"### {name} (\w+)\n", made["command-line"]))
    assert "--explain" in made["command-line"] and "### serve keys make" in made["command-line"]
    for name in colbert_vespa.__all__:
        assert f"### {name} {{" in made["python"], name
    assert "#### Client.search() {" in made["python"] and "where:" in made["python"]
    assert all(f"`{name}`" in made["errors"] for name in errors.__all__)
    for metric in ("colbert_vespa_canaries", "colbert_vespa_feed_retries_total", "colbert_vespa_serve_request_seconds"):
        assert f"`{metric}`" in made["metrics"]
    assert all(f"`{name}`" in made["settings"] for name in AppSettings.__dataclass_fields__)
    assert "### `[one_vector]`" in made["settings"] and "candidates that HNSW and BM25 must find" in made["settings"]
