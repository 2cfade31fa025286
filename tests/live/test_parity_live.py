"""Parity of a real Vespa with the encoder and with the local engine."""

from __future__ import annotations

import json

import pytest

from late_interaction.maxsim import maxsim

pytestmark = pytest.mark.live


def asked(cli, world, tmp_path, *addresses, code=0):
    places = [word for address in addresses for word in ("--from", address)]
    done = cli(
        "parity", "--bundle", str(world.bundle.path), *places, "--collection", str(world.collection), "--sample", "5",
        "--query-sample", "10", "--junit", str(tmp_path / "r.xml"), "--json", code=code,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def test_vespa_and_the_local_index_agree_by_layers(cli, world, tmp_path):
    report = asked(cli, world, tmp_path, str(world.index), world.url)
    layers = [comparison["layer"] for comparison in report["comparisons"]]
    assert layers == [*2 * ["codec", "ranking", "candidates", "answers"], "addresses"]
    assert report["passed"], report["checks"]
    vespa = report["comparisons"][4:6]
    assert vespa[0]["codec"] == "bfloat16" and vespa[0]["measured"]["worst_cosine"] > 0.9999
    assert vespa[1]["measured"]["score_error"] < 0.01


def test_stored_vectors_score_as_vespa_does(world):
    query = world.encoder.encode_queries(["parse command line options"])[0]
    hits = world.vespa.search(query, 5, candidates="exhaustive").hits
    stored = world.vespa.vectors([hit.passage_id for hit in hits] + ["nobody#0"])
    assert list(stored) == [hit.passage_id for hit in hits]
    for hit in hits:
        assert maxsim(query, stored[hit.passage_id]) == pytest.approx(hit.score, abs=0.01)
