"""The client for asyncio: the loop moves the bytes, nothing else runs. Not for use from several loops or threads."""

import asyncio
import contextlib
import random
import ssl
import struct
import time as _time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from bitactor.client.link import CONNECT_S, PAUSES_S
from bitactor.client.outbox import Outbox
from bitactor.client.session import PING_S, SILENT_S, Session, is_final, misfit, texts_of
from bitactor.client.subscription import RECEIVE_BYTES, After, Batch, Reading
from bitactor.client.target import Target, readable
from bitactor.protocol.errors import ProtocolError
from bitactor.protocol.messages import Ack, Close, Ping
from bitactor.schema import Kind

T = TypeVar("T")
_HIGH_BYTES: Final = 1 << 20  # the transport takes so much before it says stop


class _Wire(asyncio.Protocol):
    """One connection: what it receives goes to the client, and the client writes while it may."""

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.can_write = False
        self.heard = _time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_BYTES)
        self.can_write = True

    def data_received(self, data: bytes) -> None:
        self.heard = _time.monotonic()
        try:
            if answer := self._client._session.received(data):
                self.transport.write(answer)
        except ProtocolError as error:
            self._end(error)
            self.transport.abort()
        self._client._news()

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        self.can_write = True
        self._client._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.can_write = False
        self._end(error or ConnectionResetError("the service closed the connection"))

    def _end(self, error: Exception) -> None:
        if not self.closed.done():
            self.closed.set_exception(error)
            self.closed.exception()  # seen, even if nobody awaits it any more


class AsyncClient:
    """bitactor.Client for asyncio: `async with AsyncClient(...) as client`, and every method that may wait is awaited.

    Arguments, errors and guarantees are those of bitactor.Client. Large batches are given frame by frame, between which
    other tasks run. Several tasks may send; each call's signals stay together.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:9090",
        *,
        producer: str,
        token: str | bytes | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name: str | None = None,
        plain_text: bool = False,
        buffer_signals: int = 1 << 20,
        linger_s: float = 0.005,
        takeover: bool = False,
        connect_s: float = 10.0,
    ) -> None:
        self._target = Target(
            address=address,
            token=token,
            token_file=token_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            server_name=server_name,
            plain_text=plain_text,
        )
        self._session = Session(producer, buffer_signals, takeover=takeover, client="bitactor-python-asyncio")
        self._linger_s = linger_s
        self._connect_s = connect_s
        self._wire: _Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._trouble: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._senders = asyncio.Lock()
        self._changed: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(), name=f"bitactor-{self._session.producer}")
        try:
            await self._wait(lambda: self._session.outbox, self._connect_s, "the service did not answer")
        except TimeoutError as error:
            await self._end()
            raise ConnectionError(f"{self._target.address}: {self._trouble or error}") from self._trouble
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        with contextlib.suppress(ProtocolError, OSError):  # the error on its way is the one to be seen
            await self.close(5.0)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of the service's app."""
        return self._session.kinds.all

    @property
    def next(self) -> int:
        """The sequence of the next signal: how many this producer has given, ever."""
        outbox = self._outbox()
        return outbox.next + outbox.staged

    @property
    def acked(self) -> int:
        """All signals below this sequence are applied, and durable as `durability` says."""
        return self._outbox().acked

    @property
    def durability(self) -> int:
        """Of the newest ack: 0 memory, 1 the operating system, 2 normal, 3 disk. See docs/protocol.md."""
        return self._last_ack().durability

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; it comes back by itself."""
        return self._wire is not None and self._session.is_open

    async def send(self, kind: Any, key: int | str, value: float, aux: float = 0, time: int | None = None) -> None:
        """Give one signal; waits when the buffer is full. As Client.send."""
        async with self._senders:
            outbox = self._check()
            declared, layout = self._session.kinds.one(kind)
            number = await self._key(key, outbox) if isinstance(key, str) else key
            fields = (declared.number, 0, aux, number, _time.time_ns() if time is None else time, value)
            try:
                await self._until(lambda: outbox.put_one(layout, *fields), outbox)
            except struct.error:
                raise ValueError(misfit(declared, number, value, aux, fields[4])) from None
            self._added(outbox)

    async def send_batch(
        self,
        signals: npt.NDArray[Any] | None = None,
        *,
        kind: Any = None,
        key: Any = None,
        value: Any = None,
        aux: Any = 0,
        time: Any = None,
        trace: bytes = b"",
    ) -> int:
        """Give an array of signals, or columns of one kind; waits when the buffer is full. As Client.send_batch."""
        async with self._senders:
            outbox = self._check()
            if signals is None:
                if kind is None or key is None or value is None:
                    raise TypeError("send_batch takes an array of signals, or the columns kind=, key= and value=")
                if texts := texts_of(key):
                    key = np.array([await self._key(text, outbox) for text in texts[0]], "u8")[texts[1]]
                signals = self._session.kinds.columns(kind, key, value, aux, time)
            elif kind is not None or key is not None or value is not None:
                raise TypeError("send_batch takes an array of signals or columns, not both")
            given = self._session.kinds.check(signals)
            trace = trace or self._session.begin_span(len(given))
            first = 0
            while first < len(given):
                first += await self._until(lambda first=first: outbox.put(given, first, trace), outbox)  # type: ignore[misc]
                self._added(outbox)
                await asyncio.sleep(0)
            return self.next

    async def key(self, text: str) -> int:
        """The number of a text key; the service learns its name before any signal that is given later."""
        async with self._senders:
            return await self._key(text, self._check())

    async def flush(self, timeout: float | None = None) -> Ack:  # noqa: ASYNC109  # means what it does in Client
        """Wait until everything given before this call is acknowledged. As Client.flush."""
        deadline = None if timeout is None else _time.monotonic() + timeout
        async with self._senders:
            outbox = self._check()
            target = self.next
            await self._until(outbox.seal, outbox, deadline)
        self._pump()
        left = None if deadline is None else deadline - _time.monotonic()
        await self._wait(lambda: self._last_ack().next >= target, left, f"not all is acknowledged after {timeout} s")
        return self._last_ack()

    async def subscribe(self, kinds: Any, *, after: After = None) -> AsyncIterator[Batch]:
        """Outputs of some kinds over a connection of their own, as arrays: from the first `anext` on, or after a place.

        after: (position, index). Reconnects by itself and goes on behind the last array that was given. As
        bitactor.client.Subscription.
        """
        self._check()
        chosen = kinds if isinstance(kinds, (list, tuple, set, frozenset)) else [kinds]
        reading = Reading([self._session.kinds[kind] for kind in chosen], after)
        pause = PAUSES_S[0]
        while True:
            try:
                async for batch in self._read(reading):
                    pause = PAUSES_S[0]
                    yield batch
            except (OSError, ProtocolError) as error:
                if is_final(error):
                    raise
                reading.forget()
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # clients do not come in step
                pause = min(2 * pause, PAUSES_S[1])

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as above
        """Wait until everything is acknowledged, then end. As Client.close; later calls do nothing."""
        if self._task is None:
            return
        try:
            if self._session.outbox is not None and self.next != self.acked:
                await self.flush(timeout)
        finally:
            await self._end()

    def __repr__(self) -> str:
        state = "closed" if self._task is None else "connected" if self.connected else "not connected"
        return f"<AsyncClient {self._session.producer!r} of {self._target.address}, {state}>"

    # --- how ---

    def _check(self) -> Outbox:
        if self._task is None:
            raise ValueError(f"{self!r}: use it in `async with`")
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._outbox()

    def _outbox(self) -> Outbox:
        outbox = self._session.outbox
        assert outbox is not None, "entering waits for the welcome"
        return outbox

    def _last_ack(self) -> Ack:
        ack = self._session.ack
        assert ack is not None, "entering waits for the welcome"
        return ack

    async def _until(self, attempt: Callable[[], T], outbox: Outbox, deadline: float | None = None) -> T:
        """What the attempt gives, which is repeated after acks while it gives nothing: that makes room."""
        while True:
            seen = outbox.acks
            if result := attempt():
                return result
            self._pump()
            left = None if deadline is None else deadline - _time.monotonic()
            await self._wait(lambda seen=seen: outbox.acks != seen, left, "the buffer is full")  # type: ignore[misc]

    async def _wait(self, condition: Callable[[], object], seconds: float | None, what: str) -> None:
        deadline = None if seconds is None else _time.monotonic() + seconds
        while not condition():
            if self._error is not None:
                raise self._error.with_traceback(None)
            left = None if deadline is None else deadline - _time.monotonic()
            if left is not None and left <= 0:
                trouble = "" if self.connected or self._trouble is None else f" (no connection: {self._trouble})"
                raise TimeoutError(what + trouble)
            await asyncio.wait([self._changed], timeout=left)

    async def _key(self, text: str, outbox: Outbox) -> int:
        number, message = self._session.name(text)
        if message is not None:
            encoded = message
            await self._until(lambda: outbox.name(encoded), outbox)
            self._session.named(text, number)
        return number

    def _added(self, outbox: Outbox) -> None:
        """After signals were added: write what is whole, and begin the time that the rest may wait."""
        self._pump()
        if outbox.staged and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger_s, self._seal_what_waited)

    def _seal_what_waited(self) -> None:
        self._timer = None
        if self._outbox().seal():
            self._pump()
        elif self._task is not None:  # no room: an ack comes before
            self._timer = asyncio.get_running_loop().call_later(0.01, self._seal_what_waited)

    def _pump(self) -> None:
        """Write while the transport and the credit allow."""
        wire, outbox = self._wire, self._session.outbox
        while wire is not None and wire.can_write and self._session.is_open and outbox is not None:
            data = outbox.pending()
            if data is None:
                return
            outbox.sent(len(data))
            wire.transport.write(data)

    def _news(self) -> None:
        """Acks came, or the end: write more, and let those who wait look again."""
        self._pump()
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        if not changed.done():
            changed.set_result(None)

    async def _run(self) -> None:
        pause = PAUSES_S[0]
        try:
            while True:
                try:
                    await self._serve()
                except (OSError, ProtocolError) as raised:
                    error = readable(raised)
                    if is_final(error) or isinstance(error, ssl.SSLCertVerificationError):
                        raise error from raised
                    self._trouble = error
                    pause = PAUSES_S[0] if self._session.is_open else min(2 * pause, PAUSES_S[1])
                    self._session.is_open = False
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # clients do not come in step
        except BaseException as error:
            self._error = error
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._news()

    async def _serve(self) -> None:
        """Serve one connection until it ends, with OSError or ProtocolError."""
        host, port = self._target.host_port()
        token, context = await asyncio.to_thread(lambda: (self._target.secret(), self._target.tls()))
        name = self._target.tls_name(host) if context is not None else None
        connecting = asyncio.get_running_loop().create_connection(
            lambda: _Wire(self), host, port, ssl=context, server_hostname=name
        )
        transport, wire = await asyncio.wait_for(connecting, CONNECT_S)
        try:
            transport.write(self._session.hello(token))
            self._wire = wire
            pinged = wire.heard
            while not wire.closed.done():
                await asyncio.wait([wire.closed], timeout=PING_S / 4)
                now = _time.monotonic()
                if now - wire.heard > (SILENT_S if self._session.is_open else CONNECT_S):
                    raise TimeoutError("the service is silent")
                if now - max(wire.heard, pinged) > PING_S:
                    pinged = now
                    transport.write(Ping(int(now)).encode())
            await wire.closed
        except asyncio.CancelledError:
            transport.write(Close().encode())
            transport.close()
            with contextlib.suppress(OSError, ProtocolError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(wire.closed), 1.0)
            raise
        finally:
            self._wire = None
            transport.abort()

    async def _read(self, reading: Reading) -> AsyncIterator[Batch]:
        """Outputs of one connection, which ends with OSError or ProtocolError."""
        host, port = self._target.host_port()
        token, context = await asyncio.to_thread(lambda: (self._target.secret(), self._target.tls()))
        name = self._target.tls_name(host) if context is not None else None
        connecting = asyncio.open_connection(host, port, ssl=context, server_hostname=name)
        reader, writer = await asyncio.wait_for(connecting, CONNECT_S)
        heard = pinged = _time.monotonic()
        waiting = asyncio.ensure_future(reader.read(RECEIVE_BYTES))
        try:
            writer.write(reading.hello(token))
            while True:
                await asyncio.wait([waiting], timeout=PING_S / 4)
                now = _time.monotonic()
                if waiting.done():
                    if not (data := waiting.result()):
                        raise ConnectionResetError("the service closed the connection")
                    heard = now
                    writer.write(reading.received(data))
                    waiting = asyncio.ensure_future(reader.read(RECEIVE_BYTES))
                    while (batch := reading.take()) is not None:
                        yield batch
                elif now - heard > SILENT_S:
                    raise TimeoutError("the service is silent")
                elif now - max(heard, pinged) > PING_S:
                    pinged = now
                    writer.write(Ping(int(now)).encode())
        finally:
            waiting.cancel()
            writer.transport.abort()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._session.give_up_spans()
