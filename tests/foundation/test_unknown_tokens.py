"""Which token stands for what a vocabulary lacks, in the three kinds of tokenizers that bundles have."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from late_interaction.bundle import Manifest, SideRules, write_manifest
from late_interaction.tokenizing import Tokenizing

WORDS = {"[PAD]": 0, "[UNK]": 1, "known": 2}
KINDS = {
    "WordPiece": (models.WordPiece(WORDS, unk_token="[UNK]"), 1),
    "Unigram": (models.Unigram([("<pad>", 0.0), ("known", -1.0), ("<unk>", -2.0)], unk_id=2), 2),
    "BPE": (models.BPE(WORDS, [], unk_token="[UNK]"), 1),
    "BPE of bytes": (models.BPE({"a": 0}, []), -1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_unknown_token(tmp_path, kind):
    model, wanted = KINDS[kind]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "model.onnx").write_bytes(b"no model")
    side = SideRules(length=32)
    manifest = Manifest(
        source="test", layout="test", dim=4, query=side, document=side, pad_id=0, max_tokens=64, models={"fp32": "model.onnx"}
    )
    tokenizing = Tokenizing(write_manifest(tmp_path, manifest))
    assert tokenizing.unknown_id == wanted
    if wanted >= 0:
        assert wanted in tokenizing.documents(["ж"])[0].ids
