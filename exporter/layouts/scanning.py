"""The table of layouts, and the scan that uses it."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from pathlib import Path

from exporter.checkpoint_folder import CheckpointFolder, read_json
from exporter.layouts.layout import Layout
from exporter.layouts.pylate import PYLATE
from exporter.layouts.sentence_transformers import SENTENCE_TRANSFORMERS
from exporter.layouts.stanford import STANFORD
from late_interaction.errors import CheckpointError

__all__ = ["LAYOUTS", "scan_checkpoint"]

MODULES = "modules.json"
LAYOUTS: dict[str, Layout] = {  # the first that recognises a folder applies
    # a graph may lack an activation that the weights still have
    "next-plaid": Layout(("onnx_config.json",), lambda folder: "onnx_config.json" in folder.files and not folder.has_weights()),
    "pylate": PYLATE,
    "sentence-transformers": SENTENCE_TRANSFORMERS,
    "stanford": STANFORD,
}


def scan_checkpoint(path: Path) -> CheckpointFolder:
    """Read each settings file of a checkpoint folder once.

    Raises:
        CheckpointError: if a file is damaged, or the folder is not a checkpoint.
    """
    files = frozenset(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    modules = _modules(path / MODULES) if MODULES in files else ()
    found = CheckpointFolder(path, path, files, {}, modules)
    names = {"config.json", found.named("config.json"), *(name for layout in LAYOUTS.values() for name in layout.settings)}
    names |= {f"{dense}/config.json" for dense in found.denses}
    folder = replace(found, settings={name: read_json(path / name) for name in sorted(names & files)})
    layout = next((name for name, known in LAYOUTS.items() if known.recognises(folder)), folder.layout)
    if layout != "next-plaid" and not {"config.json", MODULES} & files:
        raise CheckpointError(f"{path} is not a checkpoint: it has neither config.json nor modules.json")
    return replace(folder, layout=layout)


def _modules(listed: Path) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((str(item["type"]), posixpath.normpath(str(item["path"]))) for item in read_json(listed, list))
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{listed} cannot be read: {type(error).__name__} {error}") from None
