"""Messages that only the log holds: commands that change state beside signals, and the parts of lanes.

Layouts: docs/protocol.md. decode_message of protocol.messages reads them too. Pure functions; any thread.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, NoReturn, Self

import numpy as np
import numpy.typing as npt

from bitactor._core._codec import find_not_ascending
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import SIGNALS_MAX
from bitactor.protocol.wire import HEAD_BYTES, Message, Reader, Type, write_text

BATCH_SIGNALS_MAX: Final = 1 << 16  # a batch covers so many of a producer's sequences at most, in one lane SIGNALS_MAX


@dataclass(frozen=True, slots=True)
class Producer(Message):
    """In the log: from here on the producer has this epoch, owner and name (registration and takeover)."""

    type: ClassVar = Type.PRODUCER
    id: int
    epoch: int
    identity: str
    name: str

    def _payload(self) -> bytes:
        return struct.pack(">QI", self.id, self.epoch) + write_text(self.identity) + write_text(self.name)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8), reader.number(4), reader.text(), reader.text())


@dataclass(frozen=True, slots=True)
class ForgetProducer(Message):
    """In the log: the producer's row is removed; its next hello begins at sequence 0."""

    type: ClassVar = Type.FORGET_PRODUCER
    id: int

    def _payload(self) -> bytes:
        return struct.pack(">Q", self.id)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8))


@dataclass(frozen=True, slots=True)
class EraseKey(Message):
    """In the log: every actor's state of this key, and the key's name, are removed."""

    type: ClassVar = Type.ERASE_KEY
    key: int

    def _payload(self) -> bytes:
        return struct.pack(">Q", self.key)

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        return cls(reader.number(8))


_PART: Final = struct.Struct(">QIIQQQQQI")


@dataclass(frozen=True, slots=True)
class Part(Message):
    """In a lane's log, before the frame that it is about: which signals of the producer's batch lie in this lane.

    The batch is [begin, end) of the producer's sequence, 1 to 65,536 signals. offsets: big-endian u2 of each signal in
    this lane, from `begin`, ascending; as many as the frame that follows has signals, and none when none follows.
    after: the end of the producer's part before this one in this lane, or 0. floor: all of the producer below it is
    stored in every lane. lanes: bit i, the batch has signals in lane i.
    """

    type: ClassVar = Type.PART
    producer: int
    epoch: int
    begin: int
    end: int
    after: int
    floor: int
    lanes: int
    offsets: bytes

    @property
    def count(self) -> int:
        """Signals of the batch in this lane."""
        return len(self.offsets) // 2

    @property
    def sequences(self) -> npt.NDArray[np.uint64]:
        """The sequence of each of them: a new u8 array."""
        return np.frombuffer(self.offsets, ">u2").astype("u8") + np.uint64(self.begin)

    def _payload(self) -> bytes:
        size = self.end - self.begin
        if not (1 <= size <= BATCH_SIGNALS_MAX and self.after <= self.end and self.floor <= self.begin):
            limits = f"begin < end <= begin + {BATCH_SIGNALS_MAX}, after <= end, floor <= begin"
            raise ValueError(f"{self!r} is no part: {limits}")
        if len(self.offsets) % 2 or self.count > SIGNALS_MAX or find_not_ascending(self.offsets, size) >= 0:
            raise ValueError(f"offsets {self.offsets[:40].hex()}... are no ascending big-endian u2 below {size}")
        fixed = self.producer, self.epoch, 0, self.begin, self.end, self.after, self.floor, self.lanes, self.count
        return _PART.pack(*fixed) + self.offsets

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        if len(reader.data) < HEAD_BYTES + _PART.size:
            _refuse_part(reader)
        producer, epoch, flags, begin, end, after, floor, lanes, count = _PART.unpack_from(reader.data, HEAD_BYTES)
        size = end - begin
        most = min(size, SIGNALS_MAX)
        if flags or not 1 <= size <= BATCH_SIGNALS_MAX or after > end or floor > begin or count > most:
            _refuse_part(reader)
        reader.at += _PART.size
        offsets = bytes(reader.take(2 * count))
        bad = find_not_ascending(offsets, size)
        if bad >= 0:
            reader.began += 2 * bad
            raise reader.bad(f"offset {bad} of {count} does not ascend, or is not below {size}")
        return cls(producer, epoch, begin, end, after, floor, lanes, offsets)


def _refuse_part(reader: Reader) -> NoReturn:
    """Say which of the numbers before the offsets is missing or cannot be; one is."""
    _, _, flags = reader.number(8), reader.number(4), reader.number(4)
    if flags:
        raise ProtocolError(Code.FLAGS, f"flags {flags:#010x}; a part has none", offset=reader.began)
    begin, end = reader.number(8), reader.number(8)
    if not 1 <= end - begin <= BATCH_SIGNALS_MAX:
        raise reader.bad(f"a batch of signals {begin} to {end}; it has 1 to {BATCH_SIGNALS_MAX}")
    if (after := reader.number(8)) > end:
        raise reader.bad(f"the part before it ends at {after}, behind its own end {end}")
    if (floor := reader.number(8)) > begin:
        raise reader.bad(f"all below {floor} is stored, and it begins at {begin}")
    _, count = reader.number(8), reader.number(4)
    raise ProtocolError(
        Code.COUNT, f"{count} signals here of a batch of {end - begin}; a frame has {SIGNALS_MAX}", offset=reader.began
    )
