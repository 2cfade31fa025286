"""The settings of an application: one frozen object, and the same as app.toml:

    name = "colbert"
    dim = 128
    query_rows = 32
    codec = "bfloat16"
    candidates = ["centroid", "bm25", "exhaustive"]

    [metadata]
    year = "long"

The first of `candidates` is what queries use by default.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from late_interaction.errors import MetadataError, SettingsError
from late_interaction.metadata import MetadataSchema

__all__ = ["MAX_HITS", "AppSettings"]

MAX_HITS = 10_000  # that one query may ask for; Vespa's own default is 400

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True)
class AppSettings:
    """What the generator, the feeder and the query side must agree on.

    dim, query_rows: of the bundle. rerank: candidates of the whole cluster that get a MaxSim score. probes: centroids per
    query row. target_hits: candidates that HNSW and BM25 are asked for. search_threads: per query and node.
    embedder: also configure Vespa's colbert-embedder with the bundle's model of `precision` ("" for the bundle's default).
    jvm_heap_mb: of the container.
    """

    dim: int
    query_rows: int
    metadata: MetadataSchema = field(default_factory=lambda: MetadataSchema({}))
    name: str = "colbert"
    schema: str = "passage"
    namespace: str = "colbert"
    codec: str = "bfloat16"
    candidates: tuple[str, ...] = ("pooled", "bm25", "exhaustive")
    rerank: int = 200
    probes: int = 16
    target_hits: int = 400
    hnsw_links: int = 16
    hnsw_explore: int = 200
    search_threads: int = 2
    embedder: bool = True
    precision: str = ""
    jvm_heap_mb: int = 512

    def to_json(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return data | {"metadata": self.metadata.to_json(), "candidates": list(self.candidates)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "settings") -> AppSettings:
        """Raises: SettingsError naming the key that is unknown, missing or of a wrong type."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - set(fields)):
            raise SettingsError(f"{where}: unknown setting {unknown[0]!r}; known: {', '.join(fields)}")
        if missing := [name for name in ("dim", "query_rows") if name not in data]:
            raise SettingsError(f"{where}: setting {missing[0]!r} is missing")
        values: dict[str, Any] = {name: _typed(name, value, str(fields[name].type), where) for name, value in data.items()}
        return cls(**values)

    def to_toml(self) -> str:
        data = self.to_json()
        metadata = data.pop("metadata")
        lines = [f"{name} = {_toml(value)}" for name, value in sorted(data.items())]
        lines += ["", "[metadata]", *(f"{_toml(name)} = {_toml(type_)}" for name, type_ in metadata.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path) -> AppSettings:
        """Raises: SettingsError naming the file and the line or key."""
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings {path} cannot be read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"settings {path} are no TOML: {error}") from None
        return cls.from_json(data, str(path))


def _toml(value: object) -> str:
    """TOML's basic strings, numbers, booleans and arrays are JSON's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _typed(name: str, value: object, annotation: str, where: str) -> object:
    if annotation == "MetadataSchema" and isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        try:
            return MetadataSchema.from_json(value)
        except MetadataError as error:
            raise SettingsError(f"{where}: {error}") from None
    if annotation == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if type(value).__name__ == annotation:
        return value
    wanted = {"tuple[str, ...]": "a list of texts", "MetadataSchema": "a table of field = type"}.get(annotation, annotation)
    raise SettingsError(f"{where}: setting {name!r} must be {wanted}, got {str(value)[:60]!r}")
