"""How many cores there are is asked in one place, also on systems that cannot say which of them are ours."""

import os
from pathlib import Path

import late_interaction
from late_interaction.cores import cores


def test_a_system_that_does_not_say_which_cores_are_ours(monkeypatch):
    """macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_no_other_module_counts_cores():
    root = Path(late_interaction.__file__).parents[1]
    rooms = ("late_interaction", "feeder", "query", "exporter", "vespa_app", "colbert_vespa")
    asking = {path.name for room in rooms for path in (root / room).rglob("*.py") if "sched_getaffinity" in path.read_text()}
    assert asking == {"cores.py"}
