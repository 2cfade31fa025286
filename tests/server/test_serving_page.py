"""The examples of docs/how-to/serving.md run as they stand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_browser import PageServer
from serving import made

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serving.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```(?:\n```json\n(.*?)```)?", PAGE, re.S)


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_bundle):
    index = made(tmp_path_factory.mktemp("documented") / "animals", tiny_bundle)
    running = PageServer(index, timeout=60.0)
    yield running
    running.stop()


def within(wanted, found):
    """Whether all of `wanted` is in `found`; lists have the same first elements."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and within(value, found[name]) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) >= len(wanted) and all(map(within, wanted, found))
    return wanted == found


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run_and_answer_as_shown(server):
    assert len(BLOCKS) >= 10
    for commands, shown in BLOCKS:
        here = commands.replace("http://127.0.0.1:8000/", server.url).replace(
            "curl -sS", "curl -sS --fail-with-body --max-time 60"
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here], capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, (commands, done.stdout, done.stderr)
        if shown:
            assert within(json.loads(shown), json.loads(done.stdout)), (commands, done.stdout)
