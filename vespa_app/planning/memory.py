"""Bytes of a passage in memory, then memory, disk and nodes of the cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vespa_app.candidates.dense import bytes_of, dense_field
from vespa_app.candidates.pooled import ONE_VECTOR_CELLS, one_vector_bytes
from vespa_app.codecs import CODECS
from vespa_app.planning.request import GB, NODE_BASE_GB, Figure, PlanRequest
from vespa_app.settings import DenseSettings

__all__ = ["Cluster", "PassageBytes", "cluster_of", "passage_bytes"]

CODEC = "the codec itself (TensorCodec.bytes_per_token; a test compares it with encoded vectors)"
NODE = "attribute memory reported by a real node: 23,553 passages, 1.13M token vectors (tests/vespa_app/test_plan.py)"
GROWTH = "proton's allocation growfactor 0.2"
LIMITS = "Vespa's feed block: 80 % of memory, 75 % of disk, or the values in [cluster] (services.xml, resource-limits)"
STORED = (
    "Vespa's document store keeps what was fed, about as much as the attributes; a flush writes a file before it drops the old"
)

META_STORE_B, ID_B, FIELD_B = 45, 50, 16
TENSOR_B = 43  # of each tensor field of a document, whatever it holds
LABEL_B = 4  # of a mapped dimension, for each row
HNSW_NODE_B, LINK_B = 12, 4
POSTING_B, ENTRY_B = 12, 8  # of a weighted set: in the inverted list, a half-full tree, and in the forward one
DISTINCT = 0.7  # centroids of a passage, per token vector: .5 to .7 were measured
GROWTH_FACTOR = 1.2
TEXT_STORED, TEXT_INDEX = 0.5, 0.5  # of the text's bytes: compressed in the document store, and in the inverted index


@dataclass(frozen=True)
class PassageBytes:
    """Memory of one passage.

    Attributes:
        figures: what one passage of one index takes, token vectors first.
        paged: the vectors are on disk.
    """

    figures: tuple[Figure, ...]
    paged: bool

    @property
    def in_memory(self) -> tuple[Figure, ...]:
        """Return the figures that are in memory."""
        return self.figures[1:] if self.paged else self.figures

    @property
    def memory(self) -> float:
        """Return the bytes in memory."""
        return sum(figure.value for figure in self.in_memory)

    @property
    def all(self) -> float:
        """Return all bytes."""
        return sum(figure.value for figure in self.figures)


def passage_bytes(request: PlanRequest, prefix: str = "") -> PassageBytes:
    """Return the bytes of a passage on a node with a searchable copy. prefix: of the figures' names."""
    stored = request.stored
    figures = [_vectors(request)]
    if request.token_bits:
        each = request.dim // 8 + LABEL_B
        formula = f"{stored:g} tokens x ({request.dim} / 8 + {LABEL_B}) B"
        figures.append(Figure("token bits", stored * each, "B", formula, CODEC))
    if request.by_centroid:
        formula = f"{stored:g} tokens x {DISTINCT:g} distinct x ({POSTING_B} B posting + {ENTRY_B} B entry)"
        figures.append(Figure("centroid ids", stored * DISTINCT * (POSTING_B + ENTRY_B), "B", formula, NODE))
    links = 2 * request.hnsw_links * LINK_B + HNSW_NODE_B
    if request.by_pooled:
        own, stored_b = request.one_vector, one_vector_bytes(request.one_vector, request.dim)
        cells = f"{own.dim or request.dim} x {ONE_VECTOR_CELLS[own.cells]} B"
        formula = f"{cells} + 2 x {request.hnsw_links} links x {LINK_B} B + {HNSW_NODE_B} B"
        figures.append(Figure("pooled vector and HNSW", stored_b + links, "B", formula, NODE))
    if "token" in request.candidates:
        formula = f"{stored:g} tokens x (2 x {request.hnsw_links} links x {LINK_B} B + {HNSW_NODE_B} B)"
        figures.append(Figure("token HNSW", stored * links, "B", formula, NODE))
    figures += [_dense(name, own) for name, own in request.dense]
    figures.append(_bookkeeping(request))
    named = tuple(Figure(prefix + f.name, f.value, f.unit, f.formula, f.source) for f in figures)
    return PassageBytes(named, request.paged)


def _vectors(request: PlanRequest) -> Figure:
    stored, per_token = request.stored, CODECS[request.codec].bytes_per_token(request.dim, request.residual_bits)
    tokens = f"{request.tokens:g} / {request.pooling:g} tokens" if request.pooling > 1 else f"{request.tokens:g} tokens"
    each = f"{per_token} B ({request.codec})"
    if request.layout == "chunks":
        per_token += LABEL_B
        each = f"({each} + {LABEL_B} B label of the chunk)"
    return Figure("token vectors", stored * per_token, "B", f"{tokens} x {each}", CODEC)


def _dense(name: str, own: DenseSettings) -> Figure:
    stored, links = bytes_of(own), 2 * own.links * LINK_B + HNSW_NODE_B
    formula = f"{own.dim} dimensions as {own.cells}, {stored:g} B, + 2 x {own.links} links x {LINK_B} B + {HNSW_NODE_B} B"
    return Figure(f"{dense_field(name)} vector and HNSW", stored + links, "B", formula, NODE)


def _bookkeeping(request: PlanRequest) -> Figure:
    """Return the bookkeeping of a document; with layout chunks its passages share it."""
    share = request.passages_per_document if request.layout == "chunks" else 1.0
    tensors = 1 + len(CODECS[request.codec].own_fields) + request.token_bits + len(request.dense)
    each = META_STORE_B + 2 * (ID_B + request.id_bytes) + FIELD_B * (request.fields + 1) + tensors * TENSOR_B
    formula = (
        f"{META_STORE_B} B + 2 x ({ID_B} + {request.id_bytes:g}) B ids + {request.fields} fields + present, {FIELD_B} B each"
        f" + {tensors} tensor field(s) x {TENSOR_B} B"
    )
    formula = f"({formula}) / {share:g} passages of a document" if share != 1 else formula
    return Figure("ids, metadata, bookkeeping", each / share, "B", formula, NODE)


@dataclass(frozen=True)
class Cluster:
    """The cluster that a plan needs.

    Attributes:
        figures: of the whole cluster.
        nodes: content nodes.
        full: passages that a node scores when its memory is full, or all that a group of the fewest nodes leaves to each;
            it never falls as documents grow.
    """

    figures: tuple[Figure, ...]
    nodes: int
    full: float


def cluster_of(request: PlanRequest, passages: Sequence[PassageBytes]) -> Cluster:
    """Return the cluster. passages: of each index; every index has as many."""
    memory_b, disk_b = sum(p.memory for p in passages), sum(p.all for p in passages)
    copies, redundancy, documents = request.searchable_copies, request.redundancy, request.documents
    memory = documents * memory_b * copies * GROWTH_FACTOR / GB
    room = request.node_memory_gb * request.memory_limit - NODE_BASE_GB
    nodes = max(math.ceil(memory / room), redundancy)
    nodes = math.ceil(nodes / request.groups) * request.groups
    disk, disk_formula = _disk(request, disk_b, len(passages))
    memory_formula = f"{documents:g} passages x {memory_b:.4g} B x {copies} searchable copies x {GROWTH_FACTOR} growth"
    room_formula = f"{request.node_memory_gb:g} GB x {request.memory_limit} - {NODE_BASE_GB} GB"
    nodes_formula = f"{memory:.4g} GB / {room:.4g} GB, at least {redundancy} (redundancy), in {request.groups} equal group(s)"
    disk_each = f"{disk:.4g} GB / {nodes:g} nodes / {request.disk_limit}"
    figures = (
        Figure("memory, all copies", memory, "GB", memory_formula, GROWTH),
        Figure("memory per node for them", room, "GB", room_formula, LIMITS),
        Figure("content nodes", nodes, "", nodes_formula, "arithmetic"),
        Figure("disk, all copies", disk, "GB", disk_formula, STORED),
        Figure("disk per node", disk / nodes / request.disk_limit, "GB", disk_each, LIMITS),
    )
    fewest = max(1, redundancy // request.groups)
    held = room * GB / (memory_b * copies / request.groups * GROWTH_FACTOR)
    return Cluster(figures, nodes, min(documents / fewest, held))


def _disk(request: PlanRequest, disk_b: float, indexes: int) -> tuple[float, str]:
    text = indexes * request.text_bytes
    stored, indexed = disk_b + text * TEXT_STORED, 2 * disk_b + text * TEXT_INDEX
    redundancy, copies = request.redundancy, request.searchable_copies
    disk = request.documents * (stored * redundancy + indexed * copies) / GB
    formula = (
        f"{request.documents:g} x (({disk_b:.4g} + {text:g} x {TEXT_STORED}) B document store x {redundancy} copies + "
        f"(2 x {disk_b:.4g} flushed attributes + {text:g} x {TEXT_INDEX} text index) B x {copies})"
    )
    return disk, formula
