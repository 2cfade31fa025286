"""`export`: checkpoint to bundle, with a codebook if a sample of documents is given."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from colbert_vespa.cli.choosing import ChoiceOptions, check_sample, record_choice
from colbert_vespa.cli.console import Output
from colbert_vespa.cli.source_options import with_columns
from colbert_vespa.evaluation.recall import RecallGoal
from exporter import ExportOptions, export, export_cross_encoder
from exporter.codebooks import DEFAULT_BITS, add_codebook
from exporter.verification import ExportReport
from feeder.sources import ROW, ColumnMapping, SourceSettings, check_columns, open_sources
from late_interaction.bundle import DENSE, Bundle, is_bundle_folder
from late_interaction.bundle_cache import register_bundle
from late_interaction.codebook_training import CODEBOOK_DOCUMENTS
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.files import check_folder, replace_folder
from late_interaction.vector_cache import CachedEncoder, DocumentEncoder, VectorCache

__all__ = ["dense_counts", "dense_values", "export_bundle", "export_reranker", "sample_texts"]

MAX_SAMPLE, MAX_LARGE_SAMPLE = 50_000, 500_000


def sample_texts(source: str, most: int = MAX_SAMPLE, columns: Sequence[str] | None = None) -> list[str]:
    """Return the texts to encode of the first documents of a source, which need no ids.

    Args:
        source: Address of the documents.
        most: Most documents to read.
        columns: Names of the columns, as in `with_columns`.

    Raises:
        UsageError: If no document has text.
    """
    settings = with_columns(SourceSettings(ColumnMapping(id=ROW)), columns)
    documents = open_sources([source], settings)[0]
    texts = [passage_text(d.title, d.text) for d in islice(documents, most) if not d.blank]
    check_columns([documents])
    if not texts:
        raise UsageError(f"{source} has no document with text; give some of the documents to be indexed")
    return texts


def dense_values(given: Iterable[str], option: str) -> dict[str, str]:
    """Return values by name of the dense model; each is NAME=VALUE, or a value alone for the model named "dense".

    Raises:
        UsageError: If a name occurs twice.
    """
    found: dict[str, str] = {}
    for item in given:
        named = re.fullmatch(r"([a-z][a-z0-9_]*)=(.+)", item, re.DOTALL)
        name, value = (named[1], named[2]) if named else (DENSE, item)
        if name in found:
            raise UsageError(
                f"{option} is given twice for the dense model {name!r}; name each, as in {option} NAME={value[:40]}"
            )
        found[name] = value
    return found


def dense_counts(given: Iterable[str], option: str) -> dict[str, int]:
    """Return counts by name of the dense model, given as for `dense_values`.

    Raises:
        UsageError: If a name occurs twice, or a value is not a whole number above 0.
    """
    found = dense_values(given, option)
    for value in found.values():
        if not value.isascii() or not value.isdecimal() or len(value) > 6 or int(value) == 0:
            raise UsageError(
                f"{option} must be N or NAME=N: a number above 0 of six digits at most, for a name of small letters, "
                f"digits and _; got {value[:40]!r}"
            )
    return {name: int(value) for name, value in found.items()}


def export_bundle(
    out: Output,
    checkpoint: str,
    output: Path,
    options: ExportOptions,
    sample: Path | None,
    columns: Sequence[str] | None = None,
    goal: RecallGoal | None = None,
) -> dict[str, object]:
    """Export a checkpoint to a bundle and report what was written.

    Args:
        out: Where progress and results are shown.
        checkpoint: Folder or hub name of the checkpoint.
        output: Folder of the new bundle.
        options: Options of the export, apart from the sample, which is read from `sample`.
        sample: Source of sample documents, or None.
        columns: Columns of the sample, each as ROLE=COLUMN.
        goal: Recall to reach. If given, candidates are measured on the sample and the cheapest that reaches it is chosen.

    Returns:
        The result as it is printed with `--json`.
    """
    if goal is not None and not sample:
        raise UsageError("--candidates-goal is measured on --sample: give a sample of your documents")
    if not sample and (options.bits or options.centroids or options.documents):
        raise UsageError(
            "--bits, --centroids and --documents apply to the codebook, which --sample trains; give a sample of your documents"
        )
    check_folder(output, owned=is_bundle_folder)
    if output.exists() and Path(checkpoint).exists() and output.samefile(checkpoint):
        out.say(
            f"{output} gets the dense models in its own place: its checksum changes, and indexes made with it keep their copy"
        )
    sized = options.centroids or options.documents
    texts = sample_texts(str(sample), MAX_LARGE_SAMPLE if sized else MAX_SAMPLE, columns) if sample else None
    if goal is not None:
        check_sample(len(texts or ()), goal)
    bundle, report = make_bundle(out, checkpoint, output, replace(options, sample=texts), goal)
    register_bundle(bundle)
    out.say(f"bundle written to {output}")
    chosen = bundle.manifest.candidates
    measured = {} if goal is None else {"candidates": None if chosen is None else asdict(chosen)}
    return {"bundle": str(output), "sha256": bundle.sha256, **report.to_json(), **measured}


def export_reranker(
    out: Output,
    checkpoint: str,
    output: Path,
    options: ExportOptions,
    sample: Path | None,
    columns: Sequence[str] | None = None,
) -> dict[str, object]:
    """Export a cross-encoder, verified on the texts of `sample`.

    Args:
        out: Where progress and results are shown.
        checkpoint: Folder or hub name.
        output: Folder to write.
        options: Options of the export.
        sample: Documents to verify with; None for built-in texts.
        columns: Names of the columns, as in `with_columns`.

    Returns:
        The result as it is printed with `--json`.
    """
    texts = sample_texts(str(sample), columns=columns) if sample else None
    report = export_cross_encoder(checkpoint, output, replace(options, sample=texts), progress=out.say)
    out.cross_encoder_report(report)
    out.say(f"cross-encoder written to {output}")
    return {"cross_encoder": str(output), **report.to_json()}


def make_bundle(
    out: Output, checkpoint: str | Path, output: Path, options: ExportOptions, goal: RecallGoal | None = None
) -> tuple[Bundle, ExportReport]:
    """Export the model, train the codebook on the sample and, with a goal, choose candidates.

    `output` appears only when all is done.
    """
    texts = options.sample
    with replace_folder(output, owned=is_bundle_folder) as staging:
        report = export(checkpoint, staging / "bundle", options, progress=out.say)
        out.export_report(report)
        bundle = Bundle.open(staging / "bundle", verify=False)
        if texts:
            encoder = Encoder(bundle, device=options.device)
            kept = nullcontext(encoder) if goal is None else _encoding_once(encoder, staging / "vectors")
            with kept as once:
                _train_codebook(out, bundle, texts, once, options)
                if goal is not None:
                    trained = Bundle.open(bundle.path, verify=False)
                    record_choice(out, trained, encoder, texts, ChoiceOptions(goal), documents_by=once)
        for item in (staging / "bundle").iterdir():
            item.rename(staging / item.name)
        (staging / "bundle").rmdir()
    return Bundle.open(output), report


def _train_codebook(
    out: Output, bundle: Bundle, texts: Sequence[str], encoder: DocumentEncoder, options: ExportOptions
) -> None:
    taught = texts if options.centroids or options.documents else texts[:CODEBOOK_DOCUMENTS]
    out.say(f"training the codebook on at most {len(taught)} documents of the sample")
    with out.steps() as step:
        add_codebook(
            bundle, taught, encoder, bits=options.bits or DEFAULT_BITS, centroids=options.centroids,
            documents=options.documents, progress=lambda done, total: step("codebook", done, total),
        )  # fmt: skip


@contextmanager
def _encoding_once(encoder: Encoder, folder: Path) -> Iterator[CachedEncoder]:
    """Keep the vectors of documents in `folder` meanwhile, so that each text is encoded once."""
    cache = VectorCache(folder, encoder.bundle.manifest.dim)
    try:
        yield CachedEncoder(encoder, cache)
    finally:
        cache.close()
        shutil.rmtree(folder)
