"""How token vectors are stored in Vespa: one codec per file, one line per codec in the table."""

from __future__ import annotations

from vespa_app.codecs.base import VECTORS, Codec, Codes, Packed, Values
from vespa_app.codecs.bfloat16 import BFloat16
from vespa_app.codecs.binary import Binary
from vespa_app.codecs.codebooks import CODEBOOK, NO_CODEBOOKS, Codebooks, bundle_codebooks, codebook_sha256
from vespa_app.codecs.float32 import Float32
from vespa_app.codecs.residual import Residual

__all__ = [
    "CODEBOOK",
    "CODECS",
    "NO_CODEBOOKS",
    "VECTORS",
    "Codebooks",
    "Codec",
    "Codes",
    "Packed",
    "Values",
    "bundle_codebooks",
    "codebook_sha256",
]

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16(), Binary(), Residual())}
