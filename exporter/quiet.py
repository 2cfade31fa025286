"""Silence third parties that print: torch's exporter, transformers' loading bars, onnxruntime's quantizer."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]

_ALONE = threading.RLock()  # the settings are process-wide: two threads would restore each other's


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let only errors of those libraries through, and restore their settings at the end.

    What they print below that level is for their developers.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars  # type: ignore[attr-defined]
    from transformers.utils import logging as transformers_logging

    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(), logging.getLogger("transformers")]
        levels = [logger.level for logger in loggers]
        bars, hub_silent = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()
            if hub_silent:
                disable_progress_bars()
