"""Documents that would be markup, and what axe-core finds."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.request import urlopen

import pytest
from page_browser import PageServer, settled, visit
from page_documents import LONG, MARKUP, hostile_documents, page_documents
from serving import made

from colbert_vespa.server.page import FOLDER

QUERY = "a plain query"


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory, tiny_bundle):
    folder = tmp_path_factory.mktemp("safety")
    hostile = made(folder / "hostile", tiny_bundle, hostile_documents())
    running = PageServer(f"hostile={hostile}", f"notes={made(folder / 'notes', tiny_bundle, page_documents())}")
    yield running
    running.stop()


def harmless(page) -> None:
    settled(page)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, main b[onerror], dialog img, dialog script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.result')].map(r => r.offsetHeight), 0)") < 700


@pytest.mark.parametrize("width", [1280, pytest.param(360, marks=pytest.mark.slow)])
def test_hostile_documents_are_shown_as_text(browser, server, width):
    with visit(browser, viewport={"width": width, "height": 800}) as page:
        page.goto(server.address(q=QUERY, index="hostile"))
        page.locator(".result").nth(5).wait_for()
        harmless(page)
        markup = page.locator(".result", has=page.locator(".title", has_text="<img src=x"))
        assert MARKUP in markup.locator(".title").inner_text()
        assert MARKUP in markup.locator(".text").inner_text()
        assert MARKUP[:60] in markup.locator(".value", has_text="note").inner_text()
        for place in range(6):
            page.locator(".result .title").nth(place).click()
            page.get_by_role("dialog").locator(".matrix, p").first.wait_for()
            assert page.locator(".sheet-body").evaluate("b => b.scrollWidth - b.clientWidth") <= 0
            harmless(page)
            page.keyboard.press("Escape")


def test_hostile_documents_side_by_side_and_whole(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY, index="hostile", view="compare"))
        page.locator(".list li").first.wait_for()
        harmless(page)
        page.goto(server.address(q=QUERY, index="hostile"))
        long = page.locator(".result", has=page.locator(".where", has_text="long"))
        long.get_by_role("button", name="Whole text").click()
        long.get_by_text("more characters").wait_for()
        assert len(long.inner_text()) < 30_000 < len(LONG)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_overrides_do_not_reach_their_neighbours(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY, index="hostile"))
        page.locator(".result").first.wait_for()
        foreign = page.locator(".result .title, .result .text, .result bdi, .choice-text")
        assert set(foreign.evaluate_all("all => all.map(n => getComputedStyle(n).unicodeBidi)")) == {"isolate"}


def test_hostile_values_are_filters(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY, index="hostile"))
        boxes = page.locator(".choice")
        boxes.first.wait_for()
        for place in range(boxes.count()):
            assert boxes.nth(place).evaluate("n => n.scrollWidth <= n.parentElement.parentElement.clientWidth + 1")
        box = page.locator(".choice", has_text="<img src=x").get_by_role("checkbox")
        box.check()
        page.locator(".active-filters").wait_for()
        settled(page)
        assert page.locator(".result").count() == 1
        harmless(page)


def test_a_hostile_query_and_address(browser, server):
    with visit(browser, refused=True) as page:
        page.goto(server.address(q=MARKUP, index=MARKUP, where={MARKUP: MARKUP}))
        page.get_by_role("alert").wait_for()
        harmless(page)
        page.goto(server.address(q=MARKUP, index="hostile", hit=MARKUP, doc=MARKUP))
        page.get_by_role("dialog").get_by_role("alert").wait_for()
        harmless(page)


def test_the_page_is_files_alone(server):
    """No inline code or style, nothing from elsewhere, and a policy that says so."""
    with urlopen(server.url, timeout=30) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "style-src 'self'" in policy
    assert "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
    for path in sorted(FOLDER.iterdir()):
        text = path.read_text("utf-8")
        assert "://" not in text.replace("http://www.w3.org/", ""), path.name
        for banned in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "setHTML",
        ):
            assert banned not in text, f"{path.name}: {banned}"
    parts = Parts()
    parts.feed((FOLDER / "index.html").read_text("utf-8"))
    for tag, names in parts.tags:
        assert tag != "style" and "style" not in names and not any(name.startswith("on") for name in names), tag
        assert tag != "script" or "src" in names


class Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, server, scheme):
    from axe_playwright_python.sync_playwright import Axe

    axe, query = Axe(), "salt on the morning water"
    with visit(browser, color_scheme=scheme, refused=True) as page:

        def check(what: str) -> None:
            settled(page)
            found = axe.run(page).response["violations"]
            serious = [
                (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], what

        page.goto(server.address(index="notes"))
        page.locator(".choice").first.wait_for()
        check("welcome")
        page.goto(server.address(index="notes", q=query, where={"kind": {"$in": ["sea", "city"]}}))
        page.locator(".result").first.wait_for()
        check("search")
        page.locator(".result .title").first.click()
        page.locator(".matrix").first.wait_for()
        check("heat map")
        page.goto(server.address(index="notes", q=query, view="compare"))
        page.locator(".list li").first.wait_for()
        check("side by side")
        page.goto(server.address(index="notes", view="index"))
        page.locator(".panel").first.wait_for()
        check("index")
        if scheme == "dark":  # the rest is drawn with the same colours
            return
        page.goto(server.address(index="notes", q=query, where={"kind": "desert"}))
        page.get_by_text("Nothing found").first.wait_for()
        check("nothing found")
        page.goto(server.address(index="gone", q=query))
        page.get_by_role("alert").wait_for()
        check("error")
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        check("keyboard")
