"""The admin server: uvicorn on the service's loop, with bounds on connections, on time and on sizes.

    admin = AdminServer(service)
    await admin.start()         # before service.start(), so that /livez and /startupz answer while it recovers
    ...
    await admin.stop()

Loop thread. Installs no signal handlers: the process's owner has them.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bitactor.admin.access import HEAD_BYTES_MAX, is_loopback
from bitactor.admin.app import create_app

CONNECTIONS_MAX: Final = 256
HEAD_S: Final = 10.0  # from a connection's start, or its last answer, to the end of a request's head
ANSWER_S: Final = 120.0  # from there until the answer is sent
KEEP_ALIVE_S: Final = 5
_STOP_S: Final = 5

logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what peers send wrong is theirs to read


class _Bounded(H11Protocol):
    """One connection, which ends when its peer is slow or there are too many."""

    head_s = HEAD_S
    answer_s = ANSWER_S
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._end(b"503 Service Unavailable", "too many connections")
        else:
            self._within(self.head_s, self._slow_head)

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting and self._timer is None:
            self._within(self.head_s, self._slow_head)
        super().data_received(data)
        if waiting and not self._waiting:
            self._within(self.answer_s, self.transport.abort)

    def handle_events(self) -> None:
        """Before a head is read: its lines end with CR LF. A reader before this one may end them elsewhere."""
        if self.conn.their_state is h11.IDLE:
            head = self.conn.trailing_data[0].partition(b"\r\n\r\n")[0]
            if head.count(b"\n") != head.count(b"\r\n"):
                self._end(b"400 Bad Request", "a line of the request's head ends with a bare line feed")
                return
        super().handle_events()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP; a request that they came behind, or in the body of, gets no other answer."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:  # half an answer is no place for another one
                self.transport.abort()
                return
        self._end(b"400 Bad Request", "these bytes are no request in HTTP")

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: who asks for another protocol gets an answer in this one."""

    def on_response_complete(self) -> None:
        self._forget()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    @property
    def _waiting(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or bool(cycle.response_complete)

    def _slow_head(self) -> None:
        self._end(b"408 Request Timeout", f"the request's head did not come within {self.head_s:g} s")

    def _end(self, status: bytes, message: str) -> None:
        body = f'{{"status":{int(status[:3])},"code":"closed","message":"{message}"}}'.encode()
        length = str(len(body)).encode()
        head = b"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + length
        self.transport.write(b"HTTP/1.1 " + status + head + b"\r\n\r\n" + body)
        self.transport.close()

    def _within(self, seconds: float, late: Any) -> None:
        self._forget()
        self._timer = self.loop.call_later(seconds, late)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's owner."""
        yield


class AdminServer:
    """Serves a service's admin application where its settings say. port: the one it got."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.host: str = service.settings.admin.host
        self.port: int = service.settings.admin.port

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = self.host if is_loopback(self.host) else "localhost"
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    async def start(self) -> None:
        """Listen. Returns when requests are answered. OSError: the port is taken. AuthError: a bad token file."""
        admin = self._service.settings.admin
        if admin.token_file is None and not is_loopback(admin.host):
            raise ValueError(
                f"admin.host {admin.host} is not loopback: set admin.token_file, the token that it asks for"
            )
        app = create_app(self._service)
        listening = await self._listen()
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=_Bounded,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listening]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the admin server ended while it started")
            await asyncio.sleep(0.005)

    async def _listen(self) -> socket.socket:
        found = await asyncio.get_running_loop().getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, type_, proto, _, address = found[0]
        listening = socket.socket(family, type_, proto)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"admin.port {self.port} on {self.host}: {error.strerror}") from None
        return listening

    async def stop(self) -> None:
        """Answer what was asked, close. Later calls do nothing."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await asyncio.wait([self._task])


async def start_admin(service: Any) -> tuple[str, Callable[[], Awaitable[None]]]:
    """Start an AdminServer; its address and what stops it."""
    server = AdminServer(service)
    await server.start()
    return server.url, server.stop
