"""A service as a process: signals of the system, the one line that says ready, the end and its exit status.

The main thread. SIGTERM and SIGINT: drain, acknowledge, snapshot, exit 0 within the grace period; a second one exits at
once (the log has everything). SIGHUP: certificates and identities are read again.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from bitactor import faults
from bitactor.runtime.listen import development_directory
from bitactor.runtime.service import Service

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config import Settings
    from bitactor.ingest.server import Server

EXIT_STOPPED: Final = 0
EXIT_FAILED: Final = 1
EXIT_FORCED: Final = 130
_SAME_WISH_S: Final = 0.5


class Served(Protocol):
    """What is served: a Service, or a replica of a cluster, which has the same face."""

    settings: "Settings"
    app: "App"
    ingest: "Server | None"
    fatal: str | None
    ended: asyncio.Future[str | None]

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Take no more, and end in order."""

    def ready_line(self) -> dict[str, Any]:
        """What is said when it is ready."""


# Starts what answers over HTTP for a service; gives its address and what stops it.
StartAdmin = Callable[[Any], Awaitable[tuple[str, Callable[[], Awaitable[None]]]]]
Make = Callable[["Settings", "App"], Served]

logger = logging.getLogger("bitactor.runtime")


async def serve(
    settings: "Settings", app: "App", *, start_admin: StartAdmin | None = None, make: Make = Service
) -> int:
    """Serve until a signal says stop or the service cannot go on; the exit status. make: what is served.

    0: stopped as asked, everything acknowledged is kept. 1: it failed, or the grace period was too short; the log holds
    what was acknowledged. Raises what start raises: damage, a changed app, a port that is taken.
    """
    faults.refuse_in_production()
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    service = make(settings, app)
    with _signals(loop, _on_stop(asked), lambda: _reload(service)):
        address, stop_admin = await start_admin(service) if start_admin is not None else ("", None)
        try:
            await service.start()
            gc.collect()
            gc.freeze()  # what is here stays: later collections need not look at it
            _say_ready(service, address)
            service.ended.add_done_callback(lambda _: asked.set())
            await asked.wait()
            return await _end(service, settings.shutdown.grace_s)
        finally:
            if stop_admin is not None:
                await stop_admin()


async def _end(service: Served, grace_s: float) -> int:
    logger.info("stopping")
    try:
        async with asyncio.timeout(grace_s):
            await service.stop()
    except TimeoutError:
        logger.error("the grace period of %g s is over: exit without a last snapshot; the log has everything", grace_s)  # noqa: TRY400
        _exit(EXIT_FAILED)  # threads still wait for a disk or a shard, and the interpreter would wait for them
    if service.fatal is not None:
        return EXIT_FAILED
    logger.info("stopped")
    return EXIT_STOPPED


def _on_stop(asked: asyncio.Event) -> Callable[[], None]:
    """What SIGTERM and SIGINT do. Some senders send the same wish twice at once: that is one."""
    first: list[float] = []

    def stop() -> None:
        if first and time.monotonic() - first[0] > _SAME_WISH_S:
            logger.warning("asked a second time: exit at once; the log has everything")
            _exit(EXIT_FORCED)
        first.append(time.monotonic())
        asked.set()

    return stop


def _exit(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _reload(service: Served) -> None:
    if service.ingest is not None:
        service.ingest.reload()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None], reload: Callable[[], None]) -> Any:
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _say_ready(service: Served, admin: str) -> None:
    """Standard output: one line of JSON, or words at a terminal."""
    assert service.ingest is not None
    settings = service.settings
    addresses = [f"{host}:{port}" for host, port in service.ingest.addresses]
    said = {
        "event": "ready",
        "app": service.app.name,
        "ingest": addresses,
        "tls": service.ingest.is_secure,
        "admin": admin,
        **service.ready_line(),
        "pid": os.getpid(),
    }
    if sys.stdout.isatty():
        how = "TLS" if said["tls"] else "plain text"
        line = f"{service.app.name} is ready: signals on {', '.join(addresses)} ({how})"
        line += f", admin on {admin}" if admin else ""
        if settings.auth.file is None:
            line += f"\nfor clients on this machine: {development_directory(settings)}/token and ca.pem beside it"
    else:
        line = json.dumps(said)
    print(line, flush=True)  # noqa: T201
