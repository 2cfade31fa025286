"""Facts about a local index, for the command line and the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from late_interaction.plaid import ONE_VECTOR

if TYPE_CHECKING:
    from late_interaction.plaid import PlaidIndex
    from late_interaction.plaid.shards import Sharding
    from late_interaction.plaid.store.versions import Tuned

__all__ = ["index_info"]


def index_info(index: PlaidIndex) -> dict[str, Any]:
    """Return the content of an index, how it is stored, and its drift from the codebook; with shards, also of each shard."""
    if index.sharding is not None:
        return _info_of_shards(index, index.sharding)
    version = index.readers()[0].snapshot.version
    codec = f"{index.codec}, {index.bits} bits" if index.bits else index.codec
    effort = _effort(version.effort)
    if version.effort is None and version.tuned is not None:
        effort = "default: the index has more than doubled since it was tuned"
    return {
        "version": index.version,
        "documents": index.documents,
        "passages": index.passages,
        "token_vectors": index.token_vectors,
        "dim": index.dim,
        "codec": codec + (", with int8 rows" if index.refine else ""),
        "bytes_per_token": round(index.bytes_per_token, 1),
        **_dense(index),
        "segments": len(version.segments),
        "centroids": 0 if index.codebook is None else index.codebook.size,
        "drift": None if index.drift is None else round(index.drift, 4),
        "effort": effort,
    }


def _info_of_shards(index: PlaidIndex, sharding: Sharding) -> dict[str, Any]:
    readers, missing = index.readers(), index.missing
    sizes = [
        {"shard": n, "passages": readers[n].passages if n in readers else None, "error": missing.get(n, "")}
        for n in range(sharding.count)
    ]
    return {
        "version": index.version,
        "shards": sharding.count,
        "key": sharding.field or "id",
        "documents": index.documents,
        "passages": index.passages,
        "token_vectors": index.token_vectors,
        "dim": index.dim,
        "codec": f"{index.codec}, {index.bits} bits" if index.bits else index.codec,
        **_dense(index),
        "effort": _effort(index.effort),
        "shard_sizes": sizes,
    }


def _dense(index: PlaidIndex) -> dict[str, Any]:
    """Return the figures of each dense model, and of the one vector of candidates pooled; empty without any.

    The figures are dimensions, bytes, vectors in a graph, and vectors that would be in one if faiss had been installed.
    """
    snapshots = [reader.snapshot for reader in index.readers().values()]

    def counts(name: str) -> dict[str, int]:
        return {
            "bytes": sum(snapshot.dense_bytes(name) for snapshot in snapshots),
            "linked": sum(snapshot.dense_linked(name) for snapshot in snapshots),
            "unlinked": sum(snapshot.dense_unlinked(name) for snapshot in snapshots),
        }

    found = {name: {"dim": form.dim, **counts(name)} for name, form in index.dense.items()}
    one = {"one_vector": {"encoding": index.one_vector, **counts(ONE_VECTOR)}} if index.one_vector else {}
    return ({"dense": found} if found else {}) | one


def _effort(tuned: Tuned | None) -> str:
    if tuned is None:
        return "default"
    return f"probes {tuned.probes}, rerank {tuned.rerank}: recall@{tuned.k} {tuned.recall:.3f}"
