"""Results in RAGatouille's form: plain dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from late_interaction.documents import Passage, passage_text
from late_interaction.plaid.opening import IMPORTED
from query import Explanation, Hit

__all__ = ["Result", "flat_if_one", "of_hit", "of_text", "passage_number"]

Result = dict[str, Any]
T = TypeVar("T")


def of_hit(hit: Hit, *, zero: bool, several: bool) -> Result:
    """Return a hit as RAGatouille's dict.

    Args:
        hit: The hit.
        zero: Whether ranks begin at 0.
        several: Whether several indexes were searched; the dict then names the index.
    """
    found: Result = {
        "content": passage_text(hit.title, hit.text),
        "score": hit.score,
        "rank": hit.rank - zero,
        "document_id": hit.id,
        "passage_id": passage_number(hit),
    }
    if hit.metadata:
        found["document_metadata"] = dict(hit.metadata)
    if several:
        found["index_name"] = hit.index.removesuffix(IMPORTED)
    return found | _explained(hit.explanation)


def of_text(
    content: str,
    score: float,
    rank: int,
    place: int,
    *,
    zero: bool,
    metadata: Mapping[str, Any] | None = None,
    explanation: Explanation | None = None,
) -> Result:
    """Return a text that was ranked without an index as RAGatouille's dict.

    Args:
        content: The text.
        score: Its score.
        rank: Its rank, from 1.
        place: Its position among the given texts.
        zero: Whether ranks begin at 0.
        metadata: Its metadata.
        explanation: Its explanation.
    """
    found: Result = {"content": content, "score": score, "rank": rank - zero, "result_index": place}
    if metadata is not None:
        found["document_metadata"] = dict(metadata)
    return found | _explained(explanation)


def passage_number(hit: Hit) -> int:
    """Return the number of the passage in its document, from 0; 0 if Vespa stores a document with all its passages."""
    number = hit.passage_id.removeprefix(Passage.id_of(hit.id, 0)[:-1])
    return int(number) if number.isdecimal() else 0


def _explained(explanation: Explanation | None) -> Result:
    return {} if explanation is None else {"explanation": explanation.to_json()}


def flat_if_one(results: list[list[T]]) -> list[T] | list[list[T]]:
    """Return the answer of one query as a flat list, as RAGatouille does, whether the query came in a list or not."""
    return results[0] if len(results) == 1 else results
