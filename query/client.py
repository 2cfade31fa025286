"""The sync client."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

import httpx

from late_interaction.addresses import as_path, locate
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, Device
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from query.backend import SearchIndex
from query.core import Addresses, Core, addresses_of
from query.exchange import Exchange
from query.options import ClientSettings, SearchOptions, takes_options
from query.plans import Plan, answering

__all__ = ["Client", "ClientArguments"]

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class ClientArguments:
    """What a client was opened with. own_parts: whether that includes a transport, which cannot be opened anew."""

    address: Addresses
    bundle: Bundle | str | Path | None
    settings: ClientSettings | None
    precision: str | None
    device: str | Device
    own_parts: bool

    def __post_init__(self) -> None:
        """Paths are made absolute, as a copy may be opened in another folder."""
        places = [
            place.absolute() if isinstance(place := locate(one), Path) else str(place) for one in addresses_of(self.address)
        ]
        object.__setattr__(self, "address", places)
        if isinstance(self.bundle, (str, Path)):
            object.__setattr__(self, "bundle", as_path(self.bundle).absolute())

    def reopening(self, kind: type) -> tuple[object, ...]:
        """As `__reduce__` gives it. Raises: UsageError where a transport was given."""
        if self.own_parts:
            raise UsageError("a client with a transport of its own cannot be copied or pickled: open another one")
        return functools.partial(kind, settings=self.settings, precision=self.precision, device=self.device), (
            self.address,
            self.bundle,
        )


def _blocking(operation: Callable[Concatenate[Core, P], Plan[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of a client that runs an operation of its core."""

    @answering(operation)
    def run(client: Client, /, *args: P.args, **named: P.kwargs) -> T:
        return client._run(operation(client._core, *args, **named))

    return run


class Client:
    """Searches a local index (a folder), a Vespa application or a server of `colbert-vespa serve` (both `http(s)://host:port`,
    with `#NAME` for one of its indexes), or several of them; with a bundle and no address (`[]`) it can only rerank. Threads
    may share one. Close it, or use it in `with`."""

    def __init__(
        self,
        address: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        device: str | Device = AUTO,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """bundle: needed for Vespa where the application's own bundle is not known on this machine; a server needs none, and
        encodes with its own. precision, device: of the model, as `Encoder` has them. transport, clock, sleep: for tests.

        Raises: LocalIndexError, BundleError, VespaError, UsageError; MissingDependency where onnxruntime lacks the device.
        """
        self._given = ClientArguments(address, bundle, settings, precision, device, transport is not None)
        self._core = Core(
            address, bundle, settings=settings, precision=precision, device=device, transport=transport, clock=clock
        )
        self._exchange = Exchange(self._core.settings, transport=transport, clock=clock, sleep=sleep)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names that `index` takes."""
        return tuple(self._core.indexes)

    @property
    def address(self) -> str:
        """Of the first index that is asked by default; '' without an index."""
        return self._first.address if self._core.indexes else ""

    @property
    def bundle(self) -> Bundle:
        return self._core.bundle

    @property
    def model(self) -> str:
        """The name of the model that encodes, here or at a server."""
        return self._core.model

    @property
    def schema(self) -> MetadataSchema:
        """Metadata fields of the first index."""
        return self._first.schema

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names that `candidates` takes for the first index, in its order of preference."""
        return self._first.strategies

    @property
    def encoder(self) -> Encoder:
        return self._core.encoder(self._core.bundle)

    search = takes_options(SearchOptions)(_blocking(Core.search))
    search_many = takes_options(SearchOptions)(_blocking(Core.search_many))
    score = _blocking(Core.score)
    get = _blocking(Core.get)
    select = _blocking(Core.select)
    vectors = _blocking(Core.vectors)
    rerank = _blocking(Core.rerank)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy, also one that was pickled, opens the same indexes anew."""
        return self._given.reopening(Client)

    def close(self) -> None:
        self._exchange.close()
        self._core.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _first(self) -> SearchIndex:
        return self._core.named()[0]

    def _run(self, plan: Plan[T]) -> T:
        answers = None
        while True:
            try:
                asks = plan.send(answers)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answers = self._exchange.ask(asks)
