"""Vectors that were made elsewhere, at the command line: a bundle without a model, a feed, a search by rows."""

import json
import re

import numpy as np
import pytest
from ready import unit_rows

from colbert_vespa.cli.commands import main
from late_interaction.bundle import Bundle


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return go


def test_from_vectors_to_hits(run):
    pages = {f"page-{n}": unit_rows(40, n) for n in range(60)}
    np.savez("pages.npz", **pages)
    code, out, _ = run("bundle", "--dim", "16", "--sample-vectors", "pages.npz", "--rows", "64", "-o", "bundle", "--json")
    assert code == 0
    made = json.loads(out.splitlines()[-1])
    assert (made["dim"], "residual" in made["codebooks"]) == (16, True)
    manifest = Bundle.open("bundle").manifest
    assert (manifest.models, manifest.document.length, manifest.normalized) == ({}, 64, True)
    code, _, err = run("feed", "pages.npz", "--bundle", "bundle", "--to", "index")
    assert code == 0, err
    np.savez("query.npz", q=pages["page-7"][:5])
    code, out, _ = run("search", "--vectors", "query.npz", "--from", "index", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["hits"][0]["id"] == "page-7"
    code, out, _ = run("search", "--vectors", "query.npz", "--from", "index", "--explain")
    assert code == 0 and re.search(r"query rows: 0\.9\d+(, [01]\.\d+){4}\n", out), out
    assert "query word" not in out
    code, _, err = run("search", "words", "--from", "index")
    assert code == 2 and "has no model to encode it" in err
    code, _, err = run("search", "--from", "index")
    assert code == 2 and "--vectors FILE" in err
    code, _, err = run("search", "--vectors", "pages.npz", "--from", "index")
    assert code == 2 and "must contain the rows of exactly one query" in err


def test_what_a_bundle_cannot_be(run):
    np.savez("pages.npz", a=unit_rows(4, dim=8))
    for options, code, message in (
        (("--dim", "5000"), 2, "--dim"),
        (("--dim", "16", "--bits", "2"), 2, "--sample-vectors"),
        (("--dim", "16", "--raw", "--sample-vectors", "pages.npz"), 2, "normalised rows"),
        (("--dim", "16", "--sample-vectors", "pages.npz"), 1, "got [4, 8]"),
    ):
        ended, _, err = run("bundle", *options, "-o", "bundle")
        assert (ended, message in err) == (code, True), err
    assert run("bundle", "--dim", "16", "--raw", "-o", "bundle")[0] == 0
    assert not Bundle.open("bundle").manifest.normalized
