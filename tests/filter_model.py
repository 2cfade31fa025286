"""The filter language by its definition, in a few lines of Python, and random filters over given documents."""

from __future__ import annotations

import operator
import random


def matches(where, metadata):
    for key, value in where.items():
        if key == "$and":
            ok = all(matches(part, metadata) for part in value)
        elif key == "$or":
            ok = any(matches(part, metadata) for part in value)
        elif key == "$not":
            ok = not matches(value, metadata)
        else:
            conditions = value if isinstance(value, dict) else {"$eq": value}
            ok = all(
                _compare(metadata.get(key) if metadata.get(key) != [] else None, op, wanted)
                for op, wanted in conditions.items()
            )
        if not ok:
            return False
    return True


def _compare(value, op, wanted):
    if op == "$exists":
        return (value is not None) == wanted
    if op in ("$ne", "$nin"):
        return not _compare(value, {"$ne": "$eq", "$nin": "$in"}[op], wanted)
    if value is None:
        return False
    values = value if isinstance(value, list) else [value]
    if op == "$eq":
        return wanted in values
    if op == "$in":
        return any(item in wanted for item in values)
    compare = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}[op]
    return any(compare(item, wanted) for item in values)


def random_filter(rng: random.Random, documents, depth: int = 0):
    """Fields and values come from the documents, so that filters select something; some values do not occur."""
    choice = rng.random()
    if depth < 3 and choice < 0.35:
        parts = [random_filter(rng, documents, depth + 1) for _ in range(rng.randint(1, 3))]
        return {rng.choice(["$and", "$or"]): parts}
    if depth < 3 and choice < 0.45:
        return {"$not": random_filter(rng, documents, depth + 1)}
    while True:
        metadata = rng.choice(documents).metadata
        field = rng.choice(sorted({name for d in documents[:50] for name in d.metadata}))
        if field in metadata:
            break
    value = metadata[field]
    if rng.random() < 0.1:
        return {field: {"$exists": rng.random() < 0.5}}
    if isinstance(value, list):
        value = rng.choice(value or [item for d in documents for item in d.metadata.get(field) or []])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.7:
        return {field: {rng.choice(["$gt", "$gte", "$lt", "$lte"]): value}}
    if isinstance(value, str) and not value[:1].isdigit() and rng.random() < 0.2:  # a time has one form
        value = value.swapcase()
    test = rng.choice(["$eq", "$ne", "$in", "$nin"])
    twin = float(value) if type(value) is int and abs(value) < 2**53 else value  # numbers are compared, not their types
    return {field: {test: [value, twin] if test in ("$in", "$nin") else rng.choice([value, twin])}}
