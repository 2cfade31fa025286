"""Indexes that earlier releases wrote (tests/golden/indexes), copied into an index of one part and of shards."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import queries_from, token_vectors

from feeder.copying import CopyOptions, copy_index
from late_interaction.plaid import open_index
from late_interaction.plaid.shards import Sharding

GOLDEN = Path(__file__).parents[1] / "golden/indexes"


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("name", ["float32", "int8"])
def test_an_index_of_an_earlier_format_is_copied_and_sharded(tmp_path, name, shards, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(GOLDEN / f"own-{name}.zip") as archive:
        archive.extractall(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    vectors = token_vectors(np.random.default_rng(3), 60, 8, 6)
    queries = queries_from(np.random.default_rng(4), vectors, 4)
    before = {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()}
    copied = copy_index(
        str(tmp_path / "index"), str(tmp_path / "copy"), CopyOptions(sharding=Sharding(shards) if shards else None)
    )
    assert copied.passages == 59
    assert {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()} == before
    index = open_index(tmp_path / "copy")
    for Q, wanted in zip(queries, results, strict=True):
        known = dict(wanted)
        for options in ({"exact": True}, {}):
            hits = index.search(Q, 10, **options).hits
            assert wanted[0][0] in [hit.passage.id for hit in hits[:3]]  # scores of two bits are near each other
            assert len({hit.passage.id for hit in hits} & set(known)) >= 7
            for hit in hits:
                assert hit.score == pytest.approx(known.get(hit.passage.id, hit.score), rel=0.06)
    index.verify()
    if shards:
        index.close()
