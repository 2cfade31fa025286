"""RAGatouille's interface over the feeder, the query client and the exporter (docs/reference/ragatouille.md)."""

from colbert_vespa.rag.corpus import CorpusProcessor, sentence_splitter
from colbert_vespa.rag.model import RAGPretrainedModel
from colbert_vespa.training.rag_trainer import RAGTrainer

__all__ = ["CorpusProcessor", "RAGPretrainedModel", "RAGTrainer", "sentence_splitter"]
