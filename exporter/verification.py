"""Compare the bundle with torch: ids, kept rows, vectors, order of documents, and speed."""

from __future__ import annotations

import builtins
import inspect
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from exporter.loading import Checkpoint
from exporter.options import ExportOptions
from exporter.quiet import quiet
from late_interaction.bundle import Bundle, Manifest
from late_interaction.dense import DenseEncoder
from late_interaction.devices import AUTO, CPU, Device
from late_interaction.encoder import Encoder
from late_interaction.extras import required
from late_interaction.maxsim import maxsim_many
from late_interaction.metrics import overlap_at_k
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = [
    "DenseReport",
    "ExportReport",
    "Fidelity",
    "RulesDifference",
    "Speed",
    "Vectors",
    "compare_graphs",
    "dense_fidelity",
    "encode_timed",
    "fidelity_of",
    "id_differences",
    "maxsim_matrix",
    "rules_difference",
    "timed",
    "token_rows",
    "torch_rows",
    "verification_texts",
    "verify",
]

OWN_TEXTS = (
    "What is late interaction?",
    "ColBERT keeps one vector per token, and scores by MaxSim: the sum over query tokens of the best match.",
    "x",
    "Überraschung: naïve café, 東京 and emoji 🙂!",
    "A long passage. " * 60,
)
TEXTS = 40
QUERY_WORDS = 10
TIMED_QUERIES = 12
Vectors = dict[str, list[np.ndarray]]  # side -> one [t, d] per text


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of encoding.

    Attributes:
        documents_per_s: documents per second, all texts at once.
        query_ms: median milliseconds of single queries.
    """

    documents_per_s: float
    query_ms: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """One graph against torch on the same token ids.

    Attributes:
        worst: lowest cosine of a row, over queries and documents.
        mean: mean cosine of rows.
        top10: share of torch's ten best documents among the graph's, mean over queries.
        tau: Kendall's tau of the order of all documents.
        bytes: size of the file.
        speed: speed of the graph.
    """

    worst: float
    mean: float
    top10: float
    tau: float
    bytes: int
    speed: Speed


@dataclass(frozen=True, slots=True)
class RulesDifference:
    """Vespa's tokenization against the trained one, with the same graph.

    Attributes:
        ids_equal: share of the texts with the same ids.
        top10: share of the same ten best documents.
        tau: Kendall's tau of the order of all documents.
    """

    ids_equal: float
    top10: float
    tau: float


@dataclass(frozen=True)
class DenseReport:
    """A dense model against sentence-transformers on the same texts.

    Of a cosine, each vector is a document of one row.

    Attributes:
        source: the checkpoint.
        dim: its dimensions.
        texts: texts that were compared.
        modules: modules that the checkpoint lists.
        ids_equal: see `ExportReport`.
        differences: see `ExportReport`.
        fidelity: result by precision.
        torch: speed of sentence-transformers.
    """

    source: str
    dim: int
    texts: int
    modules: tuple[str, ...]
    ids_equal: float
    differences: tuple[str, ...] = ()
    fidelity: dict[str, Fidelity] = field(default_factory=dict)
    torch: Speed | None = None


@dataclass(frozen=True)
class ExportReport:
    """What `export` measured.

    Attributes:
        layout: layout of the checkpoint.
        source: the checkpoint.
        dim: dimensions of a row.
        texts: texts that were compared.
        ids_equal: share of the texts whose ids, attention and kept rows under the trained rules equal those of
            sentence-transformers' own loader.
        differences: the first few that differ, with the lengths of both id lists.
        fidelity: result by precision.
        torch: speed of sentence-transformers on the checkpoint.
        vespa_rules: only if the bundle has these rules.
        dense: report of each dense model of this export.
    """

    layout: str
    source: str
    dim: int
    texts: int
    ids_equal: float
    differences: tuple[str, ...] = ()
    fidelity: dict[str, Fidelity] = field(default_factory=dict)
    torch: Speed | None = None
    vespa_rules: RulesDifference | None = None
    dense: dict[str, DenseReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)


def verify(checkpoint: Checkpoint, graph: Any, bundle: Bundle, trained: Manifest, options: ExportOptions) -> ExportReport:
    """Encode part of the sample, and our own texts, with torch and with every graph of the bundle.

    Args:
        checkpoint: the loaded checkpoint.
        graph: the checkpoint's graph.
        bundle: the bundle.
        trained: the bundle's manifest with the rules that the checkpoint was trained with.
        options: the options of the export.
    """
    sides = verification_texts(options.sample)
    by_training = replace(bundle, manifest=replace(trained, pooling=None))
    differences = [
        text
        for side, items in token_rows(by_training, sides).items()
        for text in id_differences(checkpoint.model, side, sides[side], items)
    ]
    report, rows, vectors = compare_graphs(
        bundle, sides, lambda items: torch_rows(graph, items), differences, Device.of(options.device)
    )
    changed = rules_difference(by_training, rows, vectors, sides) if bundle.manifest.rules == "vespa" else None
    return replace(report, torch=_torch_speed(checkpoint.model, sides), vespa_rules=changed)


def compare_graphs(
    bundle: Bundle,
    sides: Mapping[str, Sequence[str]],
    reference: Callable[[Sequence[TokenRows]], list[np.ndarray]],
    differences: Sequence[str],
    device: Device,
) -> tuple[ExportReport, dict[str, list[TokenRows]], Vectors]:
    """Compare every graph of the bundle with reference vectors.

    Args:
        bundle: the bundle.
        sides: texts of each side.
        reference: returns reference vectors of rows.
        differences: differences of ids, one line each.
        device: where graphs that suit it run; `auto` is the processor, which all machines have.

    Returns:
        report, rows of the texts, their vectors by fp32.
    """
    unpooled = replace(bundle, manifest=replace(bundle.manifest, pooling=None))
    rows = token_rows(unpooled, sides)
    expected = {side: reference(items) for side, items in rows.items()}
    fidelity, vectors = {}, {}
    for precision in bundle.manifest.models:
        vectors[precision], speed = encode_timed(
            Encoder(unpooled, precision=precision, device=_device_of(precision, device)), sides
        )
        fidelity[precision] = fidelity_of(vectors[precision], expected, bundle.model_path(precision).stat().st_size, speed)
    texts = sum(map(len, sides.values()))
    report = ExportReport(
        layout=bundle.manifest.layout, source=bundle.manifest.source, dim=bundle.manifest.dim, texts=texts,
        ids_equal=1 - len(differences) / texts, differences=tuple(differences[:5]), fidelity=fidelity,
    )  # fmt: skip
    return report, rows, vectors["fp32"]


def _device_of(precision: str, device: Device) -> Device:
    return device if device != AUTO and precision in device.kind.precisions else CPU


def verification_texts(sample: Sequence[str] | None) -> dict[str, list[str]]:
    """Return the texts of each side: the first of the sample, or else Python's docstrings of its builtins."""
    given = [text for text in sample or () if text.strip()]
    if not given:
        given = [doc for name in sorted(dir(builtins)) if (doc := inspect.getdoc(getattr(builtins, name)))]
        given = list(dict.fromkeys(given))
    texts = [*OWN_TEXTS, *given[: TEXTS - len(OWN_TEXTS)]]
    return {"query": [" ".join(text.split()[:QUERY_WORDS]) or text for text in texts], "document": texts}


def token_rows(bundle: Bundle, sides: Mapping[str, Sequence[str]]) -> dict[str, list[TokenRows]]:
    """Tokenize the texts of both sides."""
    tokenizing = Tokenizing(bundle)
    return {"query": tokenizing.queries(sides["query"]), "document": tokenizing.documents(sides["document"])}


def encode_timed(encoder: Encoder, sides: Mapping[str, Sequence[str]]) -> tuple[Vectors, Speed]:
    """Encode the texts of both sides; return vectors and speed."""
    vectors = {"query": encoder.encode_queries(sides["query"]), "document": encoder.encode_documents(sides["document"])}
    return vectors, timed(encoder.encode_documents, encoder.encode_queries, sides)


def dense_fidelity(
    encoder: DenseEncoder, reference: Mapping[str, np.ndarray], sides: Mapping[str, Sequence[str]], size: int
) -> Fidelity:
    """Compare a dense encoder with reference vectors.

    Args:
        encoder: the encoder.
        reference: `[n, dim]` of each side's texts.
        sides: texts of each side.
        size: bytes of the graph.
    """
    ours = {"query": encoder.encode_queries(sides["query"]), "document": encoder.encode_documents(sides["document"])}
    speed = timed(encoder.encode_documents, encoder.encode_queries, sides)
    return fidelity_of(_single_rows(ours), _single_rows(reference), size, speed)


def _single_rows(vectors: Mapping[str, np.ndarray]) -> Vectors:
    """Return each vector as a document of one row, of length one."""
    return {side: list((rows / np.linalg.norm(rows, axis=1, keepdims=True))[:, None]) for side, rows in vectors.items()}


def timed(documents: Callable[[Any], Any], queries: Callable[[Any], Any], sides: Mapping[str, Sequence[str]]) -> Speed:
    """Measure the speed of encoding."""
    start = time.perf_counter()
    documents(sides["document"])
    seconds = time.perf_counter() - start
    single = []
    for text in sides["query"][:TIMED_QUERIES]:
        start = time.perf_counter()
        queries([text])
        single.append(time.perf_counter() - start)
    return Speed(len(sides["document"]) / seconds, 1000 * statistics.median(single))


def _torch_speed(model: Any, sides: Mapping[str, Sequence[str]]) -> Speed:
    with quiet():
        model.encode_query(list(sides["query"][:2]), show_progress_bar=False)
        return timed(
            lambda texts: model.encode_document(list(texts), show_progress_bar=False),
            lambda texts: model.encode_query(list(texts), show_progress_bar=False),
            sides,
        )


def torch_rows(graph: Any, rows: Sequence[TokenRows]) -> list[np.ndarray]:
    """Return the kept rows of each text by torch."""
    import torch

    vectors = []
    for item in rows:
        with torch.inference_mode(), quiet():
            output = graph(torch.from_numpy(item.ids)[None], torch.from_numpy(item.attention)[None])[0]
        vectors.append(output.numpy()[item.keep])
    return vectors


def fidelity_of(vectors: Vectors, reference: Vectors, size: int, speed: Speed) -> Fidelity:
    """Compare vectors with reference vectors."""
    cosines = np.concatenate(
        [(a * b).sum(axis=1) for side in reference for a, b in zip(vectors[side], reference[side], strict=True)]
    )
    top10, tau = agreement(maxsim_matrix(vectors), maxsim_matrix(reference))
    return Fidelity(float(cosines.min()), float(cosines.mean()), top10, tau, size, speed)


def maxsim_matrix(vectors: Vectors) -> np.ndarray:
    """Return MaxSim `[queries, documents]`."""
    lengths = np.array([len(D) for D in vectors["document"]])
    flat = np.concatenate(vectors["document"])
    return np.stack([maxsim_many(Q, flat, lengths) for Q in vectors["query"]])


def agreement(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return (share of the same ten best, Kendall's tau), means over queries."""
    with required("export", "verification"):
        from scipy.stats import kendalltau

    top10 = [overlap_at_k(list(np.argsort(-a, kind="stable")), list(np.argsort(-b, kind="stable"))[:10], 10)
             for a, b in zip(ours, theirs, strict=True)]  # fmt: skip
    taus = [float(kendalltau(a, b).statistic) for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean(top10)), float(np.mean(taus))


def rules_difference(
    trained: Bundle, rows: Mapping[str, Sequence[TokenRows]], vectors: Vectors, sides: Mapping[str, Sequence[str]]
) -> RulesDifference:
    """Compare the trained rules with the bundle's own."""
    theirs, _ = encode_timed(Encoder(trained, precision="fp32"), sides)
    same = [
        np.array_equal(a.ids, b.ids)
        for side, items in token_rows(trained, sides).items()
        for a, b in zip(rows[side], items, strict=True)
    ]
    return RulesDifference(float(np.mean(same)), *agreement(maxsim_matrix(vectors), maxsim_matrix(theirs)))


def id_differences(model: Any, side: str, texts: Sequence[str], rows: Sequence[TokenRows]) -> list[str]:
    """Return the texts whose ids, attention or kept rows differ from those of sentence-transformers."""
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
