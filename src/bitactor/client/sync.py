"""The client for threads: callers fill the outbox, one thread of its own sends it, receives acks and reconnects.

Any thread may send; senders take turns. Every wait can be interrupted with Ctrl-C. Lock order: `_senders` before
`_state`; the link's thread takes `_senders` only when it is free.
"""

import contextlib
import os
import struct
import threading
import time as _time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from bitactor.client.link import Link
from bitactor.client.outbox import Outbox
from bitactor.client.session import Session, misfit, texts_of
from bitactor.client.subscription import After, Subscription
from bitactor.client.target import Target
from bitactor.protocol.errors import ProtocolError
from bitactor.protocol.messages import Ack
from bitactor.schema import Kind

T = TypeVar("T")


class Client:
    """A producer's connection to a service: signals in, acks back; reconnects and sends again by itself.

    address: "host:port". producer: the name of this stream of signals; one client at a time uses it. TLS 1.3 unless
    plain_text (this machine only); ca_file: who signed the server's certificate (default: the system's), server_name:
    its name when it is not the host. token_file or token, or cert_file and key_file (mTLS): who this is.
    buffer_signals: how many unacknowledged signals are kept; when it is full, senders wait. linger_s: how long less
    than a frame waits for more. takeover: fence who sends as this producer now. connect_s: how long to try at first.

    The constructor waits for the welcome: ProtocolError when the service refuses, ConnectionError when it cannot be
    reached. Later, refusals that trying again cannot heal are raised by the next call of any method; a lost connection
    is not an error: the client reconnects and sends again what is not acknowledged; the service applies it once.
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
        self._closed = True  # until there is something to close
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
        self._session = Session(producer, buffer_signals, takeover=takeover, client="bitactor-python")
        self._linger_s = linger_s
        self._senders = threading.RLock()
        self._staged_at: float | None = None  # when the oldest staged signal was given
        self._pid = os.getpid()
        self._link = Link(self._target, self._session, self._seal_what_waited)
        self._closed = False
        try:
            self._link.wait(lambda: self._session.outbox, _time.monotonic() + connect_s, "the service did not answer")
        except TimeoutError as error:
            self._end()
            raise ConnectionError(f"{address}: {self._link.trouble or error}") from self._link.trouble
        except BaseException:
            self._end()
            raise

    # --- what it knows ---

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of the service's app."""
        return self._session.kinds.all

    @property
    def producer(self) -> str:
        """The name of this stream of signals."""
        return self._session.producer

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
        return self._link.connected

    # --- in ---

    def send(self, kind: Any, key: int | str, value: float, aux: float = 0, time: int | None = None) -> None:
        """Give one signal; waits when the buffer is full. kind: name, number or Kind. key: a number, or a text.

        time: ns since the Unix epoch, None: now. KeyError for an unknown kind, ValueError for one that does not fit.
        """
        with self._senders:
            outbox = self._ready()
            declared, layout = self._session.kinds.one(kind)
            number = self._key(key, outbox) if isinstance(key, str) else key
            fields = (declared.number, 0, aux, number, _time.time_ns() if time is None else time, value)
            before = outbox.next
            try:
                if not outbox.put_one(layout, *fields):
                    self._until(lambda: outbox.put_one(layout, *fields), outbox)
            except struct.error:
                raise ValueError(misfit(declared, number, value, aux, fields[4])) from None
            if self._staged_at is None or outbox.next != before:
                self._added(outbox, before)

    def send_batch(
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
        """Give an array of signals, or columns of one kind; waits when the buffer is full. Returns the new `next`.

        signals: one dimension, of bitactor.signal_dtype(value, aux) for the kinds in it. Columns: as for
        bitactor.make_signals; key may be texts. trace: W3C trace id (16 bytes) and span id (8), of the frames this
        makes; without one, where the application traces with OpenTelemetry, the batch gets a span of its own.
        TypeError or ValueError names the first signal that no service takes; then nothing was given.
        """
        with self._sending() as outbox:
            if signals is None:
                if kind is None or key is None or value is None:
                    raise TypeError("send_batch takes an array of signals, or the columns kind=, key= and value=")
                signals = self._session.kinds.columns(kind, self._keys(key, outbox), value, aux, time)
            elif kind is not None or key is not None or value is not None:
                raise TypeError("send_batch takes an array of signals or columns, not both")
            signals = self._session.kinds.check(signals)
            trace = trace or self._session.begin_span(len(signals))
            first, before = 0, outbox.next
            while first < len(signals):
                first += self._until(lambda first=first: outbox.put(signals, first, trace), outbox)  # type: ignore[misc]
                self._added(outbox, before)
                before = outbox.next
            return self.next

    def key(self, text: str) -> int:
        """The number of a text key; the service learns its name before any signal that is given later."""
        with self._sending() as outbox:
            return self._key(text, outbox)

    def flush(self, timeout: float | None = None) -> Ack:
        """Wait until everything given before this call is acknowledged: applied, and durable as the ack says.

        TimeoutError after `timeout` seconds; nothing is lost by it.
        """
        deadline = None if timeout is None else _time.monotonic() + timeout
        with self._sending() as outbox:
            target = outbox.next + outbox.staged
            self._until(outbox.seal, outbox, deadline)
        self._link.wake()
        self._link.wait(lambda: self._last_ack().next >= target, deadline, f"not all is acknowledged after {timeout} s")
        return self._last_ack()

    # --- out ---

    def subscribe(self, kinds: Any, *, after: After = None) -> Subscription:
        """Read the outputs of some kinds over a connection of their own: from now on, or after (position, index).

        after: of a service with lanes, a tuple of such places, one a lane (Subscription.places); lanes without a place,
        and all of them with (), begin with the oldest output that is kept.

        A Subscription is an iterator of arrays of outputs; see there.
        """
        self._check()
        chosen = kinds if isinstance(kinds, (list, tuple, set, frozenset)) else [kinds]
        return Subscription(self._target, [self._session.kinds[kind] for kind in chosen], after)

    # --- the end ---

    def close(self, timeout: float | None = None) -> None:
        """Wait until everything is acknowledged, say goodbye, end the thread. Later calls do nothing.

        TimeoutError after `timeout` seconds, ProtocolError when the service refused: then what was not acknowledged is
        given up, and the message says how much.
        """
        if self._closed or os.getpid() != self._pid:
            return
        try:
            if self.next != self.acked:
                self.flush(timeout)
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(ProtocolError, OSError):  # the error on its way is the one to be seen
            self.close(5.0)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._link.connected else "not connected"
        return f"<Client {self._session.producer!r} of {self._target.address}, {state}>"

    # --- how ---

    def _ready(self) -> Outbox:
        self._check()
        return self._outbox()

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"{self!r}: open another one")
        if os.getpid() != self._pid:
            raise RuntimeError("this process was forked off the one that opened the client: start it with spawn")
        if self._link.error is not None:
            raise self._link.error

    @contextlib.contextmanager
    def _sending(self) -> Iterator[Outbox]:
        """This thread's turn to add to the outbox."""
        with self._senders:
            yield self._ready()

    def _outbox(self) -> Outbox:
        outbox = self._session.outbox
        assert outbox is not None, "the constructor waits for the welcome"
        return outbox

    def _last_ack(self) -> Ack:
        ack = self._session.ack
        assert ack is not None, "the constructor waits for the welcome"
        return ack

    def _until(self, attempt: Callable[[], T], outbox: Outbox, deadline: float | None = None) -> T:
        """What the attempt gives, which is repeated after acks while it gives nothing: that makes room."""
        while True:
            seen = outbox.acks
            if result := attempt():
                return result
            self._link.wake()
            self._link.wait(lambda seen=seen: outbox.acks != seen, deadline, "the buffer is full")  # type: ignore[misc]

    def _added(self, outbox: Outbox, before: int) -> None:
        """After signals were added: begin the time that they may wait, wake the link when there is news for it."""
        if outbox.staged and self._staged_at is None:
            self._staged_at = _time.monotonic()
        elif outbox.next == before:
            return  # they wait beside others, and the link knows for how long
        self._link.wake()

    def _seal_what_waited(self) -> float | None:
        """In the link's thread: seal what has waited for linger_s; seconds until that is due, None: nothing waits."""
        since = self._staged_at
        if since is None:
            return None
        left = since + self._linger_s - _time.monotonic()
        if left > 0:
            return left
        if not self._senders.acquire(blocking=False):
            return 0.001  # somebody is sending: then there is more to wait for
        try:
            if self._outbox().seal():
                self._staged_at = None
                return None
            return 0.01  # no room: an ack comes before
        finally:
            self._senders.release()

    def _key(self, text: str, outbox: Outbox) -> int:
        number, message = self._session.name(text)
        if message is not None:
            encoded = message
            self._until(lambda: outbox.name(encoded), outbox)
            self._session.named(text, number)
        return number

    def _keys(self, key: Any, outbox: Outbox) -> Any:
        texts = texts_of(key)
        if texts is None:
            return key
        return np.array([self._key(text, outbox) for text in texts[0]], "u8")[texts[1]]

    def _end(self) -> None:
        self._closed = True
        self._link.stop()
        self._session.give_up_spans()
