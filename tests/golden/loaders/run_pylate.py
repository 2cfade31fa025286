"""What PyLate makes of the hard strings. Run by golden.make_loaders in PyLate's own environment."""

from __future__ import annotations

from pathlib import Path

import golden_file
from pylate import models


def load(folder: Path) -> golden_file.Encode:
    # PyLate would put new random projections and markers on an encoder that it does not know
    if not (folder / "modules.json").exists() and not (folder / "artifact.metadata").exists() and "bare" not in folder.name:
        raise ValueError("no PyLate or Stanford checkpoint")
    model = models.ColBERT(str(folder), device="cpu", local_files_only=True)
    prompts = {side: side for side in golden_file.SIDES if model.prompts.get(side)}

    def encode(side: str, text: str) -> golden_file.Rows:
        # one text in a list: a bare string would do, but lists are what its own retrievers pass
        found = model.encode(
            [text], is_query=side == "query", prompt_name=prompts.get(side), output_value=None, show_progress_bar=False
        )
        ids, attention, keep = (found[name][0].astype(int) for name in ("input_ids", "attention_mask", "masks"))
        return golden_file.Rows(ids, attention, keep.astype(bool), found["token_embeddings"][0][keep.astype(bool)])

    return encode


if __name__ == "__main__":
    golden_file.run("pylate", ("pylate", "sentence-transformers", "transformers", "tokenizers", "torch"), load)
