"""What deploying a package over another one does: Vespa's rules for fields and services, and our rules for models.

Kinds, from harmless to costly:

    live      takes effect at once
    restart   Vespa asks for a restart of the named services before it takes effect
    reindex   Vespa indexes its documents again (by itself, once triggered)
    refeed    documents must be fed again before the change has an effect
    breaks    requests that were answered are refused from now on, or Vespa Cloud's tests fail
    refused   Vespa accepts the change only with the named override (`deploy --allow ID`)

`deploy` refuses a refeed that Vespa does not ask for if stored documents change their meaning, unless it is allowed as
`refeed`; if they only lack a field, it continues. tests/vespa/test_changes_model.py compares this with Vespa's own config
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vespa_app.candidates import strategies_of
from vespa_app.candidates.base import declared_fields
from vespa_app.changes.service_changes import embedder_changes, service_changes
from vespa_app.changes.staging import staging_fault
from vespa_app.changes.staleness import REFEED, stale_documents
from vespa_app.package import check_package
from vespa_app.package.schema_reader import Block, read_blocks
from vespa_app.running import Description
from vespa_app.running.description import DESCRIPTION_SCHEMA
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import DEFAULT_WEIGHTS, parts_of

__all__ = ["KINDS", "Change", "package_changes"]

KINDS = ("live", "restart", "reindex", "refeed", "breaks", "refused")

_RESTARTING = ("attribute", "dictionary", "rank", "match")


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        kind: see above.
        where: schema and field, or services.
        what: description.
        allow: name of the override without which it is refused.
        vespa: whether Vespa itself asks for it; the rest is known from this project's own fields.
    """

    kind: str
    where: str
    what: str
    allow: str = ""
    vespa: bool = True

    def to_json(self) -> dict[str, object]:
        """Return the change as JSON values."""
        return asdict(self)


def package_changes(old: str | Path, new: str | Path) -> tuple[Change, ...]:
    """Compare two package folders; empty if nothing changes.

    Raises:
        SettingsError: if a folder is not a package.
    """
    before, after = check_package(old), check_package(new)
    changes: list[Change] = []
    running = {index.settings.schema: index for index in before.all}
    deployed = {index.settings.schema: index for index in after.all}
    for name in running:
        if name not in deployed:
            changes.append(Change("refused", name, "the index and all its documents are removed", "schema-removal"))
    for name, index in deployed.items():
        if name not in running:
            changes.append(Change("live", name, "a new index, empty until it is fed"))
            continue
        changes += _document_changes(running[name], index)
        changes += _schema_changes(name, _schema(old, name), _schema(new, name))
        changes += _query_changes(running[name].settings, index.settings)
    if before.settings.schema != after.settings.schema and after.settings.schema in running:
        changes.append(Change("live", after.settings.schema, "becomes the default index", vespa=False))
    if before.settings.mode != after.settings.mode:
        what = f"mode {before.settings.mode} -> {after.settings.mode}"
        for name in (*(name for name in deployed if name in running), DESCRIPTION_SCHEMA):
            changes += [Change("refused", name, what, "indexing-mode-change"), Change("reindex", name, what)]
        changes.append(Change("restart", "content nodes", what))
    changes += [Change(*change) for change in service_changes(Path(old), Path(new))]
    changes += [Change(*change, vespa=False) for change in embedder_changes(Path(old), Path(new))]
    if after.settings.cloud is not None and (fault := staging_fault(new, before)):
        changes.append(Change("breaks", "Vespa Cloud's staging", fault, vespa=False))
    return tuple(dict.fromkeys(changes))


def _document_changes(old: Description, new: Description) -> Iterator[Change]:
    """Yield what Vespa does not see: changed meaning of existing documents, and fields that they lack."""
    name = new.settings.schema
    for reason in stale_documents(old, new):
        yield Change("refeed", name, reason, REFEED, vespa=False)
    before = _needed(old.settings)
    for candidates, fields in _needed(new.settings).items():
        lacking = sorted(fields - frozenset().union(*before.values()))
        if lacking:
            what = f"candidates {candidates} need {', '.join(lacking)}, and will find only documents fed after the change"
            yield Change("refeed", name, what, vespa=False)


def _query_changes(old: AppSettings, new: AppSettings) -> Iterator[Change]:
    """Yield what changes for the same queries."""
    before, after = (dict.fromkeys(part for each in own.candidates for part in parts_of(each)) for own in (old, new))
    for what, names, kept in (("candidates", before, after), ("dense model", old.dense, new.dense)):
        for gone in names:
            if gone not in kept:
                yield Change(
                    "breaks",
                    "queries",
                    f"{what} {gone} of {new.schema} is removed: a query that names it is refused",
                    vespa=False,
                )
    if old.candidates[0] != new.candidates[0]:
        what = f"candidates auto of {new.schema} now prefer {new.candidates[0]} instead of {old.candidates[0]}"
        yield Change("live", "queries", what, vespa=False)
    ways = [(own.fusion, own.weights or DEFAULT_WEIGHTS) for own in (old, new)]
    if ways[0] != ways[1] and "hybrid" in before and "hybrid" in after:
        was, now = (f"{fusion} of " + ", ".join(f"{name} {weight:g}" for name, weight in by.items()) for fusion, by in ways)
        yield Change("live", "queries", f"defaults of hybrid in {new.schema}: {was} -> {now}", vespa=False)


def _needed(settings: AppSettings) -> dict[str, frozenset[str]]:
    return {strategy.name: declared_fields(strategy, settings) for strategy in strategies_of(settings)}


def _schema(folder: str | Path, name: str) -> Block:
    file = Path(folder) / "schemas" / f"{name}.sd"
    return next(read_blocks(file.read_text(encoding="utf-8"), str(file)).named("schema"))


def _fields(schema: Block) -> dict[str, tuple[str, Block]]:
    """Map name to type and block."""
    blocks = [*(field for document in schema.named("document") for field in document.named("field")), *schema.named("field")]
    words = ((block.head.split(maxsplit=3), block) for block in blocks)
    return {parts[1]: (parts[3], block) for parts, block in words}


def _schema_changes(name: str, old: Block, new: Block) -> Iterator[Change]:
    before, after = _fields(old), _fields(new)
    synthetic = {field.head.split()[1] for field in new.named("field")}
    for field in sorted(set(before) - set(after)):
        yield Change("live", f"{name}.{field}", "the field and its values are dropped")
    for field in sorted(set(after) - set(before)):
        yield Change("live", f"{name}.{field}", "a new field, without a value in existing documents")
        if after[field][0] == "position" or field in synthetic:
            yield Change("reindex", f"{name}.{field}", "Vespa makes it from other fields, for existing documents by reindexing")
    for field in after:
        if field in before:
            yield from _field_changes(f"{name}.{field}", before[field], after[field])
    profiles = [{_text(profile) for profile in schema.named("rank-profile")} for schema in (old, new)]
    if profiles[0] != profiles[1]:
        yield Change("live", name, "rank profiles")


def _field_changes(where: str, old: tuple[str, Block], new: tuple[str, Block]) -> Iterator[Change]:
    if old[0].replace(" ", "") != new[0].replace(" ", ""):
        what = f"type {old[0]} -> {new[0]}"
        yield Change("refused", where, what, "field-type-change")
        yield Change("refeed", where, what)
    was, is_ = (_indexing(block, type_) for type_, block in (old, new))
    if was != is_ or ("index" in is_ and old[0] != new[0] and "tensor" not in new[0]):
        what = f"indexing {' | '.join(was)} -> {' | '.join(is_)}" if was != is_ else "its texts are indexed differently"
        yield Change("refused", where, what, "indexing-change")
        yield Change("reindex", where, what)
    yield from _hnsw_changes(where, old[1], new[1])
    paged = [any("paged" in line for line in _lines(block)) for _, block in (old, new)]
    if paged == [True, False]:
        yield Change("refused", where, "no longer paged: its memory is needed at once", "paged-setting-removal")
    if _attribute(old[1]) != _attribute(new[1]):
        yield Change("restart", where, "settings of the attribute")


def _indexing(block: Block, type_: str) -> list[str]:
    """Return the indexing settings without the HNSW graph of a tensor, which Vespa builds from stored values at start."""
    braced = [inner.head + str(inner.lines) for inner in block.blocks if inner.head.startswith("indexing:")]
    text = " ".join([block.value("indexing") or "", *braced, *(line for line in block.lines if line.startswith("|"))])
    parts = [part.strip() for part in text.split("|") if part.strip()]
    return [part for part in parts if part != "index" or "tensor" not in type_]


def _hnsw_changes(where: str, old: Block, new: Block) -> Iterator[Change]:
    before, after = _hnsw(old), _hnsw(new)
    for name in before:
        if name in after and before[name] != after[name]:
            what = f"HNSW {name} {before[name]} -> {after[name]}"
            if name == "max-links-per-node":
                yield Change("refused", where, f"{what}: the graph is built again at start", "hnsw-settings-change")
            yield Change("restart", where, what)
    metrics = [_metric(block) for block in (old, new)]
    if before and after and metrics[0] != metrics[1]:
        what = f"distance metric {metrics[0]} -> {metrics[1]}: the graph is built again at start"
        yield Change("refused", where, what, "hnsw-settings-change")


def _metric(block: Block) -> str:
    return next((found for attribute in block.named("attribute") if (found := attribute.value("distance-metric"))), "")


def _hnsw(block: Block) -> dict[str, str]:
    graphs = [hnsw for index in block.named("index") for hnsw in index.named("hnsw")]
    pairs = (line.partition(":") for hnsw in graphs for line in hnsw.lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _attribute(block: Block) -> list[str]:
    return sorted(line for line in _lines(block) if line.startswith(_RESTARTING))


def _lines(block: Block, path: str = "") -> Iterator[str]:
    for line in block.lines:
        yield f"{path} {line}".strip()
    for inner in block.blocks:
        yield from _lines(inner, f"{path} {inner.head}".strip())


def _text(block: Block) -> str:
    return f"{block.head} {sorted(_lines(block))}"
