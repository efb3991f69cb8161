"""The admin application: health, metrics, API, dashboard of one service. Its handlers run on the service's loop.

create_app(service)      an ASGI application; service: bitactor.runtime.Service, started or not
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b, sha256
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bitactor.admin.access import Access, Guard, Refused, Right, is_loopback
from bitactor.admin.api import Api
from bitactor.admin.health import PROBES, probe
from bitactor.admin.metrics import CONTENT_TYPE, Exposition, View, statistics_or_none
from bitactor.admin.openapi import OPERATIONS, PREFIX, document
from bitactor.admin.work import Work
from bitactor.ingest.auth import Identities, Identity, read_token
from bitactor.protocol.errors import ProtocolError

Handler = Callable[[Request], Awaitable[Response]]

# The dashboard: path -> (file, type). Named one by one, so that no path can ask for another file.
PAGES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/static/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/static/format.js": ("format.js", "text/javascript; charset=utf-8"),
    "/static/source.js": ("source.js", "text/javascript; charset=utf-8"),
    "/static/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}


def access_of(service: Any) -> Access:
    """Who may ask, by the service's settings: nobody needs a token on loopback without admin.token_file.

    With a token: the one in admin.token_file may do everything, and the identities of ingest what they may.
    """
    admin = service.settings.admin
    loopback = is_loopback(admin.host)
    if admin.token_file is None and loopback:
        return Access(None, loopback=True)
    own: tuple[Identities, ...] = ()
    if admin.token_file is not None:
        own = (Identities([admin_identity(read_token(admin.token_file))]),)

    def known() -> tuple[Identities, ...]:
        return own if service.identities is None else (*own, service.identities)

    return Access(known, loopback)


def admin_identity(token: bytes) -> Identity:
    """Who has the token of admin.token_file."""
    return Identity("admin", read=True, admin=True, tokens_sha256=(sha256(token).digest(),))


def create_app(service: Any, access: Access | None = None) -> Starlette:
    """The application over a service. access: who may ask; default: by the service's settings."""
    chosen = access_of(service) if access is None else access
    work = Work()
    api = Api(service, work)
    exposition = Exposition()

    def guarded(right: Right, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            chosen.require(request.headers, right)
            return await handler(request)

        return answer

    async def metrics(_: Request) -> Response:
        view = View(service.health(), statistics_or_none(service))
        return Response(await work.run(exposition.text, view), headers={"content-type": CONTENT_TYPE})

    described = json.dumps(document()).encode()

    async def openapi(_: Request) -> Response:
        return Response(described, media_type="application/json")

    routes = [Route(path, probe(service, *given), methods=["GET"]) for path, given in PROBES.items()]
    routes.append(Route("/metrics", guarded(Right.READ, metrics), methods=["GET"]))
    routes.append(Route("/openapi.json", openapi, methods=["GET"]))
    routes += [Route(path, _page(*given), methods=["GET"]) for path, given in PAGES.items()]
    for one in OPERATIONS:
        path = PREFIX + one.path.replace("{key}", "{key:path}")
        routes.append(Route(path, guarded(one.right, getattr(api, one.handler)), methods=[one.method]))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            work.close()

    handlers: dict[Any, Any] = {  # each takes the error that it is for
        Refused: _refused,
        HTTPException: _http,
        ProtocolError: _elsewhere,
        Exception: _failed,
    }
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=chosen)],
        exception_handlers=handlers,
        lifespan=lifespan,
    )


def _page(name: str, type_: str) -> Handler:
    content = files("bitactor.admin").joinpath("static", name).read_bytes()
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"content-type": type_, "etag": tag, "cache-control": "no-cache"}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return answer


async def _refused(_: Request, error: Refused) -> Response:
    return error.response()


async def _http(request: Request, error: HTTPException) -> Response:
    said = {
        404: ("not_found", f"nothing at {request.url.path[:200]!r}; /openapi.json lists what there is"),
        405: ("wrong_method", f"{request.method[:20]} is not for {request.url.path[:200]!r}"),
    }.get(error.status_code, ("bad_request", str(error.detail)))
    answer = Refused(error.status_code, *said).response()
    answer.headers.update(error.headers or {})
    return answer


async def _elsewhere(_: Request, error: ProtocolError) -> Response:
    """What another replica said, or did not say in time."""
    return Refused(503, error.code.name.lower(), str(error), retry_after="1").response()


async def _failed(_: Request, __: Exception) -> Response:
    return Refused(500, "internal", "the request failed; the service's log has the reason").response()
