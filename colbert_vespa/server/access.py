"""What a caller may do and see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ADMIN", "EVERYTHING", "READ", "ROLES", "WRITE", "Access"]

READ, WRITE, ADMIN = "read", "write", "admin"
ROLES = (READ, WRITE, ADMIN)  # each may do what those before it may


@dataclass(frozen=True)
class Access:
    """key: the id of the key; '' without keys. indexes: names that it may see; None for all. where: a filter that is added to
    all that it asks: what the filter does not select does not exist for it.
    """

    key: str = ""
    role: str = ADMIN
    indexes: frozenset[str] | None = None
    where: Mapping[str, Any] | None = None

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, index: str) -> bool:
        return self.indexes is None or index in self.indexes

    def restricted(self, where: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """`where`, and the filter of the key."""
        if self.where is None or where is None:
            return where if self.where is None else self.where
        return {"$and": [self.where, where]}


EVERYTHING = Access()
