"""What `import colbert_vespa` promises."""

import subprocess
import sys

import colbert_vespa


def test_the_promised_names():
    assert colbert_vespa.__all__ == sorted(colbert_vespa.__all__)
    assert set(colbert_vespa.__all__) == {
        "AppSettings", "AsyncClient", "Bundle", "Client", "ClientSettings", "ColbertVespaError", "Document",
        "FeedOptions", "FeedSummary",
        "Hit", "QueryVectors", "RAGPretrainedModel", "RAGTrainer", "SearchResult", "build_package", "default_settings",
        "deploy", "explain", "feed",
    }  # fmt: skip
    assert all(hasattr(colbert_vespa, name) for name in colbert_vespa.__all__)


def test_importing_it_imports_neither_torch_nor_a_framework():
    heavy = {"torch", "transformers", "sentence_transformers", "vespa", "langchain_core", "llama_index", "mcp", "haystack"}
    code = f"import sys, colbert_vespa; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
