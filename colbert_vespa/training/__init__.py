"""Training on sentence-transformers' trainer and losses. Torch is imported by the first run, not by this package."""

from colbert_vespa.training.adapt import adapt, distill
from colbert_vespa.training.data import Example, TrainingData, examples_of
from colbert_vespa.training.mining import MiningSettings
from colbert_vespa.training.pipeline import HoldOut, Trained, train
from colbert_vespa.training.quality import DataReport, QualitySettings, clean
from colbert_vespa.training.rag_trainer import RAGTrainer
from colbert_vespa.training.reading import read_training_data
from colbert_vespa.training.report import TrainingReport
from colbert_vespa.training.settings import TrainingSettings
from colbert_vespa.training.synthetic import synthetic_examples

__all__ = [
    "DataReport",
    "Example",
    "HoldOut",
    "MiningSettings",
    "QualitySettings",
    "RAGTrainer",
    "Trained",
    "TrainingData",
    "TrainingReport",
    "TrainingSettings",
    "adapt",
    "clean",
    "distill",
    "examples_of",
    "read_training_data",
    "synthetic_examples",
    "train",
]
