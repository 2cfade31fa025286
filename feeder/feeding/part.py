"""One worker's part of a feed that many machines share, and its outcome.

A part is fed like a whole feed, without files: its outcomes are returned, and whoever distributes the parts adds them up.
An interrupted part is distributed again; what has arrived by then is not sent again, because the target is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from feeder.digests import Digests
from feeder.encoding.batches import (
    DenseModels,
    EncodedPassages,
    Encoding,
    HereEncoding,
    KnownEncoding,
    dense_basis,
    encoding_basis,
)
from feeder.encoding.passages import Splitting
from feeder.encoding.ready import DocumentEncoding
from feeder.feeding.ledger import REFUSED_HERE, Ledger
from feeder.feeding.pipeline import Feed
from feeder.feeding.survey import survey
from feeder.outcomes import Failure
from feeder.sending.statistics import FeedStatistics
from feeder.targets.vespa import VespaTarget, open_vespa
from late_interaction.addresses import VespaUrl
from late_interaction.bundle import Bundle
from late_interaction.dense import dense_encoders
from late_interaction.devices import CPU_NAME
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import ColbertVespaError, MetadataError
from late_interaction.tokenizing import Tokenizing

__all__ = ["KnownPassages", "PartFeeder", "PartOutcome"]

Letter = tuple[Failure, Document]


@dataclass(frozen=True)
class KnownPassages:
    """Passages that were encoded before.

    Attributes:
        by: the `encoding_basis` that they were made with.
        passages: passages by title and text.
    """

    by: str
    passages: Mapping[tuple[str, str], EncodedPassages]


@dataclass
class PartOutcome:
    """The outcome of one part.

    Attributes:
        documents: documents handed over.
        ledger: its counts.
        blank_ids: documents to put that have no text.
        letters: refused documents.
        sender: which sender sent it.
        sending: statistics of that sender since it was opened.
        error: why the part ended early; None if it is complete.
    """

    documents: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    blank_ids: tuple[str, ...] = ()
    letters: list[Letter] = field(default_factory=list)
    sender: str = ""
    sending: FeedStatistics | None = None
    error: ColbertVespaError | None = None

    @property
    def pending(self) -> int:
        """Return the documents that were not settled when `error` ended the part."""
        return self.documents - self.ledger.settled - self.ledger.duplicates

    def count_refused(self, documents: int) -> None:
        """Count documents that were refused before they were sent."""
        if documents:
            self.ledger.dead_lettered += documents
            self.ledger.errors[REFUSED_HERE] += documents

    def has(self, document_id: str, digest: str) -> bool:
        """Return False: only the target knows what an earlier run fed. See `Acknowledgements`."""
        return False

    def acknowledge(self, documents: Sequence[tuple[str, str]]) -> None:
        """Do nothing: the ledger counts acknowledgements. See `Acknowledgements`."""

    def add(self, letters: Iterable[Letter]) -> None:
        """Keep letters. See `Refusals`."""
        self.letters += letters


class PartFeeder:
    """Feeds one part after another to a Vespa application, with one encoder and one sender."""

    def __init__(
        self,
        url: VespaUrl,
        bundle: Bundle,
        *,
        operation: str = "put",
        splitting: Splitting | None = None,
        precision: str | None = None,
        device: str = CPU_NAME,
        threads: int | None = None,
        senders: int = 1,
    ) -> None:
        """Open the application and load the encoder.

        Args:
            url: the application.
            bundle: its bundle.
            operation: put, update or delete.
            splitting: how texts become passages.
            precision: precision of the encoder.
            device: device of the encoder.
            threads: threads of the encoder.
            senders: how many processes send to that application at once, including this one.

        Raises:
            VespaError: if no application of ours answers.
            BundleError: if it belongs to another bundle.
        """
        self._url, self._operation, self._senders = url, operation, senders
        self._splitting = splitting or Splitting()
        self._runs: dict[str, Any] = {"precision": precision, "device": device, "threads": threads}
        self._bundle = bundle
        self._encoder: Encoder | None = None
        self._target: VespaTarget | None = self._open()

    @cached_property
    def _dense(self) -> DenseModels:
        return dense_encoders(self._bundle, threads=self._runs["threads"], device=self._runs["device"])

    def feed(self, documents: Sequence[Document], known: KnownPassages | None = None) -> PartOutcome:
        """Feed documents; errors are in the outcome's `error`.

        known: passages of the documents; without them, documents are encoded here.
        """
        outcome = PartOutcome(len(documents))
        try:
            if self._target is None:
                self._target = self._open()
            self._feed(self._target, documents, known, outcome)
        except ColbertVespaError as error:
            outcome.error = error
            self.close()  # a sender that gave up sends nothing more
        return outcome

    def close(self) -> None:
        """Close sender and encoder."""
        target, self._target = self._target, None
        if target is not None:
            target.close()

    def _open(self) -> VespaTarget:
        self._name = uuid4().hex
        return open_vespa(self._url, self._bundle, senders=self._senders)

    def _feed(
        self, target: VespaTarget, documents: Sequence[Document], known: KnownPassages | None, outcome: PartOutcome
    ) -> None:
        fitting = self._fitting(documents, target, outcome)
        surveyed = survey(fitting, target.schema, blanks=self._operation != "put")
        encoding, made = self._encoding(target, known)
        feed = Feed(
            fitting, surveyed, target, outcome, outcome, Digests(made, target.digest_basis), operation=self._operation,
            encoding=encoding,
        )  # fmt: skip
        refused, outcome.ledger, outcome.blank_ids = len(outcome.letters), feed.ledger, surveyed.blank_ids
        try:
            feed.run()
        finally:
            outcome.ledger.duplicates = surveyed.duplicates
            outcome.count_refused(refused)
            outcome.sender, outcome.sending = self._name, target.statistics()
            if encoding is not None:
                encoding.close()

    def _fitting(self, documents: Sequence[Document], target: VespaTarget, outcome: PartOutcome) -> list[Document]:
        """Return documents whose metadata fit the application; refuse the others."""
        if self._operation == "delete":
            return [Document(document.id) for document in documents]
        fitting: list[Document] = []
        for document in documents:
            try:
                target.schema.check(document.metadata)
            except MetadataError as error:
                outcome.letters.append((Failure(document.id, 0, str(error)), document))
            else:
                fitting.append(document)
        return fitting

    def _encoding(self, target: VespaTarget, known: KnownPassages | None) -> tuple[DocumentEncoding | None, str]:
        """Return the encoding, and the basis of its digests."""
        if self._operation != "put":
            return None, encoding_basis(target.bundle, self._splitting, None)
        texts, made = self._texts(target, known)
        encoding = DocumentEncoding(texts, target.bundle, self._splitting, takes_vectors=target.needs_vectors)
        return encoding, made + dense_basis(self._dense)

    def _texts(self, target: VespaTarget, known: KnownPassages | None) -> tuple[Encoding | None, str]:
        if known is not None:
            return KnownEncoding(known.passages, self._dense), known.by
        if not target.bundle.encodes and not target.bundle.manifest.dense:
            return None, encoding_basis(target.bundle, self._splitting, None)
        if target.needs_vectors and self._encoder is None and target.bundle.encodes:
            self._encoder = Encoder(target.bundle, **self._runs)
        precision = None if self._encoder is None else self._encoder.precision
        own = Tokenizing(target.bundle) if target.bundle.encodes and self._encoder is None else None
        tokenizing = own if self._encoder is None else self._encoder.tokenizing
        made = encoding_basis(target.bundle, self._splitting, precision)
        return HereEncoding(self._splitting, tokenizing, self._encoder, self._dense), made
