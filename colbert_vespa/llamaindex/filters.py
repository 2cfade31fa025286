"""Convert LlamaIndex's metadata filters to ours."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from late_interaction.errors import FilterError
from late_interaction.metadata import MetadataSchema

__all__ = ["where_of"]

_SAME = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
}
_OF_LISTS = (FilterOperator.CONTAINS, FilterOperator.ANY, FilterOperator.ALL)


def where_of(filters: MetadataFilters | None, schema: MetadataSchema) -> dict[str, Any]:
    """Convert LlamaIndex's filters to a `where`; empty if nothing is filtered.

    As in LlamaIndex, `!=` and `nin` also select nodes without a value, and `not` selects the nodes that none of its filters
    selects. A filter with condition None is an `and`.

    Raises:
        FilterError: If an index does not support an operator: text_match, or contains, any and all on a field that is not a
            list.
    """
    if filters is None or not filters.filters:
        return {}
    parts = [_one(part, schema) if isinstance(part, MetadataFilter) else where_of(part, schema) for part in filters.filters]
    if filters.condition is FilterCondition.OR:
        return {"$or": parts}
    if filters.condition is FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _one(part: MetadataFilter, schema: MetadataSchema) -> dict[str, Any]:
    key, value, operator = part.key, part.value, part.operator
    if operator is FilterOperator.IS_EMPTY:
        return {key: {"$exists": False}}
    if value is None and operator in (FilterOperator.EQ, FilterOperator.NE):
        return {key: {"$exists": operator is FilterOperator.NE}}
    if operator in _SAME:
        return {key: {_SAME[operator]: value}}
    if operator not in _OF_LISTS:
        raise FilterError(
            f"filter {operator.value} on {key!r}is not supported: an index selects by values, not by parts of a text"
        )
    field = schema.fields.get(key)
    if field is not None and not field.many:
        raise FilterError(f"filter {operator.value} on {key!r} needs a list field, but the field is {field.value}")
    if operator is FilterOperator.CONTAINS:
        return {key: {"$eq": value}}
    values = value if isinstance(value, list) else [value]
    if operator is FilterOperator.ANY:
        return {key: {"$in": values}}
    return {"$and": [{key: {"$eq": item}} for item in values]} if values else {}
