"""Checkpoint to verified bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.graph import export_graph, quantize_int8, torch_graph
from exporter.layouts import detect_layout
from exporter.loading import Checkpoint, find_checkpoint, load_checkpoint
from exporter.plain import make_plain_checkpoint
from exporter.verification import ExportReport, verify
from late_interaction.bundle import Bundle, Manifest, write_manifest
from late_interaction.errors import CheckpointError, UsageError
from late_interaction.files import staged_folder

__all__ = ["WORST_FP32", "export_checkpoint"]

WORST_FP32 = 0.9999
MEAN_INT8 = 0.98


def export_checkpoint(
    checkpoint: str | Path,
    output: Path,
    *,
    quantize: str | None,
    sample: Sequence[str] | None,
    dim: int,
    revision: str | None,
    local_files_only: bool,
    trust_remote_code: bool,
    allow_pickle: bool,
    force: bool,
    progress: Callable[[str], None],
) -> ExportReport:
    if quantize not in (None, "int8"):
        raise UsageError(f"--quantize {quantize} unknown; known: int8")
    folder = find_checkpoint(checkpoint, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle)
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch:
        if detect_layout(folder) == "plain":
            if not sample:
                raise CheckpointError(f"{folder} is a plain encoder, no ColBERT: give --sample to fit a projection to it")
            progress(f"fitting a projection to {dim} dimensions on token rows of the sample")
            make_plain_checkpoint(folder, Path(scratch) / "checkpoint", sample, dim=dim, allow_pickle=allow_pickle)
            loaded = load_checkpoint(Path(scratch) / "checkpoint")
        else:
            loaded = load_checkpoint(folder, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
        with staged_folder(output) as staging:
            progress(f"exporting the {loaded.layout} checkpoint to ONNX")
            bundle = _write(loaded, str(checkpoint), staging, quantize)
            progress("verifying against torch")
            report = verify(loaded, bundle, sample)
            _judge(report, force)
            (staging / "report.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
            write_manifest(staging, bundle.manifest)
    for precision, measured in report.fidelity.items():
        megabytes = measured.bytes / 1e6
        progress(f"{precision}: cosine with torch {measured.worst:.5f} worst, {measured.mean:.5f} mean; {megabytes:.0f} MB")
    return report


def _write(loaded: Checkpoint, source: str, folder: Path, quantize: str | None) -> Bundle:
    models = {"fp32": "model.onnx"}
    export_graph(torch_graph(loaded), folder / "model.onnx")
    if quantize == "int8":
        models["int8"] = "model.int8.onnx"
        quantize_int8(folder / "model.onnx", folder / "model.int8.onnx")
    backend = loaded.tokenizer.backend_tokenizer
    backend.no_truncation()  # Vespa would honour what is stored here
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    dim = int(loaded.model.get_embedding_dimension())
    pad = loaded.tokenizer.pad_token_id
    manifest = Manifest(
        source=Path(source).name if Path(source).exists() else source,
        layout=loaded.layout,
        dim=dim,
        query=loaded.rules.query,
        document=loaded.rules.document,
        pad_id=0 if pad is None else int(pad),
        max_tokens=_max_tokens(loaded),
        strip=loaded.rules.strip,
        lower_case=loaded.rules.lower_case,
        models=models,
    )
    return write_manifest(folder, manifest)


def _max_tokens(loaded: Checkpoint) -> int:
    """Positions that the encoder has; RoBERTa's first ones belong to padding."""
    config = loaded.model[0].model.config
    positions = int(getattr(config, "max_position_embeddings", 0) or 512)
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "xmod"):
        positions -= int(config.pad_token_id or 0) + 1
    return positions


def _judge(report: ExportReport, force: bool) -> None:
    fp32, int8 = report.fidelity["fp32"], report.fidelity.get("int8")
    faults = []
    if fp32.worst < WORST_FP32:
        faults.append(f"fp32 rows differ from torch (worst cosine {fp32.worst:.6f}, wanted {WORST_FP32})")
    if int8 is not None and int8.mean < MEAN_INT8:
        faults.append(f"int8 rows differ from torch (mean cosine {int8.mean:.4f}, wanted {MEAN_INT8})")
    if faults and not force:
        raise CheckpointError("; ".join(faults) + ": no bundle was written; --force keeps it all the same")
