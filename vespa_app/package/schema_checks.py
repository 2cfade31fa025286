"""Checks of one schema file: field names and types, and that rank profiles use only what is declared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from late_interaction.errors import SettingsError
from late_interaction.metadata import FieldType
from vespa_app.candidates import needed_encoding
from vespa_app.candidates.dense import dense_field, dense_type, input_sizes
from vespa_app.candidates.pooled import PooledCandidates, pooled_input_sizes, pooled_type
from vespa_app.codecs import VECTORS
from vespa_app.package.schema_reader import Block, read_blocks
from vespa_app.running.layouts import vectors_type
from vespa_app.settings import AppSettings
from vespa_app.settings.names import field_fault

__all__ = ["check_schema_text"]

_PLAIN_TYPES = {type_.vespa for type_ in FieldType} | {"weightedset<int>"}
_TENSOR = re.compile(r"tensor(?:<(\w+)>)?\((.*)\)")
_DIMENSION = re.compile(r"\b([a-z]\w*)(?:\{\}|\[(\d+)\])")
_CELLS = ("double", "float", "bfloat16", "int8")
_FEATURE = re.compile(r"\b(query|attribute|bm25|closeness|attributeMatch)\(\s*(?:field\s*,\s*)?([A-Za-z_]\w*)\s*\)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BARE_FEATURES = ("firstPhase", "secondPhase", "random", "nativeRank")
_PHASES = ("first-phase", "second-phase", "global-phase")


@dataclass
class _Field:
    type: str
    indexing: str
    bm25: bool


@dataclass
class _Profile:
    """A rank profile with what it inherits."""

    inputs: dict[str, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)


def check_schema_text(text: str, name: str, threads: int, settings: AppSettings | None, where: str) -> None:
    """Check a schema.

    Args:
        text: the schema.
        name: its name.
        threads: as in services.xml.
        settings: settings of the index.
        where: the file, for error messages.

    Raises:
        SettingsError: if something is wrong; the message names `where`, the block and the fault.
    """
    schemas = list(read_blocks(text, where).named("schema"))
    documents = [document for schema in schemas for document in schema.named("document")]
    if [block.head.split()[1:2] for block in (*schemas, *documents)] != [[name], [name]]:
        raise SettingsError(f"{where}: must contain schema {name} with document {name}")
    fields = _fields([*documents[0].named("field"), *schemas[0].named("field")], where)
    if settings is not None:
        _check_fit(fields, settings, where)
    profiles: dict[str, _Profile] = {}
    for block in schemas[0].named("rank-profile"):
        words = block.head.replace(",", " ").split()
        profile = _profile(words, profiles, where)
        profiles[words[1]] = profile
        _check_profile(block, profile, fields, threads, settings, f"{where}: rank-profile {words[1]}")


def _fields(blocks: Iterable[Block], where: str) -> dict[str, _Field]:
    fields: dict[str, _Field] = {}
    seen: set[str] = set()
    for block in blocks:
        match = re.fullmatch(r"field (\S+) type (.+)", block.head)
        if match is None:
            raise SettingsError(f"{where}: {block.head!r} is not a field")
        name, type_ = match[1], match[2]
        if fault := field_fault(name):
            raise SettingsError(f"{where}: field {name!r}: {fault}")
        if name.lower() in seen:
            raise SettingsError(f"{where}: field {name!r} is declared twice (case does not count)")
        seen.add(name.lower())
        _check_type(type_, f"{where}: field {name}")
        bm25 = "enable-bm25" in (block.value("index") or "") or any(
            "enable-bm25" in index.lines for index in block.named("index")
        )
        fields[name] = _Field(type_, block.value("indexing") or _braced_indexing(block), bm25)
    return fields


def _braced_indexing(block: Block) -> str:
    """Join an indexing statement with braces (for_each), which is read as a block and a remaining line."""
    parts = [inner.head for inner in block.blocks if inner.head.startswith("indexing:")]
    return " ".join([*parts, *(line for line in block.lines if line.startswith("|"))])


def _check_type(type_: str, where: str) -> None:
    if type_ in _PLAIN_TYPES:
        return
    tensor = _TENSOR.fullmatch(type_)
    if tensor is None:
        raise SettingsError(
            f"{where}: type {type_!r} is unknown; known: {', '.join(sorted(_PLAIN_TYPES))}, tensor<cells>(dimensions)"
        )
    if (tensor[1] or "double") not in _CELLS:
        raise SettingsError(f"{where}: cell type {tensor[1]!r} is unknown; known: {', '.join(_CELLS)}")
    dimensions = [_DIMENSION.fullmatch(part.strip()) for part in tensor[2].split(",")]
    names = [dimension[1] for dimension in dimensions if dimension]
    if len(names) != len(dimensions) or len(set(names)) != len(names) or any(d and d[2] == "0" for d in dimensions):
        raise SettingsError(f"{where}: dimensions {tensor[2]!r} must be different names with {{}} or [size]")


def _check_fit(fields: dict[str, _Field], settings: AppSettings, where: str) -> None:
    wanted = vectors_type(settings)
    if VECTORS not in fields or fields[VECTORS].type.replace(" ", "") != wanted.replace(" ", ""):
        raise SettingsError(f"{where}: field {VECTORS} must be of type {wanted} for codec {settings.codec}")
    for model, own in settings.dense.items():
        name, type_ = dense_field(model), dense_type(own)
        if name not in fields or fields[name].type.replace(" ", "") != type_:
            raise SettingsError(f"{where}: field {name} must exist with type {type_}, as in setting dense.{model}")
    (pooled,) = PooledCandidates.own_fields
    if needed_encoding(settings) and (pooled not in fields or fields[pooled].type.replace(" ", "") != pooled_type(settings)):
        what = f"must be there with type {pooled_type(settings)}, as setting one_vector says"
        raise SettingsError(f"{where}: field {pooled} {what}")
    for name, type_ in settings.metadata.fields.items():
        if name not in fields or fields[name].type != type_.vespa:
            raise SettingsError(f"{where}: field {name} must exist with type {type_.vespa}, as in the settings")


def _profile(words: list[str], profiles: dict[str, _Profile], where: str) -> _Profile:
    profile = _Profile()
    for parent in words[3:] if words[2:3] == ["inherits"] else ():
        if parent not in profiles and parent != "default":
            raise SettingsError(f"{where}: rank-profile {words[1]} inherits {parent!r}, which is not declared before it")
        if parent in profiles:
            profile.inputs.update(profiles[parent].inputs)
            profile.functions.update(profiles[parent].functions)
    return profile


def _check_profile(
    block: Block, profile: _Profile, fields: dict[str, _Field], threads: int, settings: AppSettings | None, where: str
) -> None:
    for inputs in block.named("inputs"):
        for line in inputs.lines:
            match = re.match(r"query\((\w+)\)(?:\s*(?::\s*)?(tensor[^\s(]*\([^)]*\)(?=\s|:|$)|double))?", line)
            if match is None:
                raise SettingsError(f"{where}: {line!r} is not an input")
            _check_input(match[1], match[2] or "double", settings, where)
            profile.inputs[match[1]] = match[2] or "double"
    functions = [*block.named("function"), *block.named("macro")]
    profile.functions.update(function.head.split()[1].partition("(")[0] for function in functions)
    phases = [phase for kind in _PHASES for phase in block.named(kind)]
    for part in (*functions, *phases):
        expression = part.value("expression")
        if not expression:
            raise SettingsError(f"{where}: {part.head} has no expression")
        _check_expression(expression, profile, fields, f"{where}: {part.head}")
    for feature in re.findall(r"\w+(?:\([^()]*\))?", block.value("match-features") or ""):
        _check_expression(feature, profile, fields, f"{where}: match-features")
    wanted = int(block.value("num-threads-per-search") or 1)
    if wanted > threads:
        raise SettingsError(f"{where}: num-threads-per-search is {wanted}, but persearch in services.xml only {threads}")


def _check_input(name: str, type_: str, settings: AppSettings | None, where: str) -> None:
    if type_ == "double":
        return
    _check_type(type_, f"{where}: input query({name})")
    sizes = {match[2] for match in _DIMENSION.finditer(type_) if match[1] == "x"}
    if settings is None:
        return
    sizes_by_name = input_sizes(settings) | pooled_input_sizes(settings)
    width = sizes_by_name.get(name, settings.dim // 8 if "int8" in type_ else settings.dim)
    if sizes - {str(width)}:
        dim = 8 * width if "int8" in type_ else width
        raise SettingsError(f"{where}: input query({name}) has {type_}, but its vectors have {dim} dimensions")


def _check_expression(expression: str, profile: _Profile, fields: dict[str, _Field], where: str) -> None:
    if expression.count("(") != expression.count(")"):
        raise SettingsError(f"{where}: parentheses of {expression!r} do not match")
    for feature, name in _FEATURE.findall(expression):
        if feature == "query":
            if name not in profile.inputs:
                raise SettingsError(f"{where}: query({name}) is not declared in the profile's inputs")
            continue
        declared = fields.get(name)
        if declared is None:
            raise SettingsError(f"{where}: {feature}({name}) does not name a field of the schema")
        if feature == "bm25" and not declared.bm25:
            raise SettingsError(f"{where}: bm25({name}) needs `index: enable-bm25` in field {name}")
        if feature != "bm25" and "attribute" not in declared.indexing:
            raise SettingsError(f"{where}: {feature}({name}) needs `indexing: attribute` in field {name}")
    if _NAME.fullmatch(expression) and expression not in profile.functions and expression not in _BARE_FEATURES:
        raise SettingsError(f"{where}: {expression!r} is not a function of the profile")
