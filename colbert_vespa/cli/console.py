"""Output of commands. With --json: one JSON object as the last line of stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from colbert_vespa.cli.terminal import Terminal
from late_interaction.json_values import finite_json

if TYPE_CHECKING:
    from colbert_vespa.evaluation.candidates import CandidateReport
    from colbert_vespa.evaluation.evaluating import Evaluation
    from colbert_vespa.evaluation.parity.run import ParityReport
    from colbert_vespa.evaluation.recall import RecallReport
    from colbert_vespa.evaluation.tradeoffs import Tradeoffs
    from colbert_vespa.evaluation.ways import WaysReport
    from exporter.cross_encoder import CrossEncoderReport
    from exporter.verification import DenseReport, ExportReport, Fidelity, Speed
    from feeder.feeding.ledger import FeedSummary
    from query.types import Explanation, Hit, SearchResult
    from vespa_app.changes import Change
    from vespa_app.planning import Plan

__all__ = [
    "INTERRUPTED",
    "Output",
    "announce_compiling",
    "drop_unwritten",
    "json_line",
    "output_lost",
    "prepare_streams",
    "print_error",
]

INTERRUPTED = 130  # exit code, as shells report a program that Ctrl-C ended
_ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # in JSON, where others are escaped anyway


class _ClosedStream(io.StringIO):
    lost = False  # whether anything was to be written

    def write(self, text: str) -> int:
        self.lost |= bool(text)
        return len(text)


def output_lost() -> bool:
    """Return whether anything was printed to a standard output that is closed."""
    return isinstance(sys.stdout, _ClosedStream) and sys.stdout.lost


def drop_unwritten() -> None:
    """Flush standard output; drop what it does not accept, so that Python does not try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Make the standard streams safe to print to.

    Characters that the terminal's encoding lacks are replaced; a closed stream discards everything.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _ClosedStream())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class _Announcing(logging.Handler):
    """Writes to stderr as it is at that moment, because a progress bar replaces it to keep lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.getMessage()}\n")


_ANNOUNCING = _Announcing()


def announce_compiling() -> None:
    """Print a line to stderr when the first run of an installation compiles kernels, if a person is watching."""
    if sys.stderr.isatty():
        logger = logging.getLogger("late_interaction.compiling")  # by name, because its module imports numba
        logger.setLevel(logging.INFO)
        logger.addHandler(_ANNOUNCING)


def json_line(data: Mapping[str, object], encoding: str | None) -> str:
    """Return one line of JSON, with escapes for characters that the encoding lacks."""
    finite = finite_json(data)
    line = json.dumps(finite, ensure_ascii=False, allow_nan=False)
    line = _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    try:
        line.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(finite, allow_nan=False)
    return line + "\n"


class Output:
    """Console and result channel of one command."""

    def __init__(self, *, json_output: bool) -> None:
        self.json_output = json_output
        self.console = Terminal(stderr=json_output, highlight=False)

    def say(self, text: str) -> None:
        """Print plain text; nothing in it is read as markup."""
        self.console.print(escape(text))

    def command(self, line: str) -> None:
        """Print a shell command on one line, whatever the width, so that it can be copied."""
        self.console.print(f"  {escape(line)}", soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print a heading in bold after an empty line."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def table(self, rows: Mapping[str, object]) -> None:
        """Print one row of name and value for each entry."""
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, Text(str(value)))
        self.console.print(table)

    def result(self, data: Mapping[str, object]) -> None:
        """Write the result as one line of JSON to stdout, if `--json` was given."""
        if self.json_output:
            sys.stdout.write(json_line(data, sys.stdout.encoding))
            sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show a progress bar with counts and times while the context is open."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, expand=True) as progress:
            yield progress

    @contextmanager
    def steps(self) -> Iterator[StepBars]:
        """Show one progress bar for each step that is reported while the context is open."""
        with self.progress() as progress:
            yield StepBars(progress)

    def hits(self, result: SearchResult) -> None:
        """Print rank, score, id and passage of each hit, with matching words in bold; with several indexes also the index."""
        if not result.hits:
            self.say("  no passage matches")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(justify="right", style="dim", min_width=3)
        grid.add_column(justify="right", style="cyan", min_width=7)
        grid.add_column(overflow="fold")
        several = len({hit.index for hit in result.hits}) > 1
        for hit in result.hits:
            origin = [Text(hit.index, style="dim")] if several else []
            shown = Group(_title(hit, hit.explanation), _passage(hit.title, hit.text, hit.explanation), *origin)
            grid.add_row(str(hit.rank), f"{hit.score:.3f}", shown)
        self.console.print(grid)
        for note in result.notes:
            self.say(f"  note: {note}")

    def explanation(self, result: SearchResult) -> None:
        """Print the explanation of each hit, then the time of each stage.

        A query text is explained by each query word and the passage word that matched it best, ready query rows by the
        similarity that each row reached.
        """
        for hit in result.hits:
            stages = ", ".join(f"{name} {value:.3f}" for name, value in hit.stages.items())
            self.console.print(f"\n[bold]{escape(hit.id)}[/bold]  {stages}", overflow="fold")
            table = Table(box=None, pad_edge=False, header_style="dim")
            if hit.rows and not (hit.explanation and hit.explanation.matches):
                found = ", ".join(f"{similarity:.3f}" for similarity in hit.rows)
                self.console.print(f"query rows: {found}", highlight=False)
                continue
            for column in ("query word", "passage word", "similarity", "characters"):
                table.add_column(column)
            for match in hit.explanation.matches if hit.explanation else ():
                place = f"{match.start}-{match.end}"
                similarity = Text(f"{match.similarity:.3f}", style=similarity_style(match.similarity))
                table.add_row(Text(match.query_word), Text(match.passage_word), similarity, place)
            self.console.print(table)
        matched = "" if result.matched is None else f"{result.matched} matched, "
        took = ", ".join(f"{stage} {ms:.1f}" for stage, ms in result.timings_ms.items())
        why = f" ({result.chosen})" if result.chosen else ""
        self.say(f"\ncandidates by {result.candidates}{why}")
        self.say(f"{matched}at most {result.reranked} reranked by MaxSim; {result.coverage:.1%} of the documents searched")
        self.say(f"milliseconds: {took}")

    def export_report(self, report: ExportReport) -> None:
        """Print how each graph and dense model compares with torch, and how it differs from the checkpoint's own loader."""
        if report.fidelity:
            self._fidelity("graph", report.fidelity, report.torch)
            self._ids(report)
        if report.vespa_rules:
            rules = report.vespa_rules
            self.say(
                f"Vespa's rules compared with the trained ones: same ids {rules.ids_equal:.0%}, top-10 {rules.top10:.3f}, "
                f"tau {rules.tau:.3f}"
            )
        for name, dense in report.dense.items():
            self._fidelity(f"{name}: {dense.dim} dimensions, {', '.join(dense.modules)}", dense.fidelity, dense.torch)
            self._ids(dense)

    def _fidelity(self, title: str, graphs: Mapping[str, Fidelity], torch: Speed | None) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(title)
        for name in ("cosine", "worst", "top-10", "tau", "docs/s", "query ms", "MB"):
            table.add_column(name, justify="right")
        if torch:
            table.add_row("torch", "", "", "", "", f"{torch.documents_per_s:.0f}", f"{torch.query_ms:.1f}", "")
        for precision, found in graphs.items():
            measured = (f"{value:.4f}" for value in (found.mean, found.worst))
            ranks = (f"{value:.3f}" for value in (found.top10, found.tau))
            speed = f"{found.speed.documents_per_s:.0f}", f"{found.speed.query_ms:.1f}"
            table.add_row(precision, *measured, *ranks, *speed, f"{found.bytes / 1e6:.0f}")
        self.console.print(table)

    def _ids(self, report: ExportReport | DenseReport) -> None:
        self.say(f"token ids equal to those of sentence-transformers: {report.ids_equal:.0%} of {report.texts} texts")
        for difference in report.differences:
            self.say(f"  {difference}")

    def cross_encoder_report(self, report: CrossEncoderReport) -> None:
        """Print one line for each graph, compared with sentence-transformers."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("graph")
        for name in ("correlation", "worst", "same order", "pairs/s", "MB"):
            table.add_column(name, justify="right")
        table.add_row("torch", "", "", "", f"{report.torch_pairs_per_s:.0f}", "")
        for precision, found in report.fidelity.items():
            measured = f"{found.correlation:.4f}", f"{found.worst:.2g}", f"{found.order_equal:.0%}"
            table.add_row(precision, *measured, f"{found.pairs_per_s:.0f}", f"{found.bytes / 1e6:.0f}")
        self.console.print(table)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Print a column for the client and for each baseline.

        The p-value of the difference by randomisation is in parentheses.
        """
        table = Table(box=None, pad_edge=False, header_style="dim")
        size = f"{evaluation.passages:,} passages, " if evaluation.passages else ""
        table.add_column(f"{evaluation.collection}: {size}{evaluation.queries:,} queries")
        table.add_column(evaluation.candidates, justify="right")
        for name in evaluation.baselines:
            table.add_column(name, justify="right")
        for key, value in evaluation.measured.items():
            cells = []
            for name, values in evaluation.baselines.items():
                chance = evaluation.differences[name][key].randomisation
                cells.append(f"{values[key]:.3f}" + ("" if chance is None else f" ({chance:.3f})"))
            table.add_row(key.replace("_at_", "@"), f"{value:.3f}", *cells)
        if evaluation.recall_at_10 is not None:
            recall = f"{evaluation.recall_at_10:.3f} ({evaluation.recall_queries} queries)"
            table.add_row("recall@10 against exact MaxSim", recall)
        if evaluation.latency_ms:
            table.add_row("latency p50 / p95 ms", "{p50:.1f} / {p95:.1f}".format(**evaluation.latency_ms))
        self.console.print(table)
        if evaluation.baselines:
            self.say("in parentheses: p of the difference to the first column, by randomisation")

    def ways(self, report: WaysReport) -> None:
        """Print one line for each way to search, the best one bold, and an explanation of the table."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(f"{report.collection}: {report.passages:,} passages, {report.queries:,} queries")
        singles = [row.name for row in report.rows if row.single]
        keys = list(report.rows[0].metrics)
        for name in (*(key.replace("_at_", "@") for key in keys), *(f"p {name}" for name in singles), "p50 ms"):
            table.add_column(name, justify="right")
        for row in report.rows:
            chances = [row.differences[name][report.metric].randomisation if name != row.name else None for name in singles]
            cells = [*(f"{row.metrics[key]:.3f}" for key in keys), *("" if p is None else f"{p:.3f}" for p in chances)]
            table.add_row(row.name, *cells, f"{row.latency_ms['p50']:.1f}", style="bold green" if row == report.best else None)
        self.console.print(table)
        self.say(f"p: of the difference in {report.metric.replace('_at_', '@')} to each single score, by randomisation")
        if report.fitted is not None:
            fitted = report.fitted.fitted
            weights = ", ".join(f"{name} {weight:g}" for name, weight in fitted.weights.items())
            self.say(f"fitted: each query with weights fitted to the other queries; all queries: {fitted.fusion}, {weights}")

    def tradeoffs(self, found: Tradeoffs) -> None:
        """Print one line for each index and candidates; those that no other dominates are bold."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(f"{found.collection}: {found.passages:,} passages, {found.queries:,} queries")
        for name in ("pooled by", "candidates", "nDCG@10", "B per passage", "build s", "p50 ms", "p95 ms"):
            table.add_column(name, justify="right")
        for p in found.points:
            sizes = f"{p.ndcg_at_10:.3f}", f"{p.bytes_per_passage:,.0f}", f"{p.build_s:.1f}"
            row = (p.codec, str(p.pooling), p.candidates, *sizes, f"{p.p50_ms:.1f}", f"{p.p95_ms:.1f}")
            table.add_row(*row, style="bold green" if p.by_bytes or p.by_latency else None)
        self.console.print(table)

    def recall(self, report: RecallReport) -> None:
        """Print the curve with a bar for each setting's latency, then the least settings that reach the goal."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("candidates")
        for name in ("probes", "rerank", "among candidates", f"recall@{report.goal.k}", "p50 ms", "p95 ms"):
            table.add_column(name, justify="right")
        table.add_column("")
        slowest = max((effort.p50_ms for effort in report.curve), default=1.0)
        for effort in report.curve:
            best = effort in report.chosen
            shares = f"{effort.candidates:.3f}", f"{effort.recall:.3f}"
            times = f"{effort.p50_ms:.1f}", f"{effort.p95_ms:.1f}"
            bar = "█" * max(1, round(30 * effort.p50_ms / slowest))
            row = (effort.strategy, str(effort.probes or ""), str(effort.rerank), *shares, *times, bar)
            table.add_row(*row, style="bold green" if best else None)
        self.console.print(table)
        self.say(f"{report.queries} queries; exhaustive MaxSim p50 {report.exact_p50_ms:.1f} ms")
        for effort in report.chosen:
            probes = f", {effort.probes} probes" if effort.probes else ""
            self.say(f"{effort.strategy} reaches {report.goal.recall:.3g} with rerank {effort.rerank}{probes}")
        if not report.chosen:
            self.say(f"no setting reaches {report.goal.recall:.3g}: the codec may have lost it, or rerank more")

    def candidates(self, report: CandidateReport) -> None:
        """Print one line for each way: bytes per passage, recall by number of candidates, and work.

        Work is that of the first number of candidates that reaches the goal, in millions of multiply-adds. The cheapest is
        bold.
        """
        reranks = list(dict.fromkeys(point.rerank for point in report.points))
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(f"recall@{report.goal.k} among")
        for name in ("B", *(f"{rerank:,}" for rerank in reranks), "work"):
            table.add_column(name, justify="right")
        for way, points in report.ways.items():
            least, found = report.least(way), {point.rerank: point.recall for point in points}
            cells = [f"{found[rerank]:.3f}" if rerank in found else "" for rerank in reranks]
            work = f"{least.work / 1e6:,.1f}" if least is not None else "-"
            best = report.best is not None and way == report.best.way
            table.add_row(way, f"{report.bytes[way]:,.0f}", *cells, work, style="bold green" if best else None)
        self.console.print(table)
        self.say(
            f"{report.passages:,} passages, {report.queries} queries; B: bytes a passage beside its token vectors; work: "
            f"million multiply-adds of a query that reaches {report.goal.recall:g}. More passages need more candidates"
        )

    def parity(self, report: ParityReport) -> None:
        """Print one line for each comparison, then the failed checks and the worst cases."""
        for comparison in report.comparisons:
            self.heading(comparison.name)
            table = Table(box=None, show_header=False, pad_edge=False)
            checks = {check.measure: check for check in report.checks if check.comparison == comparison.name}
            for measure, value in comparison.measured.items():
                check = checks.get(measure)
                verdict = "" if check is None else "passed" if check.passed else f"FAILED, wanted {check.threshold:.5g}"
                style = "bold red" if check is not None and not check.passed else ""
                table.add_row(measure, f"{value:.5f}", Text(verdict, style=style))
            self.console.print(table)
            for case in comparison.cases[:3]:
                self.say(f"  {case.what}: {case.measure} {case.value:.4g}" + (f" ({case.reason})" if case.reason else ""))
        for note in report.notes:
            self.say(f"note: {note}")
        self.say(f"differs in: {', '.join(report.guilty)}" if report.failed else "all thresholds are reached")

    def changes(self, changes: Sequence[Change]) -> None:
        """Print one line for each change, the costly ones last."""
        from vespa_app.changes.comparing import KINDS

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(style="dim", overflow="fold")
        table.add_column(overflow="fold")
        for change in sorted(changes, key=lambda change: KINDS.index(change.kind)):
            note = f" (allow {change.allow})" if change.allow else ""
            table.add_row(change.kind, change.where, Text(change.what + note))
        self.console.print(table)

    def plan(self, plan: Plan) -> None:
        """Print each figure with its formula and source, then the notes."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(justify="right", style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for figure in plan.figures:
            amount = f"{figure.value:,.4g}" if figure.value < 1e4 else f"{figure.value:,.0f}"
            how = Text.assemble(figure.formula, "\n", (figure.source, "dim"))
            table.add_row(figure.name, f"{amount} {figure.unit}".strip(), how)
        self.console.print(table)
        for note in plan.notes:
            self.say(f"  note: {note}")

    def feed_summary(self, summary: FeedSummary, verb: str = "fed", *, whole: bool = False) -> None:
        """Print the ledger of a feed and its notes.

        Args:
            summary: Outcome of the feed.
            verb: What was done to the documents.
            whole: Whether documents were fed without splitting; the notes then suggest `--split` for long ones.
        """
        if summary.outcome == "dry run":
            unchanged = f"{summary.already_there} are there unchanged"
            if summary.operation == "delete":
                unchanged = f"{summary.absent} do not exist"
            self.say(f"dry run: {summary.pending} of {summary.documents} documents would be {verb}, {unchanged}")
            self._feed_notes(summary)
            return
        per_second = summary.acknowledged / summary.seconds if summary.seconds else 0.0
        rate = f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"
        way = "from" if verb == "deleted" else "to"
        self.say(f"{verb} {summary.acknowledged} documents {way} {summary.target} in {summary.seconds:.1f} s ({rate}/s)")
        if summary.already_there:
            self.say(f"  {summary.already_there} were already there")
        if summary.skipped_blank:
            self.say(
                f"  {summary.skipped_blank} blank documents skipped: {_named(summary.skipped_blank_ids, summary.skipped_blank)}"
            )
        if summary.removed_blank:
            self.say(f"  {summary.removed_blank} of them had a text before, which was removed")
        if summary.absent:
            self.say(f"  {summary.absent} ids did not exist: {_named(summary.absent_ids, summary.absent)}")
        if summary.duplicates:
            self.say(f"  {summary.duplicates} lines had an id that came again later; the last one counts")
        self._feed_notes(summary)
        if summary.truncated:
            hint = "; split them into passages with --split sentences or markdown" if whole else ""
            self.say(f"  {summary.truncated} documents exceed the model's length, so their ends are not indexed{hint}")
        if summary.dead_lettered:
            self.say(
                f"  {summary.dead_lettered} documents were refused; feed them again with feed --retry "
                f"{summary.dead_letter_file}"
            )
        if summary.outcome in ("interrupted", "failed"):
            self.say(f"  {summary.outcome}: {summary.pending} documents are pending; continue with --resume")

    def _feed_notes(self, summary: FeedSummary) -> None:
        for note in summary.notes:
            self.say(f"  {note}")


def _named(ids: Sequence[str], count: int) -> str:
    """Join ids, which are the first of `count`."""
    return ", ".join(ids) + (", ..." if count > len(ids) else "")


class StepBars:
    """A progress bar for each named step of an operation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, object] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]


_SHOWN = 240
_MATCH = "bold yellow"
_STRENGTHS = ((0.75, "bold green"), (0.5, "green"), (0.25, "yellow"))  # of a similarity, and its colour


def similarity_style(similarity: float) -> str:
    return next((style for least, style in _STRENGTHS if similarity >= least), "dim")


def _passage(title: str, text: str, explanation: Explanation | None) -> Text:
    """Return about 240 characters of the text, without the title, around most of the matching words."""
    whole, spans = _collapsed(explanation.text, explanation.spans()) if explanation else _collapsed(text, [])
    body = len(title) + 1 if explanation and title and whole.startswith(f"{title} ") else 0
    inside = [span for span in spans if span[0] >= body]
    first = _window_start(whole, inside, body)
    last = min(len(whole), first + _SHOWN)
    shown = Text("... " if first > body else "")
    place = first
    for start, end in inside:
        if start >= place and end <= last:
            shown.append(whole[place:start])
            shown.append(whole[start:end], style=_MATCH)
            place = end
    shown.append(whole[place:last] + (" ..." if last < len(whole) else ""))
    return shown


def _title(hit: Hit, explanation: Explanation | None) -> Text:
    """Return the title with matching words marked, and the id if it differs."""
    spans = explanation.spans() if explanation and explanation.text.startswith(hit.title) else []
    title = Text(hit.title, style="bold")
    for start, end in spans:
        if end <= len(hit.title):
            title.stylize(_MATCH, start, end)
    if not hit.title or hit.title == hit.id:
        return title if hit.title else Text(hit.id, style="bold")
    return Text(f"{hit.id}  ", style="bold").append_text(title)


def _window_start(text: str, spans: list[tuple[int, int]], body: int) -> int:
    if len(text) - body <= _SHOWN or not spans:
        return body
    best = max(spans, key=lambda span: (sum(span[0] <= s and e <= span[0] + _SHOWN for s, e in spans), -span[0]))[0]
    if best + 40 < body + _SHOWN:
        return body
    start = text.rfind(" ", 0, best - 40) + 1
    return max(body, min(start, len(text) - _SHOWN))


def _collapsed(text: str, spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """Replace every run of white space by one blank, and move the spans accordingly."""
    kept: list[str] = []
    moved = []
    for character in text:
        moved.append(len(kept))
        if not character.isspace():
            kept.append(character)
        elif kept and kept[-1] != " ":
            kept.append(" ")
    moved.append(len(kept))
    return "".join(kept), [(moved[start], moved[end]) for start, end in spans]


def print_error(message: str) -> None:
    """Print an error message to stderr."""
    Terminal(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(message)}")
