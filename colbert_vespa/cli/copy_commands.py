"""`index push`, `pull`, `backup`, `restore`: copy stored documents without encoding them again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colbert_vespa.cli.console import INTERRUPTED, Output
from colbert_vespa.cli.option_types import Json, address, folder_to_write, path, whole
from late_interaction.addresses import locate
from late_interaction.errors import UsageError

if TYPE_CHECKING:
    from feeder.copying import CopySummary
    from late_interaction.bundle import Bundle
    from late_interaction.progress import CountReport

__all__ = ["add_copy_commands"]

Merge = Annotated[
    bool,
    typer.Option(
        "--merge", help="Copy into an index that has documents; those with the same id are replaced, the others stay."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
BundleFolder = Annotated[
    Path | None,
    typer.Option("--bundle", help="Bundle of the Vespa application, if it is not known on this machine.", parser=path),
]
Codec = Annotated[
    str | None, typer.Option("--codec", help="Codec of a new local index; default: one that keeps the vectors unchanged.")
]
Bits = Annotated[int | None, typer.Option("--bits", help="Bits per dimension of codec residual: 1, 2, 4.", parser=whole(1, 4))]
Refine = Annotated[bool, typer.Option("--refine", help="A new local index also keeps int8 rows.")]


def add_copy_commands(app: typer.Typer) -> None:
    """Add the commands push, pull, backup and restore to `app`."""
    for command in (push, pull, backup, restore):
        app.command()(command)


def push(
    index: Annotated[Path, typer.Argument(help="Local index folder.", parser=path)],
    to: Annotated[
        str, typer.Option("--to", help="URL of a deployed application, with #NAME for one of its indexes.", parser=address)
    ],
    merge: Merge = False,
    resume: Resume = False,
    json_output: Json = False,
) -> None:
    """Copy a local index to a Vespa application: same ids, same vectors; nothing is encoded again."""
    from feeder.copying import CopyOptions, copy_index

    _check_url(to, "push")
    _run(json_output, functools.partial(copy_index, str(index), to, CopyOptions(merge=merge, resume=resume)))


def pull(
    url: Annotated[
        str, typer.Argument(help="URL of a deployed application, with #NAME for one of its indexes.", parser=address)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Local index to create.", parser=folder_to_write)],
    bundle: BundleFolder = None,
    codec: Codec = None,
    bits: Bits = None,
    refine: Refine = False,
    merge: Merge = False,
    resume: Resume = False,
    json_output: Json = False,
) -> None:
    """Copy the documents of a Vespa application to a local index: same ids, vectors as the application stores them."""
    from feeder.copying import CopyOptions, copy_index
    from late_interaction.plaid import Storage

    _check_url(url, "pull")
    options = CopyOptions(_bundle(bundle), Storage.chosen(codec, bits, refine), merge=merge, resume=resume)
    _run(json_output, functools.partial(copy_index, url, str(output), options))


def backup(
    address: Annotated[str, typer.Argument(help="Local index folder, or URL of an application.", parser=address)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Backup folder to create.", parser=folder_to_write)],
    bundle: BundleFolder = None,
    resume: Resume = False,
    json_output: Json = False,
) -> None:
    """Write an index's documents and vectors to a folder of compressed parts with checksums (docs/how-to/backups.md)."""
    from feeder.copying import CopyOptions, backup_index

    _run(json_output, functools.partial(backup_index, address, output, CopyOptions(_bundle(bundle), resume=resume)))


def restore(
    folder: Annotated[Path, typer.Argument(help="Backup folder.", parser=path)],
    to: Annotated[str, typer.Option("--to", help="Local index to create, or URL of an application.", parser=address)],
    codec: Codec = None,
    bits: Bits = None,
    refine: Refine = False,
    merge: Merge = False,
    resume: Resume = False,
    json_output: Json = False,
) -> None:
    """Verify a whole backup, and copy it to an address if it is undamaged."""
    from feeder.copying import CopyOptions, restore_index
    from late_interaction.plaid import Storage

    options = CopyOptions(storage=Storage.chosen(codec, bits, refine), merge=merge, resume=resume)
    _run(json_output, functools.partial(restore_index, folder, to, options))


def _check_url(address: str, command: str) -> None:
    if isinstance(locate(address), Path):
        raise UsageError(f"{address!r} is not the URL of a Vespa application, which index {command} needs")


def _bundle(path: Path | None) -> Bundle | None:
    from late_interaction.bundle import Bundle

    return None if path is None else Bundle.open(path)


def _run(json_output: bool, copy: Callable[[CountReport], CopySummary]) -> None:
    out = Output(json_output=json_output)
    with out.steps() as bars:
        summary = copy(functools.partial(bars, "copied"))
    there = f", {summary.already_there} of them there already" if summary.already_there else ""
    out.say(
        f"{summary.documents} documents{there}, {summary.passages} passages, {summary.token_vectors} token vectors "
        f"to {summary.target} in {summary.seconds:.1f} s"
    )
    for note in summary.notes:
        out.say(note)
    out.result(summary.to_json())
    if summary.outcome == "interrupted":
        out.say("interrupted; continue with --resume")
        raise typer.Exit(INTERRUPTED)
