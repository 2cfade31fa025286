"""The served indexes by their public names, and what responses must not reveal about the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colbert_vespa.server.access import Access
from colbert_vespa.server.errors import Refusal, detail_of, status_of
from colbert_vespa.server.settings import ServedAddress
from late_interaction.errors import ColbertVespaError, FilterError, UsageError
from late_interaction.filters import parse_where
from query.backend import SearchIndex
from query.core import Core
from query.options import Names, check_names
from query.types import Covered, SearchResult

__all__ = ["Catalog", "ServedIndex"]

PARTIAL = "not all documents were searched"


@dataclass(frozen=True)
class ServedIndex:
    """An index as the API names it.

    Attributes:
        name: Name in the API.
        known: Name of the client's index.
        address: Where the index is.
    """

    name: str
    known: str
    address: str

    @property
    def backend(self) -> str:
        """Return `vespa` or `local`."""
        return "vespa" if self.address.lower().startswith(("http://", "https://")) else "local"


class Catalog:
    """The served indexes, in the order of their addresses."""

    def __init__(self, addresses: Sequence[ServedAddress], core: Core) -> None:
        """Name the indexes at these addresses.

        Raises:
            UsageError: If two indexes would have the same name.
        """
        self._core = core
        self.indexes: dict[str, ServedIndex] = {}
        hidden: dict[str, str] = {}
        for given, known in zip(addresses, core.default, strict=True):
            index = core.indexes[known]
            name = given.name or index.name
            if name in self.indexes:
                raise UsageError(f"two indexes would be served as {name!r}; write NAME={given.address}")
            self.indexes[name] = ServedIndex(name, known, given.address)
            hidden |= dict.fromkeys(_spellings(index, given.address), name)
        self._hidden = sorted(hidden.items(), key=lambda item: -len(item[0]))

    def visible(self, access: Access) -> list[ServedIndex]:
        """Return the indexes that the caller may see."""
        return [index for name, index in self.indexes.items() if access.sees(name)]

    def chosen(self, access: Access, names: Names) -> list[ServedIndex]:
        """Return the named indexes, or all that the caller may see if no name is given.

        Raises:
            Refusal: If an index does not exist for the caller.
        """
        visible = {index.name: index for index in self.visible(access)}
        wanted = list(visible) if names is None else check_names(names)
        if not wanted:
            raise Refusal(404, "there is no index")
        if len(set(wanted)) < len(wanted):
            raise UsageError("name each index once")
        for name in wanted:
            if name not in visible:
                raise Refusal(404, f"there is no index {name[:100]!r}; known: {', '.join(visible) or 'none'}")
        return [visible[name] for name in wanted]

    def only(self, access: Access, name: str | None) -> ServedIndex:
        """Return the named index, or the only one that the caller may see.

        Raises:
            Refusal: If the index does not exist for the caller.
            UsageError: If there are several indexes and none is named.
        """
        chosen = self.chosen(access, name)
        if len(chosen) > 1:
            raise UsageError(f"choose one index: {', '.join(index.name for index in chosen)}")
        return chosen[0]

    def fitting(
        self, access: Access, served: Sequence[ServedIndex], indexes: Sequence[SearchIndex], names: Names
    ) -> tuple[list[ServedIndex], list[SearchIndex]]:
        """Return the indexes that have the fields of the key's filter; others do not exist for the key.

        Raises:
            Refusal: If no index remains, or if an index without these fields was named.
        """
        pairs = [pair for pair in zip(served, indexes, strict=True) if _fits(access, pair[1])]
        if not pairs or (names is not None and len(pairs) < len(served)):
            raise Refusal(404, "there is no such index")
        return [index for index, _ in pairs], [index for _, index in pairs]

    def shown(self, access: Access, result: SearchResult, asked: Sequence[ServedIndex]) -> SearchResult:
        """Return the result with the API's names of the indexes and without the server's addresses.

        For a key with a filter, counts that include documents outside the filter are removed too.
        """
        names = {self._core.indexes[index.known].name: index.name for index in asked}
        hits = tuple(replace(hit, index=names.get(hit.index, hit.index)) for hit in result.hits)
        found = replace(result, hits=hits, chosen=self.hidden(result.chosen))
        found = replace(found, degraded=self.reasons(access, result))
        if access.where is not None:
            return replace(found, searched=None, notes=())
        return replace(found, notes=tuple(map(self.hidden, result.notes)))

    def reasons(self, access: Access, answer: Covered) -> tuple[str, ...]:
        """Return why an answer is not full, in words that the caller may read."""
        if access.where is not None:
            return (PARTIAL,) if answer.degraded else ()
        return tuple(map(self.hidden, answer.degraded))

    def hidden(self, text: str) -> str:
        """Return `text` with names in place of addresses."""
        for address, name in self._hidden:
            text = text.replace(address, name)
        return text

    def told(self, error: ColbertVespaError) -> Refusal:
        """Return the error as the caller may read it."""
        return Refusal(status_of(error), self.hidden(detail_of(error)))


def _fits(access: Access, index: SearchIndex) -> bool:
    try:
        parse_where(access.where, index.schema)
    except FilterError:
        return False
    return True


def _spellings(index: SearchIndex, address: str) -> set[str]:
    """Return the forms in which an error may contain the index's address."""
    plain = {address, index.address, index.address.partition("#")[0]}
    if not address.lower().startswith(("http://", "https://")):
        plain |= {str(Path(address).absolute()), str(Path(address).resolve())}
    return {text for text in plain if len(text) > 1}
