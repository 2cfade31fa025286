"""`doctor`: show what is installed, what answers, and how to fix what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import Json, address, real
from late_interaction.addresses import locate
from late_interaction.cores import cores
from late_interaction.errors import ColbertVespaError

__all__ = ["DISTRIBUTION", "doctor", "extras_of", "missing_packages"]

DISTRIBUTION = "colbert-vespa"
LOCAL_VESPA = "http://localhost:8080"
OK, MISSING, WARNING = "ok", "missing", "warning"
Row = tuple[str, str, str]  # name, state, what was found and what to do
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
DOCKER_S = 10.0
MOST_NAMED = 3  # missing packages of an extra


def extras_of(requirements: list[str]) -> dict[str, set[str]]:
    """Return the packages of each extra by its name, including those of extras that it names.

    Args:
        requirements: lines of a distribution's metadata (`Requires-Dist`).
    """
    own: dict[str, set[str]] = {}
    nested: dict[str, set[str]] = {}
    for line in requirements:
        match = _REQUIREMENT.match(line)
        extra = _EXTRA.search(match[3] or "") if match else None
        if match is None or extra is None:
            continue
        own.setdefault(extra[1], set())
        if match[1].lower() == DISTRIBUTION:
            nested.setdefault(extra[1], set()).update(name.strip() for name in (match[2] or "").split(","))
        else:
            own[extra[1]].add(match[1])

    def whole(extra: str) -> set[str]:
        return own.get(extra, set()).union(*(whole(other) for other in nested.get(extra, ())))

    return {extra: whole(extra) for extra in own}


def missing_packages(packages: set[str], installed: Callable[[str], str] = version) -> list[str]:
    """Return the packages that are not installed, sorted.

    Args:
        packages: Names of the packages.
        installed: Raises PackageNotFoundError for a package that is not installed.
    """
    absent = []
    for package in sorted(packages, key=str.lower):
        try:
            installed(package)
        except PackageNotFoundError:
            absent.append(package)
    return absent


def doctor(
    at: Annotated[
        str | None,
        typer.Option(
            "--from",
            help=f"Address of Vespa, a server or an index that must answer; default: see whether {LOCAL_VESPA} does.",
            parser=address,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for it.", parser=real(0, 600, above=True))] = 3.0,
    json_output: Json = False,
) -> None:
    """Show what is installed, what answers, and what to do about what is missing."""
    out = Output(json_output=json_output)
    found: dict[str, list[Row]] = {}
    areas: Mapping[str, Callable[[], Iterator[Row]]] = {
        "system": _system, "extras": _extras, "devices": _devices, "docker": _docker,
        "address": lambda: _answers(at or LOCAL_VESPA, timeout), "credentials": _credentials,
    }  # fmt: skip
    for area, look in areas.items():
        found[area] = list(look())
        out.heading(area)
        out.table({name: says if state == OK else f"{state}: {says}" for name, state, says in found[area]})
    out.result({area: [{"name": n, "state": s, "says": t} for n, s, t in rows] for area, rows in found.items()})
    if at is not None and any(state != OK for _, state, _ in found["address"]):
        raise typer.Exit(1)


def _system() -> Iterator[Row]:
    from late_interaction.bundle_cache import cache_folder

    yield DISTRIBUTION, OK, version(DISTRIBUTION)
    yield "python", OK, f"{platform.python_version()} at {sys.executable}"
    yield "machine", OK, f"{platform.platform()}, {cores()} cores"
    folder = cache_folder()
    bundles = len(list((folder / "bundles").glob("*")))
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield "cache", OK, f"{folder}, {bundles} bundles known"
    else:
        yield "cache", WARNING, f"{folder} cannot be written; set XDG_CACHE_HOME to a writable folder"


def _extras() -> Iterator[Row]:
    for extra, packages in extras_of(distribution(DISTRIBUTION).requires or []).items():
        if absent := missing_packages(packages):
            few = f" (lacks {', '.join(absent)})" if len(absent) < len(packages) and len(absent) <= MOST_NAMED else ""
            yield extra, MISSING, f"pip install '{DISTRIBUTION}[{extra}]'{few}"
        else:
            yield extra, OK, "installed"


def _devices() -> Iterator[Row]:
    from late_interaction.devices import DEVICES, installed_devices, processor_flags

    there = installed_devices()
    for name, kind in DEVICES.items():
        if name in there:
            yield name, OK, f"provider {kind.providers[0]} is installed"
        elif not kind.system or kind.system == sys.platform:
            yield name, MISSING, f"if you have one: pip install {kind.package}, without onnxruntime"
    if (flags := processor_flags()) and flags.isdisjoint({"avx512_vnni", "avx_vnni"}):
        yield "int8", WARNING, "this processor has no VNNI: int8 graphs are about as fast as fp32"


def _docker() -> Iterator[Row]:
    tool = shutil.which("docker")
    if tool is None:
        yield "docker", MISSING, "install docker with the compose plugin to run Vespa on this machine"
        return
    for name, (arguments, advice) in {
        "engine": (("version", "--format", "{{.Server.Version}}"), "start docker"),
        "compose": (("compose", "version"), "install docker's compose plugin"),
    }.items():
        try:
            done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=DOCKER_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield (
                name,
                WARNING,
                (f"docker {arguments[0]} does not answer ({type(error).__name__}); check that the engine is running"),
            )
            continue
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
        works = done.returncode == 0
        yield name, OK if works else WARNING, lines[0][:200] + ("" if works else f"; {advice}")


def _answers(at: str, timeout: float) -> Iterator[Row]:
    from query import Client, ClientSettings

    if isinstance(locate(at), Path) and find_spec("numba") is None:
        yield at, MISSING, f"a local index needs pip install '{DISTRIBUTION}[local]'"
        return
    try:
        with Client(at, settings=ClientSettings(timeout=timeout)) as client:
            yield at, OK, f"answers, with {', '.join(client.indexes)}"
    except ColbertVespaError as error:
        yield at, WARNING, str(error)


def _credentials() -> Iterator[Row]:
    """Check the files that hold credentials, by name; their content is never shown."""
    for name in ("COLBERT_VESPA_CERT", "COLBERT_VESPA_KEY", "COLBERT_VESPA_TOKEN_FILE"):
        if (value := os.environ.get(name)) is None:
            yield name, OK, "not set (for Vespa Cloud, secured endpoints)"
        elif os.access(value, os.R_OK):
            yield name, OK, "names a file that can be read"
        else:
            yield name, WARNING, f"names {value}, which cannot be read"
