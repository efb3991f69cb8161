"""Where one wire message ends and the next begins, how its fields are read and written, what all messages have.

A message is a 16-byte head (magic, version, type, flags, payload length, CRC-32C) and a payload; a data frame has a
header of its own (docs/adr/0005-frame-encoding.md) that begins alike. Checks run in the order magic, version, type,
flags, length; each length is checked before it is used. Pure functions; any thread.
"""

import struct
from enum import IntEnum
from typing import ClassVar, Final, Self

from bitactor._core._codec import FRAME_HEADER_BYTES, SIGNAL_BYTES, crc32c
from bitactor.protocol.errors import TABLE, Code, ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX

VERSION: Final = 1
HEAD_BYTES: Final = 16
PAYLOAD_BYTES_MAX: Final = 64 * 1024
HELLO_BYTES_MAX: Final = 4 * 1024  # payload, before authentication
LARGE_BYTES_MAX: Final = 1024 * 1024  # payload of welcome and outputs
OUTPUT_BYTES: Final = 48
OUTPUTS_MAX: Final = (LARGE_BYTES_MAX - 16) // OUTPUT_BYTES
TOKEN_BYTES_MAX: Final = 2048
NAME_BYTES_MAX: Final = 1024  # of a producer's name, an identity, a text key
MAGIC: Final = b"BAF1"


class Type(IntEnum):
    """The type of a message, byte 5. PART, and from PRODUCER on: in the log only."""

    DATA = 1
    HELLO = 2
    WELCOME = 3
    ACK = 4
    ERROR = 5
    PING = 6
    PONG = 7
    CLOSE = 8
    SUBSCRIBE = 9
    OUTPUTS = 10
    NAME = 11
    UNSUBSCRIBE = 12
    PART = 15
    PRODUCER = 32
    FORGET_PRODUCER = 33
    ERASE_KEY = 34


Types = frozenset[int]
_T = Type
BEFORE_WELCOME: Final[Types] = frozenset({_T.HELLO})
FROM_CLIENT: Final[Types] = frozenset({_T.DATA, _T.PING, _T.PONG, _T.CLOSE, _T.SUBSCRIBE, _T.NAME, _T.UNSUBSCRIBE})
FROM_SERVER: Final[Types] = frozenset({_T.WELCOME, _T.ACK, _T.ERROR, _T.PING, _T.PONG, _T.CLOSE, _T.OUTPUTS})
IN_LOG: Final[Types] = frozenset({_T.DATA, _T.NAME, _T.PART, _T.PRODUCER, _T.FORGET_PRODUCER, _T.ERASE_KEY})
_ALL: Final[Types] = frozenset(Type)
LIMITS: Final = {
    **dict.fromkeys(range(256), PAYLOAD_BYTES_MAX),
    Type.HELLO: HELLO_BYTES_MAX,
    Type.WELCOME: LARGE_BYTES_MAX,
    Type.OUTPUTS: LARGE_BYTES_MAX,
}


def message_length(data: bytes | bytearray | memoryview, types: Types = _ALL) -> int:
    """How many bytes the message at the beginning of `data` has; 0: more bytes are needed to tell (24 are enough).

    types: what may come now, such as FROM_CLIENT. ProtocolError as soon as the bytes there are show that it must be
    refused, so an unwanted or oversized message costs no buffer. With BEFORE_WELCOME others are `hello_expected`.
    """
    n = len(data)
    if data[:4] != MAGIC[:n]:
        raise ProtocolError(Code.MAGIC, f"these bytes do not begin with BAF1 but with {bytes(data[:4])!r}")
    if n > 4 and data[4] != VERSION:
        raise ProtocolError(Code.VERSION, f"a message of version {data[4]}; version {VERSION} is spoken", offset=4)
    if n > 5 and data[5] not in types:
        raise _unwanted(data[5], types)
    if n > 7 and (data[6] or data[7]):
        raise ProtocolError(Code.FLAGS, f"the head's flags are {data[6]:#04x}{data[7]:02x}, not 0", offset=6)
    if n < HEAD_BYTES:
        return 0
    kind = data[5]
    if kind == Type.DATA:
        if n < 24:
            return 0
        count = int.from_bytes(data[20:24], "big")
        if not 1 <= count <= SIGNALS_MAX:
            raise ProtocolError(Code.COUNT, f"a frame of {count} signals; it has 1 to {SIGNALS_MAX}", offset=20)
        return FRAME_HEADER_BYTES + SIGNAL_BYTES * count
    length = int.from_bytes(data[8:12], "big")
    if length > LIMITS[kind]:
        message = f"a payload of {length} bytes; a message of type {kind} has at most {LIMITS[kind]}"
        raise ProtocolError(Code.MESSAGE_TOO_LONG, message, offset=8)
    return HEAD_BYTES + length


def _unwanted(kind: int, types: Types) -> ProtocolError:
    name = Type(kind).name.lower() if kind in _ALL else "unknown"
    wanted = ", ".join(f"{Type(t).name.lower()} {int(t)}" for t in sorted(types))
    code = Code.HELLO_EXPECTED if types is BEFORE_WELCOME and kind in _ALL else Code.TYPE
    return ProtocolError(code, f"a message of type {kind} ({name}); expected here: {wanted}", offset=5)


class Reader:
    """Takes a payload's fields one after the other; what is missing or cannot be is a ProtocolError at its offset."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.at = HEAD_BYTES
        self.began = HEAD_BYTES

    def take(self, n: int) -> memoryview:
        """The next n bytes."""
        self.began = self.at
        if len(self.data) - self.at < n:
            raise ProtocolError(
                Code.LENGTH, f"a field of {n} bytes at {self.at} does not fit {len(self.data)}", offset=self.at
            )
        self.at += n
        return self.data[self.began : self.at]

    def number(self, size: int) -> int:
        """The next number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def rest_of(self, size: int, most: int) -> memoryview:
        """What is left, as whole items of `size` bytes, at most `most` of them; what is no whole item stays left."""
        count = (len(self.data) - self.at) // size
        data = self.take(count * size)
        if count > most:
            raise self.bad(f"{count} items of {size} bytes where at most {most} may be")
        return data

    def flags(self, known: int) -> int:
        """The next u16, whose bits outside `known` are refused."""
        value = self.number(2)
        if value & ~known:
            raise ProtocolError(Code.FLAGS, f"flags {value:#06x}; known are {known:#06x}", offset=self.began)
        return value

    def code(self) -> Code | None:
        """The next code; None for 0."""
        value = self.number(2)
        if value and value not in TABLE:
            raise self.bad(f"code {value} is not known")
        return Code(value) if value else None

    def raw(self, most: int) -> bytes:
        """The next bytes behind their u16 length."""
        began = self.at
        n = self.number(2)
        if n > most:
            raise self.bad(f"{n} bytes where at most {most} may be")
        data = bytes(self.take(n))
        self.began = began
        return data

    def text(self, most: int = NAME_BYTES_MAX) -> str:
        """The next text."""
        data = self.raw(most)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.bad(f"text that is not UTF-8 ({error.reason})") from None

    def bad(self, message: str) -> ProtocolError:
        """The refusal of the field read last."""
        return ProtocolError(Code.FIELD, message, offset=self.began)

    def end(self) -> None:
        """Refuse what is left."""
        if self.at != len(self.data):
            left = len(self.data) - self.at
            raise ProtocolError(Code.LENGTH, f"{left} bytes behind the last field, at {self.at}", offset=self.at)


def write_bytes(data: bytes, most: int) -> bytes:
    """Bytes behind their u16 length. ValueError when there are more than `most`."""
    if len(data) > most:
        raise ValueError(f"{len(data)} bytes where a message holds at most {most}: {data[:40]!r}...")
    return len(data).to_bytes(2, "big") + data


def write_text(text: str, most: int = NAME_BYTES_MAX) -> bytes:
    """A text as UTF-8 behind its u16 length."""
    return write_bytes(text.encode(), most)


class Message:
    """What all messages have. encode: the whole message's bytes, ValueError for a value that has no place in it."""

    __slots__ = ()
    type: ClassVar[Type]

    def encode(self) -> bytes:
        """Head and payload."""
        try:
            payload = self._payload()
        except struct.error as error:
            raise ValueError(f"{self!r} has no place in a message: {error}") from None
        if len(payload) > LIMITS[self.type]:
            raise ValueError(f"a payload of {len(payload)} bytes; {self.type.name} has at most {LIMITS[self.type]}")
        head = struct.pack(">4sBBHI", MAGIC, VERSION, self.type, 0, len(payload))
        return head + crc32c(payload, crc32c(head)).to_bytes(4, "big") + payload

    def _payload(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        raise NotImplementedError
