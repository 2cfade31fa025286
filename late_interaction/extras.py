"""Packages that only an extra installs: what asks for one that is missing says so in one line, with the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from late_interaction.errors import MissingDependency

__all__ = ["missing", "require", "required"]


def missing(module: str, extra: str, what: str) -> MissingDependency:
    """The error that says what to install."""
    return MissingDependency(f"{what} needs {module}, which is not installed: pip install 'colbert-vespa[{extra}]'")


def require(modules: tuple[str, ...], extra: str, what: str) -> None:
    """Looks for packages without importing them. what: what is done with them. Raises: MissingDependency."""
    for module in modules:
        if find_spec(module) is None:
            raise missing(module, extra, what)


@contextmanager
def required(extra: str, what: str) -> Iterator[None]:
    """Around imports of what the extra installs. what: what is done with it. Raises: MissingDependency."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(str(error.name), extra, what) from None
