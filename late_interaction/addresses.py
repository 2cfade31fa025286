"""Decide what a user's text names: a Vespa application, a path, or neither.

Every option and call that takes an address or a path comes through here.

    http(s)://host:port, and #NAME for one of its indexes   a Vespa application; the scheme in any case
    index, ./index, /data/index, ~/index                    a path; `~` is the home folder
    localhost:8080, http:/host, vespa://host, "", " x"      neither: UsageError says how to write either

A local path with a colon before its first slash begins with `./`, so a mistyped URL never becomes a folder.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from late_interaction.errors import UsageError

__all__ = ["Given", "VespaUrl", "as_path", "locate", "vespa_url"]

_WEB = re.compile(r"https?://", re.IGNORECASE)
_MANGLED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # starts like a URL; a single letter is a Windows drive
_HOST = re.compile(r"[^\s/?#@%\\:\[\]\x00-\x1f\x7f\ud800-\udfff]+|\[[0-9A-Fa-f:.]+\]")
_HOST_LIKE = re.compile(r"[\w.-]+(:\d+)?(#.*)?")
_LAST_PORT = 65535


Given: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True)
class VespaUrl:
    """The URL of a Vespa application.

    Attributes:
        url: `http(s)://host:port`, in lower case and without a trailing slash.
        index: name of the index; '' for the application's first.
    """

    url: str
    index: str = ""

    def __str__(self) -> str:
        return f"{self.url}#{self.index}" if self.index else self.url


def locate(address: Given | VespaUrl, name: str = "") -> Path | VespaUrl:
    """Return the folder, or the index of a Vespa application, that an address names.

    Args:
        address: a path or a URL.
        name: the option or setting that the address comes from, for error messages.

    Raises:
        UsageError: if the address is neither a path nor a URL.
    """
    if isinstance(address, VespaUrl):
        return address
    if isinstance(address, os.PathLike):
        return as_path(address, name)
    text = _checked(address, name)
    bare = text.strip()
    if text != bare or _doubtful(text):
        _check_no_password(text, name)
    if text != bare or any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in text):
        raise UsageError(f"{_said(name)}{text!r} starts or ends with a space or contains a control character; remove it")
    if _WEB.match(text):
        return vespa_url(text, name)
    if _doubtful(text):
        url = f"http://{text}" if _HOST_LIKE.fullmatch(text) else "http(s)://host:port"
        raise UsageError(
            f"{_said(name)}{text!r} is neither a URL nor a folder: write {url} for Vespa, or ./{text.lstrip('/')} for a folder"
        )
    path = as_path(text, name)
    return (
        path.absolute() if _doubtful(str(path)) or str(path)[0] in "-~" else path
    )  # as text, so the same path can be named again


def vespa_url(address: str, name: str = "") -> VespaUrl:
    """Parse the address of a Vespa application.

    Args:
        address: the URL.
        name: the option or setting that the address comes from, for error messages.

    Raises:
        UsageError: if the address is not an http(s) URL with a host, or has a user, password, path or query.
    """
    text = _checked(address, name)
    _check_no_password(text, name)
    parted = _parted(text) if _WEB.match(text) else None
    if parted is None:
        raise UsageError(
            f"{_said(name)}{text!r} is not the address of a Vespa application; write http(s)://host:port, without a path"
        )
    return parted


def _parted(text: str) -> VespaUrl | None:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    plain = not parts.query and "?" not in text and parts.path.strip("/") == "" and not re.search(r"\s", text)
    if not plain or not _HOST.fullmatch(host) or (port is not None and not 0 < port <= _LAST_PORT):
        return None
    return VespaUrl(f"{parts.scheme.lower()}://{parts.netloc.lower()}", parts.fragment)


def as_path(path: Given, name: str = "") -> Path:
    """Return the path that a text names, with `~` expanded to the home folder.

    Raises:
        UsageError: if the text is empty (which would mean the current folder), contains spaces at either end or NUL, or
            looks like a URL or an option.
    """
    text = _checked(path, name)
    if _MANGLED.match(text):
        _check_no_password(text, name)
        raise UsageError(f"{_said(name)}{text!r} is a URL, but a path is needed here; write ./{text} for a folder of that name")
    if text.startswith("-") and isinstance(path, str):
        raise UsageError(f"{_said(name)}{text!r} looks like an option; write ./{text} for a path of that name")
    if not text.startswith("~"):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{_said(name)}{text!r}: no such home folder; write ./{text} for a path") from None


def _checked(text: Given, name: str) -> str:
    """Return the text; UsageError if it is neither an address nor a path."""
    given = os.fspath(text) if isinstance(text, os.PathLike) else text
    if not isinstance(given, str):
        raise UsageError(f"{_said(name)}the address or path must be a string or a Path, got {type(text).__name__}")
    if not given.strip():
        raise UsageError(f"{_said(name)}the address or path is empty (`.` is the current folder)")
    if "\0" in given:
        raise UsageError(f"{_said(name)}{given!r} contains a NUL character")
    return given


def _check_no_password(text: str, name: str) -> None:
    if "@" in text:
        raise UsageError(
            f"{_said(name)}an address must not contain @, a user or a password (it is not shown here); name "
            f"credential files with "
            "COLBERT_VESPA_CERT and COLBERT_VESPA_KEY, or COLBERT_VESPA_TOKEN_FILE"
        )


def _doubtful(text: str) -> bool:
    """Tell whether a path looks like a mistyped URL."""
    first = re.split(r"[/\\]", text, maxsplit=1)[0]
    drive = os.name == "nt" and len(first) == 2
    return (":" in first and not drive) or text.startswith("//") or _is_host(first.partition("#")[0])


def _is_host(text: str) -> bool:
    """Tell whether the text is a host without a scheme, which is hardly meant as a folder."""
    try:
        return text.lower() == "localhost" or bool(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return False


def _said(name: str) -> str:
    return f"{name}: " if name else ""
