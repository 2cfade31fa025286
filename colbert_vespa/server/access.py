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
    """What a caller may do.

    Attributes:
        key: Id of the key; '' without keys.
        role: Role of the key.
        indexes: Names of the indexes that the caller may see; None for all.
        where: Filter added to every request. Documents that it does not select do not exist for the caller.
    """

    key: str = ""
    role: str = ADMIN
    indexes: frozenset[str] | None = None
    where: Mapping[str, Any] | None = None

    def may(self, role: str) -> bool:
        """Return whether the caller's role includes this one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, index: str) -> bool:
        """Return whether the caller may see this index."""
        return self.indexes is None or index in self.indexes

    def restricted(self, where: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return `where` combined with the filter of the key."""
        if self.where is None or where is None:
            return where if self.where is None else self.where
        return {"$and": [self.where, where]}


EVERYTHING = Access()
