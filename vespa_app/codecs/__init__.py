"""How token vectors are stored in Vespa: one codec per file, one line per codec in the table."""

from __future__ import annotations

from vespa_app.codecs.base import VECTORS, Packed, TensorCodec, Values
from vespa_app.codecs.bfloat16 import BFloat16Tensors
from vespa_app.codecs.binary import BinaryTensors
from vespa_app.codecs.codebooks import (
    NO_CODEBOOKS,
    Codebooks,
    bundle_codebooks,
    codebook_sha256,
)
from vespa_app.codecs.float32 import Float32Tensors
from vespa_app.codecs.residual import ResidualTensors

__all__ = [
    "CODECS",
    "NO_CODEBOOKS",
    "VECTORS",
    "Codebooks",
    "Packed",
    "TensorCodec",
    "Values",
    "bundle_codebooks",
    "codebook_sha256",
]

CODECS: dict[str, TensorCodec] = {
    codec.name: codec
    for codec in (
        Float32Tensors(),
        BFloat16Tensors(),
        BinaryTensors(),
        ResidualTensors(),
    )
}
