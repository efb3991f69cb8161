"""Wire messages but for data frames: frozen dataclasses and their bytes. Layouts: docs/protocol.md.

Numbers are big-endian, texts UTF-8 behind a u16 length. Checks run in the order magic, version, type, flags, length,
whole, crc (see wire.py), then the payload's fields in their order. Pure functions; any thread.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from bitactor._core._codec import crc32c
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX
from bitactor.protocol.logged import EraseKey, ForgetProducer, Part, Producer
from bitactor.protocol.wire import (
    BEFORE_WELCOME,
    FROM_CLIENT,
    FROM_SERVER,
    HEAD_BYTES,
    IN_LOG,
    NAME_BYTES_MAX,
    OUTPUT_BYTES,
    OUTPUTS_MAX,
    TOKEN_BYTES_MAX,
    VERSION,
    Message,
    Reader,
    Type,
    Types,
    message_length,
    write_bytes,
    write_text,
)
from bitactor.schema import Kind, make_kind

__all__ = [
    "BEFORE_WELCOME",
    "FROM_CLIENT",
    "FROM_SERVER",
    "IN_LOG",
    "Ack",
    "Close",
    "EraseKey",
    "Error",
    "ForgetProducer",
    "Hello",
    "Message",
    "Name",
    "Outputs",
    "Part",
    "Ping",
    "Pong",
    "Producer",
    "Subscribe",
    "Type",
    "Types",
    "Unsubscribe",
    "Welcome",
    "decode_message",
    "message_length",
]

LANES_MAX: Final = 64
LANE_SHIFT: Final = 56  # an output's lane is the top byte of its index
_TAKEOVER: Final = 1
_FATAL: Final = 1
_LIVE: Final = 1
_VALUES: Final = ("", "f8", "i8", "u8")
_AUXES: Final = ("", "u4", "i4", "f4")


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """A connection's first message. producer: "" only reads. epoch 0: go on with the current one. token: b"" with mTLS.

    A version-1 peer ignores what follows the last field it knows when version_max is above 1.
    """

    type: ClassVar = Type.HELLO
    producer: str = ""
    epoch: int = 0
    takeover: bool = False
    token: bytes = b""
    client: str = ""
    version_min: int = VERSION
    version_max: int = VERSION

    def __repr__(self) -> str:  # a token has no place in a log
        return (
            f"Hello(producer={self.producer!r}, epoch={self.epoch}, takeover={self.takeover}, client={self.client!r})"
        )

    def _payload(self) -> bytes:
        fixed = struct.pack(">BBHI", self.version_min, self.version_max, _TAKEOVER * self.takeover, self.epoch)
        return fixed + write_text(self.producer) + write_bytes(self.token, TOKEN_BYTES_MAX) + write_text(self.client)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        low, high = reader.number(1), reader.number(1)
        if not 1 <= low <= high:
            raise reader.bad(f"versions {low} to {high} are no range")
        flags, epoch = reader.flags(_TAKEOVER), reader.number(4)
        producer, token, client = reader.text(), reader.raw(TOKEN_BYTES_MAX), reader.text()
        if high > VERSION:
            reader.at = len(reader.data)
        return cls(producer, epoch, bool(flags), token, client, low, high)


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The answer to hello. next: sequence expected next; limit: signals with sequence < limit may be sent.

    producer: the number for the frames' headers (text_key of the name; 0 without one). position: of the engine.
    lanes: with several, the position of each.
    """

    type: ClassVar = Type.WELCOME
    producer: int = 0
    epoch: int = 0
    next: int = 0
    limit: int = 0
    durability: int = 0
    position: int = 0
    app: str = ""
    fingerprint: str = ""
    kinds: tuple[Kind, ...] = ()
    server: str = ""
    frame_signals_max: int = SIGNALS_MAX
    version: int = VERSION
    lanes: tuple[int, ...] = ()

    def _payload(self) -> bytes:
        fixed = struct.pack(
            ">BBHIQQQQII",
            *(self.version, self.durability, 0, self.epoch, self.producer, self.next, self.limit, self.position),
            *(self.frame_signals_max, len(self.kinds)),
        )
        kinds = (
            struct.pack(">HBB", k.number, _VALUES.index(k.value), _AUXES.index(k.aux)) + write_text(k.name)
            for k in self.kinds
        )
        texts = write_text(self.app), write_text(self.fingerprint), write_text(self.server)
        return b"".join([fixed, *texts, *kinds, struct.pack(f">{len(self.lanes)}Q", *self.lanes)])

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        version = reader.number(1)
        if version != VERSION:
            raise ProtocolError(Code.VERSION, f"the server chose version {version}", offset=reader.began)
        durability, _, epoch = reader.number(1), reader.flags(0), reader.number(4)
        producer, following, limit, position = (reader.number(8) for _ in range(4))
        frame_signals_max = reader.number(4)
        if not 1 <= frame_signals_max <= SIGNALS_MAX:
            raise reader.bad(f"frames of at most {frame_signals_max} signals")
        count = reader.number(4)
        app, fingerprint, server = (reader.text() for _ in range(3))
        kinds = []
        for _ in range(count):
            number, value, aux = reader.number(2), reader.number(1), reader.number(1)
            began = reader.began
            name = reader.text()
            if not (1 <= value <= 3 and 1 <= aux <= 3):
                reader.began = began
                raise reader.bad(f"kind {name!r} has types {value} and {aux}, each is 1 to 3")
            try:
                kinds.append(make_kind(name, number, _VALUES[value], _AUXES[aux]))
            except ValueError as error:
                raise reader.bad(str(error)) from None
        lanes = tuple(position for (position,) in struct.iter_unpack(">Q", reader.rest_of(8, LANES_MAX)))
        return cls(
            *(producer, epoch, following, limit, durability, position, app, fingerprint, tuple(kinds), server),
            *(frame_signals_max, version, lanes),
        )


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """All of this producer below `next` is durable at `durability` and applied; signals below `limit` may be sent."""

    type: ClassVar = Type.ACK
    next: int
    limit: int
    durability: int
    position: int

    def _payload(self) -> bytes:
        return struct.pack(">QQQB", self.next, self.limit, self.position, self.durability)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        following, limit, position = (reader.number(8) for _ in range(3))
        return cls(following, limit, reader.number(1), position)


@dataclass(frozen=True, slots=True)
class Error(Message):
    """A refusal. fatal: the server closes after it. sequence, offset: where, when that is known."""

    type: ClassVar = Type.ERROR
    code: Code
    fatal: bool
    sequence: int
    offset: int
    message: str

    @classmethod
    def of(cls, error: ProtocolError) -> Self:
        """The message that tells a peer of `error`; a long text is cut."""
        text = error.message.encode()[:NAME_BYTES_MAX].decode(errors="ignore")
        return cls(error.code, error.fatal, error.sequence, error.offset, text)

    def exception(self) -> ProtocolError:
        """The refusal as an exception, for who was refused."""
        return ProtocolError(self.code, self.message, offset=self.offset, sequence=self.sequence)

    def _payload(self) -> bytes:
        return struct.pack(">HHIQ", self.code, _FATAL * self.fatal, self.offset, self.sequence) + write_text(
            self.message
        )

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        code = reader.code()
        if code is None:
            raise reader.bad("an error without a code")
        fatal, offset, sequence = bool(reader.flags(_FATAL)), reader.number(4), reader.number(8)
        return cls(code, fatal, sequence, offset, reader.text())


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Asks for a pong with the same nonce."""

    type: ClassVar = Type.PING
    nonce: int

    def _payload(self) -> bytes:
        return struct.pack(">Q", self.nonce)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8))


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to a ping."""

    type: ClassVar = Type.PONG
    nonce: int

    def _payload(self) -> bytes:
        return struct.pack(">Q", self.nonce)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8))


@dataclass(frozen=True, slots=True)
class Close(Message):
    """The sender sends nothing more. code None (0 on the wire): orderly."""

    type: ClassVar = Type.CLOSE
    code: Code | None = None
    message: str = ""

    def _payload(self) -> bytes:
        return struct.pack(">H", self.code or 0) + write_text(self.message)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.code(), reader.text())


@dataclass(frozen=True, slots=True)
class Subscribe(Message):
    """Asks for outputs of these kinds. live: those of now on; else all from (from_position, from_index) on.

    places: of a service with lanes, (position, index) to begin with in the lane that the index's top byte names; lanes
    without one begin as `live` and the first place say.
    """

    type: ClassVar = Type.SUBSCRIBE
    id: int
    kinds: tuple[int, ...]
    from_position: int = 0
    from_index: int = 0
    live: bool = True
    places: tuple[tuple[int, int], ...] = ()

    def _payload(self) -> bytes:
        fixed = struct.pack(">IHHQQ", self.id, _LIVE * self.live, len(self.kinds), self.from_position, self.from_index)
        places = b"".join(struct.pack(">QQ", *place) for place in self.places)
        return fixed + struct.pack(f">{len(self.kinds)}H", *self.kinds) + places

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        number, live, count = reader.number(4), bool(reader.flags(_LIVE)), reader.number(2)
        if not count:
            raise ProtocolError(Code.COUNT, "a subscription to no kind", offset=reader.began)
        position, index = reader.number(8), reader.number(8)
        kinds = struct.unpack(f">{count}H", reader.take(2 * count))
        places = tuple(struct.iter_unpack(">QQ", reader.rest_of(16, LANES_MAX)))
        return cls(number, kinds, position, index, live, places)


@dataclass(frozen=True, slots=True)
class Outputs(Message):
    """Outputs of a subscription: 48 bytes a row, big-endian. dropped: how many this subscription lost, in all."""

    type: ClassVar = Type.OUTPUTS
    id: int
    dropped: int
    rows: bytes

    def _payload(self) -> bytes:
        if len(self.rows) % OUTPUT_BYTES:
            raise ValueError(f"{len(self.rows)} bytes are no whole number of outputs of {OUTPUT_BYTES} bytes")
        return struct.pack(">IIQ", self.id, len(self.rows) // OUTPUT_BYTES, self.dropped) + self.rows

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        number, count = reader.number(4), reader.number(4)
        if count > OUTPUTS_MAX:
            raise ProtocolError(Code.COUNT, f"{count} outputs; at most {OUTPUTS_MAX} come at once", offset=reader.began)
        dropped = reader.number(8)
        return cls(number, dropped, bytes(reader.take(OUTPUT_BYTES * count)))


@dataclass(frozen=True, slots=True)
class Name(Message):
    """The text of a key, before the key's first use by this connection. key == text_key(text), else name_mismatch."""

    type: ClassVar = Type.NAME
    key: int
    text: str

    def _payload(self) -> bytes:
        return struct.pack(">Q", self.key) + write_text(self.text)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8), reader.text())


@dataclass(frozen=True, slots=True)
class Unsubscribe(Message):
    """Ends a subscription; outputs already sent may still arrive."""

    type: ClassVar = Type.UNSUBSCRIBE
    id: int

    def _payload(self) -> bytes:
        return struct.pack(">I", self.id)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(4))


_READERS: Final[dict[int, Callable[[Reader], Message]]] = {
    cls.type: cls._read
    for cls in (
        *(Hello, Welcome, Ack, Error, Ping, Pong, Close, Subscribe, Outputs, Name, Unsubscribe),
        *(Producer, ForgetProducer, EraseKey, Part),
    )
}


_NO_DATA: Final[Types] = frozenset(_READERS)


def decode_message(data: bytes | bytearray | memoryview, types: Types | None = None) -> Message:
    """The message that these bytes are, wholly; data frames are decode_frame's. ProtocolError says code and offset.

    types: what may come now, such as FROM_CLIENT; None: any.
    """
    length = message_length(data, _NO_DATA if types is None else types)
    if not length or length != len(data):
        text = f"{len(data)} bytes where the message has {length or 'more'}"
        raise ProtocolError(Code.LENGTH, text, offset=min(length or len(data), len(data)))
    view = memoryview(data)
    if view[5] not in _READERS:
        raise ProtocolError(Code.TYPE, "a data frame where another message is expected", offset=5)
    if crc32c(view[HEAD_BYTES:], crc32c(view[:12])) != int.from_bytes(view[12:16], "big"):
        raise ProtocolError(Code.CRC, "the checksum does not match: the bytes were changed on the way", offset=12)
    reader = Reader(view)
    message = _READERS[view[5]](reader)
    reader.end()
    return message
