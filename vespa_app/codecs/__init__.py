"""How token vectors are stored in Vespa: one codec per file, one line per codec in the table."""

from __future__ import annotations

from vespa_app.codecs.base import NO_BOOKS, VECTORS, Books, Codec, Values
from vespa_app.codecs.bfloat16 import BFloat16
from vespa_app.codecs.binary import Binary
from vespa_app.codecs.float32 import Float32
from vespa_app.codecs.residual import Residual

__all__ = ["CODECS", "NO_BOOKS", "VECTORS", "Books", "Codec", "Values"]

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16(), Binary(), Residual())}
