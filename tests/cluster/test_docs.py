"""The code in docs/how-to/scaling.md."""

import functools
import re
from pathlib import Path

import pytest

import colbert_vespa.ray

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "scaling.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)


def test_code_is_python_and_its_names_are_there():
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        compile(block, "scaling.md", "exec")
        (names,) = re.findall(r"from colbert_vespa.ray import (.*)", block)
        assert all(hasattr(colbert_vespa.ray, name) for name in names.split(", "))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_feeding_and_encoding_run_as_written(cluster, vespa, describe, tiny_bundle, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    describe(vespa)
    (tmp_path / "documents").mkdir()
    ids = [f"d{n}" for n in range(30)]
    pq.write_table(
        pa.table({"id": ids, "title": ids, "text": ids, "year": list(range(30))}), tmp_path / "documents" / "a.parquet"
    )
    (tmp_path / "bundle").symlink_to(tiny_bundle.path)
    monkeypatch.chdir(tmp_path)
    vespa.faults["d3#0"] = [400]
    places = {
        "http://localhost:8080": vespa.url,
        '"documents/': f'"{tmp_path}/documents/',
        '"vectors/': f'"{tmp_path}/vectors/',
    }
    for block in BLOCKS[:2]:
        code = functools.reduce(lambda text, place: text.replace(*place), places.items(), block)
        exec(compile(code, "scaling.md", "exec"), {})
    assert {id_ for id_ in vespa.documents if id_ != "current"} == {f"d{n}#0" for n in range(30)}
