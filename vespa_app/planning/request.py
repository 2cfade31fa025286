"""What a plan is for, the checks of its numbers, and the figures of a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from late_interaction.bundle import Bundle
from late_interaction.codebook import BITS, MAX_CENTROIDS
from late_interaction.codebook_training import default_centroids, trained_centroids
from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES
from vespa_app.candidates.joined import JOINABLE
from vespa_app.codecs import CODECS, bundle_codebooks
from vespa_app.settings import MEAN_VECTOR, AppSettings, DenseSettings, OneVectorSettings
from vespa_app.settings.application_settings import LAYOUTS, LIMITS, asks_dense, parts_of
from vespa_app.settings.sections import LIMIT_RANGE

__all__ = ["DISK_LIMIT", "GB", "MEMORY_LIMIT", "NODE_BASE_GB", "Figure", "PlanRequest", "check_request"]

MEMORY_LIMIT, DISK_LIMIT = 0.8, 0.75
NODE_BASE_GB = 1.5  # processes of a content node without documents
MOST = 1e15
GB = 1e9
_MAY_BE_ZERO = ("centroids", "fields", "text_bytes", "id_bytes", "queries_per_second", "encode_rate", "container_nodes")
_RANGES = {**LIMITS, "memory_limit": LIMIT_RANGE, "disk_limit": LIMIT_RANGE}
_SETTING_OF = {"threads": "search_threads"}  # names in app.toml that differ


@dataclass(frozen=True)
class Figure:
    """One figure of a plan.

    Attributes:
        name: its name.
        value: in `unit`.
        unit: its unit.
        formula: how it was computed, with the numbers.
        source: where the numbers come from.
    """

    name: str
    value: float
    unit: str
    formula: str
    source: str


@dataclass(frozen=True)
class PlanRequest:
    """What a plan is for.

    Attributes:
        documents: number of passages.
        tokens: token vectors of each before pooling.
        dim: dimensions of a token vector.
        codec: the codec.
        candidates: the candidates.
        pooling: so many token vectors become one.
        redundancy: copies in the whole cluster.
        searchable_copies: how many of them are searchable.
        groups: groups of nodes, each with a whole copy.
        node_memory_gb: memory of a content node in GB.
        threads: threads of a content node for one query.
        query_rows: rows of a query.
        rerank: candidates that get a MaxSim score.
        probes: centroids per query row.
        hnsw_links: links of an HNSW node.
        centroids: centroids of the codebook; 0 for what the exporter makes for such documents.
        residual_bits: bits of codec residual.
        paged: token vectors are on disk.
        fields: number of metadata fields.
        text_bytes: bytes of a passage's text.
        id_bytes: bytes of a passage's id.
        layout: layout of documents.
        passages_per_document: with layout chunks, passages that share a document.
        queries_per_second: queries to serve; 0 for no advice on groups.
        encode_rate: token vectors, before pooling, that one machine makes per second; 0 for no figure of its time.
        container_nodes: containers; 0 for what copies and queries need.
        jvm_heap_mb: heap of a container in MB.
        embedder: whether containers encode.
        memory_limit: share of a content node's memory that may be used.
        disk_limit: share of a content node's disk that may be used.
        dense: dense models by name.
        weights: scores that hybrid joins; empty for maxsim and bm25.
        indexes: further indexes of the application, by name, each with as many passages.
    """

    documents: float
    tokens: float
    dim: int = 128
    codec: str = AppSettings.codec
    candidates: tuple[str, ...] = ("centroid",)
    pooling: float = 1.0
    redundancy: int = 2
    searchable_copies: int = 2
    groups: int = 1
    node_memory_gb: float = 64.0
    threads: int = AppSettings.search_threads
    query_rows: int = 32
    rerank: int = AppSettings.rerank
    probes: int = AppSettings.probes
    hnsw_links: int = AppSettings.hnsw_links
    centroids: int = 0
    residual_bits: int = AppSettings.residual_bits
    paged: bool = False
    fields: int = 4
    text_bytes: float = 600.0
    id_bytes: float = 24.0
    layout: str = "passages"
    passages_per_document: float = 1.0
    queries_per_second: float = 0.0
    encode_rate: float = 0.0
    container_nodes: int = 0
    jvm_heap_mb: int = AppSettings.jvm_heap_mb
    embedder: bool = True
    memory_limit: float = MEMORY_LIMIT
    disk_limit: float = DISK_LIMIT
    dense: tuple[tuple[str, DenseSettings], ...] = ()
    one_vector: OneVectorSettings = MEAN_VECTOR
    weights: tuple[str, ...] = ()
    indexes: tuple[tuple[str, PlanRequest], ...] = ()

    @classmethod
    def of(cls, settings: AppSettings, documents: float, tokens: float) -> PlanRequest:
        """Make a request from the settings of an application and of where it runs.

        Args:
            settings: the settings.
            documents: number of passages.
            tokens: token vectors of each.
        """
        place = settings.cloud or settings.cluster
        runs = settings.cloud is not None or bool(settings.cluster.content)
        redundancy = place.redundancy if runs else 1
        copies = settings.cluster.searchable_copies if settings.cluster.content else redundancy
        main, *others = (cls._of_index(own, documents, tokens) for own in settings.index_settings.values())
        more = tuple(zip(tuple(settings.index_settings)[1:], others, strict=True))
        request = replace(
            main, redundancy=redundancy, searchable_copies=copies, groups=place.groups, indexes=more,
            jvm_heap_mb=settings.jvm_heap_mb, embedder=settings.embedder,
            memory_limit=settings.cluster.memory_limit or MEMORY_LIMIT, disk_limit=settings.cluster.disk_limit or DISK_LIMIT,
        )  # fmt: skip
        if settings.cloud:
            return replace(
                request,
                node_memory_gb=settings.cloud.content_memory_gb[0],
                container_nodes=int(settings.cloud.container_nodes[0]),
            )
        return replace(request, container_nodes=len(settings.cluster.container_hosts)) if runs else request

    @classmethod
    def _of_index(cls, settings: AppSettings, documents: float, tokens: float) -> PlanRequest:
        return cls(
            documents, tokens, settings.dim, settings.codec, settings.candidates, threads=settings.search_threads,
            query_rows=settings.query_rows, rerank=settings.rerank, probes=settings.probes, hnsw_links=settings.hnsw_links,
            fields=len(settings.metadata.fields), residual_bits=settings.residual_bits, paged=settings.paged,
            layout=settings.layout, dense=tuple(settings.dense.items()), one_vector=settings.one_vector,
            weights=tuple(name for name, weight in settings.weights.items() if weight),
        )  # fmt: skip

    def with_bundle(self, bundle: Bundle) -> PlanRequest:
        """Return the request with the bundle's dim, query rows, pooling and codebook."""
        manifest = bundle.manifest
        pooling = float(manifest.pooling.factor) if manifest.pooling else 1.0
        embedder = self.embedder and bundle.encodes
        request = replace(self, dim=manifest.dim, query_rows=manifest.query.length, pooling=pooling, embedder=embedder)
        if not request.dense and any(map(asks_dense, request.candidates)):
            own = tuple((name, DenseSettings(part.dim)) for name, part in manifest.dense.items())
            request = replace(request, dense=own)
        book = bundle_codebooks(bundle).codebook
        if book:
            request = replace(request, centroids=book.size, residual_bits=book.bits)
        return replace(request, indexes=tuple((name, own.with_bundle(bundle)) for name, own in self.indexes))

    @property
    def stored(self) -> float:
        """Return the token vectors of a passage that are kept."""
        return max(1.0, self.tokens / self.pooling)

    def centroid_count(self, passages: float) -> int:
        """Return the number of centroids: as given, or what the exporter trains for so many passages (`export --documents`)."""
        vectors = int(passages * self.stored)
        return self.centroids or trained_centroids(vectors, default_centroids(vectors))

    @property
    def by_pooled(self) -> bool:
        """Tell whether the schema has the pooled vector: `hybrid` uses it if there is no `centroid`."""
        return "pooled" in self.singles or ("hybrid" in self.candidates and "centroid" not in self.singles)

    @property
    def by_centroid(self) -> bool:
        """Tell whether the schema has centroid ids."""
        return "centroid" in self.singles

    @property
    def singles(self) -> tuple[str, ...]:
        """Return the strategies of the candidates, each by itself."""
        return tuple(dict.fromkeys(part for candidates in self.candidates for part in parts_of(candidates)))

    @property
    def token_bits(self) -> bool:
        """Tell whether rows are also kept as bits, for `token` over a codec without a distance."""
        return "token" in self.candidates and not CODECS[self.codec].distance


def check_request(request: PlanRequest) -> None:
    """Check the numbers.

    Raises:
        SettingsError: if a number or name is not valid; the message names it.
    """
    _check_index(request)
    for name, own in request.indexes:
        _check_index(own, f"indexes.{name}.")
    if request.searchable_copies > request.redundancy:
        raise SettingsError(
            f"plan: searchable_copies ({request.searchable_copies}) must not exceed redundancy ({request.redundancy})"
        )
    if request.redundancy % request.groups or request.searchable_copies % request.groups:
        raise SettingsError(f"plan: redundancy and searchable_copies must be multiples of groups ({request.groups})")
    if request.node_memory_gb * request.memory_limit <= NODE_BASE_GB:
        raise SettingsError(f"plan: node_memory_gb must be more than {NODE_BASE_GB / request.memory_limit:.2g}")


def _check_index(request: PlanRequest, prefix: str = "") -> None:
    for field in fields(request):
        value = getattr(request, field.name)
        if type(value) in (int, float):
            _check_number(prefix, field.name, value)
    if request.codec not in CODECS:
        raise SettingsError(f"plan: {prefix}codec {request.codec!r} is unknown; known: {', '.join(CODECS)}")
    if request.dim % (packed := CODECS[request.codec].dims_per_cell):
        raise SettingsError(f"plan: {prefix}codec {request.codec} packs {packed} dimensions into a byte, not {request.dim}")
    for name in request.singles:
        if name not in STRATEGIES or (name not in JOINABLE and name not in request.candidates):
            raise SettingsError(f"plan: {prefix}candidates {name!r} are unknown; known: {', '.join(STRATEGIES)}")
    if request.layout not in LAYOUTS:
        raise SettingsError(f"plan: {prefix}layout {request.layout!r} is unknown; known: {', '.join(LAYOUTS)}")
    if request.residual_bits not in BITS:
        raise SettingsError(f"plan: {prefix}residual_bits must be 1, 2 or 4, got {request.residual_bits}")
    if request.centroids > MAX_CENTROIDS:
        raise SettingsError(f"plan: {prefix}centroids must be at most {MAX_CENTROIDS}, got {request.centroids}")


def _check_number(prefix: str, name: str, value: float) -> None:
    least, most = _RANGES.get(_SETTING_OF.get(name, name), (0 if name in _MAY_BE_ZERO else 1, MOST))
    if not math.isfinite(value) or not least <= value <= most:
        raise SettingsError(f"plan: {prefix}{name} must be a number from {least:g} to {most:g}, got {value!r}")
