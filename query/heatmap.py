"""A word-by-word matrix as one HTML page: for each hit a table of query words and passage words, coloured by similarity."""

from __future__ import annotations

from html import escape

import numpy as np

from query.types import Explanation, Hit, SearchResult

__all__ = ["heatmap_page"]

MOST_WORDS = 400  # most words of a passage shown; matched words always are
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; max-width: 100em; }
table { border-collapse: collapse; } div.scroll { overflow-x: auto; margin-bottom: 2em; }
th { font-weight: normal; text-align: right; padding: 0 .4em; white-space: nowrap; }
thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .3em 0; }
td { min-width: 1.1em; height: 1.4em; border: 1px solid #fff; }
td.best { border-color: #000; }
p.how { color: #555; }
"""


def heatmap_page(query: str, result: SearchResult) -> str:
    """Return a page without scripts or external resources. Hits without an explanation have no table."""
    parts = [
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=generator content=colbert-vespa>",
        f"<title>{escape(query)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(query)}</h1>",
        f"<p class=how>{escape(_how(result))}</p>",
        *(_hit(hit) for hit in result.hits),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _how(result: SearchResult) -> str:
    took = ", ".join(f"{stage} {ms:.1f}" for stage, ms in result.timings_ms.items())
    matched = "" if result.matched is None else f"{result.matched:,} matched, "
    return f"candidates by {result.candidates}: {matched}{result.reranked:,} reranked; milliseconds: {took}"


def _hit(hit: Hit) -> str:
    stages = ", ".join(f"{name} {value:.3f}" for name, value in hit.stages.items())
    head = (
        f"<h2>{hit.rank}. {escape(hit.title or hit.id)}</h2><p class=how>{escape(hit.id)}: score {hit.score:.3f}; {stages}</p>"
    )
    explanation = hit.explanation
    if explanation is None or not explanation.matches:
        return head
    return head + _table(explanation)


def _table(explanation: Explanation) -> str:
    best = explanation.similarities.argmax(axis=1)
    shown = sorted({*range(min(MOST_WORDS, len(explanation.words))), *best.tolist()}, key=lambda w: explanation.words[w])
    words = [explanation.text[slice(*explanation.words[w])] for w in shown]
    head = "".join(
        f'<th title="characters {_place(explanation, w)}">{escape(word)}' for w, word in zip(shown, words, strict=True)
    )
    rows = []
    for match, row, top in zip(explanation.matches, explanation.similarities, best.tolist(), strict=True):
        cells = "".join(_cell(match.query_word, word, float(row[w]), w == top) for w, word in zip(shown, words, strict=True))
        rows.append(f"<tr><th>{escape(match.query_word)}{cells}")
    more = len(explanation.words) - len(shown)
    rest = f"<p class=how>{more:,} more words are not shown</p>" if more else ""
    return f"<div class=scroll><table><thead><tr><th>{head}<tbody>{''.join(rows)}</table>{rest}</div>"


def _place(explanation: Explanation, word: int) -> str:
    start, end = explanation.words[word]
    return f"{start}-{end}"


def _cell(query_word: str, word: str, similarity: float, best: bool) -> str:
    strength = float(np.clip(similarity, 0.0, 1.0))
    kind = " class=best" if best else ""
    said = escape(f"{query_word} / {word}: {similarity:.3f}", quote=True)
    return f'<td{kind} style="background: rgba(200, 60, 0, {strength:.2f})" title="{said}">'
