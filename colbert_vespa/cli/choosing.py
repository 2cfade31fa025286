"""`candidates` and `export --candidates-goal`: fit and measure encodings on a sample, write the choice into a bundle."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from colbert_vespa.cli.console import Output
from colbert_vespa.evaluation.candidates import (
    CandidateReport,
    choice_of,
    measure_candidates,
    plot_candidates,
    sampled_rows,
    spans,
)
from colbert_vespa.evaluation.recall import RecallGoal
from exporter.codebooks import record_candidates
from feeder.sources import check_columns
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle, is_bundle_folder
from late_interaction.bundle_cache import register_bundle
from late_interaction.documents import Document, passage_text
from late_interaction.encoder import Encoder
from late_interaction.errors import BundleError, CollectionError, UsageError
from late_interaction.files import check_folder, replace_folder
from late_interaction.one_vector import ENCODINGS, OneVector
from late_interaction.progress import StepReport
from late_interaction.vector_cache import DocumentEncoder
from vespa_app.codecs import bundle_codebooks

__all__ = ["DIMS", "ChoiceOptions", "check_sample", "choose_candidates", "record_choice"]

MOST_PASSAGES, MOST_ROWS = 20_000, 1_500_000  # that are measured: exact MaxSim of 200 queries takes some ten seconds
READ = 500_000  # documents of a source
BLOCK = 256
DIMS = (256, 512)
MOST_OF_SAMPLE = 0.1  # as candidates


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Options of the choice of candidates.

    Attributes:
        queries: Texts of queries; if empty, `count` queries are drawn from the sample.
        dims: Dimensions of the encodings that are fitted.
    """

    goal: RecallGoal
    queries: Sequence[str] = ()
    count: int = 200
    dims: Sequence[int] = DIMS
    seed: int = 0
    plot: Path | None = None


def choose_candidates(
    out: Output, bundle: Bundle, documents: Iterable[Document], output: Path | None, options: ChoiceOptions
) -> CandidateReport:
    """Measure candidates on a sample, and write a copy of the bundle with the choice to `output`, if it is given.

    Raises:
        BundleError: If `output` is given and no candidates reach the goal.
        UsageError: If the sample is too small.
        CollectionError: If a document does not fit the bundle, or a column that the command line names is missing.
    """
    if output is not None:
        check_folder(output, owned=is_bundle_folder)
        if bundle.path.resolve() in output.resolve().parents:
            raise UsageError(f"{output} is inside the bundle {bundle.path}; give a folder of its own")
    sample = [document for document in islice(documents, READ) if document.vectors or not document.blank]
    check_columns([documents])
    random.Random(options.seed).shuffle(sample)
    encoder = Encoder(bundle) if bundle.encodes else None
    report, encodings = _measured(out, bundle, encoder, sample, options, encoder)
    if output is None:
        return report
    if report.best is None:
        raise BundleError(f"no bundle was written: {_unreached(report)}")
    with replace_folder(output, owned=is_bundle_folder) as staging:
        bundle.copy_to(staging)
        _record(Bundle.open(staging, verify=False), report, encodings)
    register_bundle(Bundle.open(output))
    out.say(f"bundle written to {output}: make its package and feed it anew")
    return report


def record_choice(
    out: Output,
    bundle: Bundle,
    encoder: Encoder,
    texts: Sequence[str],
    options: ChoiceOptions,
    *,
    documents_by: DocumentEncoder | None = None,
) -> None:
    """Measure candidates on texts, and write the choice into the bundle itself, if any candidates reach the goal.

    Args:
        out: Where progress and results are shown.
        bundle: The bundle.
        encoder: Encodes queries.
        texts: Texts of documents.
        options: Options of the choice.
        documents_by: Encodes documents; None for `encoder`.

    Raises:
        UsageError: If the sample is too small.
    """
    shuffled = random.Random(options.seed).sample(list(texts), len(texts))
    documents = [Document(str(number), text=text) for number, text in enumerate(shuffled)]
    report, encodings = _measured(out, bundle, encoder, documents, options, documents_by or encoder)
    if report.best is None:
        out.say("no candidates are recorded in the bundle, so `app` takes its defaults")
    else:
        _record(bundle, report, encodings)


def check_sample(passages: int, goal: RecallGoal) -> None:
    """Check that a sample has more passages than the goal's k.

    Raises:
        UsageError: If it has not.
    """
    if passages <= goal.k:
        raise UsageError(
            f"the sample has {passages} passages with text or vectors, and recall@{goal.k} needs more than {goal.k}: "
            "give a larger sample"
        )


def _record(bundle: Bundle, report: CandidateReport, encodings: dict[str, OneVector]) -> None:
    record_candidates(bundle, choice_of(report, encodings), encodings.get(report.best.way) if report.best else None)


def _measured(
    out: Output,
    bundle: Bundle,
    encoder: Encoder | None,
    documents: Sequence[Document],
    options: ChoiceOptions,
    documents_by: DocumentEncoder | None,
) -> tuple[CandidateReport, dict[str, OneVector]]:
    with out.steps() as step:
        passages = _rows(bundle, documents_by, documents, step)
        check_sample(len(passages), options.goal)
        encodings = _fitted(out, passages, options, step)
        queries = _queries(encoder, passages, documents, options)
        book = bundle_codebooks(bundle, thresholds=False).codebook
        report = measure_candidates(passages, queries, options.goal, encodings, book, step=step)
    out.candidates(report)
    if options.plot is not None:
        plot_candidates(report, options.plot)
        out.say(f"plot: {options.plot}")
    best = report.best
    out.say(f"the cheapest that reaches it: {best.way}, rerank {best.rerank}" if best else _unreached(report))
    if best and best.rerank > MOST_OF_SAMPLE * report.passages:
        out.say(
            f"note: {best.rerank:,} candidates are {best.rerank / report.passages:.0%} of the sample's passages, which says "
            "little about a larger collection: measure on a larger sample"
        )
    return report, encodings


def _rows(bundle: Bundle, encoder: DocumentEncoder | None, documents: Sequence[Document], step: StepReport) -> list[Matrix]:
    """Return the token vectors of each measured passage; CollectionError if one has no vectors and there is no model."""
    rules, found, rows = bundle.document_rows, list[Matrix](), 0
    for first in range(0, min(len(documents), MOST_PASSAGES), BLOCK):
        part = documents[first : first + BLOCK]
        texts = [passage_text(d.title, d.text) for d in part if not d.vectors]
        if texts and encoder is None:
            lacking = next(document.id for document in part if not document.vectors)
            raise CollectionError(
                f"document {lacking!r} of the sample has no vectors, and the bundle has no model to make them"
            )
        made = iter(encoder.encode_documents(texts) if encoder is not None and texts else ())
        for document in part:
            try:
                own = [rules.checked(given) for given in document.vectors] if document.vectors else [next(made)]
            except UsageError as error:
                raise CollectionError(f"document {document.id!r} of the sample: {error}") from None
            found += [matrix for matrix in own if len(matrix)]
            rows += sum(map(len, own))
        step("encoding the sample", min(first + BLOCK, len(documents)), min(len(documents), MOST_PASSAGES))
        if rows >= MOST_ROWS:
            break
    return found


def _fitted(out: Output, passages: Sequence[Matrix], options: ChoiceOptions, step: StepReport) -> dict[str, OneVector]:
    """Fit the encodings, by the name of their line in the curve; report and omit those that the sample is too small for."""
    found: dict[str, OneVector] = {}
    for name, kind in ENCODINGS.items():
        for dim in options.dims if kind.fitted else (0,):
            label = f"{name} {dim}" if dim else name

            def report(done: int, total: int, label: str = label) -> None:
                step(f"fitting {label}", done, total)

            try:
                found[label] = kind.fit(passages, dim=dim, seed=options.seed, progress=report)
            except BundleError as error:
                out.say(f"{label} is left out: {error}")
    return found


def _queries(
    encoder: Encoder | None, passages: Sequence[Matrix], documents: Sequence[Document], options: ChoiceOptions
) -> list[Matrix]:
    if encoder is None:
        if options.queries:
            raise UsageError(
                "the bundle has no model to encode --queries with: without them, rows of passages stand for queries"
            )
        return sampled_rows(passages, options.count, options.seed)
    texts = [passage_text(d.title, d.text) for d in documents if not d.blank]
    if not options.queries and not texts:
        return sampled_rows(passages, options.count, options.seed)
    return encoder.encode_queries(options.queries or spans(texts, options.count, options.seed))


def _unreached(report: CandidateReport) -> str:
    most = max(report.points, key=lambda point: point.recall)
    return (
        f"nothing reaches recall@{report.goal.k} {report.goal.recall:g}: the most is {most.recall:.3f}, of {most.way} with "
        f"rerank {most.rerank}"
    )
