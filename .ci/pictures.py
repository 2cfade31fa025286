"""Draw the pictures of docs/explanation/late-interaction.md with the project's own encoder: `python .ci/pictures.py [BUNDLE]`.

Writes docs/images/one-vector-*.svg and maxsim-*.svg, for light and dark pages. BUNDLE: default demo/bundle, which `make demo`
leaves.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.maxsim import similarities

ROOT = Path(__file__).resolve().parent.parent
QUERY = "which wood heats the oven?"
PASSAGES = (
    "Rye bread rises for two days, and the oven is heated with beech wood.",
    "The heating of the house burns oil, which costs more than wood.",
)
SHOWN = 40  # numbers of a vector that are drawn
SCHEMES = {
    "light": {"text": "#1b1f24", "faint": "#8a929c", "high": (196, 90, 17), "low": (40, 96, 166)},
    "dark": {"text": "#e2e4e9", "faint": "#8f97a3", "high": (255, 168, 92), "low": (110, 170, 255)},
}
STYLE = 'font-family="system-ui, sans-serif" font-size="13"'


@dataclass(frozen=True)
class Text:
    """words: one for each row of vectors `[t, d]`; rows of markers and punctuation are left out."""

    words: list[str]
    vectors: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        mean = self.vectors.mean(0)
        return mean / np.linalg.norm(mean)


def encoded(encoder: Encoder) -> tuple[Text, list[Text]]:
    query = _text(QUERY, encoder.tokenizing.queries([QUERY])[0], encoder.encode_queries([QUERY])[0])
    rows = encoder.tokenizing.documents(PASSAGES)
    return query, [_text(*one) for one in zip(PASSAGES, rows, encoder.encode_documents(PASSAGES), strict=True)]


def _text(text: str, rows: object, vectors: NDArray[np.float32]) -> Text:
    kept = [offset for offset, keep in zip(rows.offsets, rows.keep, strict=True) if keep]
    real = [place for place, (start, end) in enumerate(kept) if text[start:end].isalnum()]
    return Text([text[slice(*kept[place])] for place in real], vectors[real])


class Picture:
    def __init__(self, scheme: str) -> None:
        self.colours = SCHEMES[scheme]
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, anchor: str = "start", *, faint: bool = False, bold: bool = False) -> None:
        colour = self.colours["faint" if faint else "text"]
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(words)}</text>')

    def cell(self, x: float, y: float, width: float, height: float, value: float, *, marked: bool = False) -> None:
        """value: -1 to 1."""
        red, green, blue = self.colours["high" if value > 0 else "low"]
        edge = f' stroke="{self.colours["text"]}" stroke-width="2"' if marked else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'fill="rgb({red},{green},{blue})" fill-opacity="{min(1.0, abs(value)):.2f}"{edge}/>'
        )

    def strip(self, x: float, y: float, vector: NDArray[np.float32]) -> None:
        for place, value in enumerate(vector[:SHOWN]):
            self.cell(x + 4 * place, y, 4, 12, float(value) * 4)

    def svg(self, width: float, height: float, says: str) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" {STYLE}>'
        return "\n".join([head, f"<title>{escape(says)}</title>", *self.parts, "</svg>", ""])


def one_vector(scheme: str, query: Text, passages: list[Text]) -> str:
    """On the left a text is one vector, on the right one for each token."""
    picture = Picture(scheme)
    left, names, right, y = 20, 330, 340, 24
    picture.text(left, y, "One vector for each text", bold=True)
    picture.text(right, y, "One vector for each token", bold=True)
    y += 14
    for title, text, one in (("query", QUERY, query), *(("passage", t, p) for t, p in zip(PASSAGES, passages, strict=True))):
        y += 26
        picture.text(left, y, f"{title}: {text}", faint=True)
        top = y + 10
        picture.strip(left, top, one.mean)
        if title == "passage":
            score = float(similarities(query.mean[None], one.mean[None])[0, 0])
            picture.text(left + 4 * SHOWN + 12, top + 11, f"cosine {score:.2f}")
        for word, vector in zip(one.words, one.vectors, strict=True):
            y += 16
            picture.text(names + 100, y + 5, word, "end")
            picture.strip(right + 100, y - 5, vector)
        if title == "passage":
            score = float(similarities(query.vectors, one.vectors).max(1).sum())
            picture.text(right + 100 + 4 * SHOWN + 12, top + 11, f"MaxSim {score:.2f}")
    return picture.svg(720, y + 24, "A query and two passages as one vector each, and as one vector for each token")


def maxsim(scheme: str, query: Text, passages: list[Text]) -> str:
    """S [q, t] of each passage; the largest of each row is framed, and added up."""
    picture = Picture(scheme)
    size, left, y = 40, 90, 0
    for text, passage in zip(PASSAGES, passages, strict=True):
        S = similarities(query.vectors, passage.vectors)
        best = S.max(1)
        y += 26
        picture.text(20, y, text, bold=True)
        y += 64
        for column, word in enumerate(passage.words):
            x = left + size * column + size / 2
            turned = f'transform="translate({x:g},{y - 6:g}) rotate(-45)" fill="{picture.colours["text"]}"'
            picture.parts.append(f"<text {turned}>{escape(word)}</text>")
        for row, word in enumerate(query.words):
            picture.text(left - 8, y + 18, word, "end")
            for column, value in enumerate(S[row]):
                found = column == int(S[row].argmax())
                picture.cell(left + size * column, y, size - 2, 26, float(value) ** 2 * (1 if value > 0 else -1), marked=found)
                picture.text(
                    left + size * column + size / 2 - 1,
                    y + 17,
                    f"{value:.2f}"[-3 if value >= 0 else 0 :],
                    "middle",
                    faint=not found,
                )
            picture.text(left + size * len(passage.words) + 14, y + 18, f"{best[row]:.2f}", bold=True)
            y += 28
        picture.text(left + size * len(passage.words) + 14, y + 16, f"= {best.sum():.2f}", bold=True)
        picture.text(left + size * len(passage.words) + 4, y + 16, "MaxSim", "end")
        y += 28
    width = left + size * max(len(p.words) for p in passages) + 80
    return picture.svg(
        width, y + 10, "Similarity of each query token with each passage token; the best of each row are added up"
    )


def main(bundle: Path) -> None:
    query, passages = encoded(Encoder(Bundle.open(bundle)))
    for scheme in SCHEMES:
        for name, draw in (("one-vector", one_vector), ("maxsim", maxsim)):
            (ROOT / "docs" / "images" / f"{name}-{scheme}.svg").write_text(draw(scheme, query, passages), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo" / "bundle")
