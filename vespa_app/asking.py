"""What a query needs besides its strategy's parts, by the index's layout: who encodes the query, which group it reads."""

from __future__ import annotations

from late_interaction.errors import UsageError
from late_interaction.filters import And, Filter, In
from vespa_app.candidates.base import Parameter
from vespa_app.description import Description
from vespa_app.embedder import embedder_of

__all__ = ["layout_parameters", "read_group"]


def layout_parameters(description: Description, text: str | None, where: Filter | None) -> dict[str, Parameter]:
    """Parameters that come after, and win over, those of the strategy.

    Raises: UsageError where Vespa encodes queries and there is no text, or a streaming query names no group.
    """
    settings = description.settings
    found: dict[str, Parameter] = {}
    if settings.encoding == "embedder":
        if text is None:
            raise UsageError("this index is encoded by Vespa: give the query as text, not ready rows")
        embedder = embedder_of(description.bundle_sha256, settings).id
        found |= {"text": text, "input.query(qt)": f"embed({embedder}, @text)"}
    if settings.mode == "streaming":
        found["streaming.groupname"] = read_group(settings.group_field, where)
    return found


def read_group(field: str, where: Filter | None) -> str:
    """The one group that a filter selects: every query of mode streaming reads one.

    Raises: UsageError where it selects none, or several.
    """
    parts = where.parts if isinstance(where, And) else (where,)
    values = {part.values for part in parts if isinstance(part, In) and part.field == field}
    if len(values) != 1 or len(chosen := next(iter(values))) != 1:
        raise UsageError(f'this index streams one group a query: name it in the filter, as {{"{field}": "..."}}')
    return str(chosen[0])
