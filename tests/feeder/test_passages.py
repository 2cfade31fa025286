"""Passages are exact ranges of the text, cover it, and are read to their end by the model."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeder.encoding.passages import MARK, MAX_PASSAGES, Splitting, cut_documents, passages_of
from late_interaction.documents import Document, passage_text
from late_interaction.errors import CollectionError, UsageError
from late_interaction.tokenizing import Tokenizing

WORDS = [
    "wait",
    "for",
    "a",
    "thread",
    "to",
    "finish.",
    "Return",
    "the",
    "value!",
    "(see",
    "below).",
    "İstanbul",
    "x" * 90,
    "文。字",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(["\n\n", "\n# Heading\n", "```\n", "   ", "\n"]), st.text(max_size=8)),
    max_size=100,
).map(" ".join)


@pytest.fixture(scope="session")
def tokenizing(tiny_bundle):
    return Tokenizing(tiny_bundle)


def cut(tokenizing, text, splitting, title=""):
    (found,) = cut_documents([(title, text)], splitting, tokenizing)
    return found


@given(
    text=TEXTS,
    title=st.sampled_from(["", "A title", "title " * 300, "y" * 700]),
    method=st.sampled_from(["sentences", "markdown"]),
    sizes=st.sampled_from([(0, 0), (0, 20), (16, 0), (16, 8), (40, 10)]),
)
@settings(max_examples=30, deadline=None)
def test_passages_cover_the_text_and_each_fits(tokenizing, text, title, method, sizes):
    splitting = Splitting(method, *sizes)
    found = cut(tokenizing, text, splitting, title)
    covered = set()
    for start, end in found.ranges:
        assert 0 <= start <= end <= len(text)
        covered.update(range(start, end))
    assert {place for place, letter in enumerate(text) if not letter.isspace()} <= covered
    assert list(found.ranges) == sorted(set(found.ranges))
    assert title.startswith(found.title)
    rows = tokenizing.documents([passage_text(found.title, text[start:end]) for start, end in found.ranges])
    assert [own.ids.tolist() for own in rows] == [own.ids.tolist() for own in found.rows]
    assert not found.truncated or not text.strip()  # a title alone stays as it is
    bare = len(tokenizing.documents([""])[0].ids)
    for (start, end), own in zip(found.ranges, rows, strict=True):
        assert not splitting.tokens or len(own.ids) - bare <= splitting.tokens or end - start <= 1 or not text.strip()


def test_no_splitting_is_one_passage_of_the_whole_text(tokenizing):
    found = cut(tokenizing, "word " * 5000, Splitting(), "t")
    assert (found.title, found.ranges, found.truncated) == ("t", ((0, 25000),), True)


def test_sentences_stay_whole_and_overlap(tokenizing):
    sentences = [f"Sentence number {n} waits for the thread." for n in range(30)]
    text = " ".join(sentences)
    per_sentence = max(tokenizing.document_counts(sentences))
    found = cut(tokenizing, text, Splitting("sentences", 4 * per_sentence, per_sentence))
    pieces = [text[start:end] for start, end in found.ranges]
    assert all(piece.startswith("Sentence") and piece.endswith("thread.") for piece in pieces)
    for one, two in pairwise(pieces):
        assert one.split(". ")[-1].rstrip(".") == two.split(". ")[0].rstrip(".")
    alone = cut(tokenizing, text, Splitting("sentences", 4 * per_sentence))
    assert all(a[1] < b[0] for a, b in pairwise(alone.ranges))
    assert len(alone.ranges) < len(found.ranges)


def test_markdown_sections_are_passages_and_no_heading_stands_alone(tokenizing):
    text = "Before.\n\n# One\n\n## One and a half\nText of it.\n\n```\n# no heading\n```\n\n## Two\nMore text.\n"
    found = cut(tokenizing, text, Splitting("markdown"))
    pieces = [text[start:end] for start, end in found.ranges]
    assert [piece.splitlines()[0] for piece in pieces] == ["Before.", "# One", "## Two"]
    assert pieces[1].endswith("# no heading\n```")


def test_a_long_section_is_cut_by_sentences(tokenizing):
    text = "# One\n" + "A sentence of it. " * 200 + "\n# Two\nEnd."
    pieces = [text[start:end] for start, end in cut(tokenizing, text, Splitting("markdown", 32, 10)).ranges]
    assert len(pieces) > 20
    assert all(piece.endswith(".") for piece in pieces)
    assert pieces[-1] == "# Two\nEnd."
    assert not pieces[-2].startswith("# One")


def test_ids_are_stable_and_every_passage_has_title_and_metadata():
    document = Document("a#1", "Title", "One. Two.", {"year": 2000})
    passages = passages_of(document, "Title", [(0, 4), (5, 9)])
    assert [(p.id, p.document_id, p.title, p.text, p.metadata) for p in passages] == [
        ("a#1#0", "a#1", "Title", "One.", {"year": 2000}),
        ("a#1#1", "a#1", "Title", "Two.", {"year": 2000}),
    ]


def test_too_many_passages_are_an_error_of_that_document(tokenizing):
    found = cut_documents([("", "Wait for it. " * 20_000), ("", "short")], Splitting("sentences", 8), tokenizing)
    assert isinstance(found[0], CollectionError)
    assert str(MAX_PASSAGES) in str(found[0])
    assert found[1].ranges == ((0, 5),)


@pytest.mark.parametrize("wrong", [("words",), ("sentences", 4), ("sentences", -1), ("sentences", 20, 11), ("none", 0, -1)])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(UsageError):
        Splitting(*wrong)


def test_a_text_that_somebody_has_cut_is_cut_at_its_marks_alone(tokenizing):
    pieces = [" one. Two. ", "three", "x " * 3_000, "  ", ""]
    found = cut(tokenizing, MARK.join(pieces), Splitting("marked"), "title")
    text = MARK.join(pieces)
    assert [text[start:end] for start, end in found.ranges] == pieces[:3]
    assert found.truncated
    whole = tokenizing.documents([passage_text("title", pieces[0])])[0]
    assert found.rows[0].ids.tolist() == whole.ids.tolist()
    assert cut(tokenizing, "", Splitting("marked"), "title").ranges == ((0, 0),)
    assert isinstance(cut(tokenizing, MARK.join(["x"] * (MAX_PASSAGES + 1)), Splitting("marked")), CollectionError)


def test_a_long_sentence_is_counted_a_few_times_and_not_once_for_each_halving(tokenizing, monkeypatch):
    counted = []
    count = tokenizing.document_counts
    monkeypatch.setattr(tokenizing, "document_counts", lambda texts: counted.append(sum(map(len, texts))) or count(texts))
    text = "." * 40_000
    assert len(cut(tokenizing, text, Splitting("sentences", 64)).ranges) > 600
    assert sum(counted) <= 5 * len(text)
