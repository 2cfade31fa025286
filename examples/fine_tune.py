"""A checkpoint fine-tuned on pairs, and whether it became better: python examples/fine_tune.py PAIRS CHECKPOINT OUTPUT

PAIRS is JSONL: {"query": "...", "positive": "..."} on each line. CHECKPOINT is a folder, a hub name or `minilm`. OUTPUT gets
the trained checkpoint, which `colbert-vespa export` takes. A tenth of the queries is held out and compared before and after.
Needs pip install 'colbert-vespa[train]'.
"""

import sys
from pathlib import Path

from colbert_vespa.training import HoldOut, MiningSettings, Trained, TrainingSettings, read_training_data, train

SETTINGS = TrainingSettings(
    objective="contrastive",  # against the passages of the batch's other queries
    epochs=1,
    batch_size=32,
    negatives=1,  # a hard one for each query, mined by BM25 below the positives
    mining=MiningSettings(by=("bm25",), first_rank=5),
    keep_start=0.5,  # half of the start's weights: guards what the checkpoint knew
)


def fine_tune(
    pairs: Path, checkpoint: str, output: Path, settings: TrainingSettings = SETTINGS, share: float = 0.1, dim: int = 128
) -> Trained:
    """share: of the queries that are held out. dim: of the projection that a plain encoder gets."""
    return train(checkpoint, read_training_data(pairs), output, settings, hold_out=HoldOut(share=share), dim=dim)


def compare(trained: Trained) -> list[str]:
    """A line for each metric: before, after, and whether the difference is more than chance."""
    assert trained.report is not None  # queries were held out
    return [f"{name:14} {value}" for name, value in trained.report.rows().items()]


if __name__ == "__main__":
    data, start, target = sys.argv[1:]
    done = fine_tune(Path(data), start, Path(target))
    print("\n".join(compare(done)))
    print("checkpoint:", done.checkpoint)
