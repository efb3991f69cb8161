"""Who may ask what over HTTP, and what every answer carries for a browser's safety. Loop thread; no state.

A request needs a bearer token unless the server listens on loopback and no token is configured. There it must name
this machine as its Host, so that a page whose name an attacker points at 127.0.0.1 (DNS rebinding) reads nothing; and
what changes something must not come from another page (Origin), so that no page makes a browser send it.
"""

import enum
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitactor.ingest.auth import Identities, Identity

SECURITY_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
HEAD_BYTES_MAX: Final = 16_384
HEADERS_MAX: Final = 100
_SAFE: Final = {"GET", "HEAD", "OPTIONS"}


class Right(enum.IntEnum):
    """What a request may do; each includes those before it."""

    OPEN = 0  # health, the page itself, the document of the API
    READ = 1
    ADMIN = 2


class Refused(Exception):  # noqa: N818
    """An answer other than what was asked for: status, a code for programs, words for people."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status: Final = status
        self.code: Final = code
        self.message: Final = message
        self.headers: Final = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> JSONResponse:
        """The answer."""
        body = {"status": self.status, "code": self.code, "message": self.message}
        return JSONResponse(body, self.status, self.headers)


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in. identities: those known now, None when nobody needs a token. loopback: listens there alone."""

    identities: Callable[[], tuple[Identities, ...]] | None
    loopback: bool

    def right(self, headers: Headers) -> Right:
        """What the request may do. Refused: 401 for a token that is missing or nobody's."""
        if self.identities is None:
            return Right.ADMIN
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for known in self.identities():
                identity = known.by_token(token.strip().encode())
                if identity is not None:
                    return _right_of(identity)
        said = "this token is not known" if token else "send the header Authorization: Bearer TOKEN"
        raise Refused(401, "token_needed", said, www_authenticate='Bearer realm="bitactor"')

    def require(self, headers: Headers, right: Right) -> None:
        """Refused unless the request may do that: 401 without a good token, 403 with one that may not."""
        if right > Right.OPEN and self.right(headers) < right:
            raise Refused(403, "forbidden", f"this needs an identity with {right.name.lower()} = true")


def _right_of(identity: Identity) -> Right:
    return Right.ADMIN if identity.admin else Right.READ if identity.read else Right.OPEN


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(header: str) -> str:
    """The host of a Host header, without port and brackets; "" when it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin header, as they stand there; None when it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


class Guard:
    """Stands before every route: checks what no route should see, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
        except Refused as refused:
            await refused.response()(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refused(400, "bad_request", "speak HTTP/1.1", connection="close")
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in headers.raw)
        if size > HEAD_BYTES_MAX or len(headers) > HEADERS_MAX:
            said = f"a request's head has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
            raise Refused(431, "too_large", said, connection="close")
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Refused(400, "bad_request", "a request has Content-Length or Transfer-Encoding", connection="close")
        host = headers.get("host", "")
        if self._access.loopback and not is_loopback(_host(host)):
            said = f"Host is {host[:80]!r}: ask for localhost or 127.0.0.1"
            raise Refused(421, "wrong_host", said, connection="close")
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            if origin is not None and _netloc(origin) != host:
                raise Refused(403, "foreign_origin", f"a page of {origin[:80]!r} may not change anything here")
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                raise Refused(403, "foreign_origin", "a page of another site may not change anything here")


def describe(error: Any) -> str:
    """The words of an exception; KeyError quotes its own."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
