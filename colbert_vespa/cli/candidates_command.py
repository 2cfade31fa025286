"""`candidates`: measure which candidates find enough on the user's own documents, and their cost."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import NUMBER, PLOT, Columns, Json, folder_to_write, path, whole
from late_interaction.errors import UsageError
from late_interaction.extras import require

__all__ = ["candidates"]

MOST_QUERIES = 2_000  # whose scores of all passages are in memory at once


def candidates(
    bundle: Annotated[Path, typer.Argument(help="Bundle that `export` wrote.", parser=path)],
    sample: Annotated[Path, typer.Option("--sample", help="Some of your documents, as `feed` takes them.", parser=path)],
    goal: Annotated[str, typer.Option("--goal", help="Share of the exact top k that must be found.")] = "recall@10=0.98",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a copy of the bundle with the choice here; replaces a bundle that is there.",
            parser=folder_to_write,
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="Texts of queries; default: spans of words of the sample.", parser=path),
    ] = None,
    count: Annotated[int, typer.Option("--count", help="Queries at most.", parser=whole(1, MOST_QUERIES))] = 200,
    dim: Annotated[
        list[int] | None,
        typer.Option("--dim", help="Dimensions of fitted encodings. Repeatable. Default: 256, 512.", parser=whole(1, 4096)),
    ] = None,
    column: Columns = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random choices.", parser=NUMBER)] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw recall against work, as .png or .svg.", parser=PLOT)] = None,
    json_output: Json = False,
) -> None:
    """Measure which candidates find enough on a sample of your documents, and choose the cheapest."""
    require(("numba",), "local", "measuring candidates")
    from colbert_vespa.cli.choosing import DIMS, ChoiceOptions, choose_candidates
    from colbert_vespa.cli.source_options import with_columns
    from colbert_vespa.evaluation.recall import parse_goal
    from feeder.sources import ROW, ColumnMapping, SourceSettings, open_sources
    from late_interaction.bundle import Bundle

    settings = SourceSettings(ColumnMapping(id=ROW))
    asked: list[str] = []
    if queries is not None:
        asked = [d.text or d.title for d in islice(open_sources([str(queries)], settings)[0], count) if not d.blank]
        if not asked:
            raise UsageError(f"{queries} has no query: give a source whose texts are queries, or leave --queries out")
    options = ChoiceOptions(parse_goal(goal), asked, count, tuple(dict.fromkeys(dim or DIMS)), seed, plot)
    documents = open_sources([str(sample)], with_columns(settings, column))[0]
    out = Output(json_output=json_output)
    report = choose_candidates(out, Bundle.open(bundle), documents, output, options)
    out.result({"bundle": None if output is None else str(output), **report.to_json()})
