"""The page in a real browser, over a real server: search, filters, heat map, side by side, index."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from page_browser import PageServer, settled, shows, titles, visit
from page_documents import page_documents
from serving import made

QUERY = "salt on the morning water"
TIMES = " \N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory, tiny_bundle):
    running = PageServer(f"notes={made(tmp_path_factory.mktemp('page') / 'notes', tiny_bundle, page_documents())}")
    yield running
    running.stop()


def test_search_as_you_type_shows_what_the_api_finds(browser, server):
    wanted = [hit["title"] for hit in server.search(QUERY)]
    with visit(browser) as page:
        page.goto(server.url)
        page.get_by_role("heading", name="Search by meaning").wait_for()
        page.get_by_role("searchbox").press_sequentially(QUERY, delay=5)
        page.locator(".result").first.wait_for()
        page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("q") == [QUERY])
        settled(page)
        assert titles(page) == wanted
        page.get_by_role("searchbox").fill("")
        page.get_by_role("heading", name="Search by meaning").wait_for()


def test_an_obsolete_search_is_cancelled(browser, server):
    with visit(browser) as page:
        held = []
        page.route(
            "**/v1/search", lambda route: held.append(route) if "first" in route.request.post_data else route.continue_()
        )
        page.goto(server.url)
        with page.expect_request(lambda request: request.post_data is not None and "first" in request.post_data):
            page.get_by_role("searchbox").fill("first")
        page.locator(".progress.on").wait_for()
        with page.expect_event("requestfailed") as failed:
            page.get_by_role("searchbox").fill(QUERY)
        page.locator(".result").first.wait_for()
        assert (failed.value.post_data_json["query"], failed.value.failure) == ("first", "net::ERR_ABORTED")
        assert len(held) == 1
        assert titles(page) == [hit["title"] for hit in server.search(QUERY)]


def test_matched_words_are_shaded_by_their_similarity(browser, server):
    best = server.search(QUERY, explain=True)[0]
    why = best["explanation"]
    words = {}  # one may occur several times
    for column, (start, end) in enumerate(why["words"]):
        words.setdefault(why["text"][start:end], set()).add(f"{max(row[column] for row in why['similarities']):.3f}")
    with visit(browser) as page:
        page.goto(server.address(q=QUERY))
        marks = page.locator(".result").first.locator("mark")
        marks.first.wait_for()
        shades = marks.evaluate_all("all => all.map(m => [m.textContent, Number(m.style.getPropertyValue('--s')), m.title])")
        assert shades
        for word, shade, told in shades:
            assert told.split()[-1] in words[word], word
            assert 0 < shade <= 1
        colours = marks.evaluate_all("all => all.map(m => getComputedStyle(m).backgroundColor)")
        assert len(set(colours)) > 1


def test_offsets_count_characters_not_units(browser, server):
    """Each text has a letter outside the basic plane before its last words."""
    with visit(browser) as page:
        page.goto(server.address(q="written by the sea", k=40))
        page.locator(".result mark").first.wait_for()
        for word in page.locator(".result .text mark").all_inner_texts():
            assert re.fullmatch(r"\w+", word), word


def test_stages_are_told_with_their_times(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY))
        page.locator(".result").first.wait_for()
        stages = page.get_by_role("region", name="Stages and their times")
        told = stages.get_by_role("listitem").all_inner_texts()
        assert any(line.startswith("encode") for line in told)
        assert all(re.search(r"[\d.]+ (ms|s)$", line) for line in told)
        assert re.search(r"10 results · \d+ candidates by centroid · \d+ reranked", page.locator(".summary").inner_text())


def test_more_results_and_one_passage_a_document(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY))
        page.get_by_role("button", name="More results").click()
        shows(page, 20)
        page.get_by_role("checkbox", name="One passage a document").check()
        page.wait_for_url("**group=1**")
        settled(page)
        assert titles(page) == [hit["title"] for hit in server.search(QUERY, k=20, group=True)]


def test_candidates_can_be_chosen(browser, server):
    with visit(browser) as page:
        page.goto(server.address(q=QUERY))
        page.get_by_label("Candidates").select_option("bm25")
        page.locator(".summary", has_text="candidates by bm25").wait_for()
        assert titles(page) == [hit["title"] for hit in server.search(QUERY, candidates="bm25")]


class TestFilters:
    def test_the_values_that_occur_are_offered(self, browser, server):
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            panel = page.get_by_role("complementary", name="Filters")
            panel.get_by_role("checkbox", name=re.compile("kitchen")).wait_for()
            for value in server.ask("v1/indexes/notes/values?field=kind")["values"]:
                box = panel.locator("label", has_text=value["value"]).first
                assert box.inner_text().split("\n") == [value["value"], str(value["count"])]

    def test_a_choice_selects_before_ranking_and_is_in_the_address(self, browser, server):
        wanted = [hit["title"] for hit in server.search(QUERY, where={"kind": {"$in": ["forest"]}})]
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.get_by_role("checkbox", name=re.compile("forest")).check()
            page.locator(".active-filters").wait_for()
            settled(page)
            assert titles(page) == wanted and len(wanted) == 8
            address = page.url
        with visit(browser) as page:
            page.goto(address)
            page.locator(".result").first.wait_for()
            assert titles(page) == wanted
            assert page.get_by_role("checkbox", name=re.compile("forest")).is_checked()
            page.get_by_role("button", name="kind: forest").click()
            shows(page, 10)
            page.go_back()
            shows(page, 8)

    def test_a_range(self, browser, server):
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.get_by_label("year, from").fill("1993")
            page.get_by_label("year, from").press("Enter")
            page.get_by_label("year, to").fill("1994")
            page.get_by_label("year, to").press("Enter")
            page.get_by_role("button", name="year: 1993 to 1994").wait_for()
            settled(page)
            assert titles(page) == [hit["title"] for hit in server.search(QUERY, where={"year": {"$gte": 1993, "$lte": 1994}})]

    def test_a_value_of_a_result_becomes_a_filter(self, browser, server):
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            value = page.locator(".result").first.locator("button.value", has_text="kind")
            kind = value.inner_text().split()[-1]
            value.click()
            page.get_by_role("button", name=f"kind: {kind}").wait_for()

    def test_the_whole_language_as_json(self, browser, server):
        where = {"$or": [{"kind": "sea"}, {"$not": {"year": {"$gte": 1995}}}]}
        with visit(browser, refused=True) as page:
            page.goto(server.address(q=QUERY))
            page.locator("summary", has_text="As JSON").click()
            area = page.get_by_label("Filter as JSON")
            area.fill('{"kind": ')
            page.get_by_role("button", name="Apply").click()
            page.get_by_text("This is not JSON").wait_for()
            area.fill('{"$or": [{"kind": "sea"}, {"$not": {"year": {"$gte": 1995}}}]}')
            page.get_by_role("button", name="Apply").click()
            page.locator(".active-filters").wait_for()
            settled(page)
            assert titles(page) == [hit["title"] for hit in server.search(QUERY, where=where)]
            area.fill('{"no such field": 1}')
            page.get_by_role("button", name="Apply").click()
            page.get_by_text("no such field").wait_for()
            page.get_by_role("button", name="Clear").click()
            shows(page, 10)


class TestHeatMap:
    def test_one_click_shows_every_word_against_every_word(self, browser, server):
        best = server.search(QUERY, explain=True)[0]
        why = best["explanation"]
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.locator(".result .title").first.click()
            dialog = page.get_by_role("dialog", name=best["title"])
            dialog.locator(".matrix td[aria-label]").first.wait_for()
            cells = dialog.locator(".matrix td[aria-label]").evaluate_all(
                "all => all.map(c => [...c.place, c.getAttribute('aria-label'), c.className])"
            )
            assert len(cells) == len(why["matches"]) * len(why["words"])
            for row, column, told, kind in cells:
                assert told == f"{why['similarities'][row][column]:.3f}"
                best_here = max(range(len(why["words"])), key=lambda c, row=row: why["similarities"][row][c])
                assert (kind == "best") == (column == best_here)
            assert dialog.locator(".word b").all_inner_texts() == [match["query_word"] for match in why["matches"]]

    def test_it_is_in_the_address_and_closes(self, browser, server):
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.locator(".result .title").nth(2).click()
            dialog = page.get_by_role("dialog")
            dialog.locator(".matrix").first.wait_for()
            address = page.url
            page.keyboard.press("Escape")
            dialog.wait_for(state="hidden")
            assert "hit=" in address
            page.wait_for_url(lambda url: "hit=" not in url)
            assert page.evaluate("document.activeElement.closest('.result').querySelector('.rank').textContent") == "3"
        with visit(browser) as page:
            page.goto(address)
            page.get_by_role("dialog").locator(".matrix").first.wait_for()
            page.get_by_role("button", name="Close").click()
            page.get_by_role("dialog").wait_for(state="hidden")

    def test_of_a_passage_that_is_not_among_the_results(self, browser, server):
        far = server.search(QUERY, k=32)[-1]
        with visit(browser) as page:
            page.goto(server.address(q=QUERY, hit=far["passage_id"], doc=far["id"]))
            page.get_by_role("dialog", name=far["title"]).locator(".matrix").first.wait_for()

    def test_a_query_word_shades_the_passage_by_itself(self, browser, server):
        why = server.search(QUERY, explain=True)[0]["explanation"]
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.locator(".result .title").first.click()
            word = page.locator(".word").nth(1)
            word.click()
            assert word.get_attribute("aria-pressed") == "true"
            told = page.locator(".passage mark").evaluate_all("all => all.map(m => m.title)")
            assert told == [f"{value:.3f}" for value in why["similarities"][1]]

    def test_cells_are_read_out_with_the_arrow_keys(self, browser, server):
        why = server.search(QUERY, explain=True)[0]["explanation"]
        with visit(browser) as page:
            page.goto(server.address(q=QUERY))
            page.locator(".result .title").first.click()
            page.locator(".matrix td[tabindex='0']").focus()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowRight")
            told = page.locator(".readout").inner_text()
            start, end = why["words"][1]
            assert [why["matches"][1]["query_word"], why["text"][start:end]] == re.split(rf"{TIMES} |\s+[\d.-]+$", told)[:2]
            assert told.endswith(f"{why['similarities'][1][1]:.3f}")


class TestSideBySide:
    def test_what_each_found_that_the_others_did_not(self, browser, server):
        by_words = sorted(server.search(QUERY, candidates="bm25", rerank=10), key=lambda h: -h["stages"]["bm25"])
        found = {
            "BM25": [h["passage_id"] for h in by_words],
            "Late interaction": [h["passage_id"] for h in server.search(QUERY, candidates="centroid")],
            "Hybrid": [h["passage_id"] for h in server.search(QUERY, candidates="hybrid")],
        }  # fmt: skip
        with visit(browser) as page:
            page.goto(server.address(q=QUERY, view="compare"))
            page.locator(".list li").first.wait_for()
            for name, ids in found.items():
                column = page.get_by_role("region", name=name)
                assert column.locator("li").evaluate_all("all => all.map(i => i.dataset.passage)") == ids
                others = {id_ for other, theirs in found.items() if other != name for id_ in theirs}
                alone = [id_ for id_ in ids if id_ not in others]
                assert column.locator("li.alone").evaluate_all("all => all.map(i => i.dataset.passage)") == alone
                assert column.get_by_text("Only here", exact=True).count() == len(alone)
                assert f"{len(alone)} only here" in column.locator("header").inner_text()
            assert any(set(ids) - set(found["Hybrid"]) for ids in found.values())

    def test_one_passage_is_marked_in_all_lists_and_opens(self, browser, server):
        with visit(browser) as page:
            page.goto(server.address(q=QUERY, view="compare"))
            first = page.locator(".list").last.locator("li").first
            first.hover()
            assert page.locator("li.lit").count() >= 1
            first.locator(".title").click()
            page.get_by_role("dialog").locator(".matrix").first.wait_for()


def test_the_index_view_says_what_the_api_says(browser, server):
    facts = server.ask("v1/indexes/notes")
    with visit(browser) as page:
        page.goto(server.address(view="index"))
        page.locator(".panel").first.wait_for()
        told = dict(
            zip(page.locator("#content dt").all_inner_texts(), page.locator("#content dd").all_inner_texts(), strict=True)
        )
        assert told["Documents"] == str(facts["documents"]) == "32"
        assert told["Token vectors"] == f"{facts['token_vectors']:,}"
        assert told["Codec"] == facts["codec"]
        assert told["Versions kept"] == str(facts["versions"])
        assert "Size" in told and "Last feed" in told
        assert page.get_by_role("meter", name="Growth").get_attribute("aria-valuetext") == f"{facts['growth']:.2f}{TIMES}"
        rows = page.locator(".plain tbody tr").all_inner_texts()
        assert [row.split() for row in rows] == [[name, type_] for name, type_ in facts["fields"].items()]


def test_keyboard_only(browser, server):
    with visit(browser) as page:
        page.goto(server.url)
        page.get_by_role("heading", name="Search by meaning").wait_for()
        page.keyboard.press("/")
        page.keyboard.type(QUERY)
        page.keyboard.press("Enter")
        page.locator(".result").first.wait_for()
        settled(page)
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
        rank = "document.activeElement.closest('.result')?.querySelector('.rank').textContent"
        assert page.evaluate(rank) == "2"
        page.keyboard.press("Enter")
        page.get_by_role("dialog").locator(".matrix").first.wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        assert page.evaluate(rank) == "2"
        page.keyboard.press("2")
        page.locator(".list li").first.wait_for()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.column") == "late"
        page.keyboard.press("3")
        page.locator(".panel").first.wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keyboard").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog", name="Keyboard").wait_for(state="hidden")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "query"
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("checkbox", name="Use the keys of one character").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.press("1")
        assert page.evaluate("document.activeElement.id") != "query" and "view=index" in page.url


@pytest.mark.parametrize("view", ["search", "compare", "index"])
def test_phone_width(browser, server, view):
    with visit(browser, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as page:
        page.goto(server.address(q=QUERY, view=view))
        page.locator(".result, .list li, .panel").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        if view == "search":
            page.get_by_role("button", name="Filters").tap()
            page.get_by_role("checkbox", name=re.compile("kitchen")).wait_for()
            page.locator(".result .title").first.tap()
            page.get_by_role("dialog").locator(".matrix").first.wait_for()
            wide = page.locator(".sheet-body").evaluate("b => b.scrollWidth - b.clientWidth")
            assert wide <= 0


def test_light_and_dark(browser, server):
    lightness = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))"
    with visit(browser, color_scheme="light") as page:
        page.goto(server.url)
        assert page.evaluate(lightness) > 200
    with visit(browser, color_scheme="dark") as page:
        page.goto(server.url)
        assert page.evaluate(lightness) < 60
        toggle = page.get_by_role("button", name="Dark colours")
        assert toggle.get_attribute("aria-pressed") == "true"
        toggle.click()
        assert page.evaluate(lightness) > 200
        page.reload()
        assert page.evaluate(lightness) > 200 and toggle.get_attribute("aria-pressed") == "false"


def test_a_link_is_the_whole_state(browser, server):
    state = {"q": QUERY, "candidates": "hybrid", "where": {"kind": {"$in": ["sea", "city"]}}, "k": 12}
    with visit(browser) as page:
        page.goto(server.address(**state))
        page.locator(".result").first.wait_for()
        assert titles(page) == [hit["title"] for hit in server.search(QUERY, candidates="hybrid", where=state["where"], k=12)]
        assert page.get_by_role("searchbox").input_value() == QUERY
        assert page.get_by_label("Candidates").input_value() == "hybrid"
        assert QUERY in page.title()
        page.goto(server.url + "?view=nonsense&k=-1&where=%5B1&candidates=&q=sea")
        page.locator(".result").first.wait_for()
        assert len(titles(page)) == 10
