"""Our checks before Vespa's: settings, and a package folder as a user may have edited it.

Vespa's own model lets some faults pass that only show on the node (undefined functions, features of fields that do not
exist, undeclared inputs); these are looked for here. tests/vespa holds the checks against Vespa's config model.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from pathlib import Path

from late_interaction.codebook import BITS
from late_interaction.errors import SettingsError
from late_interaction.metadata import MetadataSchema
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS
from vespa_app.package.schema import OWN_FIELDS
from vespa_app.package.schema_checks import check_schema_text
from vespa_app.running.description import DESCRIPTION_FILE, DESCRIPTION_SCHEMA, Description
from vespa_app.settings.application_settings import AppSettings
from vespa_app.settings.layouts import check_layout
from vespa_app.settings.names import check_application, check_field, check_namespace, check_schema
from vespa_app.settings.section_checks import check_places

__all__ = ["LIMITS", "check_package", "check_settings", "of_index", "read_settings"]

LIMITS = {
    "dim": (1, 4096),
    "query_rows": (1, 1024),
    "rerank": (1, 100_000),
    "probes": (1, 4096),
    "target_hits": (1, 100_000),
    "token_hits": (1, 10_000),
    "hnsw_links": (2, 512),
    "hnsw_explore": (2, 10_000),
    "search_threads": (1, 64),
    "jvm_heap_mb": (128, 1 << 20),
}
MOST_KEPT = 10_000_000
_PHASES = {"exhaustive": ("first",), "hybrid": ("first", "second", "global")}  # of the others: first and second


def check_settings(settings: AppSettings) -> None:
    """Raises: SettingsError naming the setting that Vespa, or we, would refuse."""
    check_application(settings.name)
    check_schema(settings.schema)
    check_namespace(settings.namespace)
    if settings.schema == DESCRIPTION_SCHEMA:
        raise SettingsError(f"setting schema {settings.schema!r}: the name is taken by the application's description")
    for name, (least, most) in LIMITS.items():
        value = getattr(settings, name)
        if type(value) is not int or not least <= value <= most:
            raise SettingsError(f"setting {name} must be from {least} to {most}, got {value!r}")
    _check_choice("codec", settings.codec, CODECS)
    CODECS[settings.codec].check_dim(settings.dim)
    if settings.residual_bits not in BITS:
        raise SettingsError(f"setting residual_bits must be 1, 2 or 4, got {settings.residual_bits!r}")
    if settings.thresholds and settings.codec != "binary":
        raise SettingsError(f"setting thresholds is of codec binary alone, and codec is {settings.codec}")
    if not settings.candidates:
        raise SettingsError(f"setting candidates is empty; known: {', '.join(STRATEGIES)}")
    for position, name in enumerate(settings.candidates):
        _check_choice("candidates", name, STRATEGIES)
        if name in settings.candidates[:position]:
            raise SettingsError(f"setting candidates names {name!r} twice")
    _check_drop_limits(settings)
    _check_metadata(settings.metadata)
    check_layout(settings)
    check_places(settings)
    for name, own in settings.index_settings.items():
        if name != settings.schema:
            with of_index(settings, name):
                check_settings(own)


@contextlib.contextmanager
def of_index(settings: AppSettings, name: str) -> Iterator[None]:
    """Errors about a further index name its table; those about the main one are as they are."""
    try:
        yield
    except SettingsError as error:
        if name == settings.schema:
            raise
        raise SettingsError(f"indexes.{name}: {error}") from None


def read_settings(path: str | Path) -> AppSettings:
    """app.toml, checked. Raises: SettingsError naming the file, and the table and key in it."""
    settings = AppSettings.from_toml(path)
    try:
        check_settings(settings)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return settings


def _check_drop_limits(settings: AppSettings) -> None:
    kept = settings.keep_rank_count
    if type(kept) is not int or (kept and not settings.rerank <= kept <= MOST_KEPT):
        raise SettingsError(
            f"setting keep_rank_count must be 0 or from rerank ({settings.rerank}) to {MOST_KEPT}, got {kept!r}"
        )
    for name, limits in settings.drop_limits.items():
        if name not in settings.candidates:
            raise SettingsError(
                f"setting drop_limits.{name}: these candidates are not in setting candidates ({', '.join(settings.candidates)})"
            )
        known = _PHASES.get(name, ("first", "second"))
        for phase, limit in limits.items():
            _check_choice(f"drop_limits.{name}", phase, known)
            if type(limit) not in (int, float) or not math.isfinite(limit):
                raise SettingsError(f"setting drop_limits.{name}.{phase} must be a number, got {limit!r}")


def _check_choice(setting: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SettingsError(f"setting {setting}: {value!r} unknown; known: {', '.join(known)}")


def _check_metadata(metadata: MetadataSchema) -> None:
    of_parts = [*(part.own_fields for part in STRATEGIES.values()), *(part.own_fields for part in CODECS.values())]
    ours = (*OWN_FIELDS, *itertools.chain.from_iterable(of_parts))
    taken = dict.fromkeys(ours, "a field of every application")
    for name in metadata.fields:
        check_field(name, "metadata field")
        if other := taken.get(name.lower()):
            raise SettingsError(f"metadata field {name!r}: the name is taken by {other} (case does not count); rename it")
        taken[name.lower()] = f"metadata field {name!r}"


def check_package(folder: str | Path) -> Description:
    """What is wrong with the package in `folder`, before Vespa is asked.

    Raises: SettingsError naming file and fault.
    """
    root = Path(folder)
    if not (root / "services.xml").is_file():
        raise SettingsError(f"{root} is no application package (it has no services.xml): make one with `colbert-vespa app`")
    description = Description.from_json(_read(root, DESCRIPTION_FILE), str(root / DESCRIPTION_FILE))
    settings = description.settings
    check_settings(settings)
    services = _services(root)
    declared = {str(document.get("type")) for document in services.iter("document")}
    schemas = {file.stem for file in (root / "schemas").glob("*.sd")}
    for name in sorted({*description.schemas, DESCRIPTION_SCHEMA} - schemas):
        raise SettingsError(f"{root}: file schemas/{name}.sd is missing")
    for name in sorted(declared ^ schemas):
        where = "services.xml has document type" if name in declared else "schemas has"
        other = "schemas" if name in declared else "services.xml"
        raise SettingsError(f"{root}: {where} {name!r}, and {other} has not")
    _check_files(root, services)
    threads = max((int(element.text or 0) for element in services.iter("persearch")), default=1)
    indexes = {index.settings.schema: index.settings for index in description.all}
    for name in sorted(schemas):
        own = indexes.get(name)
        check_schema_text(_read(root, f"schemas/{name}.sd"), name, threads, own, str(root / f"schemas/{name}.sd"))
    return description


def _services(root: Path) -> ET.Element:
    try:
        return ET.fromstring(_read(root, "services.xml"))  # noqa: S314 - the user's own file
    except ET.ParseError as error:
        raise SettingsError(f"{root / 'services.xml'} is no XML: {error}") from None


def _check_files(root: Path, services: ET.Element) -> None:
    for element in services.iter():
        path = element.get("path") if element.tag.endswith("-model") else None
        if path is not None and not (root / path).is_file():
            raise SettingsError(f"{root}: file {path} of services.xml is missing")


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{root}: file {name} cannot be read: {error}") from None
