"""Run all comparisons that the inputs allow, and check each against its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from colbert_vespa.evaluation.parity.comparison import LAYERS, Comparison
from colbert_vespa.evaluation.parity.encoders import compare_encoders
from colbert_vespa.evaluation.parity.indexes import IndexAnswers, ask, compare_addresses, compare_index, describe
from colbert_vespa.evaluation.parity.texts import Texts
from colbert_vespa.evaluation.parity.thresholds import Check, checks_of
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, Device
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from query import Client, ClientSettings

__all__ = ["ParityReport", "compare_all"]


@dataclass(frozen=True)
class ParityReport:
    """Result of all comparisons.

    Attributes:
        notes: Comparisons that were not possible, with reasons.
    """

    bundle: str
    queries: int
    documents: int
    comparisons: tuple[Comparison, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def guilty(self) -> tuple[str, ...]:
        """Return the layers with a failed check in the order of the flow; the first is where to look."""
        layers = {comparison.name: comparison.layer for comparison in self.comparisons}
        failed = {layers[check.comparison] for check in self.failed}
        return tuple(layer for layer in LAYERS if layer in failed)

    def to_json(self) -> dict[str, object]:
        """Return the report as it is written to JSON."""
        return {
            "bundle": self.bundle,
            "queries": self.queries,
            "documents": self.documents,
            "passed": not self.failed,
            "guilty": list(self.guilty),
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "checks": [{**asdict(check), "passed": check.passed} for check in self.checks],
            "notes": list(self.notes),
        }


def _rows(texts: Texts, query: str, encoder: Encoder | None) -> Matrix:
    """Return the rows of a query; UsageError if it has no vectors and the bundle no model."""
    if query in texts.rows:
        return texts.rows[query]
    if encoder is None:
        raise UsageError("the bundle has no model; give queries with vectors (--queries FILE, or a collection that has them)")
    return encoder.encode_queries([texts.queries[query]])[0]


def compare_all(
    bundle: Bundle,
    texts: Texts,
    addresses: Sequence[str] = (),
    *,
    checkpoint: str | None = None,
    k: int = 10,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    settings: ClientSettings | None = None,
    device: Device = AUTO,
    say: Callable[[str], None] | None = None,
) -> ParityReport:
    """Compare encoders, indexes and answers with one another.

    Args:
        bundle: The bundle whose model is compared.
        texts: Queries and documents.
        addresses: Indexes to compare.
        checkpoint: Folder or hub name that the bundle was exported from; None leaves torch out.
        k: Number of best hits that are compared.
        thresholds: Thresholds that replace the default ones.
        settings: Settings of the clients.
        device: Device that encodes the vectors which indexes are compared with. It is itself compared with the CPU.
        say: Called with notes on the progress.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        MissingDependency: If an extra is not installed.
        DeviceError: If the device does not start or fails.
        LocalIndexError: If an index is missing or damaged.
        VespaError: If Vespa does not answer.
        UsageError: If an index finds nothing, or nothing can be compared.
    """
    if not bundle.encodes and (checkpoint is not None or not addresses):
        raise UsageError("the bundle has no model, so only stored vectors can be compared; give --from, and omit --checkpoint")
    tell = say or (lambda _text: None)
    encoder = Encoder(bundle, device=device) if bundle.encodes else None
    comparisons = compare_encoders(bundle, checkpoint, texts, k, tell, device) if bundle.encodes else []
    rows = {id_: _rows(texts, id_, encoder) for id_ in texts.queries}
    asked: list[IndexAnswers] = []
    notes: list[str] = []
    for address in addresses:
        tell(f"asking {address}")
        with Client(address, bundle, settings=settings, device=device) as client:
            answers = ask(client, describe(address), texts.queries, rows, k, 2 * k)
            if client.bundle.sha256 != bundle.sha256:
                notes.append(f"{address} was made with another bundle ({client.bundle.sha256[:12]}, not {bundle.sha256[:12]})")
        notes += answers.notes
        asked.append(answers)
        ready = texts.ready_rows(answers.texts.keys(), bundle.document_rows)
        comparisons += compare_index(answers, rows, encoder, k, ready)
    comparisons += [compare_addresses(left, right, k) for left, right in combinations(asked, 2)]
    checks = [check for comparison in comparisons for check in checks_of(comparison, thresholds or {})]
    if checkpoint is None and bundle.encodes:
        notes.append("torch was not compared; give --checkpoint to compare it")
    return ParityReport(
        str(bundle.path), len(texts.queries), len(texts.documents), tuple(comparisons), tuple(checks), tuple(notes)
    )  # fmt: skip
