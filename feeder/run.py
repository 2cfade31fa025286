"""One feed from sources to an address: survey, open the target, send, summarise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from feeder.journal import Journal
from feeder.pipeline import FeedProgress, FeedSummary, Survey, delete_documents, feed_documents, survey
from feeder.sources import spooled
from feeder.targets import Target
from feeder.targets.local import LocalTarget
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.plaid.shards import Sharding
from late_interaction.vector_cache import DocumentEncoder
from vespa_app.addresses import is_url

__all__ = ["FeedOptions", "FeedRun", "feed", "start_feed"]


@dataclass(frozen=True)
class FeedOptions:
    """to: local folder or Vespa URL. journal: path of the journal file. encoder: default is the bundle's own. storage,
    sharding: of a new local index."""

    to: str
    journal: Path
    bundle: Path | Bundle | None = None
    resume: bool = False
    delete: bool = False
    schema: MetadataSchema | None = None
    encoder: DocumentEncoder | None = None
    storage: Storage | None = None
    sharding: Sharding | None = None


@dataclass(frozen=True)
class FeedRun:
    """A surveyed feed, ready to go. `total`: documents in the source."""

    documents: Iterable[Document]
    surveyed: Survey
    target: Target
    options: FeedOptions

    @property
    def total(self) -> int:
        return self.surveyed.documents

    def go(self, progress: Callable[[FeedProgress], None] | None = None) -> FeedSummary:
        """Raises: VespaUnreachable, VespaBusy, LocalIndexError, CollectionError; `resume` then goes on."""
        options = self.options
        if options.delete:
            return delete_documents(self.documents, self.surveyed, self.target, options.journal.with_suffix(".dead.jsonl"))
        encoder = options.encoder or Encoder(self.target.bundle)
        identity = f"{self.target.name} {self.target.bundle.sha256}"
        journal = Journal(options.journal, identity, resume=options.resume)
        complete = False
        try:
            summary = feed_documents(self.documents, self.surveyed, self.target, encoder, journal, progress=progress)
            complete = not summary.dead_lettered
        finally:
            journal.close(remove=complete)
        return summary


@contextmanager
def start_feed(sources: Sequence[Iterable[Document]], options: FeedOptions) -> Iterator[FeedRun]:
    """Surveys the sources and opens the target; nothing is written before both went well.

    Raises: CollectionError, MetadataError, BundleError, LocalIndexError, VespaError.
    """
    documents = _Chained([spooled(source) for source in sources])
    bundle = Bundle.open(options.bundle) if isinstance(options.bundle, Path) else options.bundle
    if is_url(options.to):
        if options.storage is not None:
            raise UsageError("codec, bits and refine are of a local index: Vespa's application has its codec (app --codec)")
        if options.sharding is not None:
            raise UsageError("shards are of a local index, for one machine: Vespa distributes documents by itself")
        from feeder.targets.vespa import open_vespa

        target: Target = open_vespa(options.to, bundle)
        surveyed = survey(documents, None if options.delete else target.schema)
    else:
        surveyed = survey(documents, options.schema)
        target = LocalTarget(
            Path(options.to), bundle, surveyed.schema, resume=options.resume, create=not options.delete,
            storage=options.storage, sharding=options.sharding,
        )  # fmt: skip
        if not options.delete and target.schema != surveyed.schema:
            surveyed = survey(documents, target.schema)
    register_bundle(target.bundle)
    try:
        yield FeedRun(documents, surveyed, target, options)
    finally:
        target.close()


class _Chained:
    """Several sources as one that can be read again."""

    def __init__(self, sources: Sequence[Iterable[Document]]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[Document]:
        return chain.from_iterable(self._sources)


def feed(
    documents: Iterable[Document],
    *,
    to: str,
    journal: Path,
    bundle: Path | Bundle | None = None,
    resume: bool = False,
    encoder: DocumentEncoder | None = None,
    progress: Callable[[FeedProgress], None] | None = None,
) -> FeedSummary:
    """Feeds `documents`; an iterator that can be read only once is spooled to a temporary file first.

    Raises: CollectionError, MetadataError, BundleError, LocalIndexError, VespaError.
    """
    options = FeedOptions(to=to, journal=journal, bundle=bundle, resume=resume, encoder=encoder)
    with start_feed([documents], options) as run:
        return run.go(progress)
