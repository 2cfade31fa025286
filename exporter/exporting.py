"""Export a checkpoint to a verified bundle, and dense models to a new or existing bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from exporter.checkpoint_folder import CheckpointFolder
from exporter.dense import add_dense
from exporter.graph import export_graph, save_tokenizer, torch_graph
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import Checkpoint, load_checkpoint, positions, without_projection
from exporter.next_plaid import write_next_plaid
from exporter.options import READY_MADE, ExportOptions
from exporter.plain import make_plain_checkpoint
from exporter.quantization import check_schemes, quantize_all
from exporter.rules import chosen_dim, with_options
from exporter.verification import DenseReport, ExportReport, verify
from late_interaction.bundle import MANIFEST, REPORT, Bundle, DensePart, Manifest, is_bundle_folder, write_manifest
from late_interaction.errors import BundleError, CheckpointError, UsageError
from late_interaction.files import atomic_write, check_folder, replace_folder
from late_interaction.structured import parse, read

__all__ = ["export_checkpoint"]

PLAIN_DIM = 128
OF_DENSE = ("dense", "dense_dims", "device", "quantize", "local_files_only", "trust_remote_code", "allow_pickle", "least_fp32",
            "least_quantized", "force")  # fmt: skip


def export_checkpoint(
    checkpoint: str | Path, output: Path, options: ExportOptions, progress: Callable[[str], None]
) -> ExportReport:
    """Export a checkpoint; see `exporter.export`."""
    check_schemes(options.quantize)
    check_folder(output, owned=is_bundle_folder)
    place = find_checkpoint(
        checkpoint, revision=options.revision, local_files_only=options.local_files_only, allow_pickle=options.allow_pickle
    )
    if (place / MANIFEST).is_file():
        with replace_folder(output, owned=is_bundle_folder) as staging:
            return _finish(staging, *_copied(Bundle.open(place), staging, options), options, progress)
    folder = scan_checkpoint(place)
    if folder.layout == "next-plaid":
        with replace_folder(output, owned=is_bundle_folder) as staging:
            written = write_next_plaid(folder, staging, str(checkpoint), options, progress)
            return _finish(staging, *written, options, progress)
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch:
        loaded = _loaded(folder, Path(scratch) / "checkpoint", options, progress)
        with replace_folder(output, owned=is_bundle_folder) as staging:
            progress(f"exporting the {loaded.layout} checkpoint to ONNX")
            return _finish(staging, *_write(loaded, str(checkpoint), staging, options, progress), options, progress)


def _finish(
    folder: Path, bundle: Bundle, report: ExportReport, options: ExportOptions, progress: Callable[[str], None]
) -> ExportReport:
    dense: dict[str, DenseReport] = {}
    for name, checkpoint in options.dense.items():
        if checkpoint == READY_MADE:
            bundle = _with_ready_made(bundle, name, options)
        else:
            bundle, dense[name] = add_dense(bundle, name, checkpoint, options, progress)
    report = replace(report, dense={**report.dense, **dense})
    _judge(report, options)
    atomic_write(folder / REPORT, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    write_manifest(folder, bundle.manifest)
    return report


def _with_ready_made(bundle: Bundle, name: str, options: ExportOptions) -> Bundle:
    """Add a dense model whose vectors are supplied; UsageError if its dimensions are not given."""
    if name not in options.dense_dims:
        raise UsageError(f"--dense {name}={READY_MADE} needs the dimensions of its vectors: --dense-dim {name}=N")
    part = DensePart(READY_MADE, options.dense_dims[name])
    return write_manifest(bundle.path, replace(bundle.manifest, dense={**bundle.manifest.dense, name: part}))


def _copied(bundle: Bundle, folder: Path, options: ExportOptions) -> tuple[Bundle, ExportReport]:
    """Copy the bundle into `folder`, with what was measured of it.

    Raises:
        UsageError: if no dense model or an existing one is requested, or an option concerns token vectors.
    """
    if not options.dense:
        raise UsageError(f"{bundle.path} is already a bundle; add a dense model to it with --dense")
    if twice := sorted(set(options.dense) & set(bundle.manifest.dense)):
        raise UsageError(
            f"{bundle.path} already has a dense model {twice[0]!r}; give the new one another name (--dense NAME=...)"
        )
    for option in fields(options):
        if option.name not in OF_DENSE and getattr(options, option.name) != option.default:
            raise UsageError(
                f"--{option.name.replace('_', '-')} applies to token vectors, which bundle {bundle.path} already has; omit it"
            )
    bundle.copy_to(folder)
    manifest = bundle.manifest
    try:
        text = bundle.file(REPORT).read_bytes() if REPORT in manifest.files else b"{}"
        report = read(ExportReport, parse(text, BundleError, REPORT), BundleError, REPORT)
    except BundleError:  # there is none, or it is from another release
        report = ExportReport(manifest.layout, manifest.source, manifest.dim, 0, 1.0)
    return Bundle.open(folder, verify=False), report


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
    """Write the bundle; return what differs between it and torch under the checkpoint's own rules."""
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
    graphs = {("", precision): measured for precision, measured in report.fidelity.items()}
    for name, dense in report.dense.items():
        graphs |= {(f"dense model {name}: ", precision): measured for precision, measured in dense.fidelity.items()}
    faults = [
        f"dense model {name}: ids of {len(dense.differences)} texts or more differ from sentence-transformers' "
        f"({dense.differences[0]})"
        for name, dense in report.dense.items()
        if dense.differences
    ]
    for (whose, precision), measured in graphs.items():
        if precision == "fp32" and not measured.worst >= options.least_fp32:
            reason = f"worst cosine {measured.worst:.6f}, below {options.least_fp32}"
        elif precision != "fp32" and not measured.mean >= options.least_quantized:
            reason = f"mean cosine {measured.mean:.4f}, below {options.least_quantized}"
        else:
            continue
        faults.append(f"{whose}{precision} rows differ from the original's ({reason})")
    if faults and not options.force:
        raise CheckpointError("; ".join(faults) + ": no bundle was written; keep it anyway with --force")
