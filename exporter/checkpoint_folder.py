"""The files and settings of a checkpoint folder, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.errors import CheckpointError

__all__ = ["CheckpointFolder", "read_json"]

PICKLED = ("pytorch_model*.bin", "*.dnn", "model*.pt")


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint folder.

    Attributes:
        path: the folder.
        shown: its name for users, if `path` is a view of it.
        files: names of all files below it.
        settings: content of the JSON files that any layout reads, by name.
        modules: type and folder of each module in modules.json.
        layout: name of its layout; "plain" if it has none of the table.
    """

    path: Path
    shown: Path
    files: frozenset[str]
    settings: Mapping[str, dict[str, Any]]
    modules: tuple[tuple[str, str], ...] = ()
    layout: str = "plain"

    @property
    def denses(self) -> tuple[str, ...]:
        """Return the folders of its Dense modules."""
        return tuple(path for kind, path in self.modules if kind.endswith(".Dense"))

    @property
    def encoder(self) -> str:
        """Return the folder of its first module; "." if that is the whole."""
        return self.modules[0][1] if self.modules else "."

    def named(self, name: str) -> str:
        """Return the path of file `name` of its first module."""
        return name if self.encoder == "." else f"{self.encoder}/{name}"

    def read(self, name: str) -> dict[str, Any]:
        """Return the settings in file `name`; {} if there is no such file."""
        return self.settings.get(name, {})

    def has_weights(self) -> bool:
        """Tell whether there are weights directly in the folder."""
        names = [Path(name) for name in self.files if "/" not in name]
        return any(name.match("*.safetensors") or name.match("pytorch_model*.bin") for name in names)

    def pickled(self) -> list[Path]:
        """Return the weights that would be unpickled: those in a folder without a safetensors file of its own."""
        names = [Path(name) for name in sorted(self.files)]
        safe = {name.parent for name in names if name.match("*.safetensors")}
        return [name for name in names if any(name.match(pattern) for pattern in PICKLED) and name.parent not in safe]


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: if it is not JSON, or not of that kind.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, kind):
        raise CheckpointError(f"{path} is not a JSON {'object' if kind is dict else 'list'}")
    return data
