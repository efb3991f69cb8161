"""Health for orchestrators: /livez (restart it?), /readyz (send it work?), /startupz (has it recovered?).

200 or 503, as one line of text, or as JSON with the reasons where the request accepts JSON. Open to everybody; they
answer while the service recovers, and never wait.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from bitactor.runtime.reports import Health

PROBES: Final[dict[str, tuple[str, Callable[[Health], bool]]]] = {
    "/livez": ("live", lambda health: health.live),
    "/readyz": ("ready", lambda health: health.ready),
    "/startupz": ("started", lambda health: health.started),
}


def probe(service: Any, word: str, holds: Callable[[Health], bool]) -> Callable[[Request], Awaitable[Response]]:
    """The handler of one probe."""

    async def answer(request: Request) -> Response:
        health = service.health()
        good = holds(health)
        reasons = [] if good else list(health.reasons)
        status = 200 if good else 503
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({word: good, "reasons": reasons}, status)
        line = word if good else f"not {word}: {'; '.join(reasons) or 'no reason given'}"
        return PlainTextResponse(line + "\n", status)

    return answer
