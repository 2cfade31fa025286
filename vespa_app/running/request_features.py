"""What a query needs besides its strategy's parts, by the index's layout: who encodes the query, which group it reads."""

from __future__ import annotations

from late_interaction.errors import UsageError
from late_interaction.filters import And, Filter, In
from vespa_app.candidates.base import Parameter
from vespa_app.running.description import Description
from vespa_app.running.layouts import embedder_of
from vespa_app.settings import AppSettings

__all__ = ["encoded_by_vespa", "layout_parameters", "query_body", "read_group"]


def query_body(settings: AppSettings, where: str, profile: str, hits: int) -> dict[str, Parameter]:
    """Return what every request to /search/ has. `where` is YQL in which everything from a user is escaped.

    The index is named twice: Vespa types the query's tensors before it reads the YQL, and indexes of one application may
    differ in their dim.
    """
    yql = f"select * from {settings.schema} where {where}"  # noqa: S608 - a checked name, and see above
    return {"yql": yql, "model.restrict": settings.schema, "ranking.profile": profile, "hits": hits}


def encoded_by_vespa(description: Description, text: str) -> dict[str, Parameter]:
    """Return the query's rows as Vespa's colbert-embedder makes them."""
    embedder = embedder_of(description.bundle_sha256, description.settings).id
    return {"text": text, "input.query(qt)": f"embed({embedder}, @text)"}


def layout_parameters(description: Description, text: str | None, where: Filter | None) -> dict[str, Parameter]:
    """Return parameters that follow, and override, those of the strategy.

    Raises:
        UsageError: if Vespa encodes queries and there is no text, or a streaming query names no group.
    """
    settings = description.settings
    parameters: dict[str, Parameter] = {}
    if settings.encoding == "embedder":
        if text is None:
            raise UsageError("this index is encoded by Vespa; give the query as text, not as ready-made rows")
        parameters |= encoded_by_vespa(description, text)
    if settings.mode == "streaming":
        parameters["streaming.groupname"] = read_group(settings.group_field, where)
    return parameters


def read_group(field: str, where: Filter | None) -> str:
    """Return the single group that a filter selects: every query of mode streaming reads one.

    Raises:
        UsageError: if it selects none, or several.
    """
    parts = where.parts if isinstance(where, And) else (where,)
    values = {part.values for part in parts if isinstance(part, In) and part.field == field}
    if len(values) != 1 or len(chosen := next(iter(values))) != 1:
        raise UsageError(f'this index streams one group per query; name it in the filter, as {{"{field}": "..."}}')
    return str(chosen[0])
