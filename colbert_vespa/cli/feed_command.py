"""`feed`: write documents to Vespa or a local index."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colbert_vespa.cli.console import INTERRUPTED, Output
from colbert_vespa.cli.option_types import (
    COUNT,
    PORT,
    BundleOption,
    Columns,
    DeviceNumber,
    DeviceOption,
    FieldTypes,
    Json,
    address,
    chosen_device,
    file_to_write,
    folder_to_write,
    path,
    real,
    source,
    whole,
)
from late_interaction.addresses import locate
from late_interaction.errors import ColbertVespaError, CollectionError, UsageError

if TYPE_CHECKING:
    from feeder.feeding.metrics import FeedMetrics

__all__ = ["feed"]


def feed(
    to: Annotated[str, typer.Option("--to", help="Local index folder, or http(s)://host:port of Vespa.", parser=address)],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="JSONL, CSV, TSV, Parquet, Arrow (.gz, .zst), folders of pages, collections; - for stdin.", parser=source
        ),
    ] = None,
    bundle: BundleOption = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="feed.toml: columns, passages, limits.", parser=path)
    ] = None,
    column: Columns = None,
    type_: FieldTypes = None,
    split: Annotated[
        str | None, typer.Option("--split", help="How documents are split into passages: none, sentences or markdown.")
    ] = None,
    retry: Annotated[Path | None, typer.Option("--retry", help="Feed a dead-letter file again.", parser=path)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what an interrupted feed has already sent.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete these ids instead; a .txt file has one per line.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Change only the given metadata.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be sent; write nothing.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip and report files and records that cannot be read.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", help="Most documents to feed.", parser=COUNT)] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Most documents per second.", parser=real(0, above=True))] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Encoding processes; default: one per core.", parser=whole(0, 1024))
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder that caches vectors, so that no text is encoded twice.", parser=folder_to_write),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Journal file; default: in the user's cache.", parser=file_to_write)
    ] = None,
    dead_letters: Annotated[
        Path | None,
        typer.Option("--dead-letters", help="File of refused documents; default: beside the journal.", parser=file_to_write),
    ] = None,
    metrics: Annotated[
        int | None,
        typer.Option("--metrics", help="Serve Prometheus metrics on this port of localhost while it runs.", parser=PORT),
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", help="Codec of a new local index: residual, binary or float32.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Bits per dimension of codec residual: 1, 2 or 4.", parser=whole(1, 4))
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Also keep int8 rows in a new local index, to score its best hits.")
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option("--shards", help="Number of shards of a new local index, one process each.", parser=whole(1, 64)),
    ] = None,
    shard_by: Annotated[
        str | None, typer.Option("--shard-by", help="Metadata field that assigns the shard; default: the id.")
    ] = None,
    add_fields: Annotated[
        bool, typer.Option("--add-fields", help="Add the documents' metadata fields that the local index lacks.")
    ] = False,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
    json_output: Json = False,
) -> None:
    """Feed documents into Vespa or a local index."""
    from colbert_vespa.cli.feed_view import feed_view
    from colbert_vespa.cli.source_options import field_types, with_columns
    from feeder import FeedOptions, open_sources, start_feed
    from feeder.feeding.dead_letters import DeadLetterSource
    from feeder.feeding.settings import FeedSettings, read_feed_settings
    from feeder.sources import open_id_lists
    from late_interaction.plaid import Storage

    out = Output(json_output=json_output)
    if (retry is None) == (not sources) or (delete and update) or (retry is not None and (delete or update)):
        raise UsageError(
            "give sources, optionally with --delete or --update, or --retry FILE by itself; a retry repeats its own operation"
        )
    how = FeedSettings() if settings is None else read_feed_settings(settings)
    splitting = how.splitting if split is None else dataclasses.replace(how.splitting, method=split)
    opening = open_id_lists if delete else open_sources
    files = opening(sources or [], dataclasses.replace(with_columns(how.source, column), skip_bad=skip_bad))
    letters = None if retry is None else DeadLetterSource(retry)
    paths = [file.path for file in files] if letters is None else [letters.path]
    places = [str(path.absolute()) for path in paths]
    operation = letters.operation if letters else "delete" if delete else "update" if update else "put"
    verb = {"put": "fed", "delete": "deleted", "update": "updated"}[operation]
    target = locate(to, "--to")
    place = target.resolve() if isinstance(target, Path) else target
    key = hashlib.sha256(json.dumps([str(place), operation, places]).encode()).hexdigest()[:16]
    storage = Storage.chosen(codec, bits, refine)
    if shard_by is not None and shards is None:
        raise UsageError("--shard-by needs --shards, the number of shards of the new index")
    sharding = None
    if shards is not None:
        from late_interaction.plaid.shards import Sharding

        sharding = Sharding(shards, shard_by)
    options = FeedOptions(
        to=to, bundle=bundle, resume=resume, operation=operation, dry_run=dry_run, splitting=splitting, limit=limit, rate=rate,
        workers=workers, cache=cache, journal=journal or _journal_folder() / key, dead_letters=dead_letters, storage=storage,
        sharding=sharding, add_fields=add_fields, types={**how.types, **field_types(type_)},
        device=chosen_device(device, device_id),
    )  # fmt: skip
    with (
        _serving(metrics) as served,  # before anything is written
        start_feed([letters] if letters else files, options) as run,
        feed_view(run, served),
    ):
        try:
            summary = run.go()
        except ColbertVespaError:  # how far it came, and then why
            out.feed_summary(run.summary, verb)
            out.result(run.summary.to_json())
            raise
    out.feed_summary(summary, verb, whole=splitting.method == "none")
    out.result(summary.to_json())
    if summary.outcome == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if missing := summary.lacks_text:
        raise CollectionError(f"nothing was fed: {missing}")
    if summary.dead_lettered:
        raise typer.Exit(1)


def _serving(port: int | None) -> contextlib.AbstractContextManager[FeedMetrics | None]:
    if port is None:
        return contextlib.nullcontext()
    from feeder.feeding.metrics import FeedMetrics

    return FeedMetrics(port)


def _journal_folder() -> Path:
    from late_interaction.bundle_cache import cache_folder

    return cache_folder() / "journals"
