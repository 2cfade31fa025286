"""The passage schema as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from late_interaction.metadata import FieldType
from vespa_app.candidates import strategies_of
from vespa_app.candidates.base import BASE_PROFILE, BEST, CANDIDATE_SCORE, MAXSIM
from vespa_app.codecs import CODECS, VECTORS
from vespa_app.package.constants import constant_path
from vespa_app.running.layouts import embedded, maxsim, vectors_type
from vespa_app.running.passage_fields import DIGEST, STORED, SUMMARY, VECTORS_SUMMARY, stored_fields
from vespa_app.settings import AppSettings

__all__ = ["schema_text"]

_PLAIN = (FieldType.BOOL.value, FieldType.POSITION.value)  # Vespa indexes them differently, or not at all
_FIELD = re.compile(r"^(?=        field )", re.MULTILINE)
# equality of texts is exact: no lower-casing, no splitting into words
_EXACT = """\
            match {
                word
                cased
            }
            dictionary {
                hash
                cased
            }
"""


def schema_text(settings: AppSettings, embedder_id: str = "") -> str:
    """Return the schema. embedder_id: Vespa's embedder, if it makes the vectors (setting encoding)."""
    name = settings.schema
    by_embedder = settings.encoding == "embedder"
    codec = CODECS[settings.codec]
    strategies = strategies_of(settings)
    fields = [
        _attribute("id", "string"),
        _attribute("document_id", "string"),
        _text("title", "string"),
        _text("text", "array<string>" if settings.layout == "chunks" else "string"),
        *(_attribute(field, type_.vespa) for field, type_ in settings.metadata.fields.items()),
        _attribute("present", "array<string>"),
        f"        field {DIGEST} type string {{\n            indexing: summary\n        }}\n",
        "" if by_embedder else _vectors(settings, "attribute"),
        *(_tensor(name, type_, "attribute", settings) for name, type_ in codec.more_fields(settings).items()),
        *dict.fromkeys(field for strategy in strategies for field in _FIELD.split(strategy.fields(settings))),
    ]
    return (
        f"schema {name} {{\n    document {name} {{\n"
        + "".join(field for field in fields if field)
        + "    }\n"
        + (_outdented(_vectors(settings, embedded(settings, embedder_id))) if by_embedder else "")
        + "    fieldset default {\n        fields: title, text\n    }\n"
        + _summary(SUMMARY, ("id", "document_id", "title", "text", *settings.metadata.fields, "present"))
        + _summary(VECTORS_SUMMARY, (VECTORS, *codec.more_fields(settings)), SUMMARY)
        + _summary(STORED, stored_fields(settings))
        + _base_profile(settings)
        + "".join(strategy.profile(settings) + strategy.explained(settings) for strategy in strategies)
        + "}\n"
    )


def _attribute(name: str, type_: str) -> str:
    text = FieldType.STRING.value in type_
    lines = [
        f"        field {name} type {type_} {{\n",
        "            indexing: attribute | summary\n",
        "" if type_ in _PLAIN else "            attribute: fast-search\n            rank: filter\n",
        _EXACT if text else "",
        "        }\n",
    ]
    return "".join(lines)


def _text(name: str, type_: str) -> str:
    return f"""\
        field {name} type {type_} {{
            indexing: index | summary
            index: enable-bm25
        }}
"""


def _outdented(field: str) -> str:
    """Return a field that the schema makes, which is placed beside the document block."""
    return "".join(line[4:] for line in field.splitlines(keepends=True))


def _vectors(settings: AppSettings, indexing: str) -> str:
    """Return the field `vectors`; strategies may keep an index in it, but not in a codec's other fields."""
    lines = "".join(strategy.vectors_lines(settings) for strategy in strategies_of(settings))
    return _tensor(VECTORS, vectors_type(settings), indexing + (" | index" if lines else ""), settings, lines)


def _tensor(name: str, type_: str, indexing: str, settings: AppSettings, lines: str = "") -> str:
    paged = "            attribute: paged\n" if settings.paged else ""
    return f"        field {name} type {type_} {{\n            indexing: {indexing}\n{paged}{lines}        }}\n"


def _summary(name: str, fields: Sequence[str], inherits: str = "") -> str:
    lines = "".join(f"        summary {field} {{}}\n" for field in fields)
    return f"    document-summary {name}{inherits and f' inherits {inherits}'} {{\n{lines}    }}\n"


def _base_profile(settings: AppSettings) -> str:
    return f"""\
    rank-profile {BASE_PROFILE} {{
        num-threads-per-search: {settings.search_threads}
        inputs {{
            query(qt) tensor<float>(qt{{}}, x[{settings.dim}])
        }}
{_constants(settings)}{_functions(settings)}        function {MAXSIM}() {{
            expression: {maxsim(settings)}
        }}
        first-phase {{
            expression: 0
        }}
        function {BEST}() {{
            expression: {CODECS[settings.codec].best(settings)}
        }}
        match-features: {CANDIDATE_SCORE}
    }}
"""


def _constants(settings: AppSettings) -> str:
    constants = CODECS[settings.codec].constants(settings)
    if not constants:
        return ""
    lines = [f"            {name} {type_}: file:{constant_path(settings.schema, name)}\n" for name, type_ in constants.items()]
    return "        constants {\n" + "".join(lines) + "        }\n"


def _functions(settings: AppSettings) -> str:
    functions = CODECS[settings.codec].functions(settings)
    return "".join(
        f"        function {name}() {{\n            expression: {expression}\n        }}\n"
        for name, expression in functions.items()
    )
