"""Encoding speed beside sentence-transformers' torch and ONNX backends: same model, texts and cores, in one run.

    python -m benchmarks.encode [--quick] [--json] [--device cuda] [--device-id 0]

Texts are the documentation of Python's standard library (short) and, where ../shared/data has it, Cranfield (177 word pieces
a document). Contestants take turns; the figures are medians of the rounds. With --device the graphs that suit it run there as
well, and torch too where it has that GPU; cosines are with torch on the processor.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from colbert_vespa.cli.stdlib_docs import first_sentence, stdlib_documents
from colbert_vespa.evaluation.collection import read_collection
from exporter import ExportOptions, export
from exporter.hub import minilm_folder
from exporter.layouts.scanning import scan_checkpoint
from exporter.plain import make_plain_checkpoint
from late_interaction.bundle import Bundle
from late_interaction.devices import CPU, DEVICES, Device, check_device
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder

CRANFIELD = Path("../shared/data/cranfield")
SCHEMES = ("int8", "int8-tensor")
BATCH, GPU_BATCH = 32, 256
Encode = Callable[[Sequence[str]], list[np.ndarray]]


def collections(count: int) -> dict[str, tuple[list[str], list[str]]]:
    """name -> (document texts, query texts)."""
    documents = random.Random(0).sample(list(stdlib_documents()), 2 * count)
    found = {
        "stdlib": (
            [passage_text(d.title, d.text) for d in documents[:count]],
            [first_sentence(d.text)[0] for d in documents[count:]],
        )
    }
    if CRANFIELD.is_dir():
        read = read_collection(CRANFIELD)
        texts = [passage_text(d.title, d.text) for d in read.corpus if not d.blank]
        found["cranfield"] = random.Random(0).sample(texts, count), [query.text for query in read.queries]
    return found


def contestants(checkpoint: Path, bundle: Bundle, device: Device) -> dict[str, tuple[Encode, Encode] | str]:
    """name -> (documents, queries), or why it cannot run."""
    import torch
    from sentence_transformers import MultiVectorEncoder

    found: dict[str, tuple[Encode, Encode] | str] = {}
    sides = [("torch", "cpu"), ("onnx", "cpu")]
    if device.name in ("cuda", "tensorrt", "rocm") and torch.cuda.is_available():
        sides.append(("torch", f"cuda:{device.number or 0}"))
    for backend, place in sides:
        name = f"sentence-transformers {backend}" + ("" if place == "cpu" else f" on {place}")
        try:
            model = MultiVectorEncoder(str(checkpoint), device=place, backend=backend)
        except Exception as error:  # noqa: BLE001  listed with its reason
            # no environment can have it: sentence-transformers 6 needs transformers 5, optimum-onnx (0.1) needs transformers 4
            found[name] = str(error).splitlines()[0]
            continue
        batch = BATCH if place == "cpu" else GPU_BATCH
        found[name] = (
            lambda texts, m=model, n=batch: m.encode_document(list(texts), batch_size=n, show_progress_bar=False),
            lambda texts, m=model: m.encode_query(list(texts), batch_size=1, show_progress_bar=False),
        )
    for precision in (*SCHEMES, "fp32"):
        encoder = Encoder(bundle, precision=precision, device=CPU)
        found[f"ours {precision}"] = encoder.encode_documents, encoder.encode_queries
    for precision in () if device == CPU else device.kind.precisions:
        encoder = Encoder(bundle, precision=precision, device=device)
        found[f"ours {precision} on {device}"] = encoder.encode_documents, encoder.encode_queries
    return found


def measure(
    runners: dict[str, tuple[Encode, Encode]], documents: list[str], queries: list[str], rounds: int
) -> dict[str, dict[str, float]]:
    reference = runners["sentence-transformers torch"][0](documents)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    singles: dict[str, list[float]] = {name: [] for name in runners}
    vectors = {}
    for name, (encode, single) in runners.items():  # warm
        vectors[name] = encode(documents)
        single(queries[:3])
    for _ in range(rounds):
        for name, (encode, single) in runners.items():
            start = time.perf_counter()
            encode(documents)
            seconds[name].append(time.perf_counter() - start)
            for query in queries:
                start = time.perf_counter()
                single([query])
                singles[name].append(time.perf_counter() - start)
    table = {}
    for name in runners:
        cosines = np.concatenate(
            [(np.asarray(a) * np.asarray(b)).sum(1) for a, b in zip(vectors[name], reference, strict=True)]
        )
        table[name] = {
            "documents_per_s": len(documents) / statistics.median(seconds[name]),
            "query_ms": 1000 * statistics.median(singles[name]),
            "cosine_mean": float(cosines.mean()),
            "cosine_worst": float(cosines.min()),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts and rounds")
    parser.add_argument("--device", default="cpu", choices=list(DEVICES), help="measured beside the processor")
    parser.add_argument("--device-id", type=int, help="which of several devices")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    arguments = parser.parse_args()
    out = sys.stderr if arguments.json else sys.stdout
    device = Device(arguments.device, arguments.device_id)
    check_device(device)
    warnings.simplefilter("ignore")
    count, rounds = (64, 2) if arguments.quick else (192, 5)
    found: dict[str, dict[str, dict[str, float]]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        sample = [passage_text(d.title, d.text) for d in stdlib_documents()]
        make_plain_checkpoint(scan_checkpoint(minilm_folder()), checkpoint, sample)
        export(checkpoint, Path(scratch) / "bundle", ExportOptions(quantize=(*SCHEMES, "fp16"), sample=sample, force=True))
        runners = contestants(checkpoint, Bundle.open(Path(scratch) / "bundle"), device)
        absent = {name: reason for name, reason in runners.items() if isinstance(reason, str)}
        able = {name: pair for name, pair in runners.items() if not isinstance(pair, str)}
        for name, (documents, queries) in collections(count).items():
            found[name] = measure(able, documents, queries[: count // 4], rounds)
            torch = found[name]["sentence-transformers torch"]
            print(f"\n{name}: {len(documents)} documents", file=out)
            print(f"{'':30} {'docs/s':>8} {'of torch':>9} {'query ms':>9} {'of torch':>9} {'cosine':>8} {'worst':>8}", file=out)
            for who, row in found[name].items():
                print(
                    f"{who:30} {row['documents_per_s']:8.1f} {row['documents_per_s'] / torch['documents_per_s']:8.2f}x"
                    f" {row['query_ms']:9.2f} {row['query_ms'] / torch['query_ms']:8.2f}x"
                    f" {row['cosine_mean']:8.5f} {row['cosine_worst']:8.5f}",
                    file=out,
                )
    for name, reason in absent.items():
        print(f"{name}: not measured ({reason})", file=out)
    if arguments.json:
        print(json.dumps({"collections": found, "absent": absent}))


if __name__ == "__main__":
    main()
