"""Save a trained model in the layout of sentence-transformers 6, PyLate or Stanford's ColBERT.

A property that a layout cannot store is an error. `exporter/layouts/` reads the layouts back.
"""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Rules
from exporter.layouts.scanning import scan_checkpoint
from exporter.layouts.sentence_transformers import rules_of_model
from exporter.loading import load_tokenizer
from exporter.quiet import quiet
from late_interaction.errors import CheckpointError, UsageError
from late_interaction.files import atomic_write, files_below, replace_folder

__all__ = ["WRITERS", "is_checkpoint_folder", "save_checkpoint"]

MARKER = "colbert-vespa-checkpoint.json"  # names all other files of a checkpoint that was saved here


def save_checkpoint(model: Any, folder: Path, layout: str = "sentence-transformers") -> None:
    """Save a model as a checkpoint.

    Args:
        model: A MultiVectorEncoder without pooling modules.
        folder: Folder of the checkpoint.
        layout: Layout of the checkpoint.

    Raises:
        UsageError: If the layout or the folder is not valid.
        CheckpointError: If the layout cannot represent the model.
    """
    if layout not in WRITERS:
        raise UsageError(f"layout {layout!r} is unknown; known: {', '.join(WRITERS)}")
    with replace_folder(folder, owned=is_checkpoint_folder) as staging:
        native = staging / "sentence-transformers"
        with quiet():
            model.save(str(native), create_model_card=False)
        if layout == "sentence-transformers":
            source = native
        else:
            saved, source = scan_checkpoint(native), staging / layout
            rules = rules_of_model(saved, model, load_tokenizer(saved, trust_remote_code=False))
            WRITERS[layout](saved, source, model, rules)
        for item in source.iterdir():
            item.rename(staging / item.name)
        for emptied in {native, source}:
            shutil.rmtree(emptied)
        marker = {"colbert-vespa": "checkpoint", "files": sorted(files_below(staging))}
        atomic_write(staging / MARKER, json.dumps(marker, indent=1).encode() + b"\n")


def is_checkpoint_folder(folder: Path) -> bool:
    """Return whether `folder` was written by `save_checkpoint`, holds nothing else, and so may be replaced."""
    try:
        data = json.loads((folder / MARKER).read_bytes())
        known = {MARKER, *data["files"]} if data["colbert-vespa"] == "checkpoint" else set()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    return set(files_below(folder)) <= known


def _pylate(native: CheckpointFolder, folder: Path, model: Any, rules: Rules) -> None:
    """Write PyLate's layout: Transformer and Dense modules and settings; masks and normalisation are part of PyLate's code."""
    shutil.copytree(native.path, folder)
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    kept = []
    for module in listed:
        kind = module["type"].rpartition(".")[2]
        if kind == "Transformer":
            kept.append(module | {"type": "sentence_transformers.models.Transformer"})
        elif kind == "Dense":
            kept.append(module | {"type": "pylate.models.Dense.Dense"})
            _rewrite(folder / module["path"] / "config.json", drop=("module_input_name", "module_output_name"))
        else:
            shutil.rmtree(folder / module["path"], ignore_errors=True)
    (folder / "modules.json").write_text(json.dumps([m | {"idx": n, "name": str(n)} for n, m in enumerate(kept)], indent=2))
    expansion = rules.query.expansion
    if expansion is not None and expansion.length != rules.query.length:
        raise CheckpointError(
            f"PyLate expands every query to its full length {rules.query.length}, but this model to {expansion.length}"
        )
    if rules.query.skip_ids:
        raise CheckpointError("PyLate skips words of documents only, but this model skips some of queries")
    mask = next((module for module in model if type(module).__name__ == "MultiVectorMask"), None)
    config = {
        "model_type": "ColBERT", "similarity_fn_name": "MaxSim",
        "query_prefix": _prefix(model, "query", rules.query.marker_id, rules.query.prompt),
        "document_prefix": _prefix(model, "document", rules.document.marker_id, rules.document.prompt),
        "query_length": rules.query.length, "document_length": rules.document.length,
        "do_query_expansion": expansion is not None,
        "attend_to_expansion_tokens": bool(expansion is not None and expansion.attend),
        "skiplist_words": [] if mask is None else mask.skiplist_words,
        "prompts": {"query": rules.query.prompt, "document": rules.document.prompt},
    }  # fmt: skip
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config, indent=2))
    _transformer_settings(folder, model)


def _prefix(model: Any, task: str, marker: int | None, prompt: str) -> str:
    """Return the text that is registered for the marker; "" for none."""
    whole = model.prompts.get(task) or ""
    return whole[: len(whole) - len(prompt)] if marker is not None else ""


def _transformer_settings(folder: Path, model: Any) -> None:
    lower = bool(getattr(model[0], "do_lower_case", False))
    settings = {"max_seq_length": model.max_seq_length or 512, "do_lower_case": lower}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2))


def _rewrite(path: Path, *, drop: tuple[str, ...]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in drop}, indent=2))


def _stanford(native: CheckpointFolder, folder: Path, model: Any, rules: Rules) -> None:
    """Write Stanford's layout: encoder and linear.weight in one file, settings in artifact.metadata."""
    from safetensors.torch import save_file

    _check_stanford(model, rules)
    folder.mkdir()
    backbone, dense = model[0].model, _denses(model)[0]
    prefix = backbone.base_model_prefix
    tensors = {f"{prefix}.{name}": tensor.detach().clone().contiguous() for name, tensor in backbone.state_dict().items()}
    tensors["linear.weight"] = dense.linear.weight.detach().clone().contiguous()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(native.read("config.json") | {"architectures": ["HF_ColBERT"]}, indent=2))
    for path in native.path.iterdir():
        if path.is_file() and ("token" in path.name or path.name in ("vocab.txt", "special_tokens_map.json")):
            shutil.copyfile(path, folder / path.name)
    expansion = rules.query.expansion
    names = {"query_token_id": rules.query.marker_id, "doc_token_id": rules.document.marker_id}
    settings = {key: model.tokenizer.convert_ids_to_tokens(id_) for key, id_ in names.items()} | {
        "query_token": "[Q]", "doc_token": "[D]", "dim": int(dense.linear.out_features), "similarity": "cosine",
        "query_maxlen": rules.query.length, "doc_maxlen": rules.document.length,
        "mask_punctuation": bool(rules.document.skip_ids),
        "attend_to_mask_tokens": bool(expansion is not None and expansion.attend),
    }  # fmt: skip
    (folder / "artifact.metadata").write_text(json.dumps(settings, indent=2))


def _denses(model: Any) -> list[Any]:
    return [module for module in model if type(module).__name__ == "Dense"]


def _matters(prompt: str, tokenizer: Any) -> bool:
    """Tell whether a prompt changes the tokens; the space after Stanford's markers does not, with WordPiece."""
    return bool(prompt) and tokenizer.tokenize(prompt + "a") != tokenizer.tokenize("a")


def _check_stanford(model: Any, rules: Rules) -> None:
    """Check that Stanford's layout can store the model; CheckpointError names the first property that it cannot."""
    denses = _denses(model)
    expansion = rules.query.expansion
    mask = next((module for module in model if type(module).__name__ == "MultiVectorMask"), None)
    skipped = set() if mask is None else set(mask.skiplist_words)
    faults = {
        "one projection without bias or activation": len(denses) != 1
        or denses[0].linear.bias is not None
        or type(denses[0].activation_function).__name__ != "Identity",
        "a marker for queries and one for documents": rules.query.marker_id is None or rules.document.marker_id is None,
        "no prompts": any(_matters(side.prompt, model.tokenizer) for side in (rules.query, rules.document)),
        "[MASK] expansion to the full query length": expansion is None or expansion.length != rules.query.length,
        "all punctuation of documents skipped, or none": bool(skipped) and skipped != set(string.punctuation),
    }
    if wanted := next((what for what, fault in faults.items() if fault), None):
        raise CheckpointError(
            f"Stanford's layout always has {wanted}, which this model lacks; save it as sentence-transformers"
        )


Write = Callable[[CheckpointFolder, Path, Any, Rules], None]
WRITERS: dict[str, Write] = {
    "sentence-transformers": lambda native, folder, _model, _rules: None,
    "pylate": _pylate,
    "stanford": _stanford,
}
