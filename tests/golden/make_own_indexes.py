"""Writes `own-NAME.zip` in tests/golden/indexes: a small index of this engine, and what a search in it gives. Formats that were
written once must open for good, so that a new format gets a new name and the old files stay:

    cd tests && python -m golden.make_own_indexes float32   codebook of float32 centroids; written by the code of dc0bf86
    cd tests && python -m golden.make_own_indexes int8      of int8 centroids in groups, with the vocabulary ids they are of
    cd tests && python -m golden.make_own_indexes dense     with dense vectors (format version 5)
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from plaid_tools import DENSE, dense_of, fake_bundle, passage, queries_from, token_vectors

from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex

INDEXES = Path(__file__).resolve().parent / "indexes"
DIM, PASSAGES = 8, 60


def grouped_codebook():
    from late_interaction.codebook_training import train_codebook

    random = np.random.default_rng(3)
    ids = random.integers(40, size=20_000).astype(np.int32)
    words = random.standard_normal((40, DIM))
    rows = words[ids] + random.standard_normal((len(ids), DIM))
    sample = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return train_codebook(sample, centroids=2_200, token_ids=ids, bits=2)


def make(name: str, root: Path) -> None:
    vectors = token_vectors(np.random.default_rng(3), PASSAGES, DIM, 6)
    codebook = grouped_codebook() if name == "int8" else None
    bundle = fake_bundle(root / "bundle", DIM, codebook, DENSE if name == "dense" else None)
    index = LocalIndex.create(
        root / "index", bundle=bundle, schema=MetadataSchema({"n": FieldType.LONG}), bits=2, codec="residual"
    )
    with index.writer() as writer:
        for first in (0, PASSAGES // 2):
            for number in range(first, first + PASSAGES // 2):
                writer.put(passage(f"d{number}", n=number), vectors[number], dense=dense_of(index, number))
            writer.commit()
        writer.delete_document("d7")
        writer.commit()
    queries = queries_from(np.random.default_rng(4), vectors, 4)
    found = [[(hit.passage.id, round(hit.score, 4)) for hit in index.search(Q, 10, exact=True).hits] for Q in queries]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in (root / "index").rglob("*") if path.is_file()):
            archive.writestr(f"index/{file.relative_to(root / 'index')}", file.read_bytes())
        archive.writestr("results.json", json.dumps(found))
    (INDEXES / f"own-{name}.zip").write_bytes(target.getvalue())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(sys.argv[1], Path(folder))
