"""What `quiet` changes in the process is as it was before."""

from __future__ import annotations

import logging
import os
import warnings

import pytest

pytest.importorskip("transformers")
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging as transformers_logging

from exporter.quiet import quiet


def state():
    levels = logging.getLogger().level, logging.getLogger("transformers").level
    bars = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    return levels, bars, list(warnings.filters), dict(os.environ)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.WARNING])
@pytest.mark.parametrize("bars", [True, False])
def test_levels_and_bars_are_restored(level, bars, monkeypatch):
    root, own = logging.getLogger(), logging.getLogger("transformers")
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(own, "level", own.level)
    root.setLevel(level)
    own.setLevel(level)
    was = transformers_logging.is_progress_bar_enabled()
    (transformers_logging.enable_progress_bar if bars else transformers_logging.disable_progress_bar)()
    try:
        before = state()
        with quiet(), quiet():
            assert root.level == logging.ERROR
            assert not transformers_logging.is_progress_bar_enabled()
        assert state() == before
        with pytest.raises(RuntimeError), quiet():
            raise RuntimeError
        assert state() == before
    finally:
        (transformers_logging.enable_progress_bar if was else transformers_logging.disable_progress_bar)()
