"""One feed from sources to an address: survey, open the target, send, summarise."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from feeder.digests import Digests
from feeder.encoding.batches import DenseModels, Encoding, HereEncoding, dense_basis, encoding_basis
from feeder.encoding.ready import DocumentEncoding
from feeder.feeding.dead_letters import DeadLetters
from feeder.feeding.journal import JOURNAL, Journal
from feeder.feeding.ledger import FeedProgress, FeedSummary, Ledger, lacking_text
from feeder.feeding.options import FeedOptions
from feeder.feeding.pipeline import Feed, Pacing
from feeder.feeding.survey import Survey, survey
from feeder.own_files import check_appendable, check_own_file
from feeder.signals import Stop
from feeder.sources import FileSource, Note, SourceReport, Spool, check_columns, spooled
from feeder.sources.column_use import NO_TEXT_COLUMN
from feeder.sources.spool import checked_document
from feeder.targets import Target
from late_interaction.addresses import VespaUrl, locate
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.cores import cores
from late_interaction.dense import dense_encoders
from late_interaction.devices import AUTO, CPU, Device
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import CollectionError, MetadataError, UsageError
from late_interaction.files import check_apart, is_there
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid.store.creating import folder_of_ours_around
from late_interaction.tokenizing import Tokenizing
from late_interaction.vector_cache import CachedEncoder, DocumentEncoder, VectorCache

if TYPE_CHECKING:
    from feeder.targets.local import LocalTarget

__all__ = ["FeedRun", "feed", "feed_async", "start_feed"]

WORTH_WORKERS = 2000  # documents; fewer are encoded before worker processes have loaded their model


class FeedRun:
    """A surveyed feed, ready to start."""

    def __init__(
        self,
        documents: Iterable[Document],
        surveyed: Survey,
        target: Target | None,
        letters: DeadLetters,
        options: FeedOptions,
        notes: Sequence[Note] = (),
    ) -> None:
        """Hold the parts. target: None for a dry run into an index that does not exist. notes: from the survey."""
        self._documents, self.surveyed, self.target = documents, surveyed, target
        self._options = options
        self._feed: Feed | None = None
        self._complete, self._outcome, self._error = False, "failed", ""
        self._letters = letters
        self._notes = notes

    @property
    def total(self) -> int:
        """Return the number of documents in the sources."""
        return self.surveyed.documents

    @property
    def state(self) -> FeedProgress:
        """Return the progress. Any thread may call this."""
        return FeedProgress(self.total) if self._feed is None else self._feed.state

    @property
    def summary(self) -> FeedSummary:
        """Return the ledger as it is now, also after an error."""
        ledger = Ledger() if self._feed is None else self._feed.ledger
        counts = ledger.counts()
        blank = self.surveyed.blank if self._options.operation == "put" else 0
        counts["duplicates"] = self.surveyed.duplicates
        if self._feed is None:
            counts["skipped_blank"] = blank
        return FeedSummary(
            target=str(self._options.to) if self.target is None else self.target.name,
            documents=self.total,
            operation=self._options.operation,
            outcome=self._outcome,
            skipped_blank_ids=self.surveyed.blank_ids if blank else (),
            absent_ids=tuple(ledger.absent_ids),
            pending=self.total - self.surveyed.duplicates - ledger.settled - (blank if self._feed is None else 0),
            seconds=0.0 if self._feed is None else self._feed.seconds,
            version=ledger.version,
            dead_letter_file=str(self._letters.path) if self._letters.written else None,
            errors=dict(ledger.errors),
            error=self._error,
            notes=tuple(self._notes),
            sending=None if self.target is None else self.target.statistics(),
            **counts,
        )

    def go(self, progress: Callable[[FeedProgress], None] | None = None) -> FeedSummary:
        """Run the feed.

        Ctrl-C (in the main thread) waits for what was handed over and gives a summary with outcome `interrupted`; a second
        one raises KeyboardInterrupt at once. After an error, `resume` continues the feed, and `summary` has its progress.

        Args:
            progress: called with the progress.

        Returns:
            the outcome.

        Raises:
            VespaUnreachable: if Vespa does not answer.
            VespaBusy: if Vespa stays overloaded.
            VespaRefused: if credentials are refused.
            LocalIndexError: if the index cannot be written.
            CollectionError: if source, journal or dead letters fail.
        """
        self._outcome = "failed"
        try:
            self._outcome = self._fed(progress)
        except Exception as error:
            self._error = str(error) or type(error).__name__
            raise
        return self.summary

    def _fed(self, progress: Callable[[FeedProgress], None] | None) -> str:
        """Run the feed and return its outcome."""
        options, target = self._options, self.target
        if target is None:
            return "dry run"
        identity = f"{target.place} {target.bundle.sha256} {options.operation}"
        with contextlib.ExitStack() as open_things:
            journal = Journal(options.journal, identity, resume=options.resume, read_only=options.dry_run, built=target.built)
            if not options.dry_run:
                open_things.callback(lambda: self._close(journal))
            wants_vectors = options.operation == "put" and target.needs_vectors
            encoder = self._encoder(open_things) if wants_vectors and target.bundle.encodes else None
            device = Device.of(options.device)
            if device == AUTO:  # dense models run on the token model's device
                device = encoder.device if isinstance(encoder, Encoder) else CPU
            dense = dense_encoders(target.bundle, device=device) if options.operation == "put" else {}
            made = encoding_basis(target.bundle, options.splitting, None if encoder is None else encoder.precision)
            digests = Digests(made + dense_basis(dense), target.digest_basis)
            encoding = None
            if options.operation == "put" and not options.dry_run:
                encoding = self._encoding(target, encoder, dense)
                open_things.callback(encoding.close)
            stop = open_things.enter_context(Stop())
            feed = self._feed = Feed(
                self._documents, self.surveyed, target, journal, self._letters, digests, operation=options.operation,
                encoding=encoding, pacing=Pacing(options.rate), stop=stop, progress=progress,
                named=options.named,
            )  # fmt: skip
            if options.dry_run:
                feed.look()
                return "dry run"
            feed.run()
            self._complete = not feed.stopped
        return "complete" if self._complete else "interrupted"

    def _close(self, journal: Journal) -> None:
        journal.close(remove=self._complete and not self._letters.written)
        self._letters.close(complete=self._complete)

    def _encoder(self, open_things: contextlib.ExitStack) -> DocumentEncoder:
        assert self.target is not None
        bundle = self.target.bundle
        encoder = self._options.encoder or Encoder(bundle, device=self._options.device)
        if self._options.cache is None:
            return encoder
        cache = VectorCache(self._options.cache, bundle.manifest.dim)
        open_things.callback(cache.close)
        return CachedEncoder(encoder, cache)

    def _encoding(self, target: Target, encoder: DocumentEncoder | None, dense: DenseModels) -> DocumentEncoding:
        texts = self._text_encoding(target, encoder, dense) if target.bundle.encodes or dense else None
        return DocumentEncoding(texts, target.bundle, self._options.splitting, takes_vectors=target.needs_vectors)

    def _text_encoding(self, target: Target, encoder: DocumentEncoder | None, dense: DenseModels) -> Encoding:
        options, texts = self._options, self.total - self.surveyed.ready
        if isinstance(encoder, Encoder) and options.encoder is None:
            workers = options.workers
            if workers is None:  # a device other than the processor takes all of a batch at once
                many = texts >= WORTH_WORKERS and cores() > 1 and not encoder.device.kind.lanes
                workers = cores() if many else 0
            if workers:
                from feeder.encoding.workers import WorkerEncoding

                return WorkerEncoding(target.bundle, encoder.precision, options.splitting, workers, encoder.device)
        tokenizing = Tokenizing(target.bundle) if target.bundle.encodes else None
        return HereEncoding(options.splitting, tokenizing, encoder, dense)


@contextmanager
def start_feed(sources: Sequence[Iterable[Document]], options: FeedOptions) -> Iterator[FeedRun]:
    """Survey the sources and open the target.

    Nothing is written before both succeed, and nothing at all in a dry run.

    Args:
        sources: the documents.
        options: options of the feed.

    Raises:
        CollectionError: if a source cannot be read.
        MetadataError: if metadata do not fit.
        BundleError: if the bundle does not fit.
        LocalIndexError: if the index cannot be opened.
        VespaError: if Vespa does not answer.
        UsageError: if options do not fit together.
    """
    place = locate(options.to)
    _check_paths(sources, options)
    check_own_file(options.journal, JOURNAL)
    if not options.dry_run:
        check_appendable(options.journal, options.dead_letter_path)
    letters = DeadLetters(options.dead_letter_path, options.operation)
    documents = _Limited([spooled(source) for source in sources], options.limit)
    bundle = Bundle.open(options.bundle) if isinstance(options.bundle, (str, Path)) else options.bundle
    if isinstance(place, Path):
        surveyed, target = _open_local(documents, place, bundle, options)
    else:
        surveyed, target = _open_vespa(documents, place, bundle, options)
    try:
        _check_vectors(surveyed, bundle if target is None else target.bundle, options)
        if target is not None and not options.dry_run:
            register_bundle(target.bundle)
        yield FeedRun(documents, surveyed, target, letters, options, _notes(documents, surveyed, options))
    finally:
        if target is not None:
            target.close()


def _check_paths(sources: Sequence[object], options: FeedOptions) -> None:
    """Raise UsageError if two files of a feed are the same, or one lies in the index, a source, another index or a bundle."""
    place = locate(options.to)
    folders = {"index": place} if isinstance(place, Path) else {}
    if options.cache is not None:
        folders["vector cache"] = options.cache
    files = {"journal": options.journal, "dead letters": options.dead_letter_path}
    read = [("source", path) for source in sources if isinstance(path := getattr(source, "path", None), Path)]
    check_apart([*files.items(), *folders.items()], read)
    for what, path in files.items():
        for kind, folder in [*folders.items(), *read]:
            if _resolved(path).is_relative_to(_resolved(folder)):
                raise UsageError(f"{what} {path} lies inside the {kind} {folder}; choose another file")
    for what, path in [*files.items(), *folders.items()]:
        if holder := folder_of_ours_around(path):
            raise UsageError(f"{what} {path} lies inside {holder}; choose another place")


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


Opened = tuple[Survey, Target | None]


def _surveyed(documents: _Limited, schema: MetadataSchema | None, options: FeedOptions) -> Survey:
    """Survey the sources. Deletions need no metadata, and only puts need a text."""
    if options.operation == "delete":
        return survey((Document(document.id) for document in documents), blanks=True)
    surveyed = survey(documents, schema, blanks=options.operation == "update", named=options.named, types=options.types)
    if options.operation == "put" and surveyed.bare + surveyed.blank == surveyed.documents:
        for note in documents.notes:
            if note.kind == NO_TEXT_COLUMN:
                raise CollectionError(f"no document has text: {note}")
    check_columns(documents.sources)
    return surveyed


def _open_vespa(documents: _Limited, url: VespaUrl, bundle: Bundle | None, options: FeedOptions) -> Opened:
    if options.storage is not None:
        raise UsageError(
            "codec, bits and refine apply to a local index only; the codec of a Vespa application is set by app --codec"
        )
    if options.sharding is not None:
        raise UsageError("shards apply to a local index only; Vespa distributes documents itself")
    if options.add_fields:
        raise UsageError(
            "the metadata fields of a Vespa application come from its package; add them to app.toml, and deploy it"
        )
    from feeder.targets.vespa import open_vespa

    target = open_vespa(url, bundle)
    try:
        surveyed = _surveyed(documents, target.schema, options)
        surveyed.check_types(target.schema.fields)
        return surveyed, target
    except BaseException:
        target.close()
        raise


def _open_local(documents: _Limited, path: Path, bundle: Bundle | None, options: FeedOptions) -> Opened:
    """Open an existing index first, so that it is known to be writable before anything is read."""
    surveyed = None if is_there(path) else _surveyed(documents, options.schema, options)
    if surveyed is not None:
        surveyed.check_types(options.schema.fields if options.schema else ())
    if surveyed is not None and options.operation == "put":
        _check_some_text(surveyed, documents.notes, path, bundle)
        _check_vectors(surveyed, bundle, options)
    if surveyed is not None and options.dry_run:
        return surveyed, None
    from feeder.targets.local import LocalTarget

    target = LocalTarget(
        path, bundle, MetadataSchema({}) if surveyed is None else surveyed.schema, resume=options.resume,
        create=options.operation == "put", dry=options.dry_run, storage=options.storage, sharding=options.sharding,
    )  # fmt: skip
    further: dict[str, FieldType] = {}
    taken: dict[str, FieldType] = {}
    try:
        surveyed = surveyed or _surveyed(documents, options.schema, options)
        surveyed.check_types(target.schema.fields)
        further = {name: type_ for name, type_ in surveyed.schema.fields.items() if name not in target.schema.fields}
        taken = further if options.add_fields or _made_without_documents(target) else {}
        if (schema := MetadataSchema({**target.schema.fields, **taken})) != surveyed.schema:
            surveyed = _surveyed(documents, schema, options)
        if taken:
            target.add_fields(MetadataSchema(taken))
    except MetadataError as error:
        target.close()
        hint = "; add fields to it with --add-fields" if further and not taken else ""
        raise MetadataError(f"{error}{hint}") from None
    except BaseException:
        target.close()
        raise
    return surveyed, target


def _check_vectors(surveyed: Survey, bundle: Bundle | None, options: FeedOptions) -> None:
    """Raise CollectionError if vectors are made elsewhere and no document has any."""
    if bundle is None or bundle.encodes or options.operation != "put" or surveyed.ready:
        return
    if surveyed.documents > surveyed.blank:
        raise CollectionError(
            f"no document has vectors, and bundle {bundle.path} has no model to make them; name their column in "
            f"feed.toml ([columns] vectors), or use the bundle of a model"
        )


def _check_some_text(surveyed: Survey, notes: Sequence[Note], path: Path, bundle: Bundle | None) -> None:
    """Raise CollectionError if a new index would be empty, unless there was nothing to read."""
    if missing := lacking_text(surveyed.documents, surveyed.blank + surveyed.duplicates, notes):
        ready = bundle is not None and not bundle.encodes
        hint = "; for documents with vectors, name their column in feed.toml ([columns] vectors)" if ready else ""
        raise CollectionError(f"no index was created at {path}: {missing}{hint}")


def _made_without_documents(target: LocalTarget) -> bool:
    """Tell whether the index has no metadata fields because its first feed had no documents."""
    return not target.schema.fields and not target.size()


class _Limited:
    """Several sources as one that can be read again, up to a limit."""

    def __init__(self, sources: Sequence[Iterable[Document]], limit: int | None) -> None:
        self.sources, self._limit = sources, limit

    def __iter__(self) -> Iterator[Document]:
        """Yield documents; CollectionError if an item is not a document."""
        for place, item in enumerate(islice(chain.from_iterable(self.sources), self._limit)):
            yield checked_document(item, place)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return the notes of the latest reading of each source."""
        return tuple(chain.from_iterable(source.report.notes for source in self.sources if isinstance(source, FileSource)))


def _notes(documents: _Limited, surveyed: Survey, options: FeedOptions) -> tuple[Note, ...]:
    report = SourceReport(documents.notes)
    if surveyed.bare and options.operation == "put":
        which = "documents (all of them) have" if surveyed.bare + surveyed.blank == surveyed.documents else "documents have"
        report.add(Note("no_text", f"{which} only a title and no text", surveyed.bare, surveyed.bare_ids))
    return report.notes


def feed(
    documents: Iterable[Document] | AsyncIterable[Document],
    options: FeedOptions,
    progress: Callable[[FeedProgress], None] | None = None,
) -> FeedSummary:
    """Feed `documents`.

    Documents that can be read only once (an iterator, an async iterable) are spooled to a temporary file first.

    Args:
        documents: the documents, or file sources.
        options: options of the feed.
        progress: called with the progress.

    Returns:
        the outcome.

    Raises:
        CollectionError: if a source cannot be read, or a file of the feed cannot be written.
        MetadataError: if metadata do not fit.
        BundleError: if the bundle does not fit.
        LocalIndexError: if the index cannot be written.
        VespaError: if Vespa does not answer or refuses.
        UsageError: if options do not fit together, or an async iterable is given inside a running event loop; use
            `feed_async` there.
    """
    if isinstance(documents, AsyncIterable):
        documents = _run_collecting(documents)
    with start_feed([documents], options) as run:
        return run.go(progress)


async def feed_async(
    documents: Iterable[Document] | AsyncIterable[Document],
    options: FeedOptions,
    progress: Callable[[FeedProgress], None] | None = None,
) -> FeedSummary:
    """Feed like `feed`, in a thread of its own, for a program with an event loop.

    Documents are read in the loop; `progress` is called in the thread.

    Args:
        documents: the documents, or file sources.
        options: options of the feed.
        progress: called with the progress.

    Returns:
        the outcome.

    Raises:
        ColbertVespaError: as in `feed`.
    """
    ready = await _collected(documents) if isinstance(documents, AsyncIterable) else documents
    return await asyncio.to_thread(feed, ready, options, progress)


def _run_collecting(documents: AsyncIterable[Document]) -> Iterable[Document]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_collected(documents))
    raise UsageError("feed() got an async iterable inside a running event loop; use `await feed_async(...)`")


async def _collected(documents: AsyncIterable[Document]) -> Iterable[Document]:
    with Spool("documents") as spool:
        async for document in documents:
            spool.add(document)
    return spool.source
