"""Types of options and arguments, checked before a command begins: ranges of numbers, paths, addresses, files to write."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from late_interaction.addresses import as_path, locate
from late_interaction.errors import UsageError
from late_interaction.files import check_folder, check_output_file, check_own_output

if TYPE_CHECKING:
    from late_interaction.devices import Device

__all__ = [
    "COUNT",
    "JUNIT",
    "MILLISECONDS",
    "NUMBER",
    "PAGE",
    "PLOT",
    "PORT",
    "SECONDS",
    "TREC_RUN",
    "BundleOption",
    "Candidates",
    "Columns",
    "DenseModel",
    "DeviceNumber",
    "DeviceOption",
    "FieldTypes",
    "Fusion",
    "Json",
    "RequireFull",
    "Rerank",
    "RerankTop",
    "RerankWith",
    "Timeout",
    "Weight",
    "address",
    "checkpoint",
    "chosen_device",
    "file_to_write",
    "folder_to_write",
    "path",
    "real",
    "source",
    "text",
    "weights_of",
    "whole",
]

MOST = 2**31 - 1


def whole(least: int, most: int = MOST) -> Callable[[object], int]:
    """Return a parser of whole numbers from `least` to `most`."""

    def number(given: object) -> int:
        try:
            value = int(str(given))
        except ValueError:
            raise typer.BadParameter(f"{_shown(given)} is not a whole number") from None
        if not least <= value <= most:
            raise typer.BadParameter(f"{_shown(given)} is not from {least} to {most}")
        return value

    return number


def real(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[object], float]:
    """Return a parser of finite numbers from `least` to `most`; with `above`, `least` itself is out of range."""

    def number(given: object) -> float:
        try:
            value = float(str(given))
        except ValueError:
            raise typer.BadParameter(f"{_shown(given)} is not a number") from None
        if not math.isfinite(value) or not least <= value <= most or (above and value == least):
            first = f"above {least:g}" if above else f"{least:g} or more"
            raise typer.BadParameter(
                f"{_shown(given)} is not {first}" + ("" if math.isinf(most) else f", and at most {most:g}")
            )
        return value

    return number


COUNT = whole(1)
PORT = whole(1, 65535)
NUMBER = whole(0)
SECONDS = real(0, 1e9, above=True)
MILLISECONDS = SECONDS


def text(given: object) -> str:
    """Return an argument decoded as UTF-8, whatever the locale."""
    value = str(given)
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        return value


def path(given: object) -> Path:
    """Parse a path to read; an empty text is an error, not the current folder."""
    try:
        return given if isinstance(given, Path) else as_path(str(given))
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def file_to_write(given: object) -> Path:
    """Parse the path of a file that can be written or replaced."""
    found = path(given)
    try:
        check_output_file(found)
    except (OSError, UsageError) as error:
        raise typer.BadParameter(_why(found, error)) from None
    return found


def _report(mark: str, *endings: str) -> Callable[[object], Path]:
    """Return a parser of report files to write: new ones, or ones with `mark` near the beginning, with one of the endings."""

    def file_to_write(given: object) -> Path:
        found = path(given)
        if endings and found.suffix.lower() not in endings:
            raise typer.BadParameter(f"{found} does not end in {' or '.join(endings)}")
        try:
            check_output_file(found)
            check_own_output(found, mark)
        except (OSError, UsageError) as error:
            raise typer.BadParameter(_why(found, error)) from None
        return found

    return file_to_write


JUNIT = _report('<testsuites name="parity"')
PAGE = _report("<meta name=generator content=colbert-vespa>")
PLOT = _report("colbert-vespa plot", ".png", ".svg")
TREC_RUN = _report(" colbert-vespa\n")


def folder_to_write(given: object) -> Path:
    """Parse the path of a folder that can be created or written to; the command checks whether it may be replaced."""
    found = path(given)
    try:
        check_folder(found, owned=lambda _: True)
    except (OSError, UsageError) as error:
        raise typer.BadParameter(_why(found, error)) from None
    return found


def checkpoint(given: object) -> str:
    """Parse a checkpoint's folder or hub name, unchanged; an empty text is an error."""
    path(given)
    return str(given)


def source(given: object) -> str:
    """Parse a path, or `-` for standard input."""
    return "-" if given == "-" else str(path(given))


def address(given: object) -> str:
    """Parse a URL of Vespa or a path."""
    try:
        return str(locate(str(given)))
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def chosen_device(name: str, number: int | None) -> Device:
    """Return the device that --device and --device-id name.

    Raises:
        UsageError: If there is no such device.
    """
    from late_interaction.devices import Device

    return Device(name, number)


def _why(found: Path, error: OSError | UsageError) -> str:
    return f"{found}: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def _shown(given: object) -> str:
    text = str(given)
    return repr(text if len(text) <= 40 else text[:40] + "...")


def weights_of(given: Sequence[str] | None) -> dict[str, float] | None:
    """Return the weights given by `--weight`, or None without any.

    Raises:
        UsageError: If an item is not NAME=NUMBER, or a name occurs twice.
    """
    found: dict[str, float] = {}
    for item in given or ():
        name, _, value = item.partition("=")
        if name in found:
            raise UsageError(f"--weight {name} comes twice: give it once")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--weight must be NAME=NUMBER, such as bm25=0.5, got {item!r}") from None
    return found or None


Json = Annotated[
    bool, typer.Option("--json", help="End stdout with one JSON object on one line; everything else goes to stderr.")
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", help="Bundle folder; default: that of the index, or the one registered for the application.", parser=path
    ),
]
Candidates = Annotated[str, typer.Option("--candidates", help="How candidates are found; auto: the index's preference.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="Which column is what: id=sku, title=name, text=body. Repeatable; id=@row numbers the rows.",
        parser=text,
    ),
]  # fmt: skip
FieldTypes = Annotated[
    list[str] | None,
    typer.Option("--type", help="Type of a metadata field: published=timestamp. Repeatable.", parser=text),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds for a query, passed on to Vespa; default: 10.", parser=SECONDS)
]
RequireFull = Annotated[bool, typer.Option("--require-full", help="Treat an answer that lacks documents as an error.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, tensorrt, rocm, coreml, openvino or directml: what runs the model.")
]
DeviceNumber = Annotated[
    int | None, typer.Option("--device-id", help="Number of the device, if there are several.", parser=whole(0, 255))
]
RerankWith = Annotated[
    Path | None,
    typer.Option("--rerank-with", help="Folder of a cross-encoder, which orders the best hits.", parser=path),
]
RerankTop = Annotated[
    int | None,
    typer.Option(
        "--rerank-top", help="Hits that the cross-encoder reads; default: 50. At a server: use the server's own.", parser=COUNT
    ),
]
Rerank = Annotated[int | None, typer.Option("--rerank", help="How many candidates get a MaxSim score.", parser=COUNT)]
Weight = Annotated[
    list[str] | None,
    typer.Option("--weight", help="Weight of a score in candidates hybrid: maxsim=1.0, bm25=0.5, dense=1.0. Repeatable."),
]
Fusion = Annotated[str | None, typer.Option("--fusion", help="How hybrid fuses scores: rrf (ranks) or sum (scores).")]
DenseModel = Annotated[
    str | None, typer.Option("--dense-model", help="Dense model of the index, if it has several.", parser=text)
]
