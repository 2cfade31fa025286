"""Stages that compute vectors: torch, the exported graph, smaller graphs, and the tokenization before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from colbert_vespa.evaluation.parity.comparison import Case, Comparison, compare_orders, row_cosines, worst_rows
from colbert_vespa.evaluation.parity.texts import Texts
from exporter.graph import torch_graph
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from exporter.verification import (
    Vectors,
    encode_timed,
    id_differences,
    maxsim_matrix,
    rules_difference,
    token_rows,
    torch_rows,
)
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, CPU, DEVICES, Device, installed_devices
from late_interaction.encoder import Encoder
from late_interaction.errors import CheckpointError, DeviceError
from late_interaction.tokenizing import TokenRows

__all__ = ["compare_encoders"]

Rows = Mapping[str, Sequence[TokenRows]]


def compare_encoders(
    bundle: Bundle, checkpoint: str | None, texts: Texts, k: int, say: Callable[[str], None], device: Device = AUTO
) -> list[Comparison]:
    """Compare the bundle's encoders with torch and with one another.

    Args:
        bundle: The bundle whose model is compared.
        checkpoint: Folder or hub name that the bundle was exported from; None leaves torch out.
        texts: Queries and documents to encode.
        k: Number of best hits that are compared.
        say: Called with notes on the progress.
        device: Device to compare with the CPU, on which everything else runs. `auto`: the devices that it would consider.

    Returns:
        One comparison for each pair of encoders.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        MissingDependency: If torch or another needed extra is not installed.
        DeviceError: If the device does not start or fails.
    """
    unpooled = replace(bundle, manifest=replace(bundle.manifest, pooling=None))
    rows = token_rows(unpooled, texts.sides)
    vectors: dict[str, Vectors] = {}
    for precision in bundle.manifest.models:
        say(f"encoding with {precision}")
        vectors[precision], _ = encode_timed(Encoder(unpooled, precision=precision, device=CPU), texts.sides)
    found = []
    if checkpoint is not None:
        say("encoding with torch")
        found = _with_torch(unpooled, checkpoint, texts, rows, vectors["fp32"], k)
    for precision in bundle.manifest.models:
        if precision != "fp32":
            measured, cases = _vectors(texts, vectors["fp32"], vectors[precision], k, f"quantization {precision}")
            found.append(Comparison("quantization", "fp32", precision, measured, tuple(cases)))
    return found + _on_devices(unpooled, device, texts, vectors["fp32"], k, say)


def _on_devices(
    bundle: Bundle, device: Device, texts: Texts, ours: Vectors, k: int, say: Callable[[str], None]
) -> list[Comparison]:
    """Compare the graphs of a device, or for `auto` of all devices that it considers; report those that do not start."""
    if device != AUTO:
        return [] if device == CPU else _on_device(bundle, device, texts, ours, k, say)
    found = []
    for name in installed_devices():
        if name != CPU.name and DEVICES[name].measured:
            try:
                found += _on_device(bundle, Device(name), texts, ours, k, say)
            except DeviceError as error:
                say(f"{error}; it is not compared")
    return found


def _on_device(
    bundle: Bundle, device: Device, texts: Texts, ours: Vectors, k: int, say: Callable[[str], None]
) -> list[Comparison]:
    """Compare each graph that suits the device, with the tolerances of an export."""
    found = []
    for precision in device.kind.precisions:
        if precision in bundle.manifest.models:
            say(f"encoding with {precision} on {device}")
            vectors, _ = encode_timed(Encoder(bundle, precision=precision, device=device), texts.sides)
            measured, cases = _vectors(texts, ours, vectors, k, f"{precision} on {device}")
            kind = "" if precision == "fp32" else "smaller"
            found.append(Comparison("device", "fp32", f"{precision} on {device}", measured, tuple(cases), kind))
    return found


def _with_torch(bundle: Bundle, checkpoint: str, texts: Texts, rows: Rows, ours: Vectors, k: int) -> list[Comparison]:
    folder = scan_checkpoint(find_checkpoint(checkpoint, revision=None, local_files_only=False))
    if folder.layout == "plain":
        raise CheckpointError(
            f"{folder.shown} is a plain encoder, whose projection is only in the bundle; omit --checkpoint "
            f"(report.json in the bundle has the export's measurements)"
        )
    loaded = load_checkpoint(folder)
    graph = torch_graph(loaded, bundle.manifest.dim)
    theirs = {side: torch_rows(graph, items) for side, items in rows.items()}
    rules = loaded.rules
    manifest = replace(
        bundle.manifest, rules="trained", query=rules.query, document=rules.document, strip=rules.strip,
        lower_case=rules.lower_case,
    )  # fmt: skip
    trained = replace(bundle, manifest=manifest)
    trained_rows = token_rows(trained, texts.sides)
    differing = [text for side, items in trained_rows.items()
                 for text in id_differences(loaded.model, side, texts.sides[side], items)]  # fmt: skip
    measured, cases = _vectors(texts, theirs, ours, k, "")
    measured["ids_equal"] = 1 - len(differing) / sum(map(len, texts.sides.values()))
    cases += [Case(text, "ids_equal", 0.0) for text in differing[:5]]
    comparisons = [Comparison("encoder", "torch", "fp32", measured, tuple(cases))]
    if bundle.manifest.rules == "vespa" or (manifest.query, manifest.document) != (
        bundle.manifest.query, bundle.manifest.document,
    ):  # fmt: skip
        comparisons.append(_rules(trained, bundle, texts, trained_rows, rows, ours))
    return comparisons


def _rules(trained: Bundle, bundle: Bundle, texts: Texts, before: Rows, rows: Rows, ours: Vectors) -> Comparison:
    difference = rules_difference(trained, rows, ours, texts.sides)
    cases = []
    for side, labels in texts.labels.items():
        for label, then, now in zip(labels, before[side], rows[side], strict=True):
            if not np.array_equal(then.ids, now.ids):
                cases.append(Case(label, "ids_equal", 0.0, _why(bundle, then, now)))
    measured = {"ids_equal": difference.ids_equal, "overlap": difference.top10, "tau": difference.tau}
    return Comparison("rules", "trained", bundle.manifest.rules, measured, tuple(cases[:5]))


def _why(bundle: Bundle, then: TokenRows, now: TokenRows) -> str:
    """Return the known reasons for different token ids of the same text."""
    if now.truncated and not then.truncated:
        return f"truncation: the bundle reads {len(now.ids)} tokens, the checkpoint {len(then.ids)}"
    if bundle.manifest.rules == "vespa":
        dropped = set(bundle.manifest.document.drop_ids) & (set(then.ids.tolist()) - set(now.ids.tolist()))
        return "punctuation rule: Vespa drops it before encoding" if dropped else "Vespa's rules"
    return "lengths or expansion were changed by the export"


def _vectors(texts: Texts, left: Vectors, right: Vectors, k: int, reason: str) -> tuple[dict[str, float], list[Case]]:
    """Compare rows by cosine, and the order of all documents for each query."""
    cosines = {
        label: row_cosines(a, b)
        for side, labels in texts.labels.items()
        for label, a, b in zip(labels, left[side], right[side], strict=True)
    }
    together = np.concatenate(list(cosines.values()))
    measured, cases = compare_orders(_by_query(texts, maxsim_matrix(left)), _by_query(texts, maxsim_matrix(right)), k)
    measured |= {"mean_cosine": float(together.mean()), "worst_cosine": float(together.min())}
    cases = worst_rows(cosines, {}) + cases
    return measured, [replace(case, reason=reason) for case in cases]


def _by_query(texts: Texts, scores: np.ndarray) -> dict[str, dict[str, float]]:
    return {query: dict(zip(texts.documents, row, strict=True))
            for query, row in zip(texts.queries, scores.tolist(), strict=True)}  # fmt: skip
