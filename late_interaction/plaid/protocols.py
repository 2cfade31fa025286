"""The interfaces of a local index and its writer, with or without shards. `open_index` and `create_index` return either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from late_interaction.array_types import Mask, Matrix, Packed, TokenIds, Vector
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage
from late_interaction.filters import Filter
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.index import LocalIndex, Planned
from late_interaction.plaid.shards.layout import Sharding
from late_interaction.plaid.store.versions import Tuned
from late_interaction.plaid.types import CommitSummary, DenseForm, LocalResult, LocalScores, SearchSettings, ShardCoverage

__all__ = ["ListedVersion", "PlaidIndex", "PlaidWriter"]


class ListedVersion(Protocol):
    """A version that still exists."""

    @property
    def number(self) -> int:
        """Return its number."""

    @property
    def name(self) -> str:
        """Return its name, or an empty text."""

    @property
    def created(self) -> int:
        """Return the time of its commit, in seconds since 1970."""

    @property
    def passages(self) -> int:
        """Return its number of passages."""

    @property
    def token_vectors(self) -> int:
        """Return its number of token vectors."""


class PlaidWriter(Protocol):
    """The only writer of an index, as a context manager. `IndexWriter` documents each method."""

    def __enter__(self) -> PlaidWriter: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    @property
    def pending(self) -> Mapping[str, int]:
        """Count the changes that are not committed."""

    @property
    def changed(self) -> bool:
        """Tell whether there are changes to commit."""

    @property
    def left_over(self) -> bool:
        """Tell whether an interrupted run left changes."""

    def check_usable(self) -> None:
        """Raise if the writer cannot continue."""

    def check_name(self, name: str) -> None:
        """Raise if a version cannot have that name."""

    def has(self, passage_id: str) -> bool:
        """Tell whether the passage is in the index."""

    def passages_of(self, document_id: str) -> Mapping[str, str]:
        """Return the digest of each passage of a document."""

    def put(
        self,
        passage: Passage,
        vectors: Matrix,
        token_ids: TokenIds | None = None,
        dense: Mapping[str, Vector] | None = None,
    ) -> None:
        """Insert or replace a passage with its vectors."""

    def takes_codes_of(self, codebook: Codebook) -> bool:
        """Tell whether `put_encoded` accepts codes of that codebook."""

    def put_encoded(self, passage: Passage, encoded: Packed, dense: Mapping[str, Vector] | None = None) -> None:
        """Insert or replace a passage with its codes and residuals."""

    def update_metadata(self, document_id: str, metadata: Mapping[str, object]) -> int:
        """Change metadata of a document; return the number of passages changed."""

    def delete_document(self, document_id: str) -> int:
        """Delete a document; return the number of passages deleted."""

    def delete_passage(self, passage_id: str) -> int:
        """Delete a passage; return 1, or 0 if there was none."""

    def flush(self) -> None:
        """Make the changes so far durable."""

    def discard(self) -> None:
        """Drop the changes that are not committed."""

    def commit(self, name: str = "", *, compact: bool = False, always: bool = False) -> CommitSummary:
        """Make the changes a new version."""

    def rollback(self, to: int | str) -> CommitSummary:
        """Restore an older version as the newest."""

    def store_tuned(self, tuned: Tuned) -> CommitSummary:
        """Store the effort of searches as a new version."""

    def add_fields(self, further: MetadataSchema) -> CommitSummary:
        """Add metadata fields as a new version."""

    def prune(self, keep: int = 1) -> list[int]:
        """Remove old versions; return their numbers."""


class PlaidIndex(Protocol):
    """A reader of one version; `refresh` moves it to the newest. `LocalIndex` documents each method."""

    path: Path

    def __enter__(self) -> PlaidIndex: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def close(self) -> None:
        """Stop workers, if there are any."""

    @property
    def sharding(self) -> Sharding | None:
        """Return how the index is sharded; None if it is not."""

    @property
    def bundle(self) -> Bundle:
        """Return the index's own copy of the bundle."""

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""

    @property
    def codec(self) -> str:
        """Return the name of the codec."""

    @property
    def bits(self) -> int | None:
        """Return the bits per dimension of a residual; None for codecs without residuals."""

    @property
    def refine(self) -> bool:
        """Tell whether int8 rows are kept."""

    @property
    def dim(self) -> int:
        """Return the dimensions of a token vector."""

    @property
    def dense(self) -> Mapping[str, DenseForm]:
        """Return the dense models of which each passage has a vector."""

    @property
    def one_vector(self) -> str:
        """Return the encoding of the one vector per passage; empty if there is none."""

    @property
    def version(self) -> int:
        """Return the number of the open version."""

    @property
    def current(self) -> object:
        """Return number and checksum of the open version."""

    @property
    def documents(self) -> int:
        """Return the number of documents."""

    @property
    def passages(self) -> int:
        """Return the number of passages."""

    @property
    def token_vectors(self) -> int:
        """Return the number of token vectors."""

    @property
    def bytes_per_token(self) -> float:
        """Return the stored bytes per token vector."""

    @property
    def codebook(self) -> Codebook | None:
        """Return the codebook; None if there is none, or each shard has its own."""

    @property
    def drift(self) -> float | None:
        """Return how much farther stored vectors are from their centroids than the codebook's first vectors were."""

    @property
    def effort(self) -> Tuned | None:
        """Return the effort that the index was tuned to; None if it was not."""

    @property
    def missing(self) -> dict[int, str]:
        """Return the shards that cannot be read, and why."""

    @property
    def readable(self) -> ShardCoverage:
        """Return how much of the index can be read."""

    def readers(self) -> Mapping[int, LocalIndex]:
        """Return the reader of each shard."""

    def versions(self) -> Sequence[ListedVersion]:
        """Return the versions that still exist, oldest first."""

    def refresh(self) -> bool:
        """Move to the newest version; return whether there was a newer one."""

    def pinned(self, *, timeout: float | None = None) -> PlaidIndex:
        """Return a reader of the same version that `refresh` of this one does not move."""

    def writer(self, *, resume: bool = False) -> PlaidWriter:
        """Open the only writer."""

    def planned(self, *, resume: bool = False) -> Planned:
        """Return what `passages_of` of a writer would see, without opening one."""

    def search(
        self,
        Q: Matrix,
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        settings: SearchSettings | None = None,
        exact: bool = False,
    ) -> LocalResult:
        """Return the k best passages for `Q [q, d]`."""

    def search_many(
        self,
        queries: Sequence[Matrix],
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        settings: SearchSettings | None = None,
        exact: bool = False,
        threads: int | None = None,
    ) -> list[LocalResult]:
        """Run `search` for each of `queries`."""

    def score(self, Q: Matrix, passage_ids: Sequence[str]) -> dict[str, float]:
        """Return MaxSim of `Q [q, d]` with those passages."""

    def scores(self, Q: Matrix, passage_ids: Sequence[str]) -> LocalScores:
        """Return the scores of `score` with their coverage."""

    def dense_search(
        self,
        name: str,
        vector: Vector,
        k: int,
        *,
        where: Filter | None = None,
        ids: Iterable[str] | None = None,
        exact: bool = False,
    ) -> LocalScores:
        """Return the k passages with the greatest inner products with `vector [dim]`."""

    def dense_scores(self, name: str, vector: Vector, passage_ids: Sequence[str]) -> LocalScores:
        """Return inner products of `vector [dim]` with those passages."""

    def dense_vectors(self, passage_ids: Iterable[str]) -> dict[str, dict[str, Vector]]:
        """Return the stored dense vectors of those passages."""

    def tune(self, queries: Sequence[Matrix], *, recall: float, k: int = 10) -> Tuned:
        """Find and store the least effort that reaches `recall`."""

    def passage(self, passage_id: str) -> Passage | None:
        """Return the passage of that id; None if there is none."""

    def vectors(self, passage_id: str) -> Matrix:
        """Return the stored unit rows `[t, d]` of a passage."""

    def passages_of(self, document_ids: Iterable[str], where: Filter | None = None) -> dict[str, tuple[Passage, ...]]:
        """Return the passages of those documents by document id."""

    def documents_with(self, where: Filter | None) -> Iterator[str]:
        """Yield the document id of each passage that the filter selects."""

    def selected(self, where: Filter | None, ids: Iterable[str] | None = None) -> Mask:
        """Tell which living passages are selected."""

    def iter_passages(self) -> Iterator[Passage]:
        """Yield all living passages."""

    def verify(self) -> None:
        """Compare the checksum of every file."""
