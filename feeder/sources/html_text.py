"""The title and the visible text of an HTML page: a line for each block, headings as in Markdown."""

from __future__ import annotations

from typing import Any

from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["html_text"]

_SKIPPED = {"script", "style", "noscript", "template", "head", "svg", "nav", "iframe", "object"}
_INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "q",
    "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
}  # fmt: skip
_HEADINGS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
_CUT = {"ERR_RESOURCE_LIMIT", "ERR_INTERNAL_ERROR", "ERR_NO_MEMORY", "ERR_USER_STOP"}  # libxml2 drops the rest


def html_text(text: str, name: str) -> tuple[str, str]:
    """Return title and text.

    Raises:
        CollectionError: if the parser did not read all of it.
        MissingDependency: if lxml is not installed.
    """
    with required("sources", name):
        from lxml import etree
    visible = _Visible()
    if not text.strip():
        return "", ""
    # without a tree of elements the parser has no depth limit
    parser = etree.HTMLParser(target=visible, encoding="utf-8", no_network=True, huge_tree=True)
    try:
        etree.fromstring(text.encode("utf-8", errors="replace"), parser)
    except (etree.LxmlError, ValueError) as error:
        raise CollectionError(f"{name} cannot be read as HTML: {error}") from None
    if cut := next((entry for entry in parser.error_log if entry.type_name in _CUT), None):
        raise CollectionError(f"{name}: the HTML parser stopped at line {cut.line}: {cut.message}")
    return visible.title, visible.text


class _Visible:
    """The target of lxml's parser."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._titles: list[str] = []
        self._hidden: list[str] = []  # depth of open elements that are skipped
        self._in_title = self._has_title = False

    @property
    def title(self) -> str:
        return "".join(self._titles)

    @property
    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._pieces).split("\n"))
        return "\n".join(line for line in lines if line)

    def start(self, tag: str, attributes: Any) -> None:
        if tag in _SKIPPED:
            self._hidden.append(tag)
        if tag == "title" and not self._has_title and "svg" not in self._hidden:
            self._in_title = self._has_title = True
        self._block(tag, _HEADINGS.get(tag, ""))

    def end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        self._block(tag)
        if self._hidden and self._hidden[-1] == tag:
            self._hidden.pop()

    def data(self, text: str) -> None:
        if self._in_title:
            self._titles.append(text)
        if not self._hidden:
            self._pieces.append(text.replace("\n", " "))

    def close(self) -> None:
        pass

    def _block(self, tag: str, heading: str = "") -> None:
        if not self._hidden and tag not in _INLINE:
            self._pieces.append("\n" + heading)
