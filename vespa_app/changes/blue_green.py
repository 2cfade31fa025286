"""A new model or codebook beside the old one: the package of the running application plus an index fed from the new bundle.

Both indexes answer until the switch; nothing that runs is changed. The new index has the old one's name with a version:
passage, passage_v2, passage_v3. Constants and embedders carry the name of their index or bundle, so none of the old files
is replaced. If the old package already has the new index, made from the same bundle with the same settings, the switch goes
to that one.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.errors import SettingsError
from vespa_app.package import Package, build_package, check_package
from vespa_app.package.building import complete, embedder_components
from vespa_app.package.zips import visible_files
from vespa_app.running import Description
from vespa_app.running.layouts import EMBEDDER_FOLDER, EMBEDDER_TYPE
from vespa_app.settings import AppSettings

__all__ = ["BlueGreenPackage", "build_beside", "next_version"]

_OF_THE_INDEXES = ("schemas/", f"{EMBEDDER_FOLDER}/", "codebooks/")
# settings of where an application runs, taken from the new settings in every index
_OF_THE_PLACE = ("name", "cluster", "cloud", "allow", "jvm_heap_mb")
# other settings in which the same index may differ
_NOT_OF_AN_INDEX = (*_OF_THE_PLACE, "schema", "indexes")
_VERSION = re.compile(r"(.*)_v(\d+)")


@dataclass(frozen=True)
class BlueGreenPackage:
    """A package with old and new indexes.

    Attributes:
        package: the package.
        new: names of the new bundle's indexes, the main one first.
        old: names of all other indexes.
    """

    package: Package
    new: tuple[str, ...]
    old: tuple[str, ...]


def next_version(name: str, taken: Collection[str]) -> str:
    """Return `name` if it is free, else its next version."""
    match = _VERSION.fullmatch(name)
    stem, number = (match[1], int(match[2])) if match else (name, 1)
    while name in taken:
        number += 1
        name = f"{stem}_v{number}"
    return name


def build_beside(bundle: Bundle, settings: AppSettings, old: str | Path, *, switch: bool) -> BlueGreenPackage:
    """Return the package in `old` plus the indexes of `settings`, under new names.

    Args:
        bundle: the new bundle.
        settings: settings of the new indexes.
        old: folder of the running package.
        switch: queries that name no index go to the new one instead of the old.

    Raises:
        SettingsError: if `old` is not a package, the two cannot run in one application, or `old` already has the new
            indexes and no switch is requested.
    """
    running = check_package(old)
    if running.settings.mode != settings.mode:
        raise SettingsError(
            f"setting mode: {old} has mode {running.settings.mode}, and an application has only one mode; keep it"
        )
    if running.settings.namespace != settings.namespace:
        raise SettingsError(f"setting namespace: {old} has {running.settings.namespace!r}; keep it")
    names = _names(bundle, settings, running, old, switch=switch)
    settings = _renamed(settings, names)
    new = build_package(bundle, settings)
    described = new.description
    older = tuple(_placed(index, settings) for index in running.all if index.settings.schema not in described.schemas)
    order = (*described.all, *older) if switch else (*older, *described.all)
    main = dataclasses.replace(order[0], beside=order[1:])
    files = {**_files(Path(old), _OF_THE_INDEXES), **_index_files(new)}
    tests = {name: content for name, content in new.files.items() if name.startswith("tests/")} if switch else None
    modes = {index.settings.schema: index.settings.mode for index in order}
    components = [*embedder_components(bundle, settings), *_old_components(Path(old))]
    package = complete(
        {**files, **(_files(Path(old), ("tests/",)) if tests is None else tests)}, main, modes, _each_once(components), settings
    )
    return BlueGreenPackage(package, described.schemas, tuple(index.settings.schema for index in older))


def _names(bundle: Bundle, settings: AppSettings, running: Description, old: str | Path, *, switch: bool) -> dict[str, str]:
    """Map each index in the settings to its name beside the others, which is its own if it already exists."""
    wanted = settings.index_settings
    same = {name: name_beside for name, own in wanted.items() if (name_beside := _same_index(bundle, own, running))}
    if not same:
        return _new_names(wanted, running.schemas)
    first = next(iter(same.values()))
    if len(same) < len(wanted):
        raise SettingsError(f"{old} has {first} of this bundle with these settings already; remove it from the settings")
    if not switch:
        raise SettingsError(f"{old} has {first} of this bundle with these settings already; make it the default with --switch")
    return same


def _new_names(wanted: Collection[str], taken: Collection[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in wanted:
        names[name] = next_version(name, (*taken, *names.values()))
    return names


def _same_index(bundle: Bundle, settings: AppSettings, running: Description) -> str | None:
    wanted = _own(settings)
    same = (i for i in running.all if i.bundle_sha256 == bundle.sha256 and _own(i.settings) == wanted)
    return next((index.settings.schema for index in same), None)


def _own(settings: AppSettings) -> dict[str, object]:
    return {name: value for name, value in settings.to_json().items() if name not in _NOT_OF_AN_INDEX}


def _renamed(settings: AppSettings, names: Mapping[str, str]) -> AppSettings:
    indexes = {names[name]: own for name, own in settings.indexes.items()}
    return dataclasses.replace(settings, schema=names[settings.schema], indexes=indexes)


def _placed(index: Description, settings: AppSettings) -> Description:
    """Apply what belongs to the whole application from the new settings."""
    places = {name: getattr(settings, name) for name in _OF_THE_PLACE}
    return dataclasses.replace(index, settings=dataclasses.replace(index.settings, **places, indexes={}))


def _files(folder: Path, below: tuple[str, ...]) -> dict[str, bytes | Path]:
    return {name: path for name, path in visible_files(folder).items() if name.startswith(below)}


def _index_files(package: Package) -> dict[str, bytes | Path]:
    return {name: content for name, content in package.files.items() if name.startswith(_OF_THE_INDEXES)}


def _old_components(old: Path) -> list[ET.Element]:
    """Return the embedders of the old indexes, each named after its bundle."""
    services = ET.fromstring((old / "services.xml").read_bytes())  # noqa: S314 - the package has passed our checks
    return [component for component in services.iter("component") if component.get("type") == EMBEDDER_TYPE]


def _each_once(components: Collection[ET.Element]) -> list[ET.Element]:
    by_id: dict[str, ET.Element] = {}
    for component in components:
        by_id.setdefault(str(component.get("id")), component)
    return list(by_id.values())
