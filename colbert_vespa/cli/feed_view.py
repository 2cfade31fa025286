"""The progress of a feed on a terminal: a bar, rates, documents in progress, and errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from colbert_vespa.cli.terminal import Terminal
from feeder import FeedRun
from feeder.feeding.ledger import FeedProgress, rates

if TYPE_CHECKING:
    from feeder.feeding.metrics import FeedMetrics

__all__ = ["FeedView", "details", "feed_view"]

RECENT_S = 10.0  # that rates are of


class FeedView(Progress):
    """Shows `state`, polled four times a second; shows nothing if the console is not a terminal."""

    def __init__(self, console: Console, state: Callable[[], FeedProgress]) -> None:
        self._state = state
        self._recent: deque[FeedProgress] = deque([state()])
        columns = (
            TextColumn("feed"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        super().__init__(*columns, console=console, expand=True, disable=not console.is_terminal, refresh_per_second=4)
        self.add_task("feed", total=self._recent[0].total)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the progress bar and a line for each detail, from the current state of the feed."""
        now, recent = self._state(), self._recent
        recent.append(now)
        while len(recent) > 2 and now.seconds - recent[1].seconds >= RECENT_S:
            recent.popleft()
        for task in self.task_ids:  # none while it is being made
            self.update(task, completed=now.done, total=now.total)
        yield from super().get_renderables()
        for line in details(now, recent[0]):
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


def details(now: FeedProgress, before: FeedProgress) -> list[str]:
    """Return lines of at most 80 columns; rates are of the time between the two states."""
    seconds = now.seconds - before.seconds
    text_bytes, sent = now.bytes - before.bytes, now.sending
    rate = rates(now.done - before.done, now.token_vectors - before.token_vectors, text_bytes, seconds)
    found = [
        f"  {rate['documents_per_s']:,.0f} documents/s, {rate['tokens_per_s']:,.0f} tokens/s, "
        f"{rate['mb_per_s']:.2f} MB/s of text"
    ]
    under_way = f"  {now.in_flight:,} documents in progress"
    if sent is None:
        return [*found, under_way, *_counted("refused", now.errors)]
    if before.sending is not None and seconds > 0:
        found[0] += f", {(sent.bytes_sent - before.sending.bytes_sent) / 1e6 / seconds:.1f} MB/s sent"
    under_way += f", {sent.in_flight:,} of {sent.allowed:,} operations in flight"
    if sent.latency_ms:
        under_way += f", p50 {sent.latency_ms['p50']:,.0f} ms"
    if sent.circuit != "closed":
        found.append("  Vespa does not answer; retrying one operation per second")
    return [*found, under_way, *_counted("retried", sent.retries), *_counted("refused", now.errors)]


def _counted(what: str, counts: Mapping[str, int]) -> list[str]:
    return [f"  {what}: " + ", ".join(f"{count:,} for {reason}" for reason, count in counts.items())] if counts else []


@contextmanager
def feed_view(run: FeedRun, metrics: FeedMetrics | None = None) -> Iterator[None]:
    """Show the feed on standard error, and as Prometheus `metrics`, while the context is open."""
    if metrics is not None:
        metrics.state = lambda: run.state
    with FeedView(Terminal(stderr=True, highlight=False), lambda: run.state):
        yield
