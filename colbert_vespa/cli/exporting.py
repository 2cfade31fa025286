"""`export`: checkpoint to bundle, with a codebook where a sample of documents is given."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

from colbert_vespa.cli.console import Output
from exporter import ExportOptions, export
from exporter.codebooks import DEFAULT_BITS, add_codebook
from exporter.verification import ExportReport
from feeder.sources import open_sources
from late_interaction.bundle import Bundle, is_bundle_folder
from late_interaction.bundle_cache import register_bundle
from late_interaction.codebook_training import CODEBOOK_DOCUMENTS
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.files import check_folder, replace_folder
from late_interaction.vector_cache import DocumentEncoder

__all__ = ["export_bundle", "sample_texts"]

MAX_SAMPLE = 50_000


def sample_texts(source: str) -> list[str]:
    """The encoded texts of the first 50,000 documents of a source."""
    texts = [passage_text(d.title, d.text) for d in islice(open_sources([source])[0], MAX_SAMPLE) if not d.blank]
    if not texts:
        raise UsageError(f"{source} has no document with text: a sample is some of the documents to be indexed")
    return texts


def export_bundle(out: Output, checkpoint: str, output: Path, options: ExportOptions, sample: Path | None) -> dict[str, object]:
    """`sample`: a source of documents; the options' own sample is made from it."""
    if not sample and (options.bits or options.centroids):
        raise UsageError("--bits and --centroids are of the codebook, which --sample trains: give a sample of your documents")
    check_folder(output, owned=is_bundle_folder)
    texts = sample_texts(str(sample)) if sample else None
    bundle, report = make_bundle(out, checkpoint, output, replace(options, sample=texts))
    register_bundle(bundle)
    out.say(f"bundle written to {output}")
    return {"bundle": str(output), "sha256": bundle.sha256, **report.to_json()}


def make_bundle(out: Output, checkpoint: str | Path, output: Path, options: ExportOptions) -> tuple[Bundle, ExportReport]:
    """Exports, and trains the codebook on the sample; `output` appears only when both are done."""
    texts = options.sample
    with replace_folder(output, owned=is_bundle_folder) as staging:
        report = export(checkpoint, staging / "bundle", options, progress=out.say)
        out.export_report(report)
        bundle = Bundle.open(staging / "bundle", verify=False)
        if texts:
            encoder: DocumentEncoder = Encoder(bundle)
            out.say(f"training the codebook on {min(len(texts), CODEBOOK_DOCUMENTS)} documents of the sample")
            with out.steps() as step:
                add_codebook(
                    bundle, texts[:CODEBOOK_DOCUMENTS], encoder, bits=options.bits or DEFAULT_BITS,
                    centroids=options.centroids, progress=lambda done, total: step("codebook", done, total),
                )  # fmt: skip
        for item in (staging / "bundle").iterdir():
            item.rename(staging / item.name)
        (staging / "bundle").rmdir()
    return Bundle.open(output), report
