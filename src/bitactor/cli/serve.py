"""`bitactor serve market.py`: the app as a service, until it is told to stop."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from bitactor.cli.apps import load_app
from bitactor.cli.settings import with_settings
from bitactor.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bitactor.runtime.service import Service


@with_settings
def run(settings: Settings) -> None:
    """Serve an app: signals over TLS into a durable log, state that is exactly once, HTTP for operators.

    Prints one line when it is ready. SIGTERM or Ctrl-C: drain, acknowledge, snapshot, exit 0; once more: exit at once.
    """
    import uvloop

    from bitactor.runtime.serve import serve

    app = load_app(settings.app)
    has_admin = find_spec("bitactor.admin.server") is not None
    status = uvloop.run(serve(settings, app, start_admin=_start_admin if has_admin else None))
    sys.stdout.flush()
    raise typer.Exit(status)


async def _start_admin(service: "Service") -> "tuple[str, Callable[[], Awaitable[None]]]":
    admin: Any = import_module("bitactor.admin.server").AdminServer(service)
    await admin.start()
    return admin.url, admin.stop
