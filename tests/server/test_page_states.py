"""What the page says when there is nothing to show: errors, keys, slowness, an index or a server that goes away."""

from __future__ import annotations

import json
import shutil

import pytest
from page_browser import PageServer, settled, shows, titles, visit
from page_documents import page_documents
from serving import made

from colbert_vespa.server.door import KeyedDoor
from colbert_vespa.server.keys import KeyFile

QUERY = "bread and butter"


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_bundle) -> str:
    return made(tmp_path_factory.mktemp("states") / "notes", tiny_bundle, page_documents())


@pytest.fixture(scope="module")
def server(browser, index):
    running = PageServer(index)
    yield running
    running.stop()


def problem(status: int, detail: str, **headers: str):
    body = {"type": "about:blank", "title": "x", "status": status, "detail": detail, "request_id": "r-17"}
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(body), "headers": headers}


def test_nothing_found(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY, where={"kind": "desert"}))
        page.get_by_role("heading", name="Nothing found").wait_for()
        page.get_by_role("button", name="Clear the filters").click()
        shows(page, 10)


def test_a_slow_search_says_so_and_can_be_stopped(browser, server):
    with visit(browser) as page:
        page.route("**/v1/search", lambda route: None)
        page.goto(server.address(q=QUERY))
        page.get_by_text("Still searching").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.unroute_all(behavior="ignoreErrors")
        page.get_by_role("button", name="Search again").click()
        shows(page, 10)


def test_a_busy_server_is_asked_again(browser, server):
    answers = iter([problem(429, "too many requests wait", **{"Retry-After": "1"})])
    with visit(browser, refused=True) as page:
        page.route("**/v1/search", lambda route: route.fulfill(**one) if (one := next(answers, None)) else route.continue_())
        page.goto(server.address(q=QUERY))
        page.get_by_role("alert").get_by_text("The server is busy").wait_for()
        shows(page, 10)
        assert page.get_by_role("alert").count() == 0


@pytest.mark.parametrize(("status", "title"), [(504, "took too long"), (422, "not accepted")])
def test_errors_are_told_in_the_servers_words(browser, server, status, title):
    with visit(browser, refused=True) as page:
        page.route("**/v1/search", lambda route: route.fulfill(**problem(status, "because <b>of this</b>")))
        page.goto(server.address(q=QUERY))
        alert = page.get_by_role("alert")
        alert.get_by_text(title).wait_for()
        assert "because <b>of this</b>" in alert.inner_text() and "Request r-17" in alert.inner_text()
        assert page.locator(".result").count() == 0
        page.unroute_all(behavior="ignoreErrors")
        page.get_by_role("button", name="Try again").click()
        shows(page, 10)


def test_an_index_that_goes_away_and_comes_back(browser, index, tmp_path):
    folder = tmp_path / "moving"
    shutil.copytree(index, folder)
    server = PageServer(str(folder))
    try:
        with visit(browser, refused=True) as page:
            page.goto(server.address(q=QUERY))
            shows(page, 10)
            folder.rename(tmp_path / "away")
            page.get_by_role("searchbox").fill("the river")
            alert = page.get_by_role("alert")
            alert.get_by_text("The index cannot be reached").wait_for()
            assert "missing or damaged" in alert.inner_text() and str(tmp_path) not in alert.inner_text()
            assert page.locator(".result").count() == 0
            (tmp_path / "away").rename(folder)
            shows(page, 10)  # by itself
    finally:
        server.stop()


def test_an_index_that_this_server_does_not_have(browser, server):
    with visit(browser, refused=True) as page:
        page.goto(server.address(q=QUERY, index="other"))
        page.get_by_role("alert").get_by_text("The index is not there").wait_for()


def test_a_server_that_stops_and_starts_again(browser, index):
    server = PageServer(index)
    try:
        with visit(browser, refused=True) as page:
            page.goto(server.address(q=QUERY))
            shows(page, 10)
            server.stop()
            page.get_by_role("searchbox").fill("the river")
            page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
            server.start()
            shows(page, 10)  # by itself
            assert page.get_by_role("alert").count() == 0
            assert titles(page) == [hit["title"] for hit in server.search("the river")]
    finally:
        server.stop()


def test_a_key_is_asked_for_and_stays_in_the_tab(browser, index, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    _, token = keys.make("tests", "read", where={"kind": "kitchen"})
    server = PageServer(index, door=KeyedDoor(keys))
    try:
        with visit(browser, refused=True) as page:
            page.goto(server.address(q=QUERY))
            page.get_by_role("button", name="Enter an API key").click()
            page.get_by_label("Key", exact=True).fill(token)
            page.get_by_role("button", name="Use this key").click()
            shows(page, 8)
            assert page.evaluate("Object.values(localStorage).join() + document.cookie") == ""
            assert page.evaluate("Object.values(sessionStorage)") == [token]
            assert token not in page.url and token not in page.content()
            page.locator(".choice", has_text="kitchen").wait_for()
            assert page.locator(".choice", has_text="forest").count() == 0  # what the key may not see does not exist
            page.reload()
            shows(page, 8)
            page.get_by_role("button", name="API key").click()
            page.get_by_role("button", name="Forget it").click()
            page.get_by_role("button", name="Enter an API key").wait_for()
            assert page.evaluate("sessionStorage.length") == 0
    finally:
        server.stop()


def test_escape_stops_a_search(browser, server):
    with visit(browser) as page:
        page.route("**/v1/search", lambda route: None)
        page.goto(server.url)
        page.get_by_role("searchbox").fill(QUERY)
        page.locator(".progress.on").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Stopped").wait_for()
        settled(page)
