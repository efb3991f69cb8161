"""A speaker of the wire protocol that can say everything wrong: bytes are put together by hand, nothing is checked.

Written from docs/protocol.md alone; it shares no code with the service. A `Peer` is for one thread.
"""

import contextlib
import hashlib
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import Final, Self

DATA, HELLO, WELCOME, ACK, ERROR, PING, PONG, CLOSE, SUBSCRIBE, OUTPUTS, NAME, UNSUBSCRIBE = range(1, 13)
PRODUCER, FORGET_PRODUCER, ERASE_KEY = 32, 33, 34
TRADE, QUOTE, HEARD = 1, 2, 3
ANSWER_S: Final = 10.0  # to wait for an answer that must come
CODES: Final = {
    **dict(
        enumerate(
            [
                "magic",
                "version",
                "type",
                "flags",
                "count",
                "length",
                "crc",
                "sequence_overflow",
                "signal_flags",
                "signal_kind",
            ],
            1,
        )
    ),
    11: "message_too_long",
    12: "field",
    **dict(
        enumerate(["hello_expected", "auth_failed", "kind_forbidden", "producer_forbidden", "fenced", "superseded"], 20)
    ),
    **dict(
        enumerate(
            ["sequence_gap", "credit_exceeded", "producers_full", "name_conflict", "names_full", "name_mismatch"], 26
        )
    ),
    32: "read_forbidden",
    33: "tls_required",
    **dict(enumerate(["connections_full", "rate_exceeded", "handshake_timeout", "idle_timeout", "frame_timeout"], 40)),
    **dict(enumerate(["slow_reader", "log_full", "shutting_down", "not_ready", "output_gone", "internal"], 45)),
}


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return tuple(rows)


_CRC: Final = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C as RFC 3720 has it, bit by bit of a table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def text_key(text: str) -> int:
    """The number of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A text with its length, or with another one."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw) if length is None else length) + raw


def message(
    kind: int,
    payload: bytes = b"",
    *,
    magic: bytes = b"BAF1",
    version: int = 1,
    flags: int = 0,
    length: int | None = None,
    crc: int | None = None,
) -> bytes:
    """A message of any kind but data; every field of its head may be wrong."""
    head = magic + struct.pack(">BBHI", version, kind, flags, len(payload) if length is None else length)
    return head + struct.pack(">I", crc32c(head + payload) if crc is None else crc) + payload


def signal(key: int = 7, value: int = 1, *, kind: int = TRADE, flags: int = 0, aux: int = 0, at: int = 1) -> bytes:
    """A signal of 32 bytes."""
    return struct.pack(">HHIQQQ", kind, flags, aux, key, at, value)


def frame(
    signals: bytes,
    *,
    producer: int,
    sequence: int,
    epoch: int = 1,
    count: int | None = None,
    crc: int | None = None,
    flags: int = 0,
    reserved: int = 0,
    trace: bytes = bytes(24),
) -> bytes:
    """A data frame; every field of its header may be wrong."""
    front = b"BAF1" + struct.pack(
        ">BBHQIIQ", 1, DATA, flags, producer, epoch, len(signals) // 32 if count is None else count, sequence
    )
    rest = struct.pack(">I", reserved) + trace + signals
    return front + struct.pack(">I", crc32c(front + rest) if crc is None else crc) + rest


def hello(
    producer: str | bytes,
    token: str | bytes,
    *,
    client: str | bytes = "attack",
    versions: tuple[int, int] = (1, 1),
    flags: int = 0,
    epoch: int = 0,
    tail: bytes = b"",
) -> bytes:
    """A hello."""
    start = struct.pack(">BBHI", *versions, flags, epoch)
    return message(HELLO, start + text(producer) + text(token) + text(client) + tail)


def subscribe(
    id_: int = 1, *, kinds: tuple[int, ...] = (HEARD,), live: bool = True, start: tuple[int, int] = (0, 0)
) -> bytes:
    """A subscription."""
    body = struct.pack(">IHHQQ", id_, int(live), len(kinds), *start)
    return message(SUBSCRIBE, body + b"".join(struct.pack(">H", kind) for kind in kinds))


def ping(nonce: int = 1) -> bytes:
    """A ping."""
    return message(PING, struct.pack(">Q", nonce))


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service said. kind: its type."""

    kind: int
    payload: bytes

    @property
    def code(self) -> str:
        """Of an error or a close: the code's name."""
        number = struct.unpack_from(">H", self.payload)[0]
        return CODES.get(number, f"code {number}")

    @property
    def words(self) -> str:
        """Of an error: what it says."""
        length = struct.unpack_from(">H", self.payload, 16)[0]
        return self.payload[18 : 18 + length].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Welcome:
    """What matters of a welcome."""

    epoch: int
    producer: int
    next: int
    limit: int


class Peer:
    """One connection to the ingest port. Everything heard is also added to `heard`, when given."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None = None,
        *,
        name: str = "localhost",
        source: str = "",
        heard: bytearray | None = None,
    ) -> None:
        """Connect, with TLS when there is a context. OSError, ssl.SSLError."""
        raw = socket.create_connection(address, ANSWER_S, (source, 0) if source else None)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket: socket.socket = raw if context is None else context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise
        self.welcome = Welcome(0, 0, 0, 0)
        self.acked = 0
        self.next = 0  # of this peer's own stream
        self._heard = heard
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End without a goodbye."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def reset(self) -> None:
        """End with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        """Send; a connection that the service has closed is found out by who reads."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.socket.sendall(data)

    def reply(self, timeout_s: float = ANSWER_S) -> Reply | None:
        """The next message; None: the connection is over. TimeoutError: nothing came in time."""
        due = time.monotonic() + timeout_s
        while True:
            if len(self._data) >= 16:
                length = 16 + int.from_bytes(self._data[8:12], "big")
                if len(self._data) >= length:
                    found = Reply(self._data[5], self._data[16:length])
                    self._data = self._data[length:]
                    if found.kind == ACK:
                        self.acked = int.from_bytes(found.payload[:8], "big")
                    return found
            self.socket.settimeout(max(0.001, due - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise
            except OSError:  # reset, or TLS ended without a goodbye
                data = b""
            if not data:
                return None
            if self._heard is not None and len(self._heard) < 64 << 20:
                self._heard += data
            self._data += data

    def until(self, *kinds: int, timeout_s: float = ANSWER_S) -> Reply | None:
        """The next message of one of the kinds, or an error; pings are answered. None: the connection is over."""
        due = time.monotonic() + timeout_s
        while True:
            found = self.reply(max(0.001, due - time.monotonic()))
            if found is None or found.kind in {*kinds, ERROR}:
                return found
            if found.kind == PING:
                self.send(message(PONG, found.payload))

    def greet(
        self, producer: str, token: str | bytes, *, flags: int = 0, epoch: int = 0, client: str = "attack"
    ) -> Reply:
        """Say hello and wait for the answer: a welcome, kept in `welcome`, or an error. EOFError: neither."""
        self.send(hello(producer, token, flags=flags, epoch=epoch, client=client))
        answer = self.until(WELCOME)
        if answer is None:
            raise EOFError("the connection ended before an answer to hello")
        if answer.kind == WELCOME:
            _, _, _, epoch, number, following, limit = struct.unpack_from(">BBHIQQQ", answer.payload)
            self.welcome = Welcome(epoch, number, following, limit)
            self.acked = self.next = following
        return answer

    def data(self, signals: bytes, **wrong: int) -> bytes:
        """A frame that continues this peer's stream, unless told otherwise; not sent."""
        given = {"producer": self.welcome.producer, "epoch": self.welcome.epoch, "sequence": self.next} | wrong
        return frame(signals, **given)  # type: ignore[arg-type]

    def admit(self, signals: bytes) -> None:
        """Send signals as they should be, and wait until they are acknowledged. EOFError: they were not."""
        self.send(self.data(signals))
        self.next += len(signals) // 32
        while self.acked < self.next:
            answer = self.until(ACK)
            if answer is None or answer.kind == ERROR:
                raise EOFError(f"not acknowledged: {answer.code if answer else 'the connection ended'}")

    def refusal(self, timeout_s: float = ANSWER_S) -> str:
        """The code of the next error, "closed" when the connection ends first, "silence" when nothing comes."""
        try:
            answer = self.until(timeout_s=timeout_s)
        except TimeoutError:
            return "silence"
        return "closed" if answer is None else answer.code
