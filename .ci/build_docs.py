"""Build the documentation: `make docs`. Pages of docs/ and what the program says of itself become site/, warnings are errors.

docs/ is copied to .cache/site first. There each `<!-- made: NAME -->` becomes that part of reference.py, every file of
examples/ that a page names becomes a page, and CONTRIBUTING.md and CHANGELOG.md are taken in. Afterwards every link and anchor
of the built pages is followed, and nothing on them may come from another machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html
import reference

ROOT = Path(__file__).resolve().parent.parent
DOCS, WORK, SITE = ROOT / "docs", ROOT / ".cache" / "site", ROOT / "site"
MADE = re.compile(r"^<!-- made: ([\w-]+) -->$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[\d;]*m")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
TAKEN_IN = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data"}
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}


def stage(work: Path) -> None:
    """Write the complete pages to work/docs, and the settings beside them."""
    shutil.rmtree(work, ignore_errors=True)
    staged = work / "docs"
    shutil.copytree(DOCS, staged)
    shutil.copy(ROOT / ".ci" / "zensical.toml", work)
    pages = {page: page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))}
    for page, name in (pages | {ROOT / source: name for source, name in TAKEN_IN.items()}).items():
        text = MADE.sub(lambda mark: reference.part(mark[1]), linked(page, staged, name))
        (staged / name).write_text(text, encoding="utf-8")


def linked(page: Path, staged: Path, name: str) -> str:
    """A page's text, with links to files outside docs/ leading to what they are on the site."""

    def place(match: re.Match[str]) -> str:
        if ":" in match[2]:
            return match[0]
        target = staged_place((page.parent / match[2]).resolve(), staged)
        return f"{match[1]}{os.path.relpath(target, (staged / name).parent)}{match[3] or ''})"

    return LINK.sub(place, page.read_text(encoding="utf-8"))


def staged_place(target: Path, staged: Path) -> Path:
    """Where a file of the repository is on the site."""
    if target.is_relative_to(DOCS):
        return staged / target.relative_to(DOCS)
    name = target.relative_to(ROOT).as_posix()
    if name in TAKEN_IN:
        return staged / TAKEN_IN[name]
    if target.suffix != ".py" or not target.is_file():
        raise SystemExit(f"{name} is not on the site: link to a page of docs/ or to a script")
    place = (staged / name).with_suffix(".md")
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"# {name}\n\n```python\n{target.read_text(encoding='utf-8')}```\n", encoding="utf-8")
    return place


def faults(site: Path) -> list[str]:
    """Links that lead nowhere, and what a page would load from elsewhere."""
    pages = {path: lxml.html.parse(path).getroot() for path in sorted(site.rglob("*.html"))}
    anchors = {path: {*root.xpath("//@id"), *root.xpath("//a/@name")} for path, root in pages.items()}
    return [
        f"{path.relative_to(site)}: {fault}" for path, root in pages.items() for fault in page_faults(site, path, root, anchors)
    ]


def page_faults(site: Path, path: Path, root: lxml.html.HtmlElement, anchors: dict[Path, set[str]]) -> Iterator[str]:
    for element, attribute, link, _ in root.iterlinks():
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if LOADED.get(element.tag) == attribute or LOADED_RELATIONS & set((element.get("rel") or "").split()):
                yield f"loads {link}"
            continue
        if path.name == "404.html":  # served at any place, so its links begin at the root
            continue
        target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        if not target.is_relative_to(site):
            yield f"{link} leaves the site"
        elif not target.is_file():
            yield f"{link} does not exist"
        elif parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target]:
            yield f"{link}: the page has no such place"


def build(work: Path, site: Path) -> list[str]:
    """Replace `site` with the built pages and give no fault, or leave it as it is."""
    stage(work)
    generator = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(generator, cwd=work, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = [COLOUR.sub("", done.stdout)] if done.returncode else faults(work / "html")
    if not found:
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(work / "html", site)
    return found


if __name__ == "__main__":
    wrong = build(WORK, SITE)
    print(*wrong or [f"{SITE.name}/index.html"], sep="\n", file=sys.stderr)
    sys.exit(1 if wrong else 0)
