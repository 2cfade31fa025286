"""`serve keys`: who may ask a server."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import Json, path, real, text
from late_interaction.errors import FilterError, UsageError

__all__ = ["keys_app"]

keys_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Keys of callers: made, listed, revoked. A running server sees it at once."
)
File = Annotated[Path, typer.Option("--keys", help="File with the keys.", parser=path)]


@keys_app.command()
def make(
    file: File,
    name: Annotated[str, typer.Option("--name", help="Whose it is, for the list.", parser=text)],
    role: Annotated[str, typer.Option("--role", help="read, write (documents, too) or admin (metrics, too).")] = "read",
    index: Annotated[
        list[str] | None, typer.Option("--index", help="A served index that it may see; several times. Default: all.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help="A filter that is always added, in JSON: no others are seen or put.", parser=text),
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests a second.", parser=real(0, 1e6, above=True))] = None,
    json_output: Json = False,
) -> None:
    """Make a key. It is shown once, and kept nowhere."""
    from colbert_vespa.server.keys import KeyFile
    from late_interaction.filters import where_from_json

    out = Output(json_output=json_output)
    try:
        filter_ = None if where is None else where_from_json(where)
    except FilterError as error:
        raise UsageError(f"--where: {error}") from None
    key, token = KeyFile(file).make(name, role, rate=rate, indexes=index or None, where=filter_)
    out.say(f"key {key.id} of role {key.role} for {name}; it is not shown again:")
    if not json_output:
        out.command(token)
    out.result({"id": key.id, "key": token, "role": key.role})


@keys_app.command("list")
def list_(file: File, json_output: Json = False) -> None:
    """List keys: what each may do, and those that were revoked."""
    from colbert_vespa.server.keys import KeyFile

    out = Output(json_output=json_output)
    found = []
    for key in KeyFile(file).read():
        made = datetime.datetime.fromtimestamp(key.created, datetime.timezone.utc)
        row = {"id": key.id, "name": key.name, "role": key.role, "created": made.isoformat(), "revoked": bool(key.revoked)}
        row |= {"indexes": key.indexes and list(key.indexes), "where": key.where, "rate": key.rate}
        found.append(row)
        limits = [f"indexes {', '.join(key.indexes)}"] if key.indexes is not None else []
        limits += [f"where {key.where}"] if key.where is not None else []
        limits += [f"{key.rate:g} requests a second"] if key.rate is not None else []
        state = "revoked" if key.revoked else key.role
        out.say(f"{key.id}  {state:7}  {made:%Y-%m-%d}  {key.name}" + (f"  ({'; '.join(limits)})" if limits else ""))
    out.result({"keys": found})


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as the list has it.", parser=text)],
    file: File,
    json_output: Json = False,
) -> None:
    """Revoke a key: the next request with it is refused."""
    from colbert_vespa.server.keys import KeyFile

    out = Output(json_output=json_output)
    key = KeyFile(file).revoke(key_id)
    out.say(f"key {key.id} of {key.name} is revoked")
    out.result({"id": key.id, "revoked": True})
