"""A new model or codebook beside the old one: the package of the application that runs, and one more index, fed from the new
bundle. Both answer until the switch; nothing that runs is changed.

The new index is the old one's name with a version: passage, passage_v2, passage_v3. Constants and embedders carry the name of
their index or bundle, so that none of the old files is replaced.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.errors import SettingsError
from vespa_app.checks import check_package
from vespa_app.description import Description
from vespa_app.embedder import EMBEDDER_ID
from vespa_app.package import Package, build_package, complete, embedder_components
from vespa_app.settings import AppSettings

__all__ = ["build_beside", "next_version"]

_OF_THE_INDEXES = ("schemas/", "models/", "codebooks/")
_VERSION = re.compile(r"(.*)_v(\d+)")


def next_version(name: str, taken: Collection[str]) -> str:
    """`name` itself where it is free, else the next version of it."""
    match = _VERSION.fullmatch(name)
    stem, number = (match[1], int(match[2])) if match else (name, 1)
    while name in taken:
        number += 1
        name = f"{stem}_v{number}"
    return name


def build_beside(bundle: Bundle, settings: AppSettings, old: str | Path, *, switch: bool) -> Package:
    """The package in `old` with the indexes of `settings` beside its own, under new names. switch: queries that name no index
    go to the new one, instead of the old.

    Raises: SettingsError where `old` is no package, or the two cannot run in one application.
    """
    running = check_package(old)
    if running.settings.mode != settings.mode:
        raise SettingsError(f"setting mode: {old} is of mode {running.settings.mode}, and one application has one mode")
    if running.settings.namespace != settings.namespace:
        raise SettingsError(f"setting namespace: {old} has {running.settings.namespace!r}; keep it")
    settings = _renamed(settings, running.schemas)
    new = build_package(bundle, settings)
    described = new.described
    older = tuple(_placed(index, settings) for index in running.all)
    order = (*described.all, *older) if switch else (*older, *described.all)
    main = dataclasses.replace(order[0], beside=order[1:])
    files = {name: path for name, path in _index_files(Path(old)).items() if not _is_common(name)}
    files |= {name: content for name, content in new.files.items() if name.startswith(_OF_THE_INDEXES)}
    modes = {index.settings.schema: index.settings.mode for index in order}
    tests = {
        name: content for name, content in (new.files if switch else _tests(Path(old))).items() if name.startswith("tests/")
    }
    components = [*embedder_components(bundle, settings), *_old_components(Path(old))]
    return complete({**files, **tests}, main, modes, components, settings)


def _renamed(settings: AppSettings, taken: Collection[str]) -> AppSettings:
    indexes = {next_version(name, taken): own for name, own in settings.indexes.items()}
    return dataclasses.replace(settings, schema=next_version(settings.schema, taken), indexes=indexes)


def _placed(index: Description, settings: AppSettings) -> Description:
    """What is of the whole application follows the new settings."""
    places = {
        name: getattr(settings, name) for name in ("name", "cluster", "cloud", "allow", "jvm_heap_mb", "embedder", "precision")
    }
    if index.settings.encoding == "embedder":
        places["embedder"] = True
    return dataclasses.replace(index, settings=dataclasses.replace(index.settings, **places, indexes={}))


def _index_files(old: Path) -> dict[str, bytes | Path]:
    found = (path for path in old.rglob("*") if path.is_file())
    named = {path.relative_to(old).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if name.startswith(_OF_THE_INDEXES)}


def _is_common(name: str) -> bool:
    """Made anew for the whole application: the description's schema, and the model of the embedder for queries."""
    return name in ("models/model.onnx", "models/tokenizer.json")


def _tests(old: Path) -> dict[str, bytes | Path]:
    return {path.relative_to(old).as_posix(): path for path in (old / "tests").rglob("*") if path.is_file()}


def _old_components(old: Path) -> list[ET.Element]:
    """Embedders that make the vectors of old indexes: those that are named after their bundle."""
    services = ET.fromstring((old / "services.xml").read_bytes())  # noqa: S314 - the package has passed our checks
    return [component for component in services.iter("component") if str(component.get("id")).startswith(f"{EMBEDDER_ID}_")]
