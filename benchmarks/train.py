"""What training brings: MiniLM's projection before and after, BM25 and dense MiniLM, on a split of MedQuAD and on SciFact.

    python -m benchmarks.train [--quick] [--json] [--work DIR] [--steps 320] [--threads 2] [--adapt]

Test are the documents whose sha256 of metadata.focus, as an integer, is 0 modulo 10, with their queries; the rest is for
training, but for a twentieth of the focuses (1 modulo 20) on which the best checkpoint is chosen. No text or query of the test
split is trained on, nor a near-duplicate of one. Few-shot: `adapt` with 64 examples of the training split. --adapt: also
`adapt` to the training documents alone, with queries made of them. SciFact is measured to see what is lost elsewhere.

Every stage is kept in the work folder, so that a run that was stopped goes on where it was; a training of other options wants
another folder. Minutes are those of the clock and of the processor, in mining, steps and evaluation of the training; on a
machine that others use as well, the latter count. --quick: a few hundred documents, a few steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEED = 13
SAMPLE = 4_000  # texts that the projection is fitted on
FEW = 64
STEPS, QUICK_STEPS = 320, 4
ADAPT_STEPS = 150


def part_of(document: Any) -> str:
    focus = str(document.metadata.get("focus") or "")
    digest = int(hashlib.sha256(focus.encode()).hexdigest(), 16)
    return "test" if digest % 10 == 0 else "dev" if digest % 20 == 1 else "train"


def collections(quick: bool, data: Path, scifact_documents: int | None) -> dict[str, Any]:
    """medquad's test and dev, scifact: judged; train: examples and documents."""
    from colbert_vespa.evaluation.collection import read_collection
    from colbert_vespa.evaluation.evaluating import Judged
    from colbert_vespa.training import Example, TrainingData, clean
    from colbert_vespa.training.data import text_of_document
    from colbert_vespa.training.measuring import smaller

    read = read_collection(data / "medquad")
    parts: dict[str, list[Any]] = {"test": [], "dev": [], "train": []}
    for document in read.corpus:
        if not document.blank:
            parts[part_of(document)].append(document)
    judged = {name: Judged.of(name, parts[name], read.queries, read.qrels, None) for name in ("test", "dev")}
    texts = {document.id: text_of_document(document) for document in parts["train"]}
    examples = [
        Example(query.text, texts[id_])
        for query in read.queries
        for id_, value in read.qrels.get(query.id, {}).items()
        if value > 0 and id_ in texts
    ]
    tested = TrainingData(
        [
            Example(query.text, text_of_document(document))
            for part in judged.values()
            for query in part.queries
            for document in part.documents
            if part.qrels[query.id].get(document.id, 0) > 0
        ],
        [text_of_document(document) for part in judged.values() for document in part.documents],
    )
    if quick:
        examples = random.Random(SEED).sample(examples, 400)
        kept = {example.positive for example in examples}
        texts = {id_: text for id_, text in texts.items() if text in kept}
    found, report = clean(TrainingData(examples, list(texts.values())), test=tested)
    for name, value in report.rows().items():
        say(f"{name}: {value}")
    sci = read_collection(data / "scifact")
    scifact = Judged.of("scifact", sci.corpus, sci.queries, sci.qrels, None)
    return {
        "train": found,
        "test": shortened(judged["test"], quick),
        "dev": smaller(judged["dev"], 100, 200, SEED),
        "scifact": shortened(scifact, quick) if scifact_documents is None else part_of_scifact(scifact, scifact_documents),
    }


def shortened(judged: Any, quick: bool) -> Any:
    from colbert_vespa.training.measuring import smaller

    return smaller(judged, 60, 200, SEED) if quick else judged


def part_of_scifact(judged: Any, documents: int) -> Any:
    """All its queries and their documents, and others up to `documents`; under a name of its own."""
    from colbert_vespa.training.measuring import smaller

    return dataclasses.replace(smaller(judged, len(judged.queries), documents, SEED), name=f"scifact-{documents}")


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Kept:
    """Measured systems in a file, by collection and system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def measured(self, collection: Any, system: str, rankings: Callable[[], Mapping[str, Sequence[str]]]) -> Any:
        from colbert_vespa.training.measuring import Measured, measure
        from late_interaction.files import atomic_write

        key = f"{collection.name}/{system}"
        if key not in self._found:
            started = time.perf_counter()
            self._found[key] = dataclasses.asdict(measure(system, rankings(), collection))
            atomic_write(self._path, json.dumps(self._found).encode())
            ndcg = self._found[key]["means"]["ndcg_at_10"]
            say(f"{key}: nDCG@10 {ndcg:.4f} ({time.perf_counter() - started:.0f} s)")
        return Measured(**self._found[key])


class Timed:
    """Progress lines of a training, at most one in 20 seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._last, self._started = name, 0.0, time.perf_counter()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._last > 20 or done == total:
            self._last = now
            say(f"{self._name}: {what} {done}/{total}, {now - self._started:.0f} s")


def trained(name: str, work: Path, run: Callable[[Path, Timed], object]) -> tuple[Path, dict[str, float]]:
    """(checkpoint, minutes of clock and processor since the last start), once."""
    checkpoint, spent = work / name, work / f"{name}.minutes"
    if not (checkpoint.is_dir() and spent.is_file()):
        started, used = time.perf_counter(), time.process_time()
        run(checkpoint, Timed(name))
        minutes = {"clock": (time.perf_counter() - started) / 60, "processor": (time.process_time() - used) / 60}
        spent.write_text(json.dumps(minutes))
    return checkpoint, json.loads(spent.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--adapt", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}, an epoch nearly")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=96, help="tokens of a document while training")
    parser.add_argument("--precision", default="fp32", help="of training; figures are measured in fp32")
    parser.add_argument("--scifact-documents", type=int, help="so many of SciFact's, for less time")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--keep-start", type=float, default=0.3)
    options = parser.parse_args()
    if not (options.data / "medquad").is_dir():
        sys.exit(f"no collection medquad in {options.data}")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # half the processor's time where others use it too
    result = proof(options)
    show(result)
    if options.json:
        print(json.dumps(result))


def proof(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from colbert_vespa.training import HoldOut, MiningSettings, QualitySettings, TrainingSettings, adapt, train
    from colbert_vespa.training.measuring import compare, dense_rankings, keyword_rankings, model_rankings
    from exporter.hub import minilm_folder
    from exporter.layouts.scanning import scan_checkpoint
    from exporter.loading import load_checkpoint
    from exporter.plain import make_plain_checkpoint
    from late_interaction.bundle_cache import cache_folder

    torch.set_num_threads(options.threads)
    work = options.work or cache_folder() / "benchmarks" / ("train-quick" if options.quick else "train")
    work.mkdir(parents=True, exist_ok=True)
    data = collections(options.quick, options.data, options.scifact_documents)
    start = work / "start"
    if not start.is_dir():
        texts = data["train"].pool
        make_plain_checkpoint(
            scan_checkpoint(minilm_folder()), start, random.Random(SEED).sample(texts, min(SAMPLE, len(texts)))
        )
    kept = Kept(work / "measured.json")
    measured: dict[str, dict[str, Any]] = {"test": {}, "scifact": {}}

    def measure_all(system: str, rank: Callable[[Any], Mapping[str, Sequence[str]]], *, names: Sequence[str]) -> None:
        for name in names:
            judged = data[name]
            measured[name][system] = kept.measured(judged, system, lambda judged=judged: rank(judged))

    def of_model(folder: Path) -> Callable[[Any], Mapping[str, Sequence[str]]]:
        return lambda judged: model_rankings(load_checkpoint(scan_checkpoint(folder)).model, judged)

    measure_all("BM25", keyword_rankings, names=["test"])
    measure_all("start", of_model(start), names=["test"])
    measure_all("dense MiniLM", lambda judged: dense_rankings(minilm_folder(), judged), names=["test"])
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    settings = TrainingSettings(
        objective="contrastive", steps=steps, batch_size=options.batch, learning_rate=options.learning_rate,
        scale=options.scale, negatives=1, document_length=options.length, keep_start=options.keep_start,
        evaluate_every=max(1, steps // 2), seed=SEED, precision=options.precision,
        mining=MiningSettings(by=("bm25",), last_rank=20, seed=SEED),
    )  # fmt: skip
    hold_out = HoldOut(data["dev"], queries=100, documents=200)
    seen = dataclasses.replace(data["train"], examples=some_of(data["train"].examples, steps * options.batch))
    checkpoint, minutes = trained(
        "trained", work,
        lambda out, step: train(
            start, seen, out, settings, hold_out=hold_out, quality=QualitySettings(near=1.0), resume=True, progress=step
        ),  # near-duplicates are gone already
    )  # fmt: skip
    measure_all("trained", of_model(checkpoint), names=["test"])
    few = few_examples(data["train"].examples)
    few_shot, few_minutes = trained(
        "few-shot", work,
        lambda out, step: adapt(start, data["train"].documents, out, examples=few, resume=True, progress=step),
    )  # fmt: skip
    measure_all("few-shot", of_model(few_shot), names=["test"])
    for system, rank in (("start", of_model(start)), ("trained", of_model(checkpoint)), ("BM25", keyword_rankings)):
        measure_all(system, rank, names=["scifact"])
    measure_all("few-shot", of_model(few_shot), names=["scifact"])
    if options.adapt:
        unjudged = dataclasses.replace(settings, steps=min(steps, ADAPT_STEPS))
        adapted, _ = trained(
            "adapted", work,
            lambda out, step: adapt(start, data["train"].documents, out, settings=unjudged, resume=True, progress=step),
        )  # fmt: skip
        measure_all("adapted", of_model(adapted), names=["test", "scifact"])
    pairs = [("test", "trained", "start"), ("test", "trained", "BM25"), ("test", "trained", "dense MiniLM"),
             ("test", "few-shot", "start"), ("scifact", "trained", "start"), ("scifact", "few-shot", "start")]  # fmt: skip
    pairs += [("test", "adapted", "start"), ("scifact", "adapted", "start")] if options.adapt else []
    return {
        "steps": steps, "minutes": minutes, "few_shot_minutes": few_minutes, "threads": options.threads,
        "settings": settings.to_json(),
        "collections": {n: {"documents": len(data[n].documents), "queries": len(data[n].queries)} for n in measured},
        "systems": {name: {system: dict(m.means) for system, m in found.items()} for name, found in measured.items()},
        "differences": [
            {"collection": name, "system": one} | dataclasses.asdict(compare(measured[name][one], measured[name][two]))
            for name, one, two in pairs
        ],
    }  # fmt: skip


def some_of(examples: Sequence[Any], count: int) -> list[Any]:
    """As many as the steps see: negatives are not mined for the others."""
    return random.Random(SEED).sample(list(examples), min(count, len(examples)))


def few_examples(examples: Sequence[Any]) -> list[tuple[str, str]]:
    one_each = {example.query: example.positive for example in examples}
    return random.Random(SEED).sample(sorted(one_each.items()), min(FEW, len(one_each)))


def show(result: Mapping[str, Any]) -> None:
    print(
        f"{result['steps']} steps, {result['minutes']['clock']:.1f} minutes on {result['threads']} threads, "
        f"{result['minutes']['processor']:.1f} of the processor"
    )
    for name, systems in result["systems"].items():
        size = result["collections"][name]
        print(f"\n{name}: {size['queries']:,} queries, {size['documents']:,} documents")
        print("| | nDCG@10 | MRR@10 | recall@100 |\n|---|---|---|---|")
        for system, means in systems.items():
            print(f"| {system} | {means['ndcg_at_10']:.4f} | {means['mrr_at_10']:.4f} | {means['recall_at_100']:.4f} |")
    print("\n| | gain in nDCG@10 | 95 % | p (t-test, randomisation) |\n|---|---|---|---|")
    for d in result["differences"]:
        print(
            f"| {d['collection']}: {d['system']} over {d['against']} | {d['difference']:+.4f} | "
            f"{d['low']:+.4f} to {d['high']:+.4f} | {d['t_test']:.2g}, {d['randomisation']:.2g} |"
        )


if __name__ == "__main__":
    main()
