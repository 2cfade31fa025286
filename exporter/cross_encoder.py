"""Export a sequence-classification checkpoint with one label as a cross-encoder, verified against sentence-transformers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from exporter.checkpoint_folder import CheckpointFolder
from exporter.graph import export_graph, save_tokenizer
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_tokenizer, positions
from exporter.options import ExportOptions
from exporter.quantization import check_schemes, quantize_all
from exporter.quiet import quiet
from exporter.verification import verification_texts
from exporter.weights import check_custom_code, safe_source, tensor_names
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, TYPE_IDS, is_bundle_folder
from late_interaction.cross_encoder import (
    ACTIVATIONS,
    LOGIT,
    MAX_LENGTH,
    CrossEncoder,
    CrossEncoderFolder,
    CrossEncoderManifest,
    write_cross_encoder,
)
from late_interaction.errors import CheckpointError, UsageError
from late_interaction.files import atomic_write, check_folder, replace_folder

__all__ = ["CrossEncoderReport", "PairFidelity", "export_pairs"]

ARCHITECTURE = "ForSequenceClassification"
TAKEN = (
    "quantize", "sample", "revision", "local_files_only", "trust_remote_code", "allow_pickle", "least_quantized", "force",
)  # fmt: skip
SCHEMES = ("int8", "int8-tensor")  # fp16 ends with rows of length one
QUERIES = 8  # each is paired with every text
MOST_FP32 = 1e-3  # largest difference from sentence-transformers' score, relative to 1 + its size


@dataclass(frozen=True, slots=True)
class PairFidelity:
    """One graph against sentence-transformers on the same pairs.

    Attributes:
        worst: largest difference of a logit, relative to 1 + its size.
        worst_score: the same after the activation.
        correlation: correlation of all logits.
        order_equal: share of the queries with the same order of passages, apart from scores that are equal within float
            noise.
        pairs_per_s: pairs scored per second.
        bytes: size of the file.
    """

    worst: float
    worst_score: float
    correlation: float
    order_equal: float
    pairs_per_s: float
    bytes: int


@dataclass(frozen=True)
class CrossEncoderReport:
    """What `export --cross-encoder` measured.

    Attributes:
        source: the checkpoint.
        activation: how a logit becomes a score.
        max_tokens: most tokens of a pair.
        pairs: pairs that were measured.
        torch_pairs_per_s: speed of sentence-transformers.
        fidelity: result by precision.
    """

    source: str
    activation: str
    max_tokens: int
    pairs: int
    torch_pairs_per_s: float
    fidelity: dict[str, PairFidelity] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


def export_pairs(
    checkpoint: str | Path, output: Path, options: ExportOptions, progress: Callable[[str], None]
) -> CrossEncoderReport:
    """Export a cross-encoder; see `exporter.export_cross_encoder`."""
    _check_options(options)
    check_folder(output, owned=is_bundle_folder)
    place = find_checkpoint(
        checkpoint, revision=options.revision, local_files_only=options.local_files_only, allow_pickle=options.allow_pickle
    )
    folder = scan_checkpoint(place)
    _check_kind(folder)
    check_custom_code(folder, options.trust_remote_code)
    with safe_source(folder, allow_pickle=options.allow_pickle) as source:
        model = _loaded(source, options)
        with replace_folder(output, owned=is_bundle_folder) as staging:
            progress("exporting the cross-encoder to ONNX")
            name = Path(checkpoint).name if Path(checkpoint).exists() else str(checkpoint)
            written = _write(source, model, name, staging, options, progress)
            progress("verifying against sentence-transformers")
            report = _verified(written, model, options.sample)
            _judge(report, options)
            atomic_write(staging / "report.json", (json.dumps(report.to_json(), indent=1) + "\n").encode())
            write_cross_encoder(staging, written.manifest)
    return report


def _check_options(options: ExportOptions) -> None:
    """Raise UsageError for the first option that does not apply to cross-encoders."""
    plain = ExportOptions()
    for option in fields(options):
        if option.name not in TAKEN and getattr(options, option.name) != getattr(plain, option.name):
            raise UsageError(f"--{option.name.replace('_', '-')} applies to bundles only; omit it with --cross-encoder")
    check_schemes(options.quantize)
    for scheme in options.quantize:
        if scheme not in SCHEMES:
            raise UsageError(f"--quantize {scheme} applies to bundles only; known for a cross-encoder: {', '.join(SCHEMES)}")


def _check_kind(folder: CheckpointFolder) -> None:
    """Raise CheckpointError if the checkpoint is not of sequence classification."""
    if folder.layout != "plain":
        raise CheckpointError(f"{folder.shown} is a {folder.layout} checkpoint, not a cross-encoder; omit --cross-encoder")
    named = folder.read("config.json").get("architectures") or ["no architecture"]
    if not str(named[0]).endswith(ARCHITECTURE):
        raise CheckpointError(
            f"{folder.shown} is not a cross-encoder: config.json names {named[0]}; give a checkpoint of sequence "
            f"classification (...{ARCHITECTURE})"
        )


def _loaded(folder: CheckpointFolder, options: ExportOptions) -> Any:
    """Load sentence-transformers' CrossEncoder; CheckpointError if that fails."""
    import sentence_transformers

    try:
        with quiet():
            model = sentence_transformers.CrossEncoder(
                str(folder.path), device="cpu", local_files_only=True, trust_remote_code=options.trust_remote_code,
                model_kwargs={"use_safetensors": True},
            ).eval()  # fmt: skip
            absent = _absent(folder, model.model)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  loading runs libraries with errors of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder.shown} cannot be loaded as a cross-encoder: {reason}") from None
    if absent:
        raise CheckpointError(
            f"{folder.shown}: the weights have no {absent[0]} ({len(absent)} missing), so they would be random"
        )
    for module in list(model)[1:]:
        raise CheckpointError(f"{folder.shown}: module {type(module).__name__} cannot be exported")
    labels = int(model.num_labels)
    if labels != 1:
        raise CheckpointError(f"{folder.shown} has {labels} labels; give a checkpoint with one, whose score orders passages")
    # without a limit in the tokenizer, sentence-transformers reads past the last position of some encoders, and fails
    model.max_seq_length = min(int(model.max_seq_length or MAX_LENGTH), positions(model.model.config), MAX_LENGTH)
    return model


def _absent(folder: CheckpointFolder, model: Any) -> list[str]:
    """Return the parameters missing from the weights, as reported by transformers, which knows what it renames."""
    have = tensor_names(folder.path)
    if all(name in have for name, _ in model.named_parameters()):
        return []
    _, report = type(model).from_pretrained(
        str(folder.path), output_loading_info=True, local_files_only=True, use_safetensors=True
    )
    return sorted(report["missing_keys"])


def _activation(folder: CheckpointFolder, model: Any) -> str:
    """Return the name of the activation; CheckpointError if the manifest has no name for it."""
    config = folder.read("config.json")
    named = (config.get("sentence_transformers") or {}).get("activation_fn") or config.get(
        "sbert_ce_default_activation_function"
    )
    path = str(named or f"torch.{type(model.activation_fn).__name__}")
    name = path.rpartition(".")[2].lower()
    if not path.startswith("torch.") or name not in ACTIVATIONS:
        raise CheckpointError(f"{folder.shown}: activation {path} cannot be exported; known: {', '.join(ACTIVATIONS)}")
    return name


def _write(
    folder: CheckpointFolder,
    model: Any,
    name: str,
    target: Path,
    options: ExportOptions,
    progress: Callable[[str], None],
) -> CrossEncoderFolder:
    tokenizer = load_tokenizer(folder, trust_remote_code=options.trust_remote_code)
    types = TYPE_IDS in model.tokenizer.model_input_names and int(getattr(model.model.config, "type_vocab_size", 0) or 0) > 1
    activation = _activation(folder, model)
    inputs = (INPUT_IDS, ATTENTION_MASK, *([TYPE_IDS] if types else []))
    export_graph(_pair_graph(model.model, inputs), target / "model.onnx", LOGIT, inputs)
    models = quantize_all(options.quantize, target / "model.onnx", progress)
    save_tokenizer(tokenizer.backend_tokenizer, target / "tokenizer.json")
    pad = tokenizer.pad_token_id
    manifest = CrossEncoderManifest(
        source=name,
        max_tokens=int(model.max_seq_length),
        pad_id=0 if pad is None else int(pad),
        activation=activation,
        query_prompt=str(model.prompts.get(model.default_prompt_name) or "") if model.default_prompt_name else "",
        token_types=types,
        models=models,
    )
    return write_cross_encoder(target, manifest)


def _pair_graph(model: Any, inputs: Sequence[str]) -> Any:
    """Return a torch module: `inputs` `[batch, tokens]` int64 -> the logit of each pair `[batch]` float32."""
    import torch

    class PairGraph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = model

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.backbone(**dict(zip(inputs, given, strict=True))).logits
            return logits[:, 0]

    return PairGraph().eval()


def _verified(folder: CrossEncoderFolder, model: Any, sample: Sequence[str] | None) -> CrossEncoderReport:
    """Measure every graph on pairs of the sample's texts, or of our own if there is no sample."""
    import torch

    texts = verification_texts(sample)
    queries, passages = list(dict.fromkeys(texts["query"]))[:QUERIES], texts["document"]
    pairs = [[query, passage] for query in queries for passage in passages]
    start = time.perf_counter()
    with quiet():
        scores = np.asarray(model.predict(pairs, show_progress_bar=False), np.float64)
        logits = np.asarray(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False), np.float64)
    torch_s = (time.perf_counter() - start) / 2
    fidelity = {}
    for precision in folder.manifest.models:
        encoder = CrossEncoder(folder, precision=precision)
        start = time.perf_counter()
        ours = np.concatenate([encoder.logits(query, passages) for query in queries])
        took = time.perf_counter() - start
        fidelity[precision] = PairFidelity(
            worst=_difference(ours, logits),
            worst_score=_difference(ACTIVATIONS[folder.manifest.activation](ours), scores),
            correlation=float(np.corrcoef(ours, logits)[0, 1]),
            order_equal=_order_equal(ours.reshape(len(queries), -1), logits.reshape(len(queries), -1)),
            pairs_per_s=len(pairs) / took,
            bytes=folder.model_path(precision).stat().st_size,
        )
    manifest = folder.manifest
    return CrossEncoderReport(
        manifest.source, manifest.activation, manifest.max_tokens, len(pairs), len(pairs) / torch_s, fidelity
    )


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((np.abs(ours - theirs) / (1 + np.abs(theirs))).max())


def _order_equal(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Compare orders; both are `[queries, passages]`."""
    ordered = np.take_along_axis(theirs, np.argsort(-ours, axis=1, kind="stable"), axis=1)
    rises = np.diff(ordered, axis=1)
    return float((rises <= 2 * MOST_FP32 * (1 + np.abs(ordered[:, 1:]))).all(axis=1).mean())


def _judge(report: CrossEncoderReport, options: ExportOptions) -> None:
    """Raise CheckpointError if a graph differs too much."""
    faults = []
    for precision, found in report.fidelity.items():
        if precision == "fp32" and not (max(found.worst, found.worst_score) <= MOST_FP32 and found.order_equal >= 1):
            faults.append(
                f"fp32: a score differs by {max(found.worst, found.worst_score):.2g}, above the limit of {MOST_FP32:g}"
            )
        elif precision != "fp32" and not found.correlation >= options.least_quantized:
            faults.append(f"{precision}: correlation {found.correlation:.4f}, {options.least_quantized} is wanted")
    if faults and not options.force:
        raise CheckpointError(
            f"scores differ from sentence-transformers' ({'; '.join(faults)}): nothing was written; keep it anyway with --force"
        )
