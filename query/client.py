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
    """The arguments that a client was opened with.

    own_parts: whether they include a transport, which cannot be opened again.
    """

    address: Addresses
    bundle: Bundle | str | Path | None
    settings: ClientSettings | None
    precision: str | None
    device: str | Device
    own_parts: bool

    def __post_init__(self) -> None:
        """Make paths absolute, because a copy may be opened in another folder."""
        places = [
            place.absolute() if isinstance(place := locate(one), Path) else str(place) for one in addresses_of(self.address)
        ]
        object.__setattr__(self, "address", places)
        if isinstance(self.bundle, (str, Path)):
            object.__setattr__(self, "bundle", as_path(self.bundle).absolute())

    def reopening(self, kind: type) -> tuple[object, ...]:
        """Return the result of `__reduce__`.

        Raises:
            UsageError: if a transport was given.
        """
        if self.own_parts:
            raise UsageError("a client with its own transport cannot be copied or pickled; open another one")
        return functools.partial(kind, settings=self.settings, precision=self.precision, device=self.device), (
            self.address,
            self.bundle,
        )


def _blocking(operation: Callable[Concatenate[Core, P], Plan[T]]) -> Callable[Concatenate[Client, P], T]:
    """Return the client method that runs an operation of its core."""

    @answering(operation)
    def run(client: Client, /, *args: P.args, **named: P.kwargs) -> T:
        return client._run(operation(client._core, *args, **named))

    return run


class Client:
    """Searches one or several indexes.

    An index is a local folder, a Vespa application or a server of `colbert-vespa serve` (both `http(s)://host:port`, with
    `#NAME` for one of its indexes). With a bundle and no address (`[]`), a client can only rerank. Threads may share one.
    Close it, or use it in `with`.

    Args:
        address: one address or several.
        bundle: needed for Vespa if the application's own bundle is not known on this machine; a server needs none, and
            encodes with its own.
        settings: settings of the client.
        precision: precision of the model, as in `Encoder`.
        device: device of the model, as in `Encoder`.
        transport: for tests.
        clock: for tests.
        sleep: for tests.

    Raises:
        LocalIndexError: if there is no index, or it is damaged.
        BundleError: if the bundle is not known or damaged.
        VespaError: if Vespa does not answer.
        UsageError: if an argument does not fit.
        MissingDependency: if onnxruntime lacks the device.
    """

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
        """Open the indexes."""
        self._given = ClientArguments(address, bundle, settings, precision, device, transport is not None)
        self._core = Core(
            address, bundle, settings=settings, precision=precision, device=device, transport=transport, clock=clock
        )
        self._exchange = Exchange(self._core.settings, transport=transport, clock=clock, sleep=sleep)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Return the names that `index` accepts."""
        return tuple(self._core.indexes)

    @property
    def address(self) -> str:
        """Return the address of the first default index; '' without an index."""
        return self._first.address if self._core.indexes else ""

    @property
    def bundle(self) -> Bundle:
        """Return the bundle of the first default index."""
        return self._core.bundle

    @property
    def model(self) -> str:
        """Return the name of the model that encodes, here or at a server."""
        return self._core.model

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields of the first index."""
        return self._first.schema

    @property
    def strategies(self) -> tuple[str, ...]:
        """Return the names that `candidates` accepts for the first index, in order of preference."""
        return self._first.strategies

    @property
    def encoder(self) -> Encoder:
        """Return the encoder of the first default index."""
        return self._core.encoder(self._core.bundle)

    search = takes_options(SearchOptions)(_blocking(Core.search))
    search_many = takes_options(SearchOptions)(_blocking(Core.search_many))
    score = _blocking(Core.score)
    get = _blocking(Core.get)
    select = _blocking(Core.select)
    vectors = _blocking(Core.vectors)
    rerank = _blocking(Core.rerank)

    def __reduce__(self) -> tuple[object, ...]:
        """Support copying and pickling; the copy opens the same indexes again."""
        return self._given.reopening(Client)

    def close(self) -> None:
        """Close the indexes and connections."""
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
