"""`serve keys`: make, list and revoke keys of callers."""

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
    no_args_is_help=True,
    add_completion=False,
    help="Create, list and revoke callers' keys. A running server picks up changes at once.",
)
File = Annotated[Path, typer.Option("--keys", help="File with the keys.", parser=path)]


@keys_app.command()
def make(
    file: File,
    name: Annotated[str, typer.Option("--name", help="Name of its owner, for the list.", parser=text)],
    role: Annotated[str, typer.Option("--role", help="read, write (also documents) or admin (also metrics).")] = "read",
    index: Annotated[
        list[str] | None, typer.Option("--index", help="A served index that it may use. Repeatable. Default: all.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", help="JSON filter that is always added: other documents can be neither read nor written.", parser=text
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second.", parser=real(0, 1e6, above=True))] = None,
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
    """List all keys with their permissions, including revoked ones."""
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
        limits += [f"{key.rate:g} requests per second"] if key.rate is not None else []
        state = "revoked" if key.revoked else key.role
        out.say(f"{key.id}  {state:7}  {made:%Y-%m-%d}  {key.name}" + (f"  ({'; '.join(limits)})" if limits else ""))
    out.result({"keys": found})


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as in the list.", parser=text)],
    file: File,
    json_output: Json = False,
) -> None:
    """Revoke a key: the next request with it is refused."""
    from colbert_vespa.server.keys import KeyFile

    out = Output(json_output=json_output)
    key = KeyFile(file).revoke(key_id)
    out.say(f"key {key.id} of {key.name} is revoked")
    out.result({"id": key.id, "revoked": True})
