"""Check a checkpoint's files before any library loads them, and make pickled weights safe."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.checkpoint_folder import CheckpointFolder
from late_interaction.errors import CheckpointError

__all__ = [
    "check_custom_code",
    "check_loaded",
    "check_modules",
    "require_safetensors",
    "safe_source",
    "safe_view",
    "tensor_names",
]

INDEX = "pytorch_model.bin.index.json"


def require_safetensors(folder: CheckpointFolder) -> None:
    """Check that all weights are safetensors.

    Raises:
        CheckpointError: if a file is pickled (the message names the first), or there are no weights at all.
    """
    if pickled := folder.pickled():
        raise CheckpointError(
            f"{folder.shown / pickled[0]} has pickled weights, and unpickling can run code; --allow-pickle reads "
            f"only tensors and refuses anything else"
        )
    if not any(name.endswith(".safetensors") for name in folder.files):
        raise CheckpointError(f"{folder.shown} has no weights (no .safetensors file)")


@contextmanager
def safe_source(
    folder: CheckpointFolder, *, allow_pickle: bool, changed: Mapping[str, dict[str, Any]] | None = None
) -> Iterator[CheckpointFolder]:
    """Yield the folder, or a view of it that exists within the context.

    The view has `changed` settings, and pickled weights as safetensors if `allow_pickle` is set.

    Raises:
        CheckpointError: as in `require_safetensors`, or if a pickle contains more than tensors.
    """
    source = folder
    with tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch:
        if changed or (allow_pickle and folder.pickled()):
            # the name stays, because sentence-transformers may quote it
            view = Path(scratch) / folder.path.resolve().name
            source = safe_view(folder, view, changed=changed or {}, convert=allow_pickle)
        require_safetensors(source)
        yield source


def safe_view(
    folder: CheckpointFolder, view: Path, *, changed: Mapping[str, dict[str, Any]], convert: bool
) -> CheckpointFolder:
    """Make a view of `folder`: its files as links, `changed` settings, and pickled weights as safetensors if `convert` is set.

    Only tensors are unpickled (torch.load with weights_only).

    Raises:
        CheckpointError: if a file contains anything else.
    """
    pickled = folder.pickled() if convert else []
    left_out = {name.as_posix() for name in pickled}
    left_out |= {name for name in folder.files if convert and Path(name).name == INDEX}
    converted = {name.with_name("model.safetensors").as_posix() for name in pickled}
    files = (folder.files - left_out) | converted | changed.keys()
    for target in (view / name for name in files):
        target.parent.mkdir(parents=True, exist_ok=True)
    for name in files - converted - changed.keys():
        (view / name).symlink_to((folder.path / name).resolve())
    for name, settings in changed.items():
        (view / name).write_text(json.dumps(settings), encoding="utf-8")
    for name in converted:
        _convert([folder.path / shard for shard in pickled if shard.parent == Path(name).parent], view / name)
    return replace(folder, path=view, files=files, settings={**folder.settings, **changed})


def _convert(shards: list[Path], target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for shard in shards:
        try:
            loaded = torch.load(str(shard), map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001  whatever torch says of a file that is no plain dictionary of tensors
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{shard} holds more than tensors, or is damaged, and is not unpickled: {reason}") from None
        if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise CheckpointError(f"{shard} is not a dictionary of tensors")
        # safetensors rejects tensors that share memory
        tensors |= {str(name): value.detach().clone().contiguous() for name, value in loaded.items()}
    save_file(tensors, str(target), metadata={"format": "pt"})


def check_custom_code(folder: CheckpointFolder, trust_remote_code: bool) -> None:
    """Check that the checkpoint needs no code of its own, or that it is trusted.

    A model type that transformers knows beside an `auto_map` would be loaded as that type, with random weights for what the
    custom code names differently.

    Raises:
        CheckpointError: if it needs code that is not trusted.
    """
    config = folder.read(folder.named("config.json"))
    if "auto_map" in config and not trust_remote_code:
        code = next(iter(config["auto_map"].values()), "") if isinstance(config["auto_map"], dict) else ""
        raise CheckpointError(f"{folder.shown} needs its own code ({code}); review it, then give --trust-remote-code")


def check_modules(folder: CheckpointFolder, trust_remote_code: bool) -> None:
    """Check the Dense modules.

    Raises:
        CheckpointError: if a Dense module's settings and weights disagree, or its activation is not torch's.
    """
    for name in folder.denses:
        config, tensors = folder.read(f"{name}/config.json"), tensor_names(folder.path / name)
        activation = str(config.get("activation_function") or "torch.nn.modules.linear.Identity")
        if not activation.startswith("torch.") and not trust_remote_code:
            raise CheckpointError(
                f"{folder.shown / name}: activation {activation} is not one of torch's; review its code, then give "
                f"--trust-remote-code"
            )
        if "residual.weight" in tensors and not config.get("use_residual", False):
            raise CheckpointError(
                f"{folder.shown / name}: the weights have a residual projection, but config.json says use_residual is false; "
                "set it to true if the model was trained with one"
            )


def tensor_names(folder: Path) -> set[str]:
    """Return the names of all tensors in the safetensors files directly in `folder`."""
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="np") as file:
                names |= set(file.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None
    return names


def check_loaded(folder: CheckpointFolder, backbone: Any) -> None:
    """Check that the weights have every parameter: transformers gives random values to missing ones.

    Raises:
        CheckpointError: if one is missing; the message names the first.
    """
    place = folder.path / folder.encoder
    have = tensor_names(place)
    # BERT's first checkpoints have LayerNorm.gamma and .beta
    have |= {name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in have}
    ends = {name.split(".", skip)[-1] for name in have for skip in range(4) if name.count(".") >= skip}
    wanted = [name for name, _ in backbone.named_parameters() if "pooler" not in name]
    missing = [name for name in wanted if name not in ends]
    if missing and (absent := _missing_keys(place, type(backbone))):
        raise CheckpointError(
            f"{folder.shown}: the weights have no {absent[0]} ({len(absent)} missing), so they would be random"
        )


def _missing_keys(folder: Path, kind: Any) -> list[str]:
    """Return the missing keys as reported by transformers, which knows what it renames."""
    _, report = kind.from_pretrained(str(folder), output_loading_info=True, local_files_only=True, use_safetensors=True)
    return sorted(name for name in report["missing_keys"] if "pooler" not in name)
