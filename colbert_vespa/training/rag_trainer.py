"""RAGatouille's `RAGTrainer`: its names, parameters and files.

It differs in three points: negatives respect the minimum rank, the corpus keeps its order, and sentence-transformers trains a
checkpoint that `export` accepts. In RAGatouille, `language_code` and `hard_negative_model_size` select a dense miner; here
negatives are mined by BM25, so both are checked and have no effect.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from colbert_vespa.training.data import Example, RawExample, TrainingData, examples_of
from colbert_vespa.training.mining import Bm25Ranker, MiningSettings, mine
from colbert_vespa.training.pipeline import train
from colbert_vespa.training.quality import QualitySettings
from colbert_vespa.training.settings import TrainingSettings
from late_interaction.addresses import as_path
from late_interaction.codebook import BITS
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import atomic_write

__all__ = ["RAGTrainer"]

QUERIES, CORPUS, TRIPLES = "queries.train.colbert.tsv", "corpus.train.colbert.tsv", "triples.train.colbert.jsonl"
SEED = 42
MOST_TRIPLETS = 20  # of a query with more than one positive
MINED_RANKS = 110  # the last rank that negatives are mined from
SIZES = ("small", "base", "large")
FOLDER = Path(".ragatouille/colbert/checkpoints")


class RAGTrainer:
    """Prepares training data and fine-tunes a checkpoint, or makes a ColBERT of a plain encoder."""

    def __init__(
        self, model_name: str, pretrained_model_name: str | Path, language_code: str = "en", n_usable_gpus: int = -1
    ) -> None:
        """Create a trainer.

        Args:
            model_name: Name of the new checkpoint.
            pretrained_model_name: Checkpoint or plain encoder to start from, folder or hub name.
            language_code: Accepted for compatibility, without effect.
            n_usable_gpus: -1 for all GPUs that sentence-transformers sees (CUDA_VISIBLE_DEVICES), 0 for none.

        Raises:
            UsageError: If the name of the checkpoint is empty.
        """
        as_path(pretrained_model_name, "pretrained_model_name")
        self.model_name = model_name
        self.pretrained_model_name = pretrained_model_name
        self.language_code = language_code
        self.n_usable_gpus = n_usable_gpus
        self.collection: list[str] = []
        self.data_dir: Path | None = None
        self._triplets: list[tuple[str, str, str]] = []

    def add_documents(self, documents: Sequence[str]) -> None:
        """Add texts to mine negatives from. Each text counts once, in the order of first occurrence."""
        self.collection = list(dict.fromkeys([*self.collection, *documents]))

    def prepare_training_data(
        self,
        raw_data: Sequence[RawExample],
        all_documents: Sequence[str] | None = None,
        data_out_path: str | Path = "./data/",
        num_new_negatives: int = 10,
        hard_negative_minimum_rank: int = 10,
        mine_hard_negatives: bool = True,
        hard_negative_model_size: str = "small",
        pairs_with_labels: bool = False,
        positive_label: int = 1,
        negative_label: int = 0,
    ) -> str:
        """Write queries, corpus and triplets to `data_out_path` and return it.

        Args:
            raw_data: Tuples (query, passage), (query, positive(s), negative(s)), or, with `pairs_with_labels`, (query, passage,
                label).
            all_documents: Further texts to mine negatives from.
            data_out_path: Folder to write to.
            num_new_negatives: Negatives to mine for each query.
            hard_negative_minimum_rank: Best rank of a mined negative.
            mine_hard_negatives: Whether negatives are mined.
            hard_negative_model_size: Checked, without further effect.
            pairs_with_labels: Whether the tuples have labels.
            positive_label: Label of a positive.
            negative_label: Label of a negative.

        Raises:
            CollectionError: If the data have another form, or no negative can be found.
            UsageError: If an argument is not valid.
        """
        if hard_negative_model_size not in SIZES:
            raise UsageError(f"hard_negative_model_size must be one of {', '.join(SIZES)}, got {hard_negative_model_size!r}")
        examples = examples_of(
            raw_data, labelled=pairs_with_labels, positive_label=positive_label, negative_label=negative_label
        )
        if not examples:
            raise CollectionError("no training example has a positive passage")
        self.add_documents(all_documents or ())
        self.add_documents([text for example in examples for text in example.documents])
        if not mine_hard_negatives and not any(example.negatives for example in examples):
            raise CollectionError("the examples have no negatives; give some, or let mine_hard_negatives find them")
        if mine_hard_negatives:
            examples = self._mined(examples, num_new_negatives, hard_negative_minimum_rank)
        self._triplets = triplets_of(examples)
        if not self._triplets:
            raise CollectionError("no query has a negative; give more documents, or a lower hard_negative_minimum_rank")
        self.data_dir = Path(data_out_path)
        self.export_training_data(self.data_dir)
        return str(data_out_path)

    def _mined(self, examples: Sequence[Example], count: int, minimum_rank: int) -> list[Example]:
        """Add `count` mined negatives to each query's own, none with a better rank than the minimum."""
        first = max(1, minimum_rank)
        settings = MiningSettings(by=("bm25",), first_rank=first, last_rank=max(first, MINED_RANKS), seed=SEED)
        data = TrainingData(examples, self.collection)
        return mine(data, [Bm25Ranker(data.pool)], settings, count, further=True)

    def export_training_data(self, path: str | Path) -> None:
        """Write queries.train.colbert.tsv, corpus.train.colbert.tsv and triples.train.colbert.jsonl, as colbert-ai reads them.

        Raises:
            UsageError: If nothing was prepared.
        """
        triplets = self._prepared()
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        queries = {query: n for n, query in enumerate(dict.fromkeys(triplet[0] for triplet in triplets))}
        corpus = {text: n for n, text in enumerate(self.collection)}
        atomic_write(folder / QUERIES, "".join(f"{n}\t{_line(query)}\n" for query, n in queries.items()).encode())
        atomic_write(folder / CORPUS, "".join(f"{n}\t{_line(text)}\n" for text, n in corpus.items()).encode())
        numbers = ([queries[query], corpus[positive], corpus[negative]] for query, positive, negative in triplets)
        atomic_write(folder / TRIPLES, "".join(json.dumps(line) + "\n" for line in numbers).encode())

    def train(
        self,
        batch_size: int = 32,
        nbits: int = 2,
        maxsteps: int = 500_000,
        use_ib_negatives: bool = True,
        learning_rate: float = 5e-6,
        dim: int = 128,
        doc_maxlen: int = 256,
        use_relu: bool = False,
        warmup_steps: int | str = "auto",
        accumsteps: int = 1,
    ) -> str:
        """Train once through the triplets, for at most `maxsteps` steps.

        Args:
            batch_size: Triplets of a batch.
            nbits: Checked here, but used only by `index`.
            maxsteps: Steps, at most.
            use_ib_negatives: Also compare with the documents of the other queries of the batch.
            learning_rate: Learning rate.
            dim: Dimensions of the projection that a plain encoder gets.
            doc_maxlen: Tokens of a document.
            use_relu: Not supported.
            warmup_steps: Steps of the warm-up; "auto" for a tenth of the steps.
            accumsteps: Batches of one step.

        Returns:
            The folder of the checkpoint, .ragatouille/colbert/checkpoints/NAME.

        Raises:
            UsageError: If nothing was prepared, or an option is not supported by checkpoints.
            ColbertVespaError: As for `colbert_vespa.training.train`.
        """
        triplets = self._prepared()
        if use_relu:
            raise UsageError("use_relu would add an activation after the projection, which ColBERT checkpoints do not have")
        if nbits not in BITS:
            raise UsageError(f"nbits must be one of {', '.join(map(str, BITS))}, got {nbits}")
        steps = min(maxsteps, max(1, len(triplets) // (batch_size * accumsteps)))
        warmup = 0.1 if warmup_steps == "auto" else min(int(warmup_steps), steps - 1) / steps
        settings = TrainingSettings(
            objective="contrastive" if use_ib_negatives else "n-way", batch_size=batch_size, accumulate=accumsteps, steps=steps,
            learning_rate=learning_rate, document_length=doc_maxlen, warmup=warmup, negatives=1, frozen=False, seed=SEED,
        )  # fmt: skip
        examples = [Example(query, positive, (negative,)) for query, positive, negative in triplets]
        output = FOLDER / self.model_name
        keep_all = QualitySettings(near=1.0, keep_duplicates=True)
        done = train(
            self.pretrained_model_name, TrainingData(examples, self.collection), output, settings, quality=keep_all, dim=dim
        )
        return str(done.checkpoint)

    def _prepared(self) -> list[tuple[str, str, str]]:
        if not self._triplets:
            raise UsageError("there is no training data yet; call prepare_training_data first")
        return self._triplets


def triplets_of(examples: Sequence[Example]) -> list[tuple[str, str, str]]:
    """Return shuffled triplets (query, positive, negative).

    A query with one positive gets all its negatives, other queries at most 20 triplets.
    """
    draw = random.Random(SEED)
    by_query: dict[str, list[Example]] = {}
    for example in examples:
        by_query.setdefault(example.query, []).append(example)
    triplets = []
    for query, group in by_query.items():
        each = max(1, MOST_TRIPLETS // len(group))
        for example in group[:MOST_TRIPLETS]:
            count = len(example.negatives) if len(group) == 1 else min(each, len(example.negatives))
            triplets += [(query, example.positive, negative) for negative in draw.sample(example.negatives, count)]
    draw.shuffle(triplets)
    return triplets


def _line(text: str) -> str:
    return " ".join(text.split())
