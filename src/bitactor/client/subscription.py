"""Reading what actors emit in a service: an iterator of arrays over a connection of its own.

Reading is what the bytes mean, for threads and for asyncio; Subscription receives in the reader's own thread while it
iterates. One reader at a time.
"""

import contextlib
import random
import socket
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from bitactor.client.link import CONNECT_S
from bitactor.client.session import PING_S, SILENT_S, Inbox, is_final
from bitactor.client.target import Target
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.messages import LANE_SHIFT, Close, Error, Hello, Outputs, Ping, Pong, Subscribe, Welcome
from bitactor.schema import Kind
from bitactor.signals import OUTPUT_DTYPE, output_dtype

Batch = npt.NDArray[Any]
Place = tuple[int, int]  # (position, index)
After = Place | tuple[Place, ...] | None  # behind one output, or behind one of each lane
RECEIVE_BYTES: Final = 1 << 18
_ID: Final = 1
_LAST_INDEX: Final = (1 << LANE_SHIFT) - 2  # behind it is still a place of the same lane


class Reading:
    """A subscription's connections, one after the other, as seen from their bytes. No I/O."""

    def __init__(self, kinds: list[Kind], after: After) -> None:
        self.kinds = tuple(kinds)
        places: Any = [after] if after and isinstance(after[0], int) else after or ()
        self.last: Place | None = places[-1] if places else None
        self._read: dict[int, Place] = {place[1] >> LANE_SHIFT: place for place in places}  # by lane
        self._live = after is None
        self._begin: tuple[Place, ...] | None = None  # where "from now on" was in each lane, told by the first welcome
        self.dropped = 0
        types = {(kind.value, kind.aux) for kind in kinds}
        self.dtype = output_dtype(*types.pop()) if len(types) == 1 else OUTPUT_DTYPE
        self._inbox = Inbox()
        self._ready: deque[Batch] = deque()

    @property
    def has_begun(self) -> bool:
        """Whether the first outputs that will come are fixed: a service has said welcome."""
        return self._begin is not None

    def hello(self, token: bytes) -> bytes:
        """The first bytes of a new connection."""
        self._inbox = Inbox()
        return Hello(token=token, client="bitactor-python").encode()

    def received(self, data: memoryview | bytes) -> bytes:
        """Take what was received; return what to answer. ProtocolError: refused."""
        answer = b""
        for message in self._inbox.messages(data):
            match message:
                case Outputs():
                    self.dropped = message.dropped
                    if message.rows:
                        self._ready.append(outputs_from_wire(message.rows, self.dtype))
                case Welcome():
                    if self._begin is None:
                        lanes = message.lanes or (message.position,)
                        if not self._live:  # behind what was read, everything that is kept
                            lanes = (0,) * len(lanes)
                        self._begin = tuple((position, lane << LANE_SHIFT) for lane, position in enumerate(lanes))
                    answer += self._request().encode()
                case Ping():
                    answer += Pong(message.nonce).encode()
                case Error():
                    raise message.exception()
                case Close():
                    raise ProtocolError(message.code or Code.SHUTTING_DOWN, message.message or "the service closed")
                case _:
                    pass
        return answer

    def take(self) -> Batch | None:
        """The next outputs that are here."""
        if not self._ready:
            return None
        batch = self._ready.popleft()
        self.last = (int(batch["position"][-1]), int(batch["index"][-1]))
        self._read[self.last[1] >> LANE_SHIFT] = self.last  # a message is of one lane
        return batch

    @property
    def places(self) -> tuple[Place, ...]:
        """Of each lane (position, index) of the last output that was taken, or one in front of where it began."""
        before = {
            index >> LANE_SHIFT: (position - 1, index + _LAST_INDEX)
            for position, index in self._begin or ()
            if position
        }
        places = before | self._read
        return tuple(places[lane] for lane in sorted(places))

    def forget(self) -> None:
        """Before another connection: what was not taken is asked for again."""
        self._ready.clear()

    def _request(self) -> Subscribe:
        numbers = tuple(kind.number for kind in self.kinds)
        assert self._begin is not None
        # Also after a loss from where it began, in lanes of which nothing was read: nothing in between is missed.
        places = {place[1] >> LANE_SHIFT: place for place in self._begin}
        places |= {lane: (position, index + 1) for lane, (position, index) in self._read.items()}
        if len(self._begin) == 1:
            return Subscribe(_ID, numbers, *places[0], live=False)
        return Subscribe(_ID, numbers, live=False, places=tuple(places[lane] for lane in sorted(places)))


class Subscription:
    """Outputs of some kinds, in order of (position, index): iterating gives arrays of dtype OUTPUT_DTYPE.

    Of one kind, or of kinds with the same types, the arrays have those types; else value f8 and aux u4: view them by
    kind. Reconnects by itself and goes on behind the last output that was read. ProtocolError: refused, such as
    `output_gone` when what follows the last output is older than what the service keeps. Close it, or use `with`.
    """

    def __init__(self, target: Target, kinds: list[Kind], after: After) -> None:
        self._reading = Reading(kinds, after)
        self._target = target
        self._socket: socket.socket | None = None
        self._buffer = bytearray(RECEIVE_BYTES)
        self._closed = False
        self._heard = self._pinged = 0.0
        self._connect()
        try:
            self._wait_begun()
        except BaseException:
            self._drop()
            raise

    @property
    def last(self) -> tuple[int, int] | None:
        """(position, index) of the last output that was read: what `after` takes."""
        return self._reading.last

    @property
    def places(self) -> tuple[Place, ...]:
        """What `after` takes to go on later, without loss and without what was read: a place for each lane.

        (position, index) of the last output that was read; of a lane of which nothing was, one in front of where it
        began. Lanes that began at their first signal have none: `after` begins there anyway.
        """
        return self._reading.places

    @property
    def dropped(self) -> int:
        """Outputs that the service dropped because they were not read in time."""
        return self._reading.dropped

    def read(self, timeout: float | None = None) -> Batch | None:
        """The next outputs, one array; waits for at most `timeout` seconds (None: as long as it takes).

        None when the time is over, or after close().
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        while (batch := self._reading.take()) is None and not self._closed:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                return None
            try:
                if self._socket is None:
                    self._connect()
                self._receive(left)
                pause = 0.02
            except (OSError, ProtocolError) as error:
                self._drop()
                if is_final(error):
                    raise
                time.sleep(min(pause * random.uniform(0.5, 1), left))  # noqa: S311  # clients do not come in step
                pause = min(2 * pause, 3.0)
        return batch

    def __iter__(self) -> Iterator[Batch]:
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

    def _connect(self) -> None:
        token, context = self._target.secret(), self._target.tls()
        host, port = self._target.host_port()
        sock = socket.create_connection((host, port), CONNECT_S)
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=self._target.tls_name(host))
            sock.sendall(self._reading.hello(token))
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        self._heard = self._pinged = time.monotonic()

    def _wait_begun(self) -> None:
        """From now on means from here on, not from the first read on."""
        deadline = time.monotonic() + CONNECT_S
        while not self._reading.has_begun:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self._target.address}: no welcome within {CONNECT_S:g} s")
            self._receive(left)

    def _receive(self, seconds: float) -> None:
        """Take what comes within so many seconds; ask when nothing came for long."""
        sock = self._socket
        assert sock is not None
        sock.settimeout(seconds)
        try:
            n = sock.recv_into(self._buffer)
        except TimeoutError:
            now = time.monotonic()
            if now - self._heard > SILENT_S:
                raise
            if now - max(self._heard, self._pinged) > PING_S:
                self._pinged = now
                sock.sendall(Ping(int(now)).encode())
            return
        if not n:
            raise ConnectionResetError("the service closed the connection")
        self._heard = time.monotonic()
        if answer := self._reading.received(memoryview(self._buffer)[:n]):
            sock.settimeout(CONNECT_S)
            sock.sendall(answer)

    def _drop(self) -> None:
        self._reading.forget()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def outputs_from_wire(rows: bytes, dtype: "np.dtype[np.void]" = OUTPUT_DTYPE) -> npt.NDArray[Any]:
    """The outputs of an Outputs message: a new array of the output dtype given, in host order."""
    wire = np.dtype([(name, dtype[name].newbyteorder(">")) for name in dtype.names or ()])
    return np.frombuffer(rows, wire).astype(dtype)
