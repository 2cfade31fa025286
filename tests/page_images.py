"""Makes docs/images/page-*.png: the main views of the page over a local index, as they are in a browser.

    cd tests && ../.venv/bin/python -m page_images [INDEX [FOLDER]]

The index is that of `make demo` unless another is named. Fonts are those of the machine. Of several searches the quickest is
kept, so that the times are those of a machine without other work.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from page_browser import PageServer, chromium, settled, visit

ROOT = Path(__file__).resolve().parent.parent
IMAGES = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
QUERY = "stop a thread that waits for a lock"
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
TRIES = 6
WHERE = {"kind": {"$in": ["class", "function"]}}

# name: context, state of the page, what is there when it is drawn
VIEWS = {
    "search-light": (DESK, {"q": QUERY}, ".result"),
    "search-dark": (DESK | {"color_scheme": "dark"}, {"q": QUERY, "where": WHERE}, ".result"),
    "compare-light": (DESK, {"q": QUERY, "view": "compare"}, ".list li"),
    "compare-dark": (DESK | {"color_scheme": "dark"}, {"q": QUERY, "view": "compare"}, ".list li"),
    "index-light": (DESK, {"view": "index"}, ".panel"),
    "search-phone": (PHONE, {"q": QUERY}, ".result"),
}  # fmt: skip
HEAT_MAPS = {"heatmap-light": DESK, "heatmap-dark": DESK | {"color_scheme": "dark"}, "heatmap-phone": PHONE}


def main() -> None:
    index = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "demo" / "index")
    server = PageServer(f"standard-library={index}")
    server.search(QUERY, explain=True)
    with chromium() as browser:
        for name, (context, state, drawn) in VIEWS.items():
            with visit(browser, **context) as page:
                quickest = float("inf")
                for _ in range(TRIES if "q" in state else 1):
                    page.goto(server.address(**state))
                    page.locator(drawn).first.wait_for()
                    if (took := milliseconds(page)) < quickest:
                        quickest = took
                        keep(page, name)
        for name, context in HEAT_MAPS.items():
            with visit(browser, **context) as page:
                page.goto(server.address(q=QUERY))
                page.locator(".result .title").first.click()
                page.locator(".matrix").first.wait_for()
                if context is PHONE:
                    page.locator(".bands-head").evaluate("node => node.scrollIntoView()")
                page.locator(".matrix td.best").first.hover()
                keep(page, name)
    server.stop()


def milliseconds(page) -> float:
    """That the searches of this view took, as it tells them."""
    told = page.locator(".stage-list b, .list header .number").all_inner_texts()
    found = [re.search(r"([\d.]+) (ms|s)$", text) for text in told]
    return sum(float(one[1]) * (1000 if one[2] == "s" else 1) for one in found if one)


def keep(page, name: str) -> None:
    settled(page)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / f"page-{name}.png")


if __name__ == "__main__":
    main()
