"""Documents to passages without a model: sentences, counted in words and signs."""

from __future__ import annotations

import pytest

from colbert_vespa.rag import CorpusProcessor, sentence_splitter
from late_interaction.errors import ArgumentError

TEXT = " ".join(f"Fox {number} sleeps." for number in range(30))  # four words and signs each


def test_passages_are_sentences_that_overlap_by_a_quarter():
    pieces = sentence_splitter([TEXT, "short"], ["a", "b"], chunk_size=40)
    assert [piece["document_id"] for piece in pieces] == ["a"] * 4 + ["b"]
    wanted = [" ".join(f"Fox {n} sleeps." for n in range(start, min(start + 10, 30))) for start in (0, 8, 16, 24)]
    assert [piece["content"] for piece in pieces] == [*wanted, "short"]


def test_a_processor_splits_and_preprocesses():
    made = CorpusProcessor().process_corpus(["one", "two"])
    assert [piece["content"] for piece in made] == ["one", "two"]
    assert len({piece["document_id"] for piece in made}) == 2
    upper = CorpusProcessor(None, lambda texts, ids: [text.upper() for text in texts])
    assert upper.process_corpus(["one"], ["a"]) == [{"document_id": "a", "content": "ONE"}]
    assert CorpusProcessor(None).process_corpus(["one"], ["a"]) == [{"document_id": "a", "content": "one"}]
    with pytest.raises(ArgumentError, match="unique"):
        CorpusProcessor().process_corpus(["one", "two"], ["a", "a"])
    with pytest.raises(ArgumentError, match="passages of 4 tokens leave 4 for the text"):
        CorpusProcessor().process_corpus(["one"], ["a"], chunk_size=4)
