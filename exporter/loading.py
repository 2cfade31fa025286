"""Checkpoints to torch modules, through sentence-transformers 6 `MultiVectorEncoder`. Weights come from safetensors only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.layouts import LAYOUTS, Rules, detect_layout
from exporter.quiet import quiet
from late_interaction.errors import CheckpointError

__all__ = ["Checkpoint", "find_checkpoint", "load_checkpoint"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "artifact.metadata", "*.py"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `model`: MultiVectorEncoder on the CPU; `tokenizer`: the folder's own, as transformers loads it."""

    folder: Path
    layout: str
    model: Any
    tokenizer: Any
    rules: Rules


def find_checkpoint(name: str | Path, *, revision: str | None, local_files_only: bool) -> Path:
    """A local folder, or the hub's snapshot of that name in its own cache.

    Raises: CheckpointError where neither is to be had.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or not _HUB_NAME.fullmatch(str(name)):
        raise CheckpointError(f"no folder {name}: give a checkpoint folder or a hub name like colbert-ir/colbertv2.0")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        with quiet():
            snapshot = huggingface_hub.snapshot_download(
                str(name), revision=revision, local_files_only=local_files_only, allow_patterns=_PATTERNS
            )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{name} is no folder, and the model hub did not give it: {reason}") from None
    return Path(snapshot)


def load_checkpoint(folder: Path, *, trust_remote_code: bool = False) -> Checkpoint:
    """Raises: CheckpointError on a pickle-only checkpoint, a plain encoder, or anything that cannot be loaded."""
    layout = detect_layout(folder)
    if layout not in LAYOUTS:
        raise CheckpointError(f"{folder} is a plain encoder, no ColBERT: give --sample to fit a projection to it")
    require_safetensors(folder)
    from sentence_transformers import MultiVectorEncoder

    try:
        with quiet():
            model = MultiVectorEncoder(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=trust_remote_code
            ).eval()
            tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
            rules = LAYOUTS[layout](folder, model, tokenizer)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  loading runs four libraries, each with errors of its own
        raise CheckpointError(f"{folder} cannot be loaded as {layout} checkpoint: {error}") from None
    return Checkpoint(folder, layout, model, tokenizer, rules)


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{folder} has no fast tokenizer (tokenizer.json), which Vespa and this project need")
    return tokenizer


def require_safetensors(folder: Path) -> None:
    if any(folder.rglob("*.safetensors")):
        return
    if any(folder.rglob("*.bin")) or any(folder.rglob("*.pt")):
        raise CheckpointError(
            f"{folder} has pickled weights only, and unpickling runs code: convert them first, with transformers' "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    raise CheckpointError(f"{folder} has no weights (no .safetensors file)")
