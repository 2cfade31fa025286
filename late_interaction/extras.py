"""Packages that only an extra installs. If one is missing, the error has the install command in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from late_interaction.errors import MissingDependency

__all__ = ["missing", "require", "required"]


def missing(module: str, extra: str, what: str) -> MissingDependency:
    """Return the error that says what to install.

    Args:
        module: the missing module.
        extra: the extra that installs it.
        what: what needs it.
    """
    return MissingDependency(f"{what} needs {module}, which is not installed: pip install 'colbert-vespa[{extra}]'")


def require(modules: tuple[str, ...], extra: str, what: str) -> None:
    """Check that modules are installed, without importing them.

    Args:
        modules: the modules.
        extra: the extra that installs them.
        what: what needs them.

    Raises:
        MissingDependency: if a module is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            raise missing(module, extra, what)


@contextmanager
def required(extra: str, what: str) -> Iterator[None]:
    """Turn a failed import of what the extra installs into an error that says what to install.

    Args:
        extra: the extra.
        what: what needs it.

    Raises:
        MissingDependency: if a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(str(error.name), extra, what) from None
