"""Generate queries for unlabelled documents without a language model: titles, headings, and cropped sentences.

A cropped sentence is removed from its document (the inverse cloze task: Lee et al. 2019, arXiv 1906.00300), so that the model
does not learn to match identical words only; one in ten is kept in the document.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import zip_longest

from colbert_vespa.training.data import Example, text_of_document
from feeder.markdown import headings
from late_interaction.documents import Document

__all__ = ["synthetic_examples"]

LEAST_SENTENCE, LEAST_REST = 5, 12  # words
STAYS = 0.1
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])")


def synthetic_examples(documents: Sequence[Document], *, per_document: int = 2, seed: int = 0) -> list[Example]:
    """Make examples from documents.

    The queries of a document are its title and headings, then cropped sentences until there are `per_document`. A document that
    is too short for any query gives no example.
    """
    draw = random.Random(seed)
    examples = []
    for document in documents:
        of_document = _named(document)
        of_document += _cropped(document, per_document - len(of_document), draw)
        examples += of_document[:per_document]
    return examples


def _named(document: Document) -> list[Example]:
    """Make queries of headings: the title for the text, each heading for the text below it."""
    examples, whole = [], text_of_document(document)
    if document.title.strip() and len(document.text.split()) >= LEAST_REST:
        examples.append(Example(document.title.strip(), document.text.strip(), source=whole))
    named = [heading for heading in headings(document.text) if heading.title]
    for heading, following in zip_longest(named, named[1:]):
        below = document.text[heading.end : following.start if following else None].strip()
        if len(below.split()) >= LEAST_REST:
            examples.append(Example(heading.title, below, source=whole))
    return examples


def _cropped(document: Document, count: int, draw: random.Random) -> list[Example]:
    whole = text_of_document(document)
    sentences = [part.strip() for part in _SENTENCE.split(document.text) if part.strip()]
    usable = [n for n, sentence in enumerate(sentences) if len(sentence.split()) >= LEAST_SENTENCE]
    draw.shuffle(usable)
    examples = []
    for place in usable[: max(0, count)]:
        rest = " ".join(sentence for n, sentence in enumerate(sentences) if n != place)
        if len(rest.split()) < LEAST_REST:
            continue
        examples.append(Example(sentences[place], whole if draw.random() < STAYS else rest, source=whole))
    return examples
