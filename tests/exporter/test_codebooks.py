"""The codebook of a bundle, as `export --bits --centroids` asks for it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from vespa_bundles import small_bundle

from exporter import codebooks
from exporter.codebooks import add_codebook
from exporter.options import ExportOptions
from late_interaction.bundle import Pooling, write_manifest
from late_interaction.codebook_training import default_centroids, train_codebook
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.writing.training import bundle_codebook
from vespa_app.codecs import bundle_codebooks, residual
from vespa_app.codecs import codebooks as residual_codebooks
from vespa_app.package import build_package, default_settings

TEXT = "world " * 17  # 20 rows, with marker and ends


def encoder(dim=16):
    """Unit rows, of a sample that is the same each time."""
    random = np.random.default_rng(0)

    def encode(texts, tokens):
        found = [random.standard_normal((int(own.keep.sum()), dim)).astype(np.float32) for own in tokens]
        return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in found]

    return SimpleNamespace(encode_documents=encode)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits_and_centroids_are_those_asked_for(tmp_path, bits):
    """Formerly always four bits."""
    bundle = add_codebook(small_bundle(tmp_path / "bundle"), [TEXT] * 60, encoder(), bits=bits, centroids=32)
    book = bundle_codebooks(bundle).codebook
    assert (book.bits, len(book.centroids)) == (bits, 32)
    settings = default_settings(bundle, MetadataSchema({}), codec="residual")
    assert settings.residual_bits == bits
    files = build_package(bundle, settings).files
    assert sum("residual_" in name for name in files) == 2**bits - 1


def test_never_more_centroids_than_the_sample_bears(tmp_path):
    bundle = add_codebook(small_bundle(tmp_path / "bundle"), [TEXT] * 60, encoder(), centroids=1000)
    assert len(bundle_codebooks(bundle).codebook.centroids) == (1200 - 60) // 8


@pytest.mark.parametrize("pooling", [None, Pooling(2)])
def test_the_codebook_is_trained_by_the_ids_of_the_rows(tmp_path, monkeypatch, pooling):
    given = []

    def training(sample, *, token_ids, **options):
        given.append((len(sample), token_ids))
        return train_codebook(sample, token_ids=token_ids, **options)

    monkeypatch.setattr(codebooks, "train_codebook", training)
    bundle = small_bundle(tmp_path / "bundle")
    bundle = write_manifest(bundle.path, dataclasses.replace(bundle.manifest, pooling=pooling))
    add_codebook(bundle, [TEXT, "hello world", "world"], encoder(), centroids=2)
    [(rows, ids)] = given
    assert rows == 20 + 4 + 4
    if pooling:
        assert ids is None
    else:  # ends 4 and 5, marker 2, world 8; hello (7) is skipped
        assert sorted(ids.tolist()) == sorted([4, 2, 5] * 3 + [8] * 19)


def test_a_codebook_too_large_for_constants_gets_a_smaller_one_for_residual(tmp_path, monkeypatch):
    """Candidates have the large one; codec residual and its constants the small one; an index of this machine the large one."""
    assert (codebooks.SMALL_CODEBOOK, codebooks.MOST_CONSTANTS) == (residual_codebooks.SMALL_CODEBOOK, residual.MOST_CONSTANTS)
    monkeypatch.setattr(codebooks, "MOST_CONSTANTS", 16)
    bundle = add_codebook(small_bundle(tmp_path / "bundle"), [TEXT] * 60, encoder(), centroids=64)
    assert sorted(bundle.manifest.codebooks) == ["residual", "residual-small"]
    books = bundle_codebooks(bundle)
    assert (books.codebook.size, books.residual.size, bundle_codebook(bundle).size) == (64, 16, 64)
    files = build_package(bundle, default_settings(bundle, MetadataSchema({}), codec="residual")).files
    [vectors] = [content for name, content in files.items() if name.endswith("centroid_vectors.tbf")]
    assert 16 * 16 * 4 < len(vectors) < 17 * (16 * 4 + 4)
    again = add_codebook(bundle, [TEXT] * 60, encoder(), centroids=16)
    assert sorted(again.manifest.codebooks) == ["residual"]
    assert bundle_codebooks(again).residual is bundle_codebooks(again).codebook


@pytest.mark.parametrize("documents", [10, 1e4, 1e9])
def test_the_number_of_documents_sets_the_size(tmp_path, monkeypatch, documents):
    asked = []

    def training(sample, *, centroids, **options):
        asked.append(centroids)
        return train_codebook(sample, centroids=centroids, **options)

    monkeypatch.setattr(codebooks, "train_codebook", training)
    add_codebook(small_bundle(tmp_path / "bundle"), [TEXT] * 60, encoder(), documents=documents)
    assert asked == [default_centroids(int(20 * documents))]


def test_more_centroids_take_a_larger_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(codebooks, "CODEBOOK_ROWS", 5_000)
    monkeypatch.setattr(codebooks, "HELD_OUT", 0)
    monkeypatch.setattr(codebooks, "train_codebook", lambda sample, **options: train_codebook(sample, centroids=1))
    for centroids, documents in ((None, 256), (600, 256), (1_000, 512), (10**6, 600)):
        seen = []
        add_codebook(
            small_bundle(tmp_path / str(centroids)), [TEXT] * 600, encoder(), centroids=centroids,
            progress=lambda done, total, seen=seen: seen.append(done),
        )  # fmt: skip
        assert seen[-1] == documents


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "--bits must be 1, 2 or 4, got 3"),
        ({"bits": 0}, "--bits must be 1, 2 or 4, got 0"),
        ({"centroids": 0}, "--centroids must be from 1 to 4,194,304, got 0"),
        ({"centroids": 1 << 23}, "--centroids must be from 1 to"),
        ({"documents": 0.5}, "--documents must be from 1 to .*, got 0.5"),
        ({"documents": float("nan")}, "--documents must be from 1 to"),
    ],
)
def test_what_no_codebook_can_have(options, message):
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options)


def test_the_command_takes_bits_with_a_sample_alone(cli, tmp_path):
    for options in (("--bits", "2"), ("--centroids", "9"), ("--documents", "1e6")):
        failed = cli("export", "somewhere", "-o", str(tmp_path / "b"), *options, code=2)
        assert "which --sample trains" in " ".join(failed.stderr.split())
    assert "--bits must be 1, 2 or 4" in cli("export", "x", "-o", str(tmp_path / "b"), "--bits", "3", code=2).stderr
