"""Offsets of tokens are into the text as it was given."""

import dataclasses
from types import SimpleNamespace

import pytest

from late_interaction.tokenizing import Tokenizing


def tokenizing(bundle, lower_case=True, prompt="", **rules):
    manifest = bundle.manifest
    document = dataclasses.replace(manifest.document, prompt=prompt)
    manifest = dataclasses.replace(manifest, lower_case=lower_case, document=document, **rules)
    return Tokenizing(SimpleNamespace(manifest=manifest, file=bundle.file, check_encodes=bundle.check_encodes))


def words(rows, text):
    return [text[start:end] for start, end in rows.offsets if end > start]


@pytest.mark.parametrize("prompt", ["", "İİ find: "])
@pytest.mark.parametrize("strip", [False, True])
def test_offsets_where_lower_case_is_longer(tiny_bundle, prompt, strip):
    lower, plain = (
        tokenizing(tiny_bundle, prompt=prompt, strip=strip),
        tokenizing(tiny_bundle, prompt=prompt.lower(), strip=strip),
    )
    for text in ("İİİ a thread", "wait İ for İ threads İ", "İstanbul, İzmir and a thread", "İ", "a thread İ", "no dots"):
        found = words(lower.documents([text])[0], text)
        assert all(text.count(word) for word in found)
        ends = [end for _, end in lower.documents([text])[0].offsets]
        assert max(ends) <= len(text)
        for word in ("thread", "wait", "for", "and"):
            if f" {word}" in f" {text}" and "İ" in text:
                pieces = [
                    text[s:e]
                    for s, e in lower.documents([text])[0].offsets
                    if text.index(word) <= s < text.index(word) + len(word) and e > s
                ]
                assert "".join(pieces) == text[text.index(word) : text.index(word) + len(word)]
    text = "plain words of a thread"
    assert words(lower.documents([text])[0], text) == words(plain.documents([text])[0], text)


def test_every_piece_of_a_dotted_capital_is_that_letter(tiny_bundle):
    text = "xİy"
    rows = tokenizing(tiny_bundle).documents([text])[0]
    covered = {place for start, end in rows.offsets for place in range(start, end)}
    assert covered == {0, 1, 2}
