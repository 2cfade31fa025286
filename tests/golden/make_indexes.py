"""Writes tests/golden/indexes: small indexes made by colbert-ai's and fast-plaid's own code, and what these read from them.
A peer needs an environment of its own; those of the benchmarks will do (else `uv venv` and `uv pip install colbert-ai==0.2.22
transformers==4.49 faiss-cpu torch`, or `fast-plaid==1.4.6.2110 torch==2.11`):

    cd tests && ../.cache/benchmarks/peers-colbert-ai/bin/python -m golden.make_indexes colbert-ai
    cd tests && ../.cache/benchmarks/peers-fast-plaid/bin/python -m golden.make_indexes fast-plaid

Beside every index: `NAME.decoded.npy`, its vectors as the peer decompresses them, in its order; `NAME.results.json`, for each
of queries.npy the peer's own ranking with all passages scored. The peers' k-means may differ from machine to machine, so that
a second run writes other files; both are right.

    colbert-ai-1, -4   one chunk, 1 and 4 bits
    ragatouille-2      two chunks, 2 bits, two passages removed by colbert-ai's IndexUpdater, and the three files that
                       RAGatouille 0.0.9 adds, as its `_write_collection_files_to_disk` writes them
    fast-plaid-1       two chunks, 1 bit
    fast-plaid-2       2 bits, metadata.db
    fast-plaid-4       4 bits; made of 30 documents, 10 added by `update` (with new centroids), 3 deleted
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np

INDEXES = Path(__file__).resolve().parent / "indexes"
PASSAGES, DIM, ROWS, QUERIES = 40, 32, 12, 8
CENTROIDS = 32  # fewer than the peers would take, so that residuals are large
REMOVED = (7, 30)
CHUNK = 25
DERIVED = ("embeddings.npy", "buffer.npy", "merged_*", "plaid.lock")  # of no use for reading; the first two are pickled


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def collection():
    """40 passages of 3 to 12 unit rows around 60 words, and 8 queries of 6 rows."""
    generator = np.random.default_rng(5)
    words = unit(generator.standard_normal((60, DIM)))
    found = []
    for _ in range(PASSAGES):
        chosen = generator.integers(60, size=generator.integers(3, ROWS + 1))
        found.append(unit(words[chosen] + 0.4 * generator.standard_normal((len(chosen), DIM)) / np.sqrt(DIM)))
    queries = [unit(words[generator.integers(60, size=6)] + 0.05 * generator.standard_normal((6, DIM))) for _ in range(QUERIES)]
    return found, np.stack(queries)


def fresh(name):
    folder = INDEXES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def keep(name, decoded, results):
    np.save(INDEXES / f"{name}.decoded.npy", decoded.astype(np.float32))
    rounded = [[[int(pid), round(float(score), 5)] for pid, score in ranking] for ranking in results]
    (INDEXES / f"{name}.results.json").write_text(json.dumps(rounded) + "\n")
    for pattern in DERIVED:
        for file in (INDEXES / name).glob(pattern):
            file.unlink()


# colbert-ai


def make_colbert_ai():
    found, _ = collection()
    for name, bits, chunk in (("colbert-ai-1", 1, PASSAGES), ("colbert-ai-4", 4, PASSAGES), ("ragatouille-2", 2, CHUNK)):
        folder = fresh(name)
        config = colbert_index(folder, found, bits, chunk)
        if name.startswith("ragatouille"):
            remove_passages(folder, config)
            write_ragatouille(folder)
        read_colbert_ai(name, folder, config)


def colbert_index(folder, found, bits, chunk):
    """What `Indexer.index` does, with `found` in the place of the model's vectors."""
    import torch
    from colbert.indexing.collection_indexer import CollectionIndexer
    from colbert.indexing.index_saver import IndexSaver
    from colbert.infra import ColBERTConfig

    class Encoder:
        def encode_passages(self, passages):
            chosen = [torch.from_numpy(found[number]) for number in passages]
            return torch.cat(chosen), [len(rows) for rows in chosen]

    class Chunked(list):
        def get_chunksize(self):
            return chunk

        def enumerate(self, rank):
            return enumerate(self)

        def enumerate_batches(self, rank):
            return ((number, first, self[first : first + chunk]) for number, first in enumerate(range(0, len(self), chunk)))

    torch.manual_seed(0)
    random.seed(0)
    config = ColBERTConfig(
        index_path=os.path.relpath(folder), root="experiments", dim=DIM, nbits=bits, kmeans_niters=4, rank=0, nranks=1
    )
    config.configure(total_visible_gpus=0)
    indexer = CollectionIndexer.__new__(CollectionIndexer)
    indexer.verbose, indexer.config, indexer.rank, indexer.nranks, indexer.use_gpu = 1, config, 0, 1, False
    indexer.collection, indexer.encoder, indexer.saver = Chunked(range(len(found))), Encoder(), IndexSaver(config)
    with torch.inference_mode():
        indexer.setup()
        indexer.num_partitions = CENTROIDS
        indexer.train([])
        indexer.index()
        indexer.finalize()
    return config


def remove_passages(folder, config):
    from types import SimpleNamespace

    from colbert.index_updater import IndexUpdater
    from colbert.search.index_loader import IndexLoader

    updater = IndexUpdater(config, SimpleNamespace(index=str(folder), ranker=IndexLoader(str(folder), use_gpu=False)))
    updater.remove(list(REMOVED))
    updater.persist_to_disk()


def write_ragatouille(folder):
    """Documents of two passages each; what was removed is gone from all three files, and the collection has closed up."""
    kept = [pid for pid in range(PASSAGES) if pid not in REMOVED]
    names = {pid: f"doc-{pid // 2}" for pid in kept}
    metadata = {name: {"year": 2000 + int(name[4:]), "lang": "en" if int(name[4:]) % 2 else "de"} for name in names.values()}
    files = {
        "collection.json": [f"text of passage {pid}" for pid in kept],
        "pid_docid_map.json": {str(pid): name for pid, name in names.items()},
        "docid_metadata_map.json": metadata,
    }
    about = json.loads((folder / "metadata.json").read_text())
    about["RAGatouille"] = {"index_config": {"index_type": "PLAID", "index_name": "small"}}
    for name, content in {**files, "metadata.json": about}.items():
        (folder / name).write_text(json.dumps(content))


def read_colbert_ai(name, folder, config):
    import torch
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.modeling.colbert import ColBERT
    from colbert.search.index_storage import IndexScorer

    codec = ResidualCodec.load(str(folder))
    chunks = range(json.loads((folder / "metadata.json").read_text())["num_chunks"])
    decoded = torch.cat([codec.decompress(ResidualCodec.Embeddings.load(str(folder), chunk)) for chunk in chunks])
    ColBERT.try_load_torch_extensions(False)
    scorer = IndexScorer(str(folder), use_gpu=False)
    config.configure(ncells=len(codec.centroids), centroid_score_threshold=-1.0, ndocs=4096)
    results = []
    for query in collection()[1]:
        pids, scores = scorer.rank(config, torch.from_numpy(query)[None])
        results.append(list(zip(pids, scores)))
    keep(name, decoded.numpy(), results)


# fast-plaid


def make_fast_plaid():
    import torch
    from fast_plaid.search import FastPlaid, fast_plaid

    fast_plaid.compute_kmeans = functools.partial(fast_plaid.compute_kmeans, num_partitions=CENTROIDS)
    found = [torch.from_numpy(rows) for rows in collection()[0]]
    metadata = [{"year": 2000 + n, "ratio": n / 4, "lang": "en" if n % 2 else None} for n in range(PASSAGES)]
    for name, bits in (("fast-plaid-1", 1), ("fast-plaid-2", 2), ("fast-plaid-4", 4)):
        torch.manual_seed(0)
        index = FastPlaid(str(fresh(name)), device="cpu")
        if bits == 1:
            index.create(found, nbits=bits, batch_size=CHUNK)
        elif bits == 2:
            index.create(found, nbits=bits, metadata=metadata)
        else:
            index.create(found[:30], nbits=bits, start_from_scratch=0)
            fast_plaid.compute_kmeans = fast_plaid.compute_kmeans.func  # how many new ones `update` says itself
            index.update(found[30:], start_from_scratch=0, buffer_size=5)
            index.delete([0, 20, 39])
        read_fast_plaid(name, index)


def read_fast_plaid(name, index):
    import torch

    count = json.loads((INDEXES / name / "metadata.json").read_text())["num_documents"]
    decoded = torch.cat(index.get_embeddings(list(range(count))))
    queries = torch.from_numpy(collection()[1])
    probes = len(np.load(INDEXES / name / "centroids.npy"))
    results = index.search(queries, top_k=count, n_full_scores=4 * count, n_ivf_probe=probes, show_progress=False)
    keep(name, decoded.numpy(), results)


if __name__ == "__main__":
    INDEXES.mkdir(exist_ok=True)
    np.save(INDEXES / "queries.npy", collection()[1])
    {"colbert-ai": make_colbert_ai, "fast-plaid": make_fast_plaid}[sys.argv[1]]()
