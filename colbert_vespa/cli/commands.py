"""The command line: the table of its commands, and their exit codes. A command only opens, calls and prints."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from colbert_vespa.cli.candidates_command import candidates
from colbert_vespa.cli.console import (
    INTERRUPTED,
    Output,
    announce_compiling,
    drop_unwritten,
    output_lost,
    prepare_streams,
    print_error,
)
from colbert_vespa.cli.doctor_command import doctor
from colbert_vespa.cli.evaluate_commands import evaluate, parity
from colbert_vespa.cli.feed_command import feed
from colbert_vespa.cli.index_commands import index_app
from colbert_vespa.cli.model_commands import bundle, export, train
from colbert_vespa.cli.monitor_command import monitor_app
from colbert_vespa.cli.option_types import Json, checkpoint, folder_to_write, path
from colbert_vespa.cli.package_commands import app as make_app
from colbert_vespa.cli.package_commands import deploy, plan
from colbert_vespa.cli.search_commands import search
from colbert_vespa.cli.serve_commands import ServeCommand, serve
from late_interaction.errors import ColbertVespaError
from late_interaction.extras import require

__all__ = ["app", "main"]

app = typer.Typer(
    name="colbert-vespa",
    help="From any ColBERT checkpoint to a production Vespa cluster, with the same vectors and answers on a laptop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(index_app, name="index")
app.add_typer(monitor_app, name="monitor")

_ClickError: Any = typer.BadParameter.__mro__[2]  # typer's releases take it from click or from a copy of click


@functools.cache
def _command() -> Any:
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status.

    An error is one line on stderr; the exit code is 1, or 2 for wrong usage.

    Args:
        arguments: Arguments of the command line; default: those of the process.
    """
    prepare_streams()
    announce_compiling()
    try:
        status = _command()(arguments, standalone_mode=False)
        if not status and output_lost():
            print_error("standard output is closed, so the output is lost")
            status = 1
        sys.exit(status)
    except ColbertVespaError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except _ClickError as error:
        message = error.format_message()
        if "\n" in message:  # without arguments, the help, which some releases of typer have printed already
            error.show()
        elif message:
            print_error(_usage(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print_error(f"{error.filename or 'system'}: {error.strerror or error}")
        drop_unwritten()
        sys.exit(1)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(INTERRUPTED)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"; see {context.command_path} --help"
    return str(error.format_message()).rstrip(".") + hint


def demo(
    model: Annotated[
        str | None, typer.Option("--model", help="Checkpoint: a folder or hub name; default: MiniLM.", parser=checkpoint)
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder with corpus, queries and qrels.", parser=path)
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for bundle, package and index.", parser=folder_to_write)
    ] = Path("demo"),
    json_output: Json = False,
) -> None:
    """Try everything on the local engine: export, application package, index, searches, report."""
    require(("torch", "numba"), "demo", "the demo")
    from colbert_vespa.cli.demo import run_demo

    run_demo(Output(json_output=json_output), output, model=model, collection=collection)


app.command()(demo)
app.command()(export)
app.command()(bundle)
app.command("app")(make_app)
for command in (candidates, deploy, plan, feed, search, evaluate, train, parity, doctor):
    app.command()(command)
app.command(cls=ServeCommand)(serve)
