"""Drift: compare a sample of passages and some queries with the recorded baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from colbert_vespa.monitor.canaries import read_made
from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import OK, WARNING, WRONG, CheckRow, Sample, Section
from colbert_vespa.monitor.sampling import beginnings, sample_of
from late_interaction.array_types import Matrix, TokenIds
from late_interaction.codebook import Codebook
from late_interaction.errors import UsageError
from late_interaction.extras import required
from late_interaction.files import atomic_write, check_own_output
from late_interaction.token_ids import joined_rows
from late_interaction.tokenizing import row_token_ids
from query import Client
from vespa_app.codecs import bundle_codebooks

__all__ = ["Profile", "drift_rows", "measure"]

FORMAT = 1
KIND, MADE_BY = "colbert-vespa baseline", "colbert-vespa monitor baseline"
AREA = "drift"
ENCODED = 64  # passages of the sample whose rows are compared with the centroids
SCORED = 10  # hits of a query


@dataclass(frozen=True)
class Profile:
    """Statistics of an index and its queries, recorded as a baseline.

    Attributes:
        bundle: sha256 of the bundle.
        passages: Number of passages in the index.
        queries: Queries that were asked.
        lengths: Number of tokens of each passage of the sample.
        unknown: Share of these tokens that are not in the vocabulary.
        scores: Scores of all hits, by query row.
        nearness: Mean similarity of token vectors to the nearest centroid of the bundle's codebook; None without a codebook.
    """

    bundle: str
    passages: int
    queries: tuple[str, ...]
    lengths: tuple[float, ...]
    unknown: float
    scores: tuple[float, ...]
    nearness: float | None

    def write(self, path: Path) -> None:
        """Write the profile to a file, replacing only an earlier profile."""
        data = {"format": KIND, "version": FORMAT, **{field.name: getattr(self, field.name) for field in fields(self)}}
        check_own_output(path, KIND)
        atomic_write(path, (json.dumps(data, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile from a file.

        Raises:
            UsageError: If the file is not a profile, or has an unknown version.
        """
        return read_made(cls, path, KIND, FORMAT, MADE_BY)


def measure(client: Client, http: HttpClient, queries: Sequence[str] = ()) -> Profile:
    """Measure the profile of an index and its queries.

    Args:
        client: Client of the index.
        http: Client for a sample of the passages.
        queries: Queries to ask; default: beginnings of the sample.

    Raises:
        UsageError: If the index is empty.
        ColbertVespaError: If the index does not answer.
    """
    passages, texts = sample_of(client.address, http)
    if not texts:
        raise UsageError(f"{client.address} is empty, so there is nothing to measure")
    asked = tuple(queries) or tuple(beginnings(texts))
    tokenizing, encoder = client.encoder.tokenizing, client.encoder
    rows = tokenizing.documents(texts)
    tokens = sum(len(item.ids) for item in rows)
    unknown = sum(int((item.ids == tokenizing.unknown_id).sum()) for item in rows) / tokens
    scores = []
    for query in asked:
        Q = encoder.encode_queries([query])[0]
        scores += [round(hit.stages["maxsim"] / len(Q), 5) for hit in client.search(query, SCORED).check_full().hits]
    codebook = bundle_codebooks(client.bundle, thresholds=False).codebook
    nearness = None
    if codebook is not None:
        encoded = zip(encoder.encode_documents(texts[:ENCODED], rows[:ENCODED]), rows, strict=False)
        pooling = client.bundle.manifest.pooling
        nearness = _nearness(codebook, *joined_rows([(D, row_token_ids(own, pooling)) for D, own in encoded]))
    return Profile(
        bundle=client.bundle.sha256,
        passages=passages,
        queries=asked,
        lengths=tuple(float(count) for count in tokenizing.document_counts(texts)),
        unknown=round(unknown, 6),
        scores=tuple(scores),
        nearness=nearness,
    )


def _nearness(codebook: Codebook, rows: Matrix, token_ids: TokenIds | None) -> float:
    """Return the mean similarity of rows `[n, d]` to their nearest centroids."""
    return round(float(codebook.nearness(rows, token_ids).mean()), 5)


def drift_rows(before: Profile, now: Profile, limits: WarningLimits) -> Section:
    """Return a row for each kind of drift; a change beyond its limit is a warning, because only the owner can judge it."""
    if before.bundle != now.bundle:
        says = f"made with bundle {before.bundle[:8]}, the index has {now.bundle[:8]}; make it again"
        return Section((CheckRow(AREA, "baseline", WRONG, says),))
    lengths, scores = _distance(before.lengths, now.lengths), _distance(before.scores, now.scores)
    more_unknown = now.unknown - before.unknown
    rows = [
        _row("lengths", lengths, limits.distance, f"tokens of a passage, median {_median(before.lengths):.0f}, now "
             f"{_median(now.lengths):.0f}; distance {lengths:.2f}", "new documents differ, or are split differently"),
        _row("scores", scores, limits.distance, f"of a query row, median {_median(before.scores):.3f}, now "
             f"{_median(now.scores):.3f}; distance {scores:.2f}", "other documents, encoder, codec or effort"),
        _row("unknown tokens", more_unknown, limits.unknown, f"{before.unknown:.2%} of the passages' tokens, now "
             f"{now.unknown:.2%}", "a language or notation unknown to the model"),
        _passages_row(before.passages, now.passages, limits),
    ]  # fmt: skip
    samples = {"lengths": lengths, "scores": scores, "unknown_tokens": more_unknown}
    if before.nearness is not None and now.nearness is not None:
        lost = before.nearness - now.nearness
        samples["centroids"] = lost
        says = f"mean similarity with the nearest {before.nearness:.3f}, now {now.nearness:.3f}"
        rows.append(_row("centroids", lost, limits.centroids, says, "train a codebook on current documents, and feed again"))
    return Section(tuple(rows), tuple(Sample("drift_distance", value, {"of": name}) for name, value in samples.items()))


def _row(name: str, value: float, limit: float, says: str, why: str) -> CheckRow:
    moved = not value <= limit
    return CheckRow(AREA, name, WARNING if moved else OK, f"{says} (limit {limit:g}): {why}" if moved else says)


def _passages_row(before: int, now: int, limits: WarningLimits) -> CheckRow:
    says = f"{before:,} in the baseline, now {now:,}"
    if not now >= (1 - limits.fewer) * before:
        return CheckRow(AREA, "passages", WARNING, f"{says}: lost, or deleted")
    if not now <= limits.grown * before:
        return CheckRow(
            AREA,
            "passages",
            WARNING,
            f"{says}: codebook and effort were chosen for fewer documents; tune, and make a new baseline",
        )
    return CheckRow(AREA, "passages", OK, says)


def _distance(before: Sequence[float], now: Sequence[float]) -> float:
    """Return the Kolmogorov-Smirnov statistic: the largest distance of the cumulative distributions, 0 to 1."""
    if not before or not now:
        return float(bool(before) != bool(now))
    with required("monitor", "drift from a baseline"):
        from scipy.stats import ks_2samp

    return round(float(ks_2samp(before, now, method="asymp").statistic), 4)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
