"""Where the service is and how a client shows who it is: address, TLS, token. Plain data; any thread."""

import ipaddress
import re
import ssl
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from bitactor.protocol.wire import TOKEN_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 9090


@dataclass(frozen=True, kw_only=True)
class Target:
    """A service to connect to. Files are read at each connection, so that renewed ones are used.

    address: "host:port", or several of them with commas: replicas of one service, tried in turn.
    """

    address: str
    token: str | bytes | None = None
    token_file: str | Path | None = None
    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    server_name: str | None = None
    plain_text: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked now: ValueError says what does not go together."""
        object.__setattr__(self, "_turn", cycle(self.addresses()))
        for host, _ in self.addresses():
            if self.plain_text and not is_loopback(host):
                raise ValueError(f"plain_text sends signals and token unencrypted: only to this machine, not to {host}")
        if self.plain_text and (self.ca_file or self.cert_file):
            raise ValueError("plain_text and certificates do not go together: leave one out")
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is the key of a certificate: give cert_file too")

    def __repr__(self) -> str:  # a token has no place in a log
        return f"Target({self.address!r})"

    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each address. ValueError for what is none."""
        return [self._parse(address.strip()) for address in self.address.split(",")]

    def host_port(self) -> tuple[str, int]:
        """Where to connect now: with several addresses another one at each call."""
        turn: Iterator[tuple[str, int]] = self._turn  # type: ignore[attr-defined]
        return next(turn)

    def _parse(self, address: str) -> tuple[str, int]:
        """Host and port of "host:port", "[::1]:port", and both without a port. ValueError for what is none of these."""
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", address)
        host, port = (match[1] or match[2], match[3] or str(PORT)) if match else ("", "")
        if not match or not 0 < int(port) < 65536:
            raise ValueError(f'address is {address!r}: give "host:port", such as "127.0.0.1:{PORT}"')
        return host, int(port)

    def secret(self) -> bytes:
        """The token's bytes; b"" without one. OSError when its file cannot be read, ValueError for one too long."""
        if self.token_file is not None:
            token = Path(self.token_file).read_bytes().strip()
        else:
            token = self.token.encode() if isinstance(self.token, str) else self.token or b""
        if len(token) > TOKEN_BYTES_MAX:
            raise ValueError(f"the token has {len(token)} bytes; at most {TOKEN_BYTES_MAX} are possible")
        return token

    def tls(self) -> ssl.SSLContext | None:
        """What a connection is wrapped in: TLS 1.3, the server's certificate and name checked. None: plain text."""
        if self.plain_text:
            return None
        for file in (self.ca_file, self.cert_file, self.key_file):
            if file is not None:
                Path(file).open("rb").close()  # ssl does not say which file it did not find
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.hostname_checks_common_name = False  # a certificate without alternative names is for no host
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def tls_name(self, host: str) -> str:
        """The name that the certificate of the server at `host` must have."""
        return self.server_name or host


def readable(error: BaseException) -> BaseException:
    """The error of a connection, in words that say what to do where OpenSSL's do not."""
    if isinstance(error, ssl.SSLCertVerificationError):
        by_name = error.verify_code in (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH
        what = "server_name says its name, if that is not the address" if by_name else "ca_file names who signed it"
        said = f"the service's certificate is not trusted: {error.verify_message.rstrip('.')}; {what}"
        told = ssl.SSLCertVerificationError(error.errno, said)
        told.verify_code, told.verify_message = error.verify_code, error.verify_message
        return told
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return ConnectionError("what answers there speaks no TLS: is it the port for signals (ingest.port)?")
    return error


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its address; of names, `localhost` only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
