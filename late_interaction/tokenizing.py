"""Tokenize text by a bundle's rules. Markers are inserted by id, never as text."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask, TokenIds
from late_interaction.bundle import Bundle, Manifest, Pooling, SideRules
from late_interaction.errors import BundleError
from late_interaction.text import without_surrogates

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["TokenRows", "Tokenizing", "row_token_ids"]

Offset = tuple[int, int]
_GROWS = re.compile("\u0130")  # the only character whose lower case is two: an i and a combining dot


@dataclass(frozen=True, slots=True)
class TokenRows:
    """One text of n token rows.

    Attributes:
        ids: `[n]` int64.
        attention: `[n]` int64.
        keep: `[n]` bool, rows that are emitted.
        offsets: character offsets into the given text; (0, 0) for rows without user text.
        truncated: whether the end of the text was cut off.
    """

    ids: NDArray[np.int64]
    attention: NDArray[np.int64]
    keep: Mask
    offsets: tuple[Offset, ...]
    truncated: bool


def row_token_ids(rows: TokenRows, pooling: Pooling | None) -> TokenIds | None:
    """Return vocabulary ids `[t]` of the vectors that an encoder makes of `rows`; None if pooling merges them."""
    return None if pooling is not None else rows.ids[rows.keep].astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A text ready to be tokenized.

    shift: added to its offsets. length: of the given text. grown: places of characters that lower-casing has added.
    """

    text: str
    shift: int
    length: int
    grown: tuple[int, ...] = ()

    def given(self, offsets: list[Offset]) -> list[Offset]:
        """Map offsets into this text to offsets into the given text; (0, 0) if they are in the prompt."""
        return offsets if not (self.shift or self.grown) else [self._given(*offset) for offset in offsets]

    def _given(self, start: int, end: int) -> Offset:
        start += self.shift - bisect.bisect_right(self.grown, start)
        end += self.shift - bisect.bisect_left(self.grown, end)
        return (0, 0) if start < 0 else (start, min(end, self.length))


class Tokenizing:
    """Tokenizes both sides of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read tokenizer.json.

        Raises:
            BundleError: if it cannot be read, or vectors are made elsewhere.
        """
        from tokenizers import Tokenizer  # imported when something is encoded

        bundle.check_encodes()
        path = bundle.file("tokenizer.json")
        self._manifest = bundle.manifest
        try:
            self._query = _limited(Tokenizer.from_file(str(path)), bundle.manifest.query, bundle.manifest)
            self._document = _limited(Tokenizer.from_file(str(path)), bundle.manifest.document, bundle.manifest)
        except Exception as error:  # noqa: BLE001  tokenizers raises bare Exception
            raise BundleError(f"{path} cannot be read as a tokenizer: {error}") from None

    def queries(self, texts: Sequence[str]) -> list[TokenRows]:
        """Tokenize queries."""
        manifest = self._manifest
        rows = self._rows(self._query, texts, manifest.query)
        return [self._expanded(item, manifest.query, manifest.pad_id, manifest.max_tokens) for item in rows]

    def documents(self, texts: Sequence[str]) -> list[TokenRows]:
        """Tokenize documents."""
        return self._rows(self._document, texts, self._manifest.document)

    def document_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text itself: untruncated, without special tokens, marker and prompt."""
        whole = map(without_surrogates, texts)
        lowered = [text.lower() if self._manifest.lower_case else text for text in whole]
        return [len(encoding) for encoding in self._whole.encode_batch(lowered, add_special_tokens=False)]

    @cached_property
    def unknown_id(self) -> int:
        """Return the id of the unknown token; -1 if the vocabulary covers everything, as with bytes."""
        model = json.loads(self._document.to_str())["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        name = model.get("unk_token")
        return -1 if name is None else int(model["vocab"].get(name, -1))

    @cached_property
    def document_room(self) -> int:
        """Return how many of a document's own tokens fit, if their number does not depend on the surrounding ones."""
        rules = self._manifest.document
        special = len(self._document.encode("").ids)
        return _room(rules, self._manifest) - special - sum(self.document_counts([rules.prompt]))

    @cached_property
    def _whole(self) -> Tokenizer:
        tokenizer = type(self._document).from_str(self._document.to_str())
        tokenizer.no_truncation()
        return tokenizer

    def _rows(self, tokenizer: Tokenizer, texts: Sequence[str], rules: SideRules) -> list[TokenRows]:
        prepared = [self._prepared(text, rules) for text in texts]
        bare = self._manifest.rules == "vespa"
        encodings = tokenizer.encode_batch([item.text for item in prepared], add_special_tokens=not bare)
        offsets = [item.given(encoding.offsets) for item, encoding in zip(prepared, encodings, strict=True)]
        skip = np.array(rules.skip_ids, np.int64)
        if bare:
            room = _room(rules, self._manifest)
            ends = tokenizer.encode("").ids
            return [
                _vespa_row(encoding.ids, own, (ends[0], ends[-1]), room, rules, skip)
                for encoding, own in zip(encodings, offsets, strict=True)
            ]
        return [self._row(encoding, own, rules, skip) for encoding, own in zip(encodings, offsets, strict=True)]

    def _prepared(self, text: str, rules: SideRules) -> _Prepared:
        whole, shift = rules.prompt + without_surrogates(text), -len(rules.prompt)
        if self._manifest.strip:  # prompt and text as one, so that spaces between them stay
            shift += len(whole) - len(whole.lstrip())
            whole = whole.strip()
        if not self._manifest.lower_case:
            return _Prepared(whole, shift, len(text))
        grown = [match.start() + number + 1 for number, match in enumerate(_GROWS.finditer(whole))]
        return _Prepared(whole.lower(), shift, len(text), tuple(grown))

    @staticmethod
    def _row(encoding: Encoding, own: list[Offset], rules: SideRules, skip: NDArray[np.int64]) -> TokenRows:
        ids = np.array(encoding.ids, np.int64)
        special = encoding.special_tokens_mask
        offsets = [(0, 0) if mark else offset for mark, offset in zip(special, own, strict=True)]
        if rules.marker_id is not None:
            ids = np.insert(ids, 1, rules.marker_id)
            offsets.insert(1, (0, 0))
        keep = ~np.isin(ids, skip)
        return TokenRows(ids, np.ones(len(ids), np.int64), keep, tuple(offsets), bool(encoding.overflowing))

    @staticmethod
    def _expanded(rows: TokenRows, rules: SideRules, pad_id: int, limit: int) -> TokenRows:
        """Apply query augmentation: its rows are emitted whether the encoder attends to them or not."""
        expansion = rules.expansion
        if expansion is None:
            return rows
        ids = np.where(rows.ids == pad_id, expansion.token_id, rows.ids) if expansion.replaces_pad else rows.ids
        length = expansion.length
        if rules.auto and len(ids) > length:
            length = min(-(-len(ids) // length) * length, limit)
        more = max(0, length - len(ids))
        return TokenRows(
            np.append(ids, np.full(more, expansion.token_id)),
            np.append(rows.attention, np.full(more, int(expansion.attend))),
            np.append(rows.keep, np.full(more, expansion.token_id not in rules.skip_ids)),
            rows.offsets + ((0, 0),) * more,
            rows.truncated,
        )


def _limited(tokenizer: Tokenizer, rules: SideRules, manifest: Manifest) -> Tokenizer:
    """Truncate content so that special tokens survive and the marker still fits."""
    tokenizer.no_padding()
    if manifest.rules == "vespa":
        tokenizer.no_truncation()  # Vespa drops tokens first, then truncates
    else:
        tokenizer.enable_truncation(_room(rules, manifest), strategy="longest_first")
    return tokenizer


def _room(rules: SideRules, manifest: Manifest) -> int:
    """Return how many tokens fit besides the marker."""
    length = manifest.max_tokens if rules.auto else min(rules.length, manifest.max_tokens)
    return length - (rules.marker_id is not None)


def _vespa_row(
    all_ids: list[int], own: list[Offset], ends: tuple[int, int], room: int, rules: SideRules, skip: NDArray[np.int64]
) -> TokenRows:
    """Follow ai.vespa.embedding.ColBertEmbedder: tokens without special ones, some dropped, truncated, then framed."""
    content = [(id_, place) for id_, place in zip(all_ids, own, strict=True) if id_ not in rules.drop_ids]
    kept = content[: room - 2]
    marker = [] if rules.marker_id is None else [(rules.marker_id, (0, 0))]
    rows = [(ends[0], (0, 0)), *marker, *kept, (ends[1], (0, 0))]
    ids = np.array([id_ for id_, _ in rows], np.int64)
    offsets = tuple(place for _, place in rows)
    return TokenRows(ids, np.ones(len(ids), np.int64), ~np.isin(ids, skip), offsets, len(kept) < len(content))
