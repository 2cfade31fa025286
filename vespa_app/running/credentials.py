"""Credentials for Vespa, from the environment only, and never shown.

    COLBERT_VESPA_CERT, COLBERT_VESPA_KEY    paths of PEM files, mutual TLS
    COLBERT_VESPA_TOKEN_FILE                 path of a file with a bearer token in its only line

And for a server of `colbert-vespa serve`:

    COLBERT_VESPA_API_KEY                    its own key; by default the key is in the token file
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
RENEW = "renew the token or the certificate, or ask for access"

CURL_CREDENTIALS = '--cert "$COLBERT_VESPA_CERT" --key "$COLBERT_VESPA_KEY"'
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_API_KEY = "COLBERT_VESPA_API_KEY"
_TOKEN_FILE = "COLBERT_VESPA_TOKEN_FILE"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class TlsFiles:
    """Files for the TLS of a library other than Python's.

    Attributes:
        certificate: our certificate.
        key: our key.
        authorities_file: authorities that verify the other side.
        authorities_folder: authorities that verify the other side.
    """

    certificate: str | None
    key: str | None
    authorities_file: str | None
    authorities_folder: str | None


def tls_files() -> TlsFiles:
    """Return the files that `tls_context` uses.

    Raises:
        UsageError: if ours cannot be read.
    """
    tls_context()
    certificate = os.environ.get("COLBERT_VESPA_CERT") or None
    paths = ssl.get_default_verify_paths()
    return TlsFiles(certificate, os.environ.get("COLBERT_VESPA_KEY") or certificate, paths.cafile, paths.capath)


def tls_context() -> ssl.SSLContext:
    """Return a TLS context that always verifies the other side.

    Raises:
        UsageError: if our files cannot be read.
    """
    context = ssl.create_default_context()
    certificate, key = os.environ.get("COLBERT_VESPA_CERT"), os.environ.get("COLBERT_VESPA_KEY")
    if certificate or key:
        try:
            context.load_cert_chain(certificate or "", key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"COLBERT_VESPA_CERT and COLBERT_VESPA_KEY must name PEM files: {error}") from None
    return context


def is_local(address: httpx.URL) -> bool:
    """Tell whether requests to the address stay on this machine."""
    return address.host in _LOCAL_HOSTS


def token_header(address: httpx.URL) -> dict[str, str]:
    """Return the header with the token; empty without one.

    Raises:
        UsageError: if the file has no token, or it would be sent to `address` unencrypted.
    """
    file = os.environ.get(_TOKEN_FILE)
    if not file:
        return {}
    return _bearer(_token(Path(file)), f"a token ({_TOKEN_FILE})", address)


def key_header(address: httpx.URL) -> dict[str, str]:
    """Return the header with the key of our server; empty without one.

    Raises:
        UsageError: as in `token_header`.
    """
    key = os.environ.get(_API_KEY, "").strip()
    if not key:
        return token_header(address)
    if not all("!" <= sign <= "~" for sign in key):
        raise UsageError(f"{_API_KEY} must be a key of printable ASCII without spaces")
    return _bearer(key, f"a key ({_API_KEY})", address)


def _bearer(secret: str, what: str, address: httpx.URL) -> dict[str, str]:
    """Return the header; UsageError if it would be sent unencrypted."""
    if address.scheme != "https" and not is_local(address):
        raise UsageError(f"{address.host}: {what} is sent over https only; use https://, or unset it")
    return {"Authorization": f"Bearer {secret}"}


def _token(file: Path) -> str:
    try:
        lines = file.read_bytes().removesuffix(b"\n").removesuffix(b"\r").split(b"\n")
    except OSError as error:
        raise UsageError(f"{_TOKEN_FILE} {file} cannot be read: {error.strerror}") from None
    if len(lines) != 1 or not lines[0].strip():
        raise UsageError(f"{_TOKEN_FILE} {file} must contain one line, the token, and nothing else")
    if not all(0x21 <= byte <= 0x7E for byte in lines[0]):
        raise UsageError(f"{_TOKEN_FILE} {file} must contain a token of printable ASCII without spaces")
    return lines[0].decode("ascii")
