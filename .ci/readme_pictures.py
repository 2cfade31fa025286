"""Make the README's pictures: `python .ci/readme_pictures.py [INDEX]`.

Draws the flow, light and dark. With INDEX, a local index such as demo/index, which `make demo` leaves, it also serves that and
takes a picture of the page (needs chromium).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from html import escape
from pathlib import Path
from urllib.parse import urlencode

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
QUESTION = "make a temporary directory that cleans up after itself"
WIDTH, HEIGHT = 860, 330
COLOURS = {
    "light": {"text": "#1f2328", "quiet": "#59636e", "line": "#818b98", "box": "#f6f8fa", "ours": "#ddf4ff", "edge": "#0969da"},
    "dark": {"text": "#e6edf3", "quiet": "#9198a1", "line": "#6e7681", "box": "#161b22", "ours": "#0c2d6b", "edge": "#58a6ff"},
}
# name, what stands below it, left, top, width, whether this project makes it
BOXES = (
    ("checkpoint", "Stanford, PyLate, …", 10, 20, 150, False),
    ("bundle", "ONNX + codebook, verified", 270, 20, 190, True),
    ("package", "schema, ranking, services", 560, 20, 190, True),
    ("documents", "Markdown, CSV, PDF, …", 10, 135, 150, False),
    ("token vectors", "one per token", 270, 135, 190, True),
    ("local index", "a folder", 566, 132, 126, True),
    ("Vespa", "one node or many", 712, 132, 132, False),
    ("query", "", 10, 250, 150, False),
    ("candidates", "centroids, BM25, dense, …", 270, 250, 190, True),
    ("hits", "MaxSim scores, matched words", 560, 250, 220, True),
)
GROUP = (554, 120, 302, 78)  # left, top, width, height: where either one takes the documents and answers
# points of a line, its label and where that stands
ARROWS = (
    (((160, 47), (270, 47)), "export", (213, 39)),
    (((460, 47), (560, 47)), "app", (508, 39)),
    (((750, 47), (778, 47), (778, 132)), "deploy", (804, 90)),
    (((160, 162), (270, 162)), "feed", (213, 154)),
    (((365, 74), (365, 135)), "encodes", (396, 108)),
    (((460, 162), (554, 162)), "", (0, 0)),
    (((705, 198), (705, 224), (365, 224), (365, 250)), "the same answers from either", (535, 216)),
    (((160, 277), (270, 277)), "search", (213, 269)),
    (((460, 277), (560, 277)), "rerank", (508, 269)),
)


def picture(theme: str) -> str:
    """The flow as SVG, with the colours of a theme."""
    colour = COLOURS[theme]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
        "<title>From checkpoint and documents to hits, on a local index or on Vespa</title>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{colour["line"]}"/></marker></defs>',
    ]
    left, top, width, height = GROUP
    parts.append(
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" fill="none" stroke="{colour["line"]}" '
        'stroke-dasharray="4 4"/>'
    )
    for points, label, (x, y) in ARROWS:
        path = " ".join(f"{a},{b}" for a, b in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour["line"]}" stroke-width="1.5" marker-end="url(#tip)"/>'
        )
        if label:
            parts.append(
                f'<text x="{x}" y="{y}" font-size="13" fill="{colour["edge"]}" text-anchor="middle">{escape(label)}</text>'
            )
    for name, note, left, top, width, ours in BOXES:
        fill, edge = (colour["ours"], colour["edge"]) if ours else (colour["box"], colour["line"])
        middle = left + width / 2
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="54" rx="6" fill="{fill}" stroke="{edge}"/>')
        parts.append(
            f'<text x="{middle:g}" y="{top + (23 if note else 32)}" font-size="15" font-weight="600" fill="{colour["text"]}" '
            f'text-anchor="middle">{escape(name)}</text>'
        )
        if note:
            parts.append(
                f'<text x="{middle:g}" y="{top + 42}" font-size="12" fill="{colour["quiet"]}" text-anchor="middle">'
                f"{escape(note)}</text>"
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def photograph(index: str, target: Path) -> None:
    """The page's answer to QUESTION, over a server of its own."""
    from playwright.sync_api import sync_playwright

    command = [str(Path(sys.executable).with_name("colbert-vespa")), "serve", f"docs={index}", "--port", "0"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]) as browser,
    ):
        try:
            assert server.stderr is not None
            url = next(line for line in server.stderr if "docs at " in line).rpartition(" ")[2].strip()
            page = browser.new_page(viewport={"width": 860, "height": 560}, color_scheme="light")
            page.request.post(f"{url}/v1/search", data={"query": QUESTION, "explain": True, "timeout": 60})  # loads the model
            page.goto(f"{url}/?{urlencode({'q': QUESTION})}")
            page.locator(".result mark").first.wait_for(timeout=120_000)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=target)
        finally:
            server.terminate()


if __name__ == "__main__":
    for theme in COLOURS:
        (IMAGES / f"flow-{theme}.svg").write_text(picture(theme), "utf-8")
    if len(sys.argv) > 1:
        photograph(sys.argv[1], IMAGES / "page.png")
