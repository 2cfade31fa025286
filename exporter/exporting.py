"""Checkpoint to verified bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.checkpoint_folder import CheckpointFolder
from exporter.graph import export_graph, save_tokenizer, torch_graph
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import Checkpoint, load_checkpoint, positions, without_projection
from exporter.next_plaid import write_next_plaid
from exporter.options import ExportOptions
from exporter.plain import make_plain_checkpoint
from exporter.quantization import check_schemes, quantize_all
from exporter.rules import chosen_dim, with_options
from exporter.verification import ExportReport, verify
from late_interaction.bundle import Bundle, Manifest, is_bundle_folder, write_manifest
from late_interaction.errors import CheckpointError
from late_interaction.files import atomic_write, check_folder, replace_folder

__all__ = ["export_checkpoint"]

PLAIN_DIM = 128


def export_checkpoint(
    checkpoint: str | Path, output: Path, options: ExportOptions, progress: Callable[[str], None]
) -> ExportReport:
    check_schemes(options.quantize)
    check_folder(output, owned=is_bundle_folder)
    place = find_checkpoint(
        checkpoint, revision=options.revision, local_files_only=options.local_files_only, allow_pickle=options.allow_pickle
    )
    folder = scan_checkpoint(place)
    if folder.layout == "next-plaid":
        with replace_folder(output, owned=is_bundle_folder) as staging:
            return _finish(staging, *write_next_plaid(folder, staging, str(checkpoint), options, progress), options)
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch:
        loaded = _loaded(folder, Path(scratch) / "checkpoint", options, progress)
        with replace_folder(output, owned=is_bundle_folder) as staging:
            progress(f"exporting the {loaded.layout} checkpoint to ONNX")
            return _finish(staging, *_write(loaded, str(checkpoint), staging, options, progress), options)


def _finish(folder: Path, bundle: Bundle, report: ExportReport, options: ExportOptions) -> ExportReport:
    _judge(report, options)
    atomic_write(folder / "report.json", (json.dumps(report.to_json(), indent=1) + "\n").encode())
    write_manifest(folder, bundle.manifest)
    return report


def _loaded(folder: CheckpointFolder, scratch: Path, options: ExportOptions, progress: Callable[[str], None]) -> Checkpoint:
    if folder.layout != "plain":
        return load_checkpoint(folder, trust_remote_code=options.trust_remote_code, allow_pickle=options.allow_pickle)
    if not options.sample:
        raise without_projection(folder)
    dim = options.dim or PLAIN_DIM
    progress(f"fitting a projection to {dim} dimensions on token rows of the sample")
    make_plain_checkpoint(folder, scratch, options.sample, dim=dim, allow_pickle=options.allow_pickle)
    return load_checkpoint(scan_checkpoint(scratch))


def _write(
    loaded: Checkpoint, source: str, folder: Path, options: ExportOptions, progress: Callable[[str], None]
) -> tuple[Bundle, ExportReport]:
    """The bundle, and what differs between it and torch under the rules that the checkpoint was trained with."""
    dim = chosen_dim(options, int(loaded.model.get_embedding_dimension()), "checkpoint")
    graph = torch_graph(loaded, dim)
    export_graph(graph, folder / "model.onnx")
    models = quantize_all(options.quantize, folder / "model.onnx", progress)
    save_tokenizer(loaded.tokenizer.backend_tokenizer, folder / "tokenizer.json")
    pad = loaded.tokenizer.pad_token_id
    trained = Manifest(
        source=Path(source).name if Path(source).exists() else source,
        layout=loaded.layout,
        dim=dim,
        query=loaded.rules.query,
        document=loaded.rules.document,
        pad_id=0 if pad is None else int(pad),
        max_tokens=positions(loaded.model[0].model.config),
        strip=loaded.rules.strip,
        lower_case=loaded.rules.lower_case,
        models=models,
    )
    bundle = write_manifest(folder, with_options(trained, options, loaded.tokenizer))
    progress("verifying against torch")
    return bundle, verify(loaded, graph, bundle, replace(trained, files=bundle.manifest.files), options)


def _judge(report: ExportReport, options: ExportOptions) -> None:
    faults = []
    for precision, measured in report.fidelity.items():
        if precision == "fp32" and not measured.worst >= options.least_fp32:
            reason = f"worst cosine {measured.worst:.6f}, wanted {options.least_fp32}"
        elif precision != "fp32" and not measured.mean >= options.least_quantized:
            reason = f"mean cosine {measured.mean:.4f}, wanted {options.least_quantized}"
        else:
            continue
        faults.append(f"{precision} rows differ from the original's ({reason})")
    if faults and not options.force:
        raise CheckpointError("; ".join(faults) + ": no bundle was written; --force keeps it all the same")
