"""One connection of a client as seen from its bytes: hello, welcome, acks, pings, refusals. No I/O, no waiting.

Shared by the clients for threads and for asyncio; one thread at a time.
"""

import difflib
import struct
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bitactor import telemetry
from bitactor._core._codec import find_refused
from bitactor.client.outbox import Outbox
from bitactor.protocol.errors import TABLE, Code, ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX, kind_set
from bitactor.protocol.messages import (
    FROM_SERVER,
    Ack,
    Close,
    Error,
    Hello,
    Message,
    Name,
    Ping,
    Pong,
    Welcome,
    decode_message,
    message_length,
)
from bitactor.schema import Kind
from bitactor.signals import make_signals, text_key, value_types

if TYPE_CHECKING:
    from bitactor.telemetry import SendSpan

PING_S: Final = 20.0  # nothing heard for so long: ask
SILENT_S: Final = 60.0  # and for so long: the connection is dead
_NAMES_KEPT: Final = 1 << 20
_FORMATS: Final = {"f8": "d", "i8": "q", "u8": "Q", "u4": "I", "i4": "i", "f4": "f"}
_RANGES: Final = {
    "f8": "a number",
    "f4": "a number up to 3.4e38",
    "u8": "an integer from 0 to 2**64 - 1",
    "i8": "an integer from -2**63 to 2**63 - 1",
    "u4": "an integer from 0 to 2**32 - 1",
    "i4": "an integer from -2**31 to 2**31 - 1",
}


class Inbox:
    """Received bytes, cut into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def messages(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """The messages that are whole now. ProtocolError for bytes that are none."""
        self._data += data
        at = 0
        try:
            while True:
                length = message_length(memoryview(self._data)[at : at + 24], FROM_SERVER)
                if not length or at + length > len(self._data):
                    return
                message = decode_message(bytes(memoryview(self._data)[at : at + length]))
                at += length
                yield message
        finally:
            del self._data[:at]


def is_final(error: BaseException) -> bool:
    """Whether trying again is useless or wrong: the service refused what will be refused again."""
    return isinstance(error, ProtocolError) and not TABLE[error.code].retry


class Kinds:
    """The kinds of the app, by name, number or Kind, and the checks of what is sent against them."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.all = kinds
        self._named: dict[Any, Kind] = {key: kind for kind in kinds for key in (kind.name, kind.number, kind)}
        self._sets: dict[tuple[str, str], bytes] = {}
        self._layouts: dict[Any, tuple[Kind, struct.Struct]] = {}

    def __getitem__(self, kind: Any) -> Kind:
        """The kind of that name or number. KeyError names those there are."""
        found = self._named.get(kind) or self._named.get(getattr(kind, "name", None))
        if found is None:
            asked, names = getattr(kind, "name", kind), [known.name for known in self.all]
            near = difflib.get_close_matches(asked, names, 1) if isinstance(asked, str) else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no kind {asked!r} in the service's app; it has {', '.join(names) or 'none'}{hint}")
        return found

    def one(self, kind: Any) -> tuple[Kind, struct.Struct]:
        """The kind of that name or number, and the native layout of one signal of it."""
        found = self._layouts.get(kind)
        if found is None:
            known = self[kind]
            found = known, struct.Struct(f"=HH{_FORMATS[known.aux]}QQ{_FORMATS[known.value]}")
            self._layouts[kind] = found
        return found

    def check(self, given: Any) -> npt.NDArray[Any]:
        """A contiguous array of signals that the service takes. TypeError or ValueError says which it does not."""
        if not isinstance(given, np.ndarray) or given.ndim != 1:
            raise TypeError(f"signals is {type(given).__name__}: give a NumPy array of signals, of one dimension")
        types = value_types(given.dtype)
        if types not in self._sets:
            self._sets[types] = kind_set(kind for kind in self.all if (kind.value, kind.aux) == types)
        signals: npt.NDArray[Any] = np.ascontiguousarray(given)
        at = find_refused(signals, self._sets[types])
        if at >= 0:
            raise ValueError(self._why(signals[at], at, types))
        return signals

    def columns(self, kind: Any, key: Any, value: Any, aux: Any, time: Any) -> npt.NDArray[Any]:
        """Signals of one kind from columns; as bitactor.make_signals."""
        return make_signals(self[kind], key, value, aux, time)

    def _why(self, signal: Any, at: int, types: tuple[str, str]) -> str:
        kind = self._named.get(int(signal["kind"]))
        if kind is None:
            return f"signal {at} is of kind {signal['kind']}, which the service's app does not declare"
        if signal["flags"]:
            return f"signal {at} has flags {int(signal['flags']):#06x}; they must be 0"
        return (
            f"signal {at} is of kind {kind.name!r}, declared value {kind.value}, aux {kind.aux}; the array has "
            f"{types[0]}, {types[1]}: use bitactor.signal_dtype({kind.value!r}, {kind.aux!r})"
        )


def misfit(kind: Kind, key: Any, value: Any, aux: Any, time: Any) -> str:
    """Why these are no signal of the kind: names the first of them that does not fit, and what would."""
    for name, type_, given in (
        ("key", "u8", key),
        ("value", kind.value, value),
        ("aux", kind.aux, aux),
        ("time", "u8", time),
    ):
        try:
            struct.pack(f"={_FORMATS[type_]}", given)
        except struct.error:
            return f"{name} is {given!r}: {name} of kind {kind.name!r} is {type_}, {_RANGES[type_]}"
    return f"no signal of kind {kind.name!r}: value is {kind.value}, aux {kind.aux}"


def texts_of(key: Any) -> tuple[list[str], npt.NDArray[Any]] | None:
    """The different texts of a column of keys, and for each element which of them it is; None: it holds no texts."""
    column = np.asarray(key)
    if column.dtype.kind not in "UOT":
        return None
    if column is not key and isinstance(key, (list, tuple)):  # of texts and numbers NumPy would make texts
        for at, one in enumerate(key):
            if not isinstance(one, str):
                raise TypeError(f"column 'key', element {at}: {one!r} is no text as others are: give texts or numbers")
    texts, where = np.unique(column, return_inverse=True)
    found = texts.tolist()
    for text in found[:1] + found[-1:]:
        if not isinstance(text, str):
            raise TypeError(f"column 'key' holds {type(text).__name__}: give numbers or texts")
    return found, where


class Session:
    """A producer's connections, one after the other: what to say first, and what the answers mean."""

    def __init__(self, producer: str, buffer_signals: int, *, takeover: bool, client: str) -> None:
        if buffer_signals < SIGNALS_MAX:
            raise ValueError(f"buffer_signals is {buffer_signals}: give at least {SIGNALS_MAX}, a frame")
        self.producer = producer
        self.buffer_signals = buffer_signals
        self.client = client
        self.welcome: Welcome | None = None  # the newest
        self.outbox: Outbox | None = None  # from the first welcome on
        self.kinds = Kinds(())
        self.ack: Ack | None = None  # the newest
        self.is_open = False  # welcomed on the present connection
        self._takeover = takeover
        self._inbox = Inbox()
        self._names: dict[str, int] = {}
        self._spans: deque[tuple[int, SendSpan]] = deque()  # of traced batches, with the ack that ends each

    def begin_span(self, signals: int) -> bytes:
        """The trace for a batch that is given now, if the application traces here; else b"". Senders, in turn."""
        context = telemetry.sending_context()
        if context is None or self.outbox is None or not signals:
            return b""
        first = self.outbox.next + self.outbox.staged
        span = telemetry.send_span(
            [context], producer=self.producer, sequence=first, signals=signals, begin_ns=time.time_ns()
        )
        self._spans.append((first + signals, span))
        return span.trace

    def end_spans(self, acked: int) -> None:
        """End the spans of batches that are acknowledged."""
        while self._spans and self._spans[0][0] <= acked:
            self._spans.popleft()[1].end()

    def give_up_spans(self) -> None:
        """End the spans of batches that never were acknowledged, when nothing is sent or received any more."""
        while self._spans:
            self._spans.popleft()[1].end(ConnectionError("not acknowledged"))

    def name(self, text: str) -> tuple[int, bytes | None]:
        """The number of a text key, and the encoded Name that must go out first; None: it is known."""
        number = self._names.get(text)
        if number is not None:
            return number, None
        number = text_key(text)
        return number, Name(number, text).encode()

    def named(self, text: str, number: int) -> None:
        """Remember that the Name of this text is in the outbox."""
        if len(self._names) >= _NAMES_KEPT:
            self._names.clear()  # a name may go out twice
        self._names[text] = number

    def hello(self, token: bytes) -> bytes:
        """The first bytes of a new connection."""
        self._inbox = Inbox()
        self.is_open = False
        epoch = self.welcome.epoch if self.welcome else 0
        return Hello(self.producer, epoch, self._takeover, token, self.client).encode()

    def received(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take what was received; return what to answer. ProtocolError: refused, or a peer that breaks the rules."""
        answer = b""
        for message in self._inbox.messages(data):
            match message:
                case Ack() if self.outbox is not None and self.is_open:
                    self.outbox.ack(message.next, message.limit)
                    self.ack = message
                    self.end_spans(message.next)
                case Welcome() if not self.is_open:
                    self._welcomed(message)
                case Ping():
                    answer += Pong(message.nonce).encode()
                case Pong():
                    pass
                case Error():
                    raise message.exception()
                case Close():
                    raise ProtocolError(message.code or Code.SHUTTING_DOWN, message.message or "the service closed")
                case _:
                    raise ProtocolError(Code.TYPE, f"the service sent {type(message).__name__} where it has no place")
        return answer

    def _welcomed(self, welcome: Welcome) -> None:
        if self.outbox is None:
            self.outbox = Outbox(
                self.buffer_signals,
                producer=welcome.producer,
                epoch=welcome.epoch,
                next=welcome.next,
                limit=welcome.limit,
            )
        else:
            assert self.welcome is not None
            if welcome.epoch != self.welcome.epoch:
                raise ProtocolError(Code.FENCED, f"epoch {welcome.epoch} began; this client sends in an older one")
            self.outbox.rewind(welcome.next, welcome.limit)
        self._takeover = False
        if self.welcome is None or welcome.kinds != self.kinds.all:
            self.kinds = Kinds(welcome.kinds)
        self.welcome = welcome
        self.ack = Ack(welcome.next, welcome.limit, welcome.durability, welcome.position)
        self.end_spans(welcome.next)
        self.is_open = True
