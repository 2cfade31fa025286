"""`app`, `deploy` and `plan`: generate an application package, deploy it, and compute its resources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import COUNT, SECONDS, Columns, FieldTypes, Json, folder_to_write, path, real, source
from late_interaction.errors import UsageError
from late_interaction.files import check_folder

__all__ = ["app", "deploy", "plan"]


def app(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.", parser=path)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Application package folder to write.", parser=folder_to_write)
    ],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="app.toml with the application's settings.", parser=path)
    ] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="How token vectors are stored.")] = None,
    candidates: Annotated[list[str] | None, typer.Option("--candidates", help="How candidates are found. Repeatable.")] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option("--sample", help="Documents to infer metadata fields from, without --settings.", parser=source),
    ] = None,
    column: Columns = None,
    type_: FieldTypes = None,
    recall: Annotated[
        float | None,
        typer.Option("--recall", help="Share of the exact top 10 that candidates should find.", parser=real(0, 1, above=True)),
    ] = None,
    diff: Annotated[
        Path | None, typer.Option("--diff", help="Report what deploying over this package would do.", parser=path)
    ] = None,
    beside: Annotated[
        Path | None, typer.Option("--beside", help="Keep this package's indexes beside the new one.", parser=path)
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="With --beside: make the new index the default.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also write README.md, which explains each part.")] = False,
    json_output: Json = False,
) -> None:
    """Generate the Vespa application package of a bundle."""
    from colbert_vespa.cli.packaging import chosen_settings, write_package
    from late_interaction.bundle import Bundle
    from vespa_app.package.building import is_package_folder

    check_folder(output, owned=is_package_folder)
    if switch and not beside:
        raise UsageError("--switch works only with --beside; give the package whose index is to be replaced")
    opened = Bundle.open(bundle)
    chosen = chosen_settings(
        opened, settings, codec=codec, candidates=candidates or [], sample=sample or [], recall=recall, columns=column,
        types=type_,
    )  # fmt: skip
    out = Output(json_output=json_output)
    out.result(write_package(out, opened, chosen, output, diff=diff, beside=beside, switch=switch, explain=explain))


def deploy(
    package: Annotated[Path, typer.Argument(help="Application package folder.", parser=path)],
    target: Annotated[str, typer.Option("--target", help="docker, cloud, cloud-prod, or the config server's URL.")] = "docker",
    query_url: Annotated[
        str | None, typer.Option("--query-url", help="URL of the application, if it is not the usual one.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Seconds to wait for a config server that is starting (default: 60), then until every service is up "
            "(default: 300, more for cloud).",
            parser=SECONDS,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Allow a change that is refused by default, such as field-type-change or refeed."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the package and show what would be sent.")] = False,
    json_output: Json = False,
) -> None:
    """Deploy an application package and wait until it answers."""
    from colbert_vespa.cli.packaging import deploy_package, show_deployment

    out = Output(json_output=json_output)
    if dry_run:
        out.result(show_deployment(out, package, target, query_url=query_url, allow=allow or []))
    else:
        out.result(deploy_package(out, package, target, query_url=query_url, timeout=timeout, allow=allow or []))


def plan(
    documents: Annotated[float, typer.Option("--documents", help="Number of passages, such as 1e9.", parser=real(1))],
    tokens: Annotated[float, typer.Option("--tokens", help="Token vectors per passage.", parser=real(1))],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="app.toml; the options below override it.", parser=path)
    ] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="How token vectors are stored.")] = None,
    candidates: Annotated[list[str] | None, typer.Option("--candidates", help="How candidates are found. Repeatable.")] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Dimensions of a token vector.", parser=COUNT)] = None,
    pooling: Annotated[
        float | None, typer.Option("--pooling", help="How many token vectors are pooled into one.", parser=real(1))
    ] = None,
    redundancy: Annotated[int | None, typer.Option("--redundancy", help="Copies of each passage.", parser=COUNT)] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", help="Groups of nodes, each with a whole copy.", parser=COUNT)
    ] = None,
    node_memory: Annotated[
        float | None, typer.Option("--node-memory", help="GB of a content node.", parser=real(0, above=True))
    ] = None,
    text_bytes: Annotated[float | None, typer.Option("--text-bytes", help="Bytes of a passage's text.", parser=real(0))] = None,
    per_document: Annotated[
        float | None,
        typer.Option("--passages-per-document", help="With layout chunks: passages that share a document.", parser=real(1)),
    ] = None,
    queries: Annotated[
        float | None,
        typer.Option(
            "--queries-per-second",
            help="Queries per second: how many groups and containers they need.",
            parser=real(0, above=True),
        ),
    ] = None,
    centroids: Annotated[
        int | None, typer.Option("--centroids", help="Centroids of the codebook; default: the bundle's.", parser=COUNT)
    ] = None,
    encode_rate: Annotated[
        float | None,
        typer.Option(
            "--encode-rate",
            help="Token vectors per second of one machine; adds how long filling takes.",
            parser=real(0, above=True),
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Bundle whose dimensions and codebook are used.", parser=path)
    ] = None,
    json_output: Json = False,
) -> None:
    """Estimate memory, disk, nodes and the cost of a query, each with its formula and source."""
    from colbert_vespa.cli.packaging import plan_application

    out = Output(json_output=json_output)
    changes = {
        "codec": codec, "candidates": tuple(candidates) if candidates else None, "dim": dim, "pooling": pooling,
        "redundancy": redundancy, "groups": groups, "node_memory_gb": node_memory, "text_bytes": text_bytes,
        "passages_per_document": per_document, "queries_per_second": queries, "centroids": centroids,
        "encode_rate": encode_rate,
    }  # fmt: skip
    out.result(plan_application(out, documents, tokens, settings, changes, bundle))
