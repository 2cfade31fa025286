"""What lets one into Vespa, from the environment only, and never shown:

COLBERT_VESPA_CERT, COLBERT_VESPA_KEY    paths of PEM files, mutual TLS
COLBERT_VESPA_TOKEN_FILE                 path of a file with a bearer token in its one line

and into a server of `colbert-vespa serve`:

COLBERT_VESPA_API_KEY                    a key of its own; without it the token file's line is the key
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from late_interaction.errors import UsageError

__all__ = [
    "CURL_CREDENTIALS",
    "NOT_LET_IN",
    "RENEW",
    "TlsFiles",
    "is_local",
    "key_header",
    "tls_context",
    "tls_files",
    "token_header",
]

NOT_LET_IN = (401, 403)
RENEW = "renew the token or the certificate, or have it let you in"

CURL_CREDENTIALS = '--cert "$COLBERT_VESPA_CERT" --key "$COLBERT_VESPA_KEY"'
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_API_KEY = "COLBERT_VESPA_API_KEY"
_TOKEN_FILE = "COLBERT_VESPA_TOKEN_FILE"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class TlsFiles:
    """What the TLS of another library than Python's is given. authorities: of the other side's certificates."""

    certificate: str | None
    key: str | None
    authorities_file: str | None
    authorities_folder: str | None


def tls_files() -> TlsFiles:
    """The files that tls_context uses. Raises: UsageError where ours cannot be read."""
    tls_context()
    certificate = os.environ.get("COLBERT_VESPA_CERT") or None
    paths = ssl.get_default_verify_paths()
    return TlsFiles(certificate, os.environ.get("COLBERT_VESPA_KEY") or certificate, paths.cafile, paths.capath)


def tls_context() -> ssl.SSLContext:
    """Certificates of the other side are always verified. Raises: UsageError where ours cannot be read."""
    context = ssl.create_default_context()
    certificate, key = os.environ.get("COLBERT_VESPA_CERT"), os.environ.get("COLBERT_VESPA_KEY")
    if certificate or key:
        try:
            context.load_cert_chain(certificate or "", key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"COLBERT_VESPA_CERT and COLBERT_VESPA_KEY must name PEM files: {error}") from None
    return context


def is_local(address: httpx.URL) -> bool:
    """Whether what is sent there stays on this machine."""
    return address.host in _LOCAL_HOSTS


def token_header(address: httpx.URL) -> dict[str, str]:
    """Empty without a token. Raises: UsageError where its file has none, or it would be readable on the way to `address`."""
    file = os.environ.get(_TOKEN_FILE)
    if not file:
        return {}
    return _bearer(_token(Path(file)), f"a token ({_TOKEN_FILE})", address)


def key_header(address: httpx.URL) -> dict[str, str]:
    """Of a server of ours. Empty without a key. Raises: UsageError as token_header."""
    key = os.environ.get(_API_KEY, "").strip()
    if not key:
        return token_header(address)
    if not all("!" <= sign <= "~" for sign in key):
        raise UsageError(f"{_API_KEY} must be a key of printable ASCII without spaces")
    return _bearer(key, f"a key ({_API_KEY})", address)


def _bearer(secret: str, what: str, address: httpx.URL) -> dict[str, str]:
    """Raises: UsageError where it would be readable on the way."""
    if address.scheme != "https" and not is_local(address):
        raise UsageError(f"{address.host}: {what} is sent over https only; use https://, or unset it")
    return {"Authorization": f"Bearer {secret}"}


def _token(file: Path) -> str:
    try:
        lines = file.read_bytes().removesuffix(b"\n").removesuffix(b"\r").split(b"\n")
    except OSError as error:
        raise UsageError(f"{_TOKEN_FILE} {file} cannot be read: {error.strerror}") from None
    if len(lines) != 1 or not lines[0].strip():
        raise UsageError(f"{_TOKEN_FILE} {file} must hold one line, the token, and nothing else")
    if not all(0x21 <= byte <= 0x7E for byte in lines[0]):
        raise UsageError(f"{_TOKEN_FILE} {file} must hold a token of printable ASCII without spaces")
    return lines[0].decode("ascii")
