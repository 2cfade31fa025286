"""What sentence-transformers makes of the hard strings. Run by golden.make_loaders in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import golden_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask


def load(folder: Path) -> golden_file.Encode:
    model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    mask = next(module for module in model if isinstance(module, MultiVectorMask))

    def encode(side: str, text: str) -> golden_file.Rows:
        features = model.preprocess([text], prompt=model.prompts.get(side) or None, task=side)
        ids, attention = features["input_ids"][0].numpy(), features["attention_mask"][0].numpy()
        keep = mask(dict(features), task=side)["attention_mask"][0].bool().numpy()
        vectors = (model.encode_query if side == "query" else model.encode_document)([text], convert_to_numpy=True)[0]
        return golden_file.Rows(ids, attention, keep, vectors)

    return encode


if __name__ == "__main__":
    golden_file.run("sentence_transformers", ("sentence-transformers", "transformers", "tokenizers", "torch"), load)
