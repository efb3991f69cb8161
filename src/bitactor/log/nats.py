"""Connections to NATS servers: made as the settings say, made again for ever, told in log lines.

One event loop's thread uses a connection; what other threads want goes through `asyncio.run_coroutine_threadsafe`.
What nats-py 2.16 does otherwise than a log needs is put right here, in `Connection`: it would end for good on some
errors of a server, go without TLS when a server (or who stands in its way) does not ask for it, wait for a peer
that takes no more bytes before it goes to another one, go back to a server that was just lost before it tries the
others, and let requests wait for answers to a connection that is gone.
"""

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bitactor.log.contract import LogError
from bitactor.telemetry import get_logger

try:
    import nats.aio.client
    import nats.aio.transport
    import nats.errors
except ModuleNotFoundError as _error:
    raise ImportError("a log in NATS JetStream needs more packages: pip install 'bitactor[cluster]'") from _error

if TYPE_CHECKING:
    from pathlib import Path

    from bitactor.config import Nats

CONNECT_S: Final = 30.0
_TRY_S: Final = 2  # for one server to answer; nats-py takes whole seconds
_WAIT_S: Final = 1  # before the same server is tried again
_PING_S: Final = 1  # a silent server is left after three pings without an answer
_PINGS_MAX: Final = 3
_PENDING_BYTES_MAX: Final = 32 << 20  # written and not yet taken by the socket; beyond it publishing waits
_READ_BYTES: Final = 1 << 20  # from the socket at once; nats-py asks for 32 KiB, an eighth of a full record
LEAVE_S: Final = 2.0  # a server that answers, while JetStream behind it does not, may be left for another after so long
LEAVE_AGAIN_S: Final = 5.0  # between two servers that are left
_DENIED: Final = "authorization violation"
_SEED: Final = re.compile(rb"\A\s*(S[A-Z2-7]+)\s*\Z")
_IN_CREDENTIALS: Final = re.compile(rb"BEGIN NATS USER JWT-+\s+\S+\s[\s\S]*BEGIN USER NKEY SEED-+\s+(S[A-Z2-7]+)\s")
_HOLDS: Final = {
    "nats.credentials_file": "user's JWT and seed, as `nsc` writes them",
    "nats.nkey_file": "seed of an nkey",
}

_T = TypeVar("_T")
_log = get_logger("bitactor.nats")


class NatsError(LogError):
    """No connection to NATS servers as the settings want it; says why and what to do."""


class _Transport(nats.aio.transport.TcpTransport):
    """Lets go of a peer at once: a stopped server takes no bytes, and what was sent to it is asked for again anyway."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        self.close()  # nats-py leaves one that gave no answer open
        await super().connect(uri, _READ_BYTES, connect_timeout)

    async def read(self, buffer_size: int) -> bytes:
        data: bytes = await super().read(_READ_BYTES)
        return data

    def close(self) -> None:
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()


class Connection(nats.aio.client.Client):
    """A connection, and after each loss the next one. `denied`: what the servers last refused for want of permission.

    reconnects: how many there were. Callbacks in `on_reconnect` are awaited after each, on the loop. streams: names of
    those that are used over it. A request that waits when the connection is lost ends with StaleConnectionError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.denied: str | None = None
        self.streams: set[str] = set()
        self.on_reconnect: list[Any] = []
        self._left_at = -LEAVE_AGAIN_S
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.refused: asyncio.Future[Exception] | None = None  # until the first connection: what makes trying useless

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        count: int = self.stats["reconnects"]
        return count

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What the coroutine gives, run on the connection's loop. For other threads than the loop's."""
        if threading.get_ident() == self._thread:
            work.close()
            raise AssertionError("the loop's own thread would wait for itself: use the method that ends in _async")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let the loop run the coroutine, and do not wait; nothing happens once the loop is closed. Any thread."""
        if self.loop.is_closed():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, self.loop)

    async def publish_and_hear(
        self, subject: str, data: bytes, headers: dict[str, str], timeout_s: float
    ) -> dict[str, Any]:
        """Publish to a stream and give its acknowledgement or refusal, as JSON says it. nats.errors.Error: neither."""
        answer = await self.request(subject, data, timeout_s, headers=headers)
        try:
            said: dict[str, Any] = json.loads(answer.data)
        except ValueError:
            raise nats.errors.JsonParseError from None
        return said

    async def leave(self, why: str) -> None:
        """Go to another server, if there is one: this one is cut off from the others. At most every LEAVE_AGAIN_S."""
        now = time.monotonic()
        if self.is_connected and now - self._left_at >= LEAVE_AGAIN_S:
            self._left_at = now
            _log.warning("nats server is left for another", server=self._address(), why=why)
            await self._process_op_err(nats.errors.StaleConnectionError())

    @property
    def server_name(self) -> str:
        """Of the server that this is, or was last, a connection with."""
        return str(self._server_info.get("server_name", ""))

    async def _select_next_server(self) -> None:
        if self._current_server in self._server_pool:  # it was just lost: the others first
            self._server_pool.remove(self._current_server)
            self._server_pool.append(self._current_server)
        await super()._select_next_server()

    async def _connect_to_server(self, s: Any) -> None:
        if self._transport is None:
            self._transport = _Transport()
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        """The line that carries the credentials: not without TLS when TLS was asked for."""
        if "tls" in self.options and not self._server_info.get("tls_required"):
            error = nats.errors.SecureConnWantedError()
            self._is_useless(error)
            raise error
        command: bytes = super()._connect_command()
        return command

    async def _process_err(self, err_msg: str) -> None:
        """What a server says against us: a permission that is missing, or why it ends the connection."""
        if "permissions violation" in err_msg.lower():
            self.denied = err_msg.strip("'")
            await self._error_cb(nats.errors.Error(f"nats: {self.denied}"))
            return
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def told_error(self, error: Exception) -> None:
        """An error of the connection, of nats-py's."""
        if isinstance(error, ssl.SSLError) or _DENIED in str(error).lower():
            self._is_useless(error)
        # The text is part of the event's fields, so that repeats are counted whatever it is.
        _log.warning("nats error", error=error, server=self._address())

    async def told_disconnected(self) -> None:
        """The connection is lost, and with it all answers that did not come yet."""
        for answer in list(self._resp_map.values()):
            if not answer.done():
                answer.set_exception(nats.errors.StaleConnectionError())
        if not self.is_closed:
            _log.warning("nats connection lost, connecting again", server=self._address())

    async def told_reconnected(self) -> None:
        """There is a connection again."""
        _log.info("nats connected again", server=self._address(), reconnects=self.reconnects)
        await asyncio.gather(*(callback() for callback in self.on_reconnect))

    def _is_useless(self, error: Exception) -> None:
        if self.refused is not None and not self.refused.done():
            self.refused.set_result(error)

    def _address(self) -> str:
        current = self._current_server
        return "" if current is None else str(current.uri.netloc.rpartition("@")[2])


async def connect(settings: "Nats", *, name: str, connect_s: float = CONNECT_S) -> Connection:
    """Connect to one of the servers, as `name` (shown in their monitoring); later losses are made good for ever.

    NatsError when none can be had within connect_s, and at once when one refuses the credentials or its certificate is
    not good. On the loop that will use the connection. `await connection.close()` ends it.
    """
    connection = Connection()
    connection.refused = asyncio.get_running_loop().create_future()
    options = _options(settings)
    connecting = asyncio.ensure_future(
        connection.connect(
            list(settings.servers),
            name=name,
            error_cb=connection.told_error,
            disconnected_cb=connection.told_disconnected,
            reconnected_cb=connection.told_reconnected,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_WAIT_S,
            connect_timeout=_TRY_S,
            ping_interval=_PING_S,
            max_outstanding_pings=_PINGS_MAX,
            pending_size=_PENDING_BYTES_MAX,
            inbox_prefix=f"_INBOX.{settings.stream}",
            **options,
        )
    )
    try:
        waited: set[asyncio.Future[Any]] = {connecting, connection.refused}
        await asyncio.wait(waited, timeout=connect_s, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            await connecting
        elif connection.refused.done():
            raise _explained(connection.refused.result(), settings)
        else:
            raise NatsError(
                f"no NATS server of nats.urls ({', '.join(settings.servers)}) answered within {connect_s:g} s; "
                f"the last error: {_text(connection.last_error)}"
            )
    except BaseException:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await connection.close()
        raise
    finally:
        connection.refused = None
    _log.info("nats connected", server=connection._address(), version=str(connection.connected_server_version))
    return connection


def _options(settings: "Nats") -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.credentials_file is not None:
        _check_key("nats.credentials_file", settings.credentials_file, _IN_CREDENTIALS)
        options["user_credentials"] = str(settings.credentials_file)
    if settings.nkey_file is not None:
        _check_key("nats.nkey_file", settings.nkey_file, _SEED)
        options["nkeys_seed"] = str(settings.nkey_file)
    if settings.user is not None and settings.password_file is not None:
        options["user"], options["password"] = settings.user, _password(settings.password_file)
    if settings.uses_tls:
        options["tls"] = client_context(settings)
    return options


def _check_key(setting: str, file: "Path", form: "re.Pattern[bytes]") -> None:
    """NatsError when nats-py would fail on what is in the file; nothing of that is told."""
    import nkeys

    try:
        found = form.search(file.read_bytes())
    except OSError as error:
        raise NatsError(f"{setting}: {file}: {error.strerror}") from None
    try:
        assert found is not None
        nkeys.from_seed(bytearray(found[1])).wipe()
    except Exception:  # noqa: BLE001  (nkeys raises what it meets, and its text may be of the seed)
        raise NatsError(f"{setting}: {file} holds no {_HOLDS[setting]}") from None


def _password(file: "Path") -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NatsError(f"nats.password_file: {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def client_context(settings: "Nats") -> ssl.SSLContext:
    """TLS 1.3, the servers' certificates checked, ours shown if there is one. NatsError names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if settings.tls_ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(settings.tls_ca_file)
    except (OSError, ValueError) as error:
        raise NatsError(f"nats.tls_ca_file: {settings.tls_ca_file}: {_text(error)}") from None
    if settings.tls_cert_file is not None:
        try:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise NatsError(f"nats.tls_cert_file: {settings.tls_cert_file}: {_text(error)}") from None
    return context


def _explained(error: Exception, settings: "Nats") -> NatsError:
    servers = ", ".join(settings.servers)
    if isinstance(error, nats.errors.SecureConnWantedError):
        return NatsError(f"a NATS server of nats.urls ({servers}) does not speak TLS, and the settings ask for it")
    if isinstance(error, ssl.SSLError):
        return NatsError(f"no TLS with a NATS server of nats.urls ({servers}): {error}; see nats.tls_ca_file")
    return NatsError(
        f"a NATS server of nats.urls ({servers}) refuses who this is ({_text(error)}): see nats.credentials_file, "
        "nats.nkey_file, or nats.user and nats.password_file"
    )


def _text(error: BaseException | None) -> str:
    return "none" if error is None else str(error) or type(error).__name__
