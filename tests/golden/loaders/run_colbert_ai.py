"""What colbert-ai makes of the hard strings. Run by golden.make_loaders in colbert-ai's own environment."""

from __future__ import annotations

import json
from pathlib import Path

import golden_file
import torch
from colbert.infra import ColBERTConfig
from colbert.modeling.checkpoint import Checkpoint
from colbert.modeling.colbert import ColBERT

# the C++ extension that would be compiled here scores packed documents; encoding does not use it
ColBERT.loaded_extensions = True


def load(folder: Path) -> golden_file.Encode:
    metadata = folder / "artifact.metadata"
    if json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"] != ["HF_ColBERT"]:
        raise ValueError("no HF_ColBERT checkpoint")
    # without artifact.metadata nothing but the caller can say where the tokenizer is and what `dim` the weights have
    config = ColBERTConfig() if metadata.exists() else ColBERTConfig(checkpoint=str(folder), dim=8)
    model = Checkpoint(str(folder), colbert_config=config, verbose=0)
    if not model.colbert_config.mask_punctuation:
        model.skiplist = {}  # colbert-ai reads it without having set it (AttributeError): no word is skipped

    def encode(side: str, text: str) -> golden_file.Rows:
        if side == "query":
            ids, attention = model.query_tokenizer.tensorize([text])
            vectors = model.query(ids, attention)[0]
            keep = torch.tensor(model.mask(ids, skiplist=[])[0])
        else:
            ids, attention = model.doc_tokenizer.tensorize([text])
            vectors, mask = model.doc(ids, attention, keep_dims="return_mask")
            vectors, keep = vectors[0], mask[0].squeeze(-1)
        kept = vectors[keep].float().numpy()
        return golden_file.Rows(ids[0].numpy(), attention[0].numpy(), keep.numpy(), kept)

    return encode


if __name__ == "__main__":
    golden_file.run("colbert_ai", ("colbert-ai", "transformers", "tokenizers", "torch"), load)
