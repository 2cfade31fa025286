"""Check a package folder, which a user may have edited, before Vespa does.

Vespa's own model misses some faults that show only on the node (undefined functions, features of fields that do not exist,
undeclared inputs); these are checked here. tests/vespa compares the checks with Vespa's config model.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from late_interaction.errors import SettingsError
from vespa_app.package.schema_checks import check_schema_text
from vespa_app.package.settings_checks import check_settings
from vespa_app.running import Description
from vespa_app.running.description import DESCRIPTION_FILE, DESCRIPTION_SCHEMA

__all__ = ["check_files", "check_package"]


def check_package(folder: str | Path) -> Description:
    """Check the package in `folder` before it is sent to Vespa.

    Args:
        folder: the package.

    Returns:
        its description.

    Raises:
        SettingsError: if something is wrong; the message names file and fault.
    """
    root = Path(folder)
    if not (root / "services.xml").is_file():
        raise SettingsError(
            f"{root} is not an application package (it has no services.xml); create one with `colbert-vespa app`"
        )
    description = Description.from_json(_read(root, DESCRIPTION_FILE), str(root / DESCRIPTION_FILE))
    check_settings(description.settings)
    check_files(root, description)
    return description


def check_files(root: Path, description: Description) -> None:
    """Check the files of a package whose settings are valid.

    Raises:
        SettingsError: if something is wrong; the message names file and fault.
    """
    services = _services(root)
    declared = {str(document.get("type")) for document in services.iter("document")}
    schemas = {file.stem for file in (root / "schemas").glob("*.sd")}
    for name in sorted({*description.schemas, DESCRIPTION_SCHEMA} - schemas):
        raise SettingsError(f"{root}: file schemas/{name}.sd is missing")
    for name in sorted(declared ^ schemas):
        where = "services.xml has document type" if name in declared else "schemas has"
        other = "schemas" if name in declared else "services.xml"
        raise SettingsError(f"{root}: {where} {name!r}, but {other} does not")
    _check_models(root, services)
    threads = max((int(element.text or 0) for element in services.iter("persearch")), default=1)
    indexes = {index.settings.schema: index.settings for index in description.all}
    for name in sorted(schemas):
        own = indexes.get(name)
        check_schema_text(_read(root, f"schemas/{name}.sd"), name, threads, own, str(root / f"schemas/{name}.sd"))


def _services(root: Path) -> ET.Element:
    try:
        return ET.fromstring(_read(root, "services.xml"))  # noqa: S314 - the user's own file
    except ET.ParseError as error:
        raise SettingsError(f"{root / 'services.xml'} is not XML: {error}") from None


def _check_models(root: Path, services: ET.Element) -> None:
    for element in services.iter():
        path = element.get("path") if element.tag.endswith("-model") else None
        if path is not None and not (root / path).is_file():
            raise SettingsError(f"{root}: file {path}, listed in services.xml, is missing")


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{root}: file {name} cannot be read: {error}") from None
