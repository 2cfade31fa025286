"""The settings of an application: one frozen object, with the same content as app.toml.

    name = "colbert"
    dim = 128
    query_rows = 32
    codec = "bfloat16"
    candidates = ["centroid", "bm25", "exhaustive"]

    [metadata]
    year = "long"

The first of `candidates` is what queries use by default; strategies joined by `+` are found together. Tables `[dense.NAME]` are
the bundle's dense models, `[one_vector]` is what candidates pooled search, `[weights]` what candidates hybrid join. Tables
`[cluster]` and `[cloud]` say where it runs (sections.py); `[indexes.NAME]` adds an index (schema) that differs from the main
one in what the table names; `[allow]` lists changes that Vespa refuses by default, each with the last day on which it is
allowed: `"field-type-change" = "2026-12-24"`.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from late_interaction.errors import MetadataError, SettingsError
from late_interaction.metadata import MetadataSchema
from late_interaction.structured import read
from vespa_app.settings.sections import (
    MEAN_VECTOR,
    CloudSettings,
    ClusterSettings,
    DenseSettings,
    OneVectorSettings,
    section_json,
    setting_error,
    toml_table,
    toml_value,
)

__all__ = [
    "DEFAULT_WEIGHTS", "ENCODINGS", "FUSIONS", "INDEX_SETTINGS", "LAYOUTS", "LIMITS", "MAX_HITS", "MODES",
    "MOST_WEIGHT", "QUERY_PORT", "SCORES", "AppSettings", "asks_dense", "parts_of",
]  # fmt: skip

LAYOUTS = ("passages", "chunks")
MODES = ("index", "streaming")
ENCODINGS = ("client", "embedder")
SCORES = ("maxsim", "bm25", "dense")  # scores that candidates hybrid join
FUSIONS = ("rrf", "sum")
MOST_WEIGHT = 1e6  # far below the largest float32
DEFAULT_WEIGHTS: Mapping[str, float] = {"maxsim": 1.0, "bm25": 1.0}
# settings that a further index may have itself; all others apply to the whole application
INDEX_SETTINGS = (
    "metadata", "codec", "residual_bits", "thresholds", "paged", "candidates", "rerank", "probes", "target_hits",
    "token_hits", "hnsw_links", "hnsw_explore", "search_threads", "layout", "group_field", "encoding", "keep_rank_count",
    "drop_limits", "dense", "one_vector", "weights", "fusion",
)  # fmt: skip
_TABLES = ("metadata", "dense", "one_vector", "weights", "drop_limits", "cluster", "cloud", "indexes", "allow")
QUERY_PORT = 8080  # default of a container
MAX_HITS = 10_000  # hits that one query may request; Vespa's default is 400
LIMITS = {
    "dim": (1, 4096),
    "query_rows": (1, 1024),
    "rerank": (1, 100_000),
    "probes": (1, 4096),
    "target_hits": (1, 100_000),
    "token_hits": (1, 10_000),
    "hnsw_links": (2, 512),
    "hnsw_explore": (2, 10_000),
    "search_threads": (1, 64),
    "jvm_heap_mb": (128, 1 << 20),
}

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def parts_of(candidates: str) -> tuple[str, ...]:
    """Return the strategies that candidates such as `bm25+dense` join."""
    return tuple(candidates.split("+"))


def asks_dense(candidates: str) -> bool:
    """Tell whether documents need dense vectors for these candidates, if there are dense models."""
    return not {"dense", "hybrid"}.isdisjoint(parts_of(candidates))


@dataclass(frozen=True)
class AppSettings:
    """The settings of an application, which the generator, the feeder and the query client share.

    Attributes:
        dim: dimensions of the bundle's token vectors.
        query_rows: rows of a query.
        metadata: metadata fields.
        name: name of the application.
        schema: name of the main index.
        namespace: namespace of document ids.
        codec: how token vectors are stored.
        residual_bits: bits of the bundle's codebook, for codec residual.
        thresholds: whether codec binary cuts at the bundle's thresholds instead of 0.
        paged: keep token vectors on disk, read through the page cache.
        candidates: strategies; the first is the default.
        rerank: candidates of the whole cluster that get a MaxSim score.
        probes: centroids per query row.
        target_hits: candidates that HNSW and BM25 must find.
        token_hits: the same for each query row, for candidates token.
        hnsw_links: links of an HNSW node.
        hnsw_explore: neighbours explored at insert.
        search_threads: threads per query and node.
        keep_rank_count: passages of the whole cluster that keep the score of a phase, at least as many as are reranked; 0 for
            Vespa's own number.
        drop_limits: by candidates and phase (first, second, global), the score at or below which a passage is dropped.
        dense: dense models of the bundle by name.
        one_vector: the vector of each passage that candidates pooled search.
        weights: default weights of candidates hybrid by score (maxsim, bm25, dense); empty for maxsim and bm25, 1 each.
        fusion: default fusion of candidates hybrid: `rrf` (ranks) or `sum` (scores from 0 to 1).
        embedder: also configure Vespa's colbert-embedder with the bundle's model.
        precision: precision of that model, "" for the bundle's default.
        jvm_heap_mb: heap of the container in MB.
        layout: "passages" for one Vespa document per passage, with its parent's id; "chunks" for one per document, with a
            chunk dimension.
        mode: "index", or "streaming" for personal data, where every query reads one group.
        group_field: the metadata field that names the group in mode streaming.
        encoding: "client" if token vectors come from the client, "embedder" if Vespa's colbert-embedder computes them.
        cluster: your own hosts: table `[cluster]`.
        cloud: Vespa Cloud: table `[cloud]`.
        indexes: further indexes by name: tables `[indexes.NAME]`.
        allow: changes that Vespa rejects by default, each with the last day on which it is allowed.
    """

    dim: int
    query_rows: int
    metadata: MetadataSchema = field(default_factory=lambda: MetadataSchema({}))
    name: str = "colbert"
    schema: str = "passage"
    namespace: str = "colbert"
    codec: str = "bfloat16"
    residual_bits: int = 4
    thresholds: bool = False
    paged: bool = False
    candidates: tuple[str, ...] = ("pooled", "bm25", "exhaustive")
    rerank: int = 500
    probes: int = 32
    target_hits: int = 400
    token_hits: int = 100
    hnsw_links: int = 16
    hnsw_explore: int = 200
    search_threads: int = 2
    keep_rank_count: int = 0
    drop_limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dense: Mapping[str, DenseSettings] = field(default_factory=dict)
    one_vector: OneVectorSettings = MEAN_VECTOR
    weights: Mapping[str, float] = field(default_factory=dict)
    fusion: str = "rrf"
    embedder: bool = True
    precision: str = ""
    jvm_heap_mb: int = 512
    layout: str = "passages"
    mode: str = "index"
    group_field: str = ""
    encoding: str = "client"
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    cloud: CloudSettings | None = None
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    allow: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, without empty tables."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data |= {"metadata": self.metadata.to_json(), "candidates": list(self.candidates)}
        tables: dict[str, Any] = {"cluster": section_json(self.cluster), "allow": dict(self.allow)}
        tables |= {"one_vector": section_json(self.one_vector)}
        tables |= {"weights": dict(self.weights), "dense": {name: section_json(own) for name, own in self.dense.items()}}
        for name in ("indexes", "drop_limits"):
            tables[name] = {key: dict(own) for key, own in getattr(self, name).items()}
        kept = {name: table for name, table in tables.items() if table}
        if self.cloud is not None:
            kept["cloud"] = section_json(self.cloud)
        return {name: value for name, value in data.items() if name not in (*tables, "cloud")} | kept

    @property
    def index_settings(self) -> dict[str, AppSettings]:
        """Return the settings of each index (schema) by its name, the main one first.

        Raises:
            SettingsError: if an index has a setting that it cannot have; the message names table and key.
        """
        by_name = {self.schema: self}
        for name, own in self.indexes.items():
            if name == self.schema:
                raise setting_error(f"indexes.{name}", "the name is used by the main index (setting schema); choose another")
            if unknown := sorted(set(own) - set(INDEX_SETTINGS)):
                raise setting_error(f"indexes.{name}.{unknown[0]}", f"is unknown; known: {', '.join(INDEX_SETTINGS)}")
            merged = {**self.to_json(), **own, "schema": name, "indexes": {}}
            if "drop_limits" not in own:
                kept = {key: dict(limits) for key, limits in self.drop_limits.items() if key in merged["candidates"]}
                merged["drop_limits"] = kept
            if "dense" not in own and not any(asks_dense(candidates) for candidates in merged["candidates"]):
                merged["dense"] = {}
            by_name[name] = AppSettings.from_json(merged, table=f"indexes.{name}")
        return by_name

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "", table: str = "") -> AppSettings:
        """Parse the output of `to_json`.

        Args:
            data: the object.
            where: the file.
            table: table of a further index.

        Raises:
            SettingsError: if a key is unknown, missing or of a wrong type; the message names it.
        """
        values = {**data, "metadata": _schema(data.get("metadata", {}), where, table)}
        if isinstance(allow := data.get("allow"), Mapping):
            values["allow"] = {key: str(day) if isinstance(day, datetime.date) else day for key, day in allow.items()}
        return read(cls, values, SettingsError, where, noun="setting", path=table)

    def to_toml(self) -> str:
        """Return the settings as app.toml."""
        data = self.to_json()
        lines = [f"{name} = {toml_value(value)}" for name, value in sorted(data.items()) if name not in _TABLES]
        for name in _TABLES:
            if name in data:
                lines += toml_table(name, data[name])
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path) -> AppSettings:
        """Read app.toml.

        Raises:
            SettingsError: if the file is not valid; the message names the file and the line or key.
        """
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings {path} cannot be read: {error}") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SettingsError(f"settings {path} are not valid TOML: {error}") from None
        if lacking := [key for key in ("dim", "query_rows") if key not in data]:
            raise SettingsError(
                f"{path}: setting {lacking[0]}: is missing; start from the app.toml in a package, which has every setting: "
                "`colbert-vespa app BUNDLE -o APP` writes one"
            )
        return cls.from_json(data, str(path))


def _schema(types: object, where: str, table: str) -> MetadataSchema:
    key = f"{table}.metadata" if table else "metadata"
    if not isinstance(types, Mapping) or not all(isinstance(type_, str) for type_ in types.values()):
        raise setting_error(key, f"must be a table of field = type, got {str(types)[:60]!r}", where)
    try:
        return MetadataSchema.from_json(types)
    except MetadataError as error:
        raise setting_error(key, str(error), where) from None
