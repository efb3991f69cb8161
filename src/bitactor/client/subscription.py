"""Reading what actors emit in a service: an iterator of arrays over a connection of its own.

No thread: the reader's own receives while it iterates. One reader at a time.
"""

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from bitactor.client.link import CONNECT_S
from bitactor.client.session import PING_S, SILENT_S, Inbox, is_final
from bitactor.client.target import Target
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import Close, Error, Hello, Message, Outputs, Ping, Pong, Subscribe, Welcome
from bitactor.schema import Kind
from bitactor.signals import OUTPUT_DTYPE, output_dtype

_RECEIVE_BYTES: Final = 1 << 18
_ID: Final = 1


class Subscription:
    """Outputs of some kinds, in order of (position, index): iterating gives arrays of dtype OUTPUT_DTYPE.

    Of one kind, or of kinds with the same types, the arrays have those types; else value f8 and aux u4: view them by
    kind. Reconnects by itself and goes on behind the last output that was read. ProtocolError: refused, such as
    `output_gone` when what follows the last output is older than what the service keeps. Close it, or use `with`.
    """

    def __init__(self, target: Target, kinds: list[Kind], after: tuple[int, int] | None) -> None:
        self.kinds = tuple(kinds)
        self.last = after  # (position, index) of the last output that was read
        self.dropped = 0  # outputs that the service dropped because they were not read in time
        types = {(kind.value, kind.aux) for kind in kinds}
        self.dtype = output_dtype(*types.pop()) if len(types) == 1 else OUTPUT_DTYPE
        self._target = target
        self._inbox = Inbox()
        self._ready: list[npt.NDArray[Any]] = []
        self._socket: socket.socket | None = None
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._closed = False
        self._heard = self._pinged = 0.0
        self._connect()

    def read(self, timeout: float | None = None) -> npt.NDArray[Any] | None:
        """The next outputs, one array; waits for at most `timeout` seconds (None: as long as it takes). None: timeout.

        After close() None at once.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        while not self._ready and not self._closed:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            try:
                if self._socket is None:
                    self._connect()
                self._receive(max(left, 0.0))
                pause = 0.02
            except (OSError, ProtocolError) as error:
                self._drop()
                if is_final(error):
                    raise
                time.sleep(min(pause * random.uniform(0.5, 1), max(left, 0.0)))  # noqa: S311  # not in step
                pause = min(2 * pause, 3.0)
            if not self._ready and deadline is not None and time.monotonic() >= deadline:
                return None
        if not self._ready:
            return None
        batch = self._ready.pop(0)
        self.last = (int(batch["position"][-1]), int(batch["index"][-1]))
        return batch

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        while (batch := self.read()) is not None:
            yield batch

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(Close().encode())
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- how ---

    def request(self) -> Subscribe:
        """What to ask for on a new connection."""
        numbers = tuple(kind.number for kind in self.kinds)
        if self.last is None:
            return Subscribe(_ID, numbers)
        return Subscribe(_ID, numbers, self.last[0], self.last[1] + 1, live=False)

    def _connect(self) -> None:
        token, context = self._target.secret(), self._target.tls()
        sock = socket.create_connection(self._target.host_port(), CONNECT_S)
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=self._target.tls_name())
            sock.sendall(Hello(token=token, client="bitactor-python").encode())
            self._inbox = Inbox()
            self._socket = sock
            self._heard = self._pinged = time.monotonic()
            self._receive(CONNECT_S, welcome=True)
            sock.settimeout(CONNECT_S)
            sock.sendall(self.request().encode())
        except BaseException:
            self._socket = None
            sock.close()
            raise

    def _receive(self, seconds: float, *, welcome: bool = False) -> None:
        """Take what comes within so many seconds; with welcome, until that came."""
        sock = self._socket
        assert sock is not None
        while True:
            sock.settimeout(max(seconds, 1e-3))
            try:
                n = sock.recv_into(self._buffer)
            except TimeoutError:
                if welcome or time.monotonic() - self._heard > SILENT_S:
                    raise
                self._ask()
                return
            if not n:
                raise ConnectionResetError("the service closed the connection")
            self._heard = time.monotonic()
            found = [self._take(message) for message in self._inbox.messages(memoryview(self._buffer)[:n])]
            if not welcome or Welcome in found:
                return

    def _ask(self) -> None:
        now = time.monotonic()
        if now - max(self._heard, self._pinged) > PING_S and self._socket is not None:
            self._pinged = now
            self._socket.sendall(Ping(int(now)).encode())

    def _take(self, message: Message) -> type[Message]:
        match message:
            case Outputs():
                self.dropped = message.dropped
                if message.rows:
                    self._ready.append(outputs_from_wire(message.rows, self.dtype))
            case Ping() if self._socket is not None:
                self._socket.sendall(Pong(message.nonce).encode())
            case Error():
                raise message.exception()
            case Close():
                raise ProtocolError(message.code or Code.SHUTTING_DOWN, message.message or "the service closed")
            case _:
                pass
        return type(message)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def outputs_from_wire(rows: bytes, dtype: "np.dtype[np.void]" = OUTPUT_DTYPE) -> npt.NDArray[Any]:
    """The outputs of an Outputs message: a new array of the output dtype given, in host order."""
    wire = np.dtype([(name, dtype[name].newbyteorder(">")) for name in dtype.names or ()])
    return np.frombuffer(rows, wire).astype(dtype)
