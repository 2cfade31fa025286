"""A BEIR folder measured beside BM25: python examples/evaluate_beir.py FOLDER BUNDLE INDEX

FOLDER has corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR's archives do. INDEX is made if it is new.
"""

import sys
from pathlib import Path

from colbert_vespa import Bundle, Client, FeedOptions, feed
from colbert_vespa.evaluation.evaluating import Evaluation, Judged, evaluate
from late_interaction.encoder import Encoder


def measure(folder: Path, bundle: Bundle, index: Path) -> Evaluation:
    """Quality against the judgements, recall against exact MaxSim, latency. What the index has already is not encoded again."""
    judged = Judged.read(folder)
    feed(judged.documents, FeedOptions(index, index.with_suffix(".journal"), bundle))
    with Client(index) as client:
        return evaluate(client, judged, Encoder(bundle))


def table(measured: Evaluation) -> list[str]:
    """A line for each metric and baseline; p: how likely chance alone makes such a difference."""
    lines = [f"{measured.collection}: {measured.passages} passages, {measured.queries} queries"]
    for metric, ours in measured.measured.items():
        for name, values in measured.baselines.items():
            chance = measured.differences[name][metric].randomisation
            p = "-" if chance is None else f"{chance:.3f}"
            lines.append(f"{metric:14} {ours:.3f}   {name} {values[metric]:.3f}   p {p}")
    lines.append(f"recall@10 against exact MaxSim {measured.recall_at_10:.3f}, p50 {measured.latency_ms['p50']:.1f} ms")
    return lines


if __name__ == "__main__":
    beir, model, target = sys.argv[1:]
    print("\n".join(table(measure(Path(beir), Bundle.open(model), Path(target)))))
