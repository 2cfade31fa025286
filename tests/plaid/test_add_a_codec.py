"""A codec of the local engine is a class and one line of CODECS: create, feed, search and reopening need no other change."""

from types import SimpleNamespace

import numpy as np
from plaid_tools import fake_bundle, passage, queries_from, token_vectors

from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.store.codecs import CODECS, CodecKind, Float32


class Halves:
    def encode(self, vectors, codes):
        return vectors.astype("<f2")

    def decode(self, codes, payload):
        return np.asarray(payload, np.float32)

    def score(self, query, passages, stored):
        wide = SimpleNamespace(offsets=stored.offsets, codes=stored.codes, payload=np.asarray(stored.payload, np.float32))
        return Float32().score(query, passages, wide)


def test_a_codec_is_one_line_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(CODECS, "halves", CodecKind(lambda codebook, thresholds: Halves(), lambda bits, dim: ("<f2", dim)))
    vectors = token_vectors(np.random.default_rng(0), 300)
    bundle = fake_bundle(tmp_path / "bundle")
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=MetadataSchema({}), codec="halves")
    with index.writer() as writer:
        for number, rows in enumerate(vectors):
            writer.put(passage(f"d{number}"), rows)
        writer.commit()
    index = LocalIndex.open(tmp_path / "i", verify=True)
    assert index.codec == "halves"
    halved = [rows.astype("<f2").astype(np.float32) for rows in vectors]
    np.testing.assert_array_equal(index.vectors("d7#0"), halved[7])
    for Q in queries_from(np.random.default_rng(1), vectors, 5):
        scores = np.array([maxsim(Q, rows) for rows in halved])
        hits = index.search(Q, 10, exact=True).hits
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], rtol=1e-5)
