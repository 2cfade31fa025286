"""What a feed shows while it runs: a bar, and under it rates, what is under way, and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from colbert_vespa.console import Output
from feeder.ledger import FeedProgress

__all__ = ["FeedView", "details", "feed_view"]


class FeedView(Progress):
    """The progress callback of a feed; nothing is shown where the console is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._details: list[str] = []
        columns = (
            TextColumn("feed"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, expand=True, disable=not console.is_terminal)
        self._task = self.add_task("feed", total=total)

    def __call__(self, state: FeedProgress) -> None:
        self._details = details(state)
        self.update(self._task, completed=state.done, total=state.total)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        for line in self._details:
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


def details(state: FeedProgress) -> list[str]:
    """Lines of at most 80 columns."""
    seconds = max(state.seconds, 1e-9)
    found = [
        f"  {state.done / seconds:,.0f} documents/s, {state.token_vectors / seconds:,.0f} tokens/s, "
        f"{state.bytes / seconds / 1e6:.2f} MB/s of text"
    ]
    target = state.target
    under_way = f"  {state.in_flight:,} documents under way"
    if "allowed" in target:
        under_way += f", {target['in_flight']:,.0f} of {target['allowed']:,.0f} operations in flight"
    if "latency_ms.p50" in target:
        under_way += f", p50 {target['latency_ms.p50']:,.0f} ms"
    found.append(under_way)
    again = {name.removeprefix("retries."): int(count) for name, count in target.items() if name.startswith("retries.")}
    if again:
        found.append("  sent again: " + ", ".join(f"{count:,} for {reason}" for reason, count in again.items()))
    if state.errors:
        found.append("  refused: " + ", ".join(f"{count:,} {reason}" for reason, count in state.errors.items()))
    return found


@contextmanager
def feed_view(out: Output, total: int, metrics: int | None) -> Iterator[Callable[[FeedProgress], None]]:
    """metrics: port of the Prometheus metrics. Raises: UsageError where it cannot be had."""
    with ExitStack() as stack:
        view: Callable[[FeedProgress], None] = stack.enter_context(FeedView(out.console, total))
        if metrics is not None:
            from feeder.metrics import FeedMetrics

            view = stack.enter_context(FeedMetrics(metrics, view))
        yield view
