"""Files changed at random (fuzzing.py): a clear error or what is in them, never a crash, hang or much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory that counts is Linux's")
TESTS = Path(__file__).resolve().parents[1]
MANY = int(os.environ.get("COLBERT_VESPA_FUZZ", "500"))  # `make fuzz` asks for 10,000
SOME = ["torch-pickle", "npy", "npz", "ids", "metadata-db", "bundle", "part"]
KINDS = [
    "array", "backup", "bundle", "codebook", "codebook-heads", "codebook-owners", "codebook-starts", "codebook-unit",
    "colbert-ai", "fast-plaid", "ids", "ids-db", "intent", "journal", "metadata-db", "npy", "npz", "part", "pending",
    "progress", "safetensors", "shards", "texts", "texts-json", "thresholds", "torch", "torch-pickle", "vectors-npz",
    "vectors-safetensors", "version",
]  # fmt: skip


def fuzz(folder: Path, kind: str, count: int) -> None:
    """In a process of its own, so that a segmentation fault is a failed test."""
    command = [sys.executable, "-X", "faulthandler", str(TESTS / "fuzzing.py"), str(folder), kind, str(count)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=TESTS.parent, timeout=3000)
    assert done.returncode == 0, f"{kind}: ended with {done.returncode}\n{done.stderr[-3000:]}"
    assert json.loads(done.stdout.splitlines()[-1])["files"] == count


@pytest.mark.parametrize("kind", SOME)
def test_some_changed_files(kind: str, tmp_path: Path) -> None:
    fuzz(tmp_path, kind, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_files(kind: str, tmp_path: Path) -> None:
    fuzz(tmp_path, kind, MANY)
