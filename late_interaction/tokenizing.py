"""Text to token ids by a bundle's rules. Markers are inserted by id, never as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from late_interaction.bundle import Bundle, SideRules
from late_interaction.errors import BundleError

__all__ = ["TokenRows", "Tokenizing"]

Offset = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """One text of n token rows.

    ids, attention: `[n]` int64. keep: `[n]` bool, rows that are emitted. offsets: character offsets into the text as
    given, (0, 0) for rows that stand for no text of the user. truncated: whether the text's end was cut off.
    """

    ids: NDArray[np.int64]
    attention: NDArray[np.int64]
    keep: NDArray[np.bool_]
    offsets: tuple[Offset, ...]
    truncated: bool


class Tokenizing:
    """Both sides of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises: BundleError where tokenizer.json cannot be read."""
        path = bundle.file("tokenizer.json")
        self._manifest = bundle.manifest
        try:
            self._query = _limited(Tokenizer.from_file(str(path)), bundle.manifest.query, bundle.manifest.max_tokens)
            self._document = _limited(Tokenizer.from_file(str(path)), bundle.manifest.document, bundle.manifest.max_tokens)
        except Exception as error:  # noqa: BLE001  tokenizers raises bare Exception
            raise BundleError(f"{path} is no tokenizer that can be read: {error}") from None

    def queries(self, texts: Sequence[str]) -> list[TokenRows]:
        rules = self._manifest.query
        return [self._expanded(rows, rules, self._manifest.pad_id) for rows in self._rows(self._query, texts, rules)]

    def documents(self, texts: Sequence[str]) -> list[TokenRows]:
        return self._rows(self._document, texts, self._manifest.document)

    def _rows(self, tokenizer: Tokenizer, texts: Sequence[str], rules: SideRules) -> list[TokenRows]:
        prepared = [self._prepared(text, rules) for text in texts]
        encodings = tokenizer.encode_batch([text for text, _ in prepared])
        skip = np.array(rules.skip_ids, np.int64)
        return [
            self._row(encoding, shift, rules, skip, len(text))
            for encoding, (_, shift), text in zip(encodings, prepared, texts, strict=True)
        ]

    def _prepared(self, text: str, rules: SideRules) -> tuple[str, int]:
        """The text that is tokenized, and what to add to its offsets to get offsets into `text`."""
        whole, shift = rules.prompt + text, -len(rules.prompt)
        if self._manifest.strip:  # prompt and text as one, so that blanks between them stay
            shift += len(whole) - len(whole.lstrip())
            whole = whole.strip()
        return (whole.lower() if self._manifest.lower_case else whole), shift

    @staticmethod
    def _row(encoding: Encoding, shift: int, rules: SideRules, skip: NDArray[np.int64], length: int) -> TokenRows:
        ids = np.array(encoding.ids, np.int64)
        special = encoding.special_tokens_mask
        offsets = [
            (0, 0) if mark or start + shift < 0 else (start + shift, min(end + shift, length))
            for mark, (start, end) in zip(special, encoding.offsets, strict=True)
        ]
        if rules.marker_id is not None:
            ids = np.insert(ids, 1, rules.marker_id)
            offsets.insert(1, (0, 0))
        keep = ~np.isin(ids, skip)
        return TokenRows(ids, np.ones(len(ids), np.int64), keep, tuple(offsets), bool(encoding.overflowing))

    @staticmethod
    def _expanded(rows: TokenRows, rules: SideRules, pad_id: int) -> TokenRows:
        """Query augmentation: its rows are emitted whether the encoder attends to them or not."""
        expansion = rules.expansion
        if expansion is None:
            return rows
        ids = np.where(rows.ids == pad_id, expansion.token_id, rows.ids) if expansion.replaces_pad else rows.ids
        more = max(0, expansion.length - len(ids))
        return TokenRows(
            np.append(ids, np.full(more, expansion.token_id)),
            np.append(rows.attention, np.full(more, int(expansion.attend))),
            np.append(rows.keep, np.full(more, expansion.token_id not in rules.skip_ids)),
            rows.offsets + ((0, 0),) * more,
            rows.truncated,
        )


def _limited(tokenizer: Tokenizer, rules: SideRules, max_tokens: int) -> Tokenizer:
    """Cuts content so that special tokens survive and the marker still fits."""
    tokenizer.no_padding()
    room = min(rules.length, max_tokens) - (rules.marker_id is not None)
    tokenizer.enable_truncation(room, strategy="longest_first")
    return tokenizer
