"""`import_index`: another engine's index becomes a local index with the same codes, buckets and centroids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Packed, Vector
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.errors import LocalIndexError
from late_interaction.metadata import MetadataSchema, SchemaInference
from late_interaction.plaid.imports.colbert_ai import COLBERT_AI_FILES, open_colbert_ai
from late_interaction.plaid.imports.fast_plaid import FAST_PLAID_FILES, open_fast_plaid
from late_interaction.plaid.imports.peer import Peer
from late_interaction.plaid.imports.texts import documents_of, with_documents
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.store.codecs import CODECS
from late_interaction.plaid.store.creating import check_free, new_index
from late_interaction.plaid.store.segment import PayloadForm, Segment
from late_interaction.plaid.store.versions import now, publish
from late_interaction.plaid.writing.build import build_encoded_segment
from late_interaction.plaid.writing.pending import NO_DENSE
from late_interaction.plaid.writing.training import FIT_VECTORS, adopt, bundle_codebook
from late_interaction.progress import CountReport

__all__ = ["import_index", "maker_of"]

LAYOUTS: Sequence[tuple[str, Sequence[str], Callable[[Path], Peer]]] = (
    ("colbert-ai or RAGatouille", COLBERT_AI_FILES, open_colbert_ai),
    ("fast-plaid", FAST_PLAID_FILES, open_fast_plaid),
)
PROGRESS_EVERY = 256  # passages
PYLATE_FOLDER = "fast_plaid_index"  # where PyLate puts fast-plaid's files


def import_index(
    source: str | Path,
    target: str | Path,
    *,
    bundle: Bundle,
    documents: Iterable[Document] | None = None,
    progress: CountReport | None = None,
) -> LocalIndex:
    """Import the index that colbert-ai, RAGatouille, PyLate, fast-plaid or next-plaid has at `source`.

    The result has codec residual with the peer's centroids as its codebook, so vectors decode to the same values. The
    peer's one set of buckets serves every dimension. Passages that the peer removed are left out. Nothing in `source` is
    executed or changed. Memory use is about 16,384 rows, the metadata, the ids, and 24 bytes per passage.

    Args:
        source: folder of the peer's index.
        target: folder of the new index.
        bundle: export of the checkpoint that the peer used; it encodes queries, and documents that are added later.
        documents: one for each passage, in the peer's order; iterated more than once. By default ids, texts and metadata
            come from RAGatouille's or PyLate's files or fast-plaid's metadata; without these, ids are the peer's numbers
            and texts are empty. Metadata types are inferred.
        progress: called with the number of passages done and in total.

    Returns:
        the new index, opened.

    Raises:
        LocalIndexError: if `source` is not such an index, is damaged, refused or does not fit the bundle, or `target`
            exists; nothing is left at `target`.
        MetadataError: if a field has values of several types; nothing is left at `target`.
    """
    folder, root = Path(source), Path(target)
    check_free(root)
    peer = _open(folder)
    _check_bundle(peer, bundle)
    described = documents_of(peer) if documents is None else with_documents(peer, documents)
    schema = SchemaInference.of((document.id, document.metadata) for document in described)
    with new_index(root) as staging:
        _write(staging, peer, bundle, schema, described, progress or (lambda done, total: None))
    return LocalIndex.open(root)


def maker_of(folder: Path) -> str | None:
    """Return the engine whose index is in `folder`, judged by its files; None if unknown."""
    places = (folder, folder / PYLATE_FOLDER)
    made = (name for name, files, _ in LAYOUTS if any(all((place / file).is_file() for file in files) for place in places))
    return next(made, None)


def _open(folder: Path) -> Peer:
    if not folder.is_dir():
        raise LocalIndexError(f"folder {folder} does not exist; give the folder of an index")
    if (folder / PYLATE_FOLDER).is_dir():
        folder = folder / PYLATE_FOLDER
    there = {path.name for path in folder.iterdir()}
    layouts = [(name, [file for file in files if file not in there], opener) for name, files, opener in LAYOUTS]
    for _, missing, opener in layouts:
        if not missing:
            peer = opener(folder)
            if not peer.living.any() or not sum(int(lengths.sum()) for lengths in peer.lengths):
                raise LocalIndexError(f"{folder} has no passages")
            return peer
    shown = "; ".join(f"as a {name} index it lacks {', '.join(missing)}" for name, missing, _ in layouts)
    raise LocalIndexError(f"{folder} is not an index that can be imported: {shown}")


def _check_bundle(peer: Peer, bundle: Bundle) -> None:
    book = peer.codebook
    if book.dim != bundle.manifest.dim:
        raise LocalIndexError(
            f"{peer.folder} has vectors of {book.dim} dimensions, but bundle {bundle.path} has "
            f"{bundle.manifest.dim}; give the bundle of the checkpoint that the index was made with"
        )
    if bundle.manifest.dense:
        names = ", ".join(sorted(bundle.manifest.dense))
        raise LocalIndexError(
            f"bundle {bundle.path} has dense models ({names}), but {peer.folder} has no vectors of them; give a "
            f"bundle without them, or feed the documents"
        )
    own = bundle_codebook(bundle)
    if own is not None and own.bits != book.bits:
        raise LocalIndexError(
            f"{peer.folder} has {book.bits} bits per dimension, but the codebook of bundle {bundle.path} has "
            f"{own.bits}; give a bundle without a codebook"
        )


def _write(
    root: Path,
    peer: Peer,
    bundle: Bundle,
    schema: MetadataSchema,
    documents: Iterable[Document],
    progress: CountReport,
) -> None:
    book = peer.codebook
    index = LocalIndex.create(root, bundle=bundle, schema=schema, bits=book.bits)
    form = PayloadForm(*CODECS["residual"].row(book.bits, book.dim), 0)
    items = _items(peer, schema, documents, progress)
    entry = build_encoded_segment(root, "1", schema, book, form, items)
    segment = Segment(root, entry, schema, form)
    chosen = np.random.default_rng(0).choice(entry.token_vectors, min(entry.token_vectors, FIT_VECTORS), replace=False)
    chosen.sort()
    taken = adopt(root, book, entry.token_vectors, (book.decode(segment.codes[chosen], segment.payload[chosen]), None))
    version = dataclasses.replace(
        index.snapshot.version, number=1, created=now(), segments=(entry,), codebook=taken.named, trained_on=taken.trained_on,
        fit=taken.fit,
    )  # fmt: skip
    publish(root, version)


def _items(
    peer: Peer, schema: MetadataSchema, documents: Iterable[Document], progress: CountReport
) -> Iterator[tuple[Passage, Packed, Vector]]:
    """Yield passages with codes and residuals; the n-th passage of a document is `id#n`."""
    total = int(peer.living.sum())
    numbers: dict[str, int] = {}
    pairs: Iterator[tuple[Document, tuple[NDArray[np.int32], NDArray[np.uint8]]]] = zip(documents, peer.encoded(), strict=True)
    for done, (document, encoded) in enumerate(pairs, 1):
        if not document.id:
            raise LocalIndexError(f"{peer.folder}: passage {done - 1} has an empty document id")
        number = numbers.get(document.id, 0)
        numbers[document.id] = number + 1
        passage = Passage.of(document, number)
        yield dataclasses.replace(passage, metadata=schema.check(document.metadata)), encoded, NO_DENSE
        if done % PROGRESS_EVERY == 0 or done == total:
            progress(done, total)
