"""How long it takes to fill an application: encoding by machines of a known rate, and what its nodes can ingest."""

from __future__ import annotations

from collections.abc import Sequence

from vespa_app.planning.memory import PassageBytes
from vespa_app.planning.request import GB, Figure, PlanRequest

__all__ = ["filling_figures"]

TAKEN = "docs/performance, Feeding: rate of a warm node of 2 cores for passages of 100 binary rows; HNSW of tokens takes more"
GIVEN = "your rate (--encode-rate): tokens_per_s of a feed's summary, times the pooling"
HEX = "vectors are sent as hexadecimal, two characters per byte; gzip saves about half"
OPERATIONS_PER_S = 1_091.0  # of a content node
HOUR_S = 3600


def filling_figures(request: PlanRequest, passages: Sequence[PassageBytes], nodes: int) -> list[Figure]:
    """Return the figures of the main index, if the rate of a machine is known. nodes: of content."""
    rate, documents = request.encode_rate, request.documents
    if not rate:
        return []
    vectors = passages[0].figures[0].value
    body = 2 * vectors + request.text_bytes
    encoded = f"{documents:g} passages x {request.tokens:g} token vectors / {rate:g} a second / {HOUR_S}"
    sent = f"{documents:g} passages x (2 x {vectors:.4g} + {request.text_bytes:g} text) B"
    intake = f"({nodes:,} nodes x {OPERATIONS_PER_S:,.0f} a second)"
    taken = f"{documents:g} passages x {request.redundancy} copies / {intake} / {HOUR_S}"
    feeding = documents * request.redundancy / (nodes * OPERATIONS_PER_S) / HOUR_S
    return [
        Figure("encoding", documents * request.tokens / rate / HOUR_S, "machine-hours", encoded, GIVEN),
        Figure("bytes to send", documents * body / GB, "GB", sent, HEX),
        Figure("feeding, at least", feeding, "h", taken, TAKEN),
    ]
