"""`search`: search an index and print the hits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import (
    COUNT,
    NUMBER,
    PAGE,
    BundleOption,
    Candidates,
    DeviceNumber,
    DeviceOption,
    Fusion,
    Json,
    RequireFull,
    Rerank,
    RerankTop,
    RerankWith,
    Timeout,
    Weight,
    address,
    chosen_device,
    path,
    text,
    weights_of,
)
from late_interaction.errors import FilterError, UsageError
from late_interaction.files import atomic_write

if TYPE_CHECKING:
    from query import QueryVectors

__all__ = ["search"]


def search(
    address: Annotated[
        list[str], typer.Option("--from", help="Local index folder or Vespa URL; hits of several are merged.", parser=address)
    ],
    query: Annotated[str | None, typer.Argument(help="The query.", parser=text)] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="File with ready-made query rows: NPZ, safetensors, JSON, Parquet.", parser=path),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of passages.", parser=COUNT)] = 10,
    where: Annotated[str | None, typer.Option("--where", help='Filter, as {"field": value} in JSON.', parser=text)] = None,
    candidates: Candidates = "auto",
    index: Annotated[list[str] | None, typer.Option("--index", help="Index of a Vespa application. Repeatable.")] = None,
    rerank: Rerank = None,
    probes: Annotated[
        int | None, typer.Option("--probes", help="Centroids looked up for each query row.", parser=COUNT)
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", help="Hits before this page; give it on all pages.", parser=NUMBER)
    ] = None,
    weight: Weight = None,
    fusion: Fusion = None,
    dense: Annotated[str | None, typer.Option("--dense", help="Dense model, if the index has several.", parser=text)] = None,
    scored: Annotated[str, typer.Option("--scored", help="Where MaxSim is computed: engine or client.")] = "engine",
    rerank_with: RerankWith = None,
    rerank_with_top: RerankTop = None,
    timeout: Timeout = None,
    require_full: RequireFull = False,
    heatmap: Annotated[
        Path | None, typer.Option("--heatmap", help="Write the word similarities as an HTML page.", parser=PAGE)
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="One hit per document: its best passage.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show which words matched and how long each stage took.")] = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
    json_output: Json = False,
) -> None:
    """Search an index: find candidates, then rerank them by late interaction."""
    from query import Client, ClientSettings
    from query.heatmap import heatmap_page

    out = Output(json_output=json_output)
    filter_, weights = _where(where), weights_of(weight)
    asked = _asked(query, vectors)
    settings = ClientSettings(require_full=require_full)
    on = chosen_device(device, device_id)
    with Client(address, bundle, settings=settings, device=on) as client:
        result = client.search(
            asked, k, where=filter_, candidates=candidates, index=index, rerank=rerank, probes=probes, offset=offset,
            group=group, weights=weights, fusion=fusion, dense=dense, scored=scored, timeout=timeout,
            rerank_with=rerank_with, rerank_with_top=rerank_with_top,
            explain=explain or heatmap is not None or not json_output,  # people see which words matched
        )  # fmt: skip
    out.hits(result)
    if explain:
        out.explanation(result)
    if heatmap is not None:
        atomic_write(heatmap, heatmap_page(query or str(vectors), result).encode())
        out.say(f"heatmap: {heatmap}")
    out.result({"from": address[0] if len(address) == 1 else address, **result.to_json()})


def _asked(text: str | None, vectors: Path | None) -> str | QueryVectors:
    """Return the query; UsageError if there is none, or the file does not contain exactly one."""
    if vectors is None:
        if text is None:
            raise UsageError("give a query, or --vectors FILE with its rows")
        return text
    import numpy as np

    from feeder.sources import open_sources
    from query import QueryVectors

    found = list(itertools.islice(open_sources([str(vectors)])[0], 2))
    if len(found) != 1 or len(found[0].vectors) != 1:
        raise UsageError(f"{vectors} must contain the rows of exactly one query: an array [q, d]")
    return QueryVectors(np.asarray(found[0].vectors[0], np.float32), text=text or found[0].text or None)


def _where(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    from late_interaction.filters import where_from_json

    try:
        return where_from_json(text)
    except FilterError as error:
        raise UsageError(f"--where: {error}") from None
