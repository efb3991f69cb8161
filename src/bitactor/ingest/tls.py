"""TLS 1.3 for the server: a context made from files, made again when they change, and what a failed handshake was.

Connections keep the context that they began with; new handshakes use the newest that could be loaded. One thread (the
loop's).
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bitactor.ingest.certs import expires
from bitactor.ingest.watch import Watched


class TlsFilesError(ValueError):
    """Certificate files that cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the server, and the CA of its clients if they may show certificates (must, with client_required)."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_required: bool = False


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3 only, no session tickets (a resumed session would not check its client again). TlsFilesError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # An encrypted key is refused: OpenSSL would ask for its password at the terminal.
    try:
        context.load_cert_chain(files.cert_file, files.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"cannot use {files.cert_file} with {files.key_file}: {_reason(error)}") from None
    if files.client_ca_file is not None:
        try:
            context.load_verify_locations(files.client_ca_file)
        except (OSError, ValueError) as error:
            raise TlsFilesError(f"cannot use {files.client_ca_file} as the clients' CA: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_OPTIONAL
    elif files.client_required:
        raise TlsFilesError("client certificates are required: tls.client_ca_file names the CA that signs them")
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by this user only")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file" if error.filename is None else f"{error.filename}: no such file"
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Tls:
    """A context and when the first certificate of its chain expires, in unix seconds."""

    context: ssl.SSLContext
    expires: float


def watched(files: TlsFiles) -> Watched[Tls]:
    """The newest usable context of the files. TlsFilesError now, and later of `reload`."""
    paths = (files.cert_file, files.key_file, *([files.client_ca_file] if files.client_ca_file else ()))
    return Watched(paths, lambda: _load(files))


def _load(files: TlsFiles) -> Tls:
    context = server_context(files)
    try:
        return Tls(context, expires(files.cert_file).timestamp())
    except ValueError as error:
        raise TlsFilesError(f"cannot read {files.cert_file}: {error}") from None


# OpenSSL's reasons -> the reason under which refused connections are counted.
_HANDSHAKE_REASONS: Final[Mapping[str, str]] = {
    "HTTP_REQUEST": "plain_text",
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "NO_SHARED_CIPHER": "tls_version",
    "NO_PROTOCOLS_AVAILABLE": "tls_version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate_missing",
    "CERTIFICATE_VERIFY_FAILED": "certificate_bad",
    "EXCESSIVE_MESSAGE_SIZE": "tls_too_long",
}


# Every word under which a connection is refused before its hello, beside the codes of errors.
HANDSHAKE_REASONS: Final = (
    *sorted(set(_HANDSHAKE_REASONS.values())),
    *("tls_alert", "tls_cut_off", "tls_other"),
)


def handshake_failure(error: ssl.SSLError) -> str:
    """Why a handshake failed, as a metric's label: one of few words."""
    reason = error.reason or ""
    if "ALERT" in reason:
        return "tls_alert"  # the client ended it: it does not trust our certificate, for example
    return _HANDSHAKE_REASONS.get(reason, "tls_other")
