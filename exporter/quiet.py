"""Third parties that print: torch's exporter, transformers' loading bars, onnxruntime's quantizer."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Only errors come through. What is said below that level concerns those libraries' developers."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    root = logging.getLogger()
    root_level = root.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(root_level)
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
        if bars is None:
            os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None)
        else:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = bars
