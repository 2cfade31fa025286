"""What an application needs: memory, disk, nodes, and an estimate of what a query costs. Every figure carries its formula and
where the numbers in it come from.

Memory decides: token vectors, the candidate structures and the ids are attributes, which Vespa keeps in memory. Times are
those of the project's measurements on 2 cores, scaled by work; they say which setting costs what, not what your machine does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from late_interaction.errors import SettingsError
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS
from vespa_app.sections import CloudSettings, section_json, toml_table
from vespa_app.settings import AppSettings

__all__ = ["Figure", "Plan", "PlanRequest", "make_plan"]

GB = 1e9
CODEC = "the codec itself (Codec.bytes_per_token; a test compares it with what the codec encodes)"
NODE = "bytes that a real node says its attributes use: 23,553 passages, 1.13M token vectors (tests/vespa_app/test_plan.py)"
GROWTH = "proton's allocation growfactor 0.2"
LIMITS = "Vespa's feed block: 80 % of memory, 75 % of disk (services.xml, resource-limits)"
STORED = "Vespa's document store keeps what was fed, about what attributes hold; a flush writes a file before it drops the old"
MEASURED = "measured on a real node, one thread of a 2-core machine: SciFact, 5,183 passages, 811k vectors, 32 query rows"

META_STORE_B, ID_B, FIELD_B = 45, 50, 16
TENSOR_B = 44  # of each tensor field of a document, whatever it holds
HNSW_NODE_B, LINK_B = 12, 4
POSTING_B, ENTRY_B = 12, 8  # of a weighted set: in the inverted list, a half-full tree, and in the forward one
DISTINCT = 0.7  # centroids of a passage, per token vector: .5 to .7 were measured
GROWTH_FACTOR = 1.2
MEMORY_LIMIT, DISK_LIMIT = 0.8, 0.75
NODE_BASE_GB = 1.5  # processes of a content node without documents
TEXT_STORED, TEXT_INDEX = 0.5, 0.5  # of the text's bytes: compressed in the document store, and in the inverted index
TOKENS_PER_S = 2.1e6  # token vectors that one thread scores, at 32 rows of 128 dimensions in bfloat16
CENTROID_BASE_MS, POSTINGS_PER_S = 11.5, 6.1e6
POOLED_BASE_MS, POOLED_PASSAGES = 3.5, 5183
MOST_TIMES = 1e15


@dataclass(frozen=True)
class PlanRequest:
    """documents: passages. tokens: token vectors of each before pooling. pooling: so many token vectors become one. copies:
    redundancy and those of them that are searchable, in the whole cluster. groups: of nodes, each with a whole copy.
    node_memory_gb, threads: of a content node, and of it for one query. centroids: of the codebook; 0 for 16 sqrt(token
    vectors), as PLAID has it. residual_bits: of that codec. paged: token vectors lie on disk. fields: metadata fields.
    text_bytes, id_bytes: of a passage.
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

    @classmethod
    def of(cls, settings: AppSettings, documents: float, tokens: float) -> PlanRequest:
        """What `settings` say of the application and of where it runs."""
        place = settings.cloud or settings.cluster
        runs = settings.cloud is not None or bool(settings.cluster.content)
        redundancy = place.redundancy if runs else 1
        copies = settings.cluster.searchable_copies if settings.cluster.content else redundancy
        request = cls(
            documents, tokens, settings.dim, settings.codec, settings.candidates, redundancy=redundancy,
            searchable_copies=copies, groups=place.groups, threads=settings.search_threads, query_rows=settings.query_rows,
            rerank=settings.rerank, probes=settings.probes, hnsw_links=settings.hnsw_links,
            fields=len(settings.metadata.fields), residual_bits=settings.residual_bits, paged=settings.paged,
        )  # fmt: skip
        return replace(request, node_memory_gb=settings.cloud.content_memory_gb[0]) if settings.cloud else request


@dataclass(frozen=True)
class Figure:
    """One line of the plan: `value` in `unit`, how it was got (with the numbers put in), and where these are from."""

    name: str
    value: float
    unit: str
    formula: str
    source: str


@dataclass(frozen=True)
class Plan:
    request: PlanRequest
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = field(default=())

    def value(self, name: str) -> float:
        return next(figure.value for figure in self.figures if figure.name == name)

    def cloud(self) -> CloudSettings:
        """Node resources for Vespa Cloud, with room to scale to twice as many nodes."""
        nodes = int(self.value("content nodes"))
        disk = math.ceil(self.value("disk per node") / 10) * 10
        memory = self.request.node_memory_gb
        vcpu = float(max(2, 2 * self.request.threads))
        return replace(
            CloudSettings(groups=self.request.groups, redundancy=self.request.redundancy),
            content_nodes=(nodes, 2 * nodes),
            content_memory_gb=(memory,),
            content_vcpu=(vcpu,),
            content_disk_gb=(float(max(50, disk)),),
        )

    def cloud_toml(self) -> str:
        """The table [cloud] of app.toml for what is planned."""
        return "\n".join(toml_table("cloud", section_json(self.cloud()))[1:]) + "\n"

    def to_json(self) -> dict[str, object]:
        return {
            "request": asdict(self.request),
            "figures": [asdict(figure) for figure in self.figures],
            "notes": list(self.notes),
            "cloud": section_json(self.cloud()),
        }


def make_plan(request: PlanRequest) -> Plan:
    """Raises: SettingsError naming the number or name that makes no sense."""
    _check(request)
    passage = _passage(request)
    bytes_ = sum(figure.value for figure in passage)
    if request.paged:
        bytes_ -= passage[0].value
    sizes = " + ".join(f"{f.value:.4g}" for f in passage[request.paged :])
    what = "sum of the lines above but the vectors, which lie on disk" if request.paged else "sum of the lines above"
    total = Figure("memory per passage", bytes_, "B", sizes, what)
    size = _size(request, bytes_, sum(figure.value for figure in passage))
    nodes = next(figure.value for figure in size if figure.name == "content nodes")
    queries = tuple(_query(request, name, nodes / request.groups) for name in request.candidates)
    return Plan(request, (*passage, total, *size, *queries), _notes(request, nodes))


def _check(request: PlanRequest) -> None:
    numbers = {name: value for name, value in asdict(request).items() if type(value) in (int, float)}
    for name, value in numbers.items():
        least = 0 if name in ("centroids", "fields", "text_bytes", "id_bytes") else 1
        if not math.isfinite(value) or not least <= value <= MOST_TIMES:
            raise SettingsError(f"plan: {name} must be a number from {least}, got {value!r}")
    if request.codec not in CODECS:
        raise SettingsError(f"plan: codec {request.codec!r} unknown; known: {', '.join(CODECS)}")
    CODECS[request.codec].check_dim(request.dim)
    for name in request.candidates:
        if name not in STRATEGIES:
            raise SettingsError(f"plan: candidates {name!r} unknown; known: {', '.join(STRATEGIES)}")
    if request.searchable_copies > request.redundancy:
        raise SettingsError(
            f"plan: searchable_copies ({request.searchable_copies}) must not exceed redundancy ({request.redundancy})"
        )
    if request.redundancy % request.groups or request.searchable_copies % request.groups:
        raise SettingsError(f"plan: redundancy and searchable_copies must be multiples of groups ({request.groups})")
    if request.node_memory_gb * MEMORY_LIMIT <= NODE_BASE_GB:
        raise SettingsError(f"plan: node_memory_gb must be more than {NODE_BASE_GB / MEMORY_LIMIT:.2g}")


def _stored(request: PlanRequest) -> float:
    return max(1.0, request.tokens / request.pooling)


def _centroids(request: PlanRequest) -> int:
    if request.centroids:
        return request.centroids
    return 1 << max(1, math.floor(math.log2(16 * math.sqrt(request.documents * request.tokens))))


def _passage(request: PlanRequest) -> list[Figure]:
    """Bytes of one passage in memory, on a node that has a searchable copy; token vectors first."""
    stored, per_token = _stored(request), CODECS[request.codec].bytes_per_token(request.dim, request.residual_bits)
    pooled = f"{request.tokens:g} / {request.pooling:g} tokens" if request.pooling > 1 else f"{request.tokens:g} tokens"
    found = [Figure("token vectors", stored * per_token, "B", f"{pooled} x {per_token} B ({request.codec})", CODEC)]
    if any(STRATEGIES[name].needs_codebook for name in request.candidates):
        distinct = stored * DISTINCT
        each = POSTING_B + ENTRY_B
        formula = f"{stored:g} tokens x {DISTINCT:g} distinct x ({POSTING_B} B posting + {ENTRY_B} B entry)"
        found.append(Figure("centroid ids", distinct * each, "B", formula, NODE))
    links = 2 * request.hnsw_links * LINK_B + HNSW_NODE_B
    if "pooled" in request.candidates:
        formula = f"{request.dim} x 4 B + 2 x {request.hnsw_links} links x {LINK_B} B + {HNSW_NODE_B} B"
        found.append(Figure("pooled vector and HNSW", request.dim * 4 + links, "B", formula, NODE))
    if "token" in request.candidates:
        formula = f"{stored:g} tokens x (2 x {request.hnsw_links} links x {LINK_B} B + {HNSW_NODE_B} B)"
        found.append(Figure("token HNSW", stored * links, "B", formula, NODE))
    rest = META_STORE_B + 2 * (ID_B + request.id_bytes) + FIELD_B * (request.fields + 1)
    formula = (
        f"{META_STORE_B} B + 2 x ({ID_B} + {request.id_bytes:g}) B ids + {request.fields} fields + present, {FIELD_B} B each"
    )
    return [*found, Figure("ids, metadata, bookkeeping", rest, "B", formula, NODE)]


def _size(request: PlanRequest, memory_b: float, disk_b: float) -> list[Figure]:
    copies, redundancy, documents = request.searchable_copies, request.redundancy, request.documents
    memory = documents * memory_b * copies * GROWTH_FACTOR / GB
    room = request.node_memory_gb * MEMORY_LIMIT - NODE_BASE_GB
    nodes = max(math.ceil(memory / room), request.redundancy)
    nodes = math.ceil(nodes / request.groups) * request.groups
    stored = disk_b + request.text_bytes * TEXT_STORED
    indexed = 2 * disk_b + request.text_bytes * TEXT_INDEX
    disk = documents * (stored * redundancy + indexed * copies) / GB
    per_node = disk / nodes / DISK_LIMIT
    memory_formula = f"{documents:g} passages x {memory_b:.4g} B x {copies} searchable copies x {GROWTH_FACTOR} growth"
    room_formula = f"{request.node_memory_gb:g} GB x {MEMORY_LIMIT} - {NODE_BASE_GB} GB"
    nodes_formula = f"{memory:.4g} GB / {room:.4g} GB, at least {redundancy} (redundancy), in {request.groups} equal group(s)"
    disk_formula = (
        f"{documents:g} x (({disk_b:.4g} + {request.text_bytes:g} x {TEXT_STORED}) B document store x {redundancy} copies + "
        f"(2 x {disk_b:.4g} flushed attributes + {request.text_bytes:g} x {TEXT_INDEX} text index) B x {copies})"
    )
    return [
        Figure("memory, all copies", memory, "GB", memory_formula, GROWTH),
        Figure("memory per node for them", room, "GB", room_formula, LIMITS),
        Figure("content nodes", nodes, "", nodes_formula, "arithmetic"),
        Figure("disk, all copies", disk, "GB", disk_formula, STORED),
        Figure("disk per node", per_node, "GB", f"{disk:.4g} GB / {nodes:g} nodes / {DISK_LIMIT}", LIMITS),
    ]


def _query(request: PlanRequest, name: str, nodes: float) -> Figure:
    """Milliseconds of one query on the slowest of `nodes`, which share the passages of a group evenly."""
    here = request.documents / nodes
    scale = request.query_rows / 32 * request.dim / 128
    per_passage_ms = 1000 * _stored(request) * scale / TOKENS_PER_S
    rerank = min(request.rerank / nodes, here) * per_passage_ms / request.threads
    share = f"{request.rerank:g} / {nodes:g} nodes x {per_passage_ms:.3g} ms / {request.threads} threads"
    title = f"query, {name}"
    if name == "exhaustive":
        value = here * per_passage_ms / request.threads
        return Figure(
            title, value, "ms", f"{here:.4g} passages x {per_passage_ms:.3g} ms / {request.threads} threads", MEASURED
        )
    if name == "centroid":
        length = here * _stored(request) * DISTINCT / _centroids(request)
        postings = request.query_rows * request.probes * length
        first = CENTROID_BASE_MS + 1000 * postings / POSTINGS_PER_S / request.threads
        formula = (
            f"{CENTROID_BASE_MS} + {request.query_rows} rows x {request.probes} lists x {length:.3g} postings"
            f" / {POSTINGS_PER_S:g} per s / {request.threads} threads + rerank {share}"
        )
        return Figure(title, first + rerank, "ms", formula, MEASURED)
    if name == "pooled":
        first = POOLED_BASE_MS * max(1.0, math.log(max(here, 2)) / math.log(POOLED_PASSAGES))
        formula = f"{POOLED_BASE_MS} x ln({here:.4g}) / ln({POOLED_PASSAGES}) + rerank {share}"
        return Figure(title, first + rerank, "ms", formula, MEASURED)
    return Figure(title, rerank, "ms", f"rerank alone: {share}; its first phase depends on the query", MEASURED)


def _notes(request: PlanRequest, nodes: float) -> tuple[str, ...]:
    found = []
    if request.redundancy == 1:
        found.append("redundancy 1: what a lost host held must be fed again")
    if request.searchable_copies < request.redundancy:
        found.append("fewer searchable copies than redundancy: after a lost host its share must be indexed before it is found")
    if nodes > 1 and "token" in request.candidates:
        found.append("token HNSW with several searchable copies builds a graph for each: groups with one copy each cost less")
    if request.paged:
        found.append("paged vectors are read through the page cache: give nodes memory for those that queries rerank")
    found.append("times are scaled from a measurement on 2 cores: measure yours with `colbert-vespa evaluate`")
    return tuple(found)
