"""The bundle against torch: the same ids, the same kept rows, the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from exporter.graph import torch_graph
from exporter.loading import Checkpoint
from exporter.quiet import quiet
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.tokenizing import TokenRows

__all__ = ["ExportReport", "Fidelity", "verify"]

DEFAULT_TEXTS = (
    "What is late interaction?",
    "ColBERT keeps one vector per token, and scores by MaxSim: the sum over query tokens of the best match.",
    "x",
    "Überraschung: naïve café, 東京 and emoji 🙂!",
    "A long passage. " * 60,
)
TEXTS = 24


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Cosines of one graph's rows with torch's, over queries and documents. bytes: of the file."""

    worst: float
    mean: float
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    """What `export` measured. ids_equal: share of the texts whose ids, attention and kept rows are those of
    sentence-transformers' own loader; differences: the first few that are not, with both id lists' lengths."""

    layout: str
    source: str
    dim: int
    texts: int
    ids_equal: float
    differences: tuple[str, ...] = ()
    fidelity: dict[str, Fidelity] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def verify(checkpoint: Checkpoint, bundle: Bundle, sample: Sequence[str] | None) -> ExportReport:
    """Encodes some of the sample, and a few texts of our own, with torch and with every graph of the bundle."""
    texts = [*DEFAULT_TEXTS, *[text for text in (sample or ()) if text.strip()][: TEXTS - len(DEFAULT_TEXTS)]]
    encoders = {precision: Encoder(bundle, precision=precision) for precision in bundle.manifest.models}
    tokenizing = encoders["fp32"].tokenizing
    sides = {"query": tokenizing.queries(texts), "document": tokenizing.documents(texts)}
    reference = {side: _torch_rows(torch_graph(checkpoint), rows) for side, rows in sides.items()}
    fidelity = {}
    for precision, encoder in encoders.items():
        found = {"query": encoder.encode_queries(texts), "document": encoder.encode_documents(texts)}
        cosines = np.concatenate(
            [(ours * theirs).sum(axis=1) for side in sides for ours, theirs in zip(found[side], reference[side], strict=True)]
        )
        size = bundle.model_path(precision).stat().st_size
        fidelity[precision] = Fidelity(float(cosines.min()), float(cosines.mean()), size)
    differences = [text for side, rows in sides.items() for text in _id_differences(checkpoint.model, side, texts, rows)]
    return ExportReport(
        layout=checkpoint.layout,
        source=bundle.manifest.source,
        dim=bundle.manifest.dim,
        texts=2 * len(texts),
        ids_equal=1 - len(differences) / (2 * len(texts)),
        differences=tuple(differences[:5]),
        fidelity=fidelity,
    )


def _torch_rows(graph: Any, rows: Sequence[TokenRows]) -> list[np.ndarray]:
    import torch

    found = []
    for item in rows:
        with torch.inference_mode(), quiet():
            output = graph(torch.from_numpy(item.ids)[None], torch.from_numpy(item.attention)[None])[0]
        found.append(output.numpy()[item.keep])
    return found


def _id_differences(model: Any, side: str, texts: Sequence[str], rows: Sequence[TokenRows]) -> list[str]:
    """Texts whose ids, attention or kept rows differ from what sentence-transformers makes of them."""
    differing = []
    prompt = model.prompts.get(side) or ""
    masks = [module for module in model if type(module).__name__ == "MultiVectorMask"]
    for text, item in zip(texts, rows, strict=True):
        with quiet():
            features = model.preprocess([text], prompt=prompt, task=side)
            ids = features["input_ids"][0].numpy()
            attention = features["attention_mask"][0].numpy()
            scored = masks[0](dict(features), task=side)["attention_mask"][0].bool().numpy() if masks else attention > 0
        same = np.array_equal(ids, item.ids) and np.array_equal(attention, item.attention)
        if not same or not np.array_equal(scored, item.keep):
            differing.append(f"{side} {text[:40]!r}: {len(ids)} ids and {int(scored.sum())} rows in sentence-transformers, "
                             f"{len(item.ids)} and {int(item.keep.sum())} here")  # fmt: skip
    return differing
