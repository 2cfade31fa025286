"""Export a sentence-transformers checkpoint as a dense model of a bundle, verified against that library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.checkpoint_folder import CheckpointFolder
from exporter.graph import export_graph, pooled_graph, save_tokenizer
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_tokenizer, positions
from exporter.options import ExportOptions
from exporter.quantization import quantize_all
from exporter.quiet import quiet
from exporter.verification import DenseReport, dense_fidelity, timed, verification_texts
from exporter.weights import check_custom_code, check_loaded, check_modules, safe_source
from late_interaction.bundle import DENSE, DENSE_OUTPUT, Bundle, DensePart, write_manifest
from late_interaction.dense import DenseEncoder
from late_interaction.errors import CheckpointError

__all__ = ["add_dense"]

OWN_MODULES = "sentence_transformers."
FIRST = ("Transformer",)
FURTHER = ("Dense", "Dropout", "LayerNorm", "Normalize", "Pooling")  # modules that one graph can hold after it
DOT, COSINE = "dot", "cosine"
SIDES = ("query", "document")


def add_dense(
    bundle: Bundle, name: str, checkpoint: str | Path, options: ExportOptions, progress: Callable[[str], None]
) -> tuple[Bundle, DenseReport]:
    """Write the dense model into the bundle's folder, and the manifest with it.

    Args:
        bundle: the bundle.
        name: name of the dense model.
        checkpoint: a folder or a hub name.
        options: what to export.
        progress: called with a line before each step.

    Raises:
        CheckpointError: if the checkpoint is not a dense model, or has what one graph cannot hold.
    """
    folder = scan_checkpoint(
        find_checkpoint(checkpoint, revision=None, local_files_only=options.local_files_only, allow_pickle=options.allow_pickle)
    )
    progress(f"exporting the dense model {name} to ONNX")
    model, tokenizer = _load(folder, options)
    normalized = _normalized(folder, model)
    if "fp16" in options.quantize and not normalized:
        raise CheckpointError(f"{folder.shown} has vectors of any length, but fp16 scales them to length 1; omit fp16")
    place = bundle.path / DENSE / name
    place.mkdir(parents=True)
    dim = _chosen_dim(folder, model, options.dense_dims.get(name))
    export_graph(pooled_graph(model, dim, normalized=normalized), place / "model.onnx", DENSE_OUTPUT)
    models = quantize_all(options.quantize, place / "model.onnx", progress)
    save_tokenizer(tokenizer.backend_tokenizer, place / "tokenizer.json")
    part = DensePart(
        source=Path(checkpoint).name if Path(checkpoint).exists() else str(checkpoint),
        dim=dim,
        max_tokens=_max_tokens(model),
        pad_id=int(tokenizer.pad_token_id or 0),
        query_prompt=_prompt(model, "query"),
        document_prompt=_prompt(model, "document"),
        normalized=normalized,
        models={precision: f"{DENSE}/{name}/{file}" for precision, file in models.items()},
        tokenizer=f"{DENSE}/{name}/tokenizer.json",
    )
    made = write_manifest(bundle.path, replace(bundle.manifest, dense={**bundle.manifest.dense, name: part}))
    progress(f"verifying the dense model {name} against sentence-transformers")
    return made, _verify(model, made, name, options.sample)


def _load(folder: CheckpointFolder, options: ExportOptions) -> tuple[Any, Any]:
    """Load the SentenceTransformer on the CPU, and the tokenizer that its texts go through."""
    _check_kind(folder)
    check_custom_code(folder, options.trust_remote_code)
    with safe_source(folder, allow_pickle=options.allow_pickle) as source:
        check_modules(source, options.trust_remote_code)
        try:
            with quiet():
                model = _sentence_transformer(source, options.trust_remote_code)
                check_loaded(source, model[0].model)
                lowering = getattr(model[0], "do_lower_case", False)  # done by the normalizer of the model's own tokenizer
                tokenizer = model.tokenizer if lowering else load_tokenizer(source, trust_remote_code=options.trust_remote_code)
        except CheckpointError:
            raise
        except Exception as error:  # noqa: BLE001  loading runs libraries with errors of their own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{folder.shown} cannot be loaded as a dense model: {reason}") from None
    _check_loaded_modules(folder, model, tokenizer)
    return model, tokenizer


def _sentence_transformer(folder: CheckpointFolder, trust_remote_code: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder.path), device="cpu", local_files_only=True, trust_remote_code=trust_remote_code,
        model_kwargs={"use_safetensors": True},
    ).eval()  # fmt: skip


def _check_kind(folder: CheckpointFolder) -> None:
    """Raise CheckpointError, from the files alone, if it is another kind of checkpoint, or has a module no graph can hold."""
    if folder.layout != "plain":
        raise CheckpointError(f"{folder.shown} is a {folder.layout} checkpoint with token vectors, not a dense model")
    kind = folder.read("config_sentence_transformers.json").get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise CheckpointError(f"{folder.shown} is a {kind}, not a dense model (SentenceTransformer)")
    for place, (type_, _) in enumerate(folder.modules):
        known = FIRST if place == 0 else FURTHER
        if not type_.startswith(OWN_MODULES) or type_.rpartition(".")[2] not in known:
            raise CheckpointError(
                f"{folder.shown}: module {place} is {type_}, which cannot be exported; known in that place: {', '.join(known)}"
            )


def _check_loaded_modules(folder: CheckpointFolder, model: Any, tokenizer: Any) -> None:
    pooling = [module for module in model if type(module).__name__ == "Pooling"]
    if len(pooling) != 1:
        raise CheckpointError(f"{folder.shown} has {len(pooling)} Pooling modules; a dense model needs exactly one")
    if not pooling[0].include_prompt and any(_prompt(model, side) for side in SIDES):
        raise CheckpointError(
            f"{folder.shown} excludes its prompt from the pooling (include_prompt false), which a graph cannot do; "
            f"use a model without prompts, or one that includes them"
        )
    if tokenizer.truncation_side != "right":
        raise CheckpointError(
            f"{folder.shown} truncates texts at their start (truncation_side left), which is not "
            f"supported; set truncation_side to right"
        )


def _normalized(folder: CheckpointFolder, model: Any) -> bool:
    """Tell whether vectors have length one: by a module, or because they are compared by cosine.

    Raises:
        CheckpointError: if they are compared otherwise.
    """
    if any(type(module).__name__ == "Normalize" for module in model):
        return True
    if model.similarity_fn_name not in (COSINE, DOT):
        raise CheckpointError(f"{folder.shown} compares vectors by {model.similarity_fn_name}; known: {COSINE}, {DOT}")
    return bool(model.similarity_fn_name == COSINE)


def _chosen_dim(folder: CheckpointFolder, model: Any, asked: int | None) -> int:
    """Return the requested dimensions, or the checkpoint's own (truncate_dim); CheckpointError if it has fewer."""
    own = int(model.get_embedding_dimension())
    if asked is not None and asked > own:
        raise CheckpointError(f"--dense-dim {asked} is more than the {own} dimensions that {folder.shown} has")
    return asked or own


def _max_tokens(model: Any) -> int:
    config, given = model[0].model.config, model.max_seq_length
    if given is not None and not getattr(config, "max_position_embeddings", None):
        return int(given)  # relative positions have no end
    return min(positions(config), int(given or positions(config)))


def _prompt(model: Any, side: str) -> str:
    """Choose the prompt as encode_query and encode_document do: every model has both names, empty or not."""
    return str(model.prompts.get(side) or "")


def _verify(model: Any, bundle: Bundle, name: str, sample: Sequence[str] | None) -> DenseReport:
    sides = verification_texts(sample)
    part, encoders = bundle.manifest.dense[name], {}
    for precision in bundle.manifest.dense[name].models:
        encoders[precision] = DenseEncoder(bundle, name, precision=precision)
    encode = {"query": model.encode_query, "document": model.encode_document}

    def reference(side: str, texts: Sequence[str]) -> np.ndarray:
        with quiet():
            return np.asarray(
                encode[side](
                    list(texts), batch_size=1, normalize_embeddings=part.normalized, truncate_dim=part.dim,
                    show_progress_bar=False, convert_to_numpy=True,
                ),
                np.float32,
            )  # fmt: skip

    expected = {side: reference(side, texts) for side, texts in sides.items()}
    differences = [text for side, texts in sides.items() for text in _id_differences(model, encoders["fp32"], side, texts)]
    texts = sum(map(len, sides.values()))
    return DenseReport(
        source=part.source, dim=part.dim, texts=texts, modules=tuple(type(module).__name__ for module in model),
        ids_equal=1 - len(differences) / texts, differences=tuple(differences[:5]),
        fidelity={
            precision: dense_fidelity(encoder, expected, sides, bundle.file(part.models[precision]).stat().st_size)
            for precision, encoder in encoders.items()
        },
        torch=timed(lambda some: reference("document", some), lambda some: reference("query", some), sides),
    )  # fmt: skip


def _id_differences(model: Any, encoder: DenseEncoder, side: str, texts: Sequence[str]) -> list[str]:
    """Return the texts whose ids differ from those of sentence-transformers."""
    prompt, differing = _prompt(model, side), []
    for text, ours in zip(texts, encoder.token_ids(texts, prompt), strict=True):
        with quiet():
            theirs = model.preprocess([text], prompt=prompt)["input_ids"][0].numpy()
        if not np.array_equal(theirs, ours):
            differing.append(f"{side} {text[:40]!r}: {len(theirs)} ids in sentence-transformers, {len(ours)} here")
    return differing
