"""Records: what the log appends at once, filled frame by frame and read back. Layout: docs/adr/0010-record-encoding.md.

Reading is pure; any thread. A builder is one thread's at a time, and lets others run while it converts.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from bitactor._core._record import (
    RECORD_HEADER_BYTES,
    RECORD_PAYLOAD_BYTES_MAX,
    RECORD_SIGNALS_MAX,
    _RecordBuilder,
    app_record,
    record_read,
)
from bitactor.protocol.frames import FAILURES, raise_frame_error
from bitactor.signals import SIGNAL_DTYPE

BYTES_MAX: Final = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX
_SKIP: Final = 6  # BA_FRAME_COUNT: also what a skip past the frame's end gives

# In the order of enum ba_record_result: a code, and what to say.
_FAILURES: Final = (
    ("ok", ""),
    ("short", "it ends before its header says"),
    ("magic", "it does not begin with BAR1: these bytes are no record"),
    ("version", "its version is not 1, the one known here; a newer release wrote it"),
    ("type", "its type is neither 1 (data) nor 2 (app)"),
    ("flags", "a reserved bit of its header is set"),
    ("count", f"it says more than {RECORD_SIGNALS_MAX} signals, or signals in an app record"),
    ("items", "it does not hold as many items as it says"),
    ("length", f"it says a payload of more than {RECORD_PAYLOAD_BYTES_MAX} bytes"),
    ("long", "it goes on after its header says"),
    ("crc", "its checksum does not match: the bytes are not those that were written"),
    ("position", "its position and count go past 2**64 - 1"),
    ("item", "an item is no whole message that a record may hold"),
    ("frame", "a frame in it is refused"),
    ("total", "its frames do not hold as many signals as it says"),
)


class RecordType(IntEnum):
    """What a record holds: signals and commands, or the description of an app."""

    DATA = 1
    APP = 2


class RecordError(ValueError):
    """Bytes that are no record. code: a word of docs/adr/0010; offset: where in the bytes the trouble lies."""

    def __init__(self, code: str, offset: int, message: str) -> None:
        super().__init__(f"record refused ({code}) at offset {offset}: {message}")
        self.code = code
        self.offset = offset


class RecordFullError(Exception):
    """A frame or message that has no room in the open record; it fits an empty one."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read. items: (message type, its bytes within the record) in order; signals: all frames', in order.

    payload: a view of the bytes behind the header; of an app record the JSON. fingerprint: the app's first 8 bytes.
    """

    sequence: int
    position: int
    wall_ns: int
    type: RecordType
    count: int
    fingerprint: int
    lane: int
    payload: memoryview
    items: list[tuple[int, memoryview]]
    signals: npt.NDArray[Any]


class RecordBuilder(_RecordBuilder):
    """A record that is being filled. One thread at a time.

    `count`, `items`, `length` (bytes with the header) say how full it is, fits(bytes) whether a frame or message has
    room, has_room(signals) whether a frame of so many and any message have; clear() empties it. finish(sequence,
    position, wall_ns, lane, fingerprint) writes the header and gives the whole record as a memoryview of the builder,
    valid until clear(); ValueError when position + count passes 2**64 - 1.
    """

    def __init__(self, signals_max: int = RECORD_SIGNALS_MAX, bytes_max: int = BYTES_MAX) -> None:
        """Room for so many signals and so many bytes with the header; memory is touched as it fills."""
        if not 1 <= signals_max <= RECORD_SIGNALS_MAX:
            raise ValueError(f"signals_max is {signals_max}: a record holds 1 to {RECORD_SIGNALS_MAX} signals")
        self._signals: npt.NDArray[Any] = np.empty(signals_max, SIGNAL_DTYPE)
        super().__init__(np.empty(bytes_max, "u1"), self._signals)

    @property
    def signals(self) -> npt.NDArray[Any]:
        """The signals in it, native SIGNAL_DTYPE: a view of the builder's, valid until clear()."""
        return self._signals[: self.count]

    def add_frame(
        self, frame: bytes | bytearray | memoryview, kinds: bytes | None = None, skip: int = 0
    ) -> tuple[int, int, int, int]:
        """Check and decode a whole frame into the record; with skip, only its signals from that one on.

        Returns (producer, epoch, sequence, count) of what was added. FrameError when the frame is refused,
        RecordFullError when it does not fit, ValueError for a skip of all of it; then nothing is added.
        """
        result, offset, producer, epoch, sequence, count = self._add_frame(frame, kinds, skip)
        if result:
            if result == -2:
                raise RecordFullError(f"{len(frame)} bytes do not fit beside {self.count} signals, {self.length} bytes")
            if result == _SKIP and count:
                raise ValueError(f"a skip of {skip} leaves nothing of a frame of {count} signals")
            raise_frame_error(result, offset)
        return producer, epoch, sequence, count

    def add_message(self, message: bytes | bytearray | memoryview) -> None:
        """Add an encoded name or command, as it is. RecordFullError when it does not fit."""
        if not self._add_message(message):
            raise RecordFullError(f"{len(message)} bytes do not fit beside {self.length}")


def encode_app_record(
    payload: bytes, *, sequence: int, position: int, wall_ns: int, fingerprint: int, lane: int = 0
) -> bytes:
    """The record that describes an app from here on; payload: canonical JSON. ValueError when it is above 8 MiB."""
    record = app_record(payload, sequence, position, wall_ns, lane, fingerprint)
    if record is None:
        raise ValueError(f"an app record of {len(payload)} bytes; at most {RECORD_PAYLOAD_BYTES_MAX} are possible")
    return record


def fingerprint_number(fingerprint: str) -> int:
    """The u64 that a record's header holds of an app's hexadecimal fingerprint: its first 8 bytes."""
    return int(fingerprint[:16], 16)


def read_record(
    data: bytes | bytearray | memoryview, kinds: bytes | None = None, out: npt.NDArray[Any] | None = None
) -> Record:
    """The record that these bytes are, wholly: header, checksum, items, frames with their checksums and signals.

    kinds: from kind_set; None allows any kind but 0. out: 65,536 signals to decode into, so that a loop over records
    needs no new memory; Record.signals is then a view of it. The items' messages are views of `data`. RecordError says
    code and offset.
    """
    signals: npt.NDArray[Any] = np.empty(RECORD_SIGNALS_MAX, SIGNAL_DTYPE) if out is None else out
    result, frame, offset, header, items = record_read(data, kinds, signals)
    if result:
        _refuse(result, offset, frame)
    sequence, position, wall_ns, kind, count, _, lane, fingerprint = header
    view = memoryview(data)
    return Record(
        *(sequence, position, wall_ns, RecordType(kind), count, fingerprint, lane, view[RECORD_HEADER_BYTES:]),
        *([(item, view[at : at + length]) for item, at, length in items], signals[:count]),
    )


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """A record's header alone."""

    sequence: int
    position: int
    wall_ns: int
    type: RecordType
    count: int
    items: int
    lane: int
    fingerprint: int


def verify_record(data: bytes | bytearray | memoryview) -> RecordHeader:
    """The header of a whole record whose checksum is right; its payload is not looked into. RecordError otherwise."""
    result, _, offset, header, _ = record_read(data, None, None)
    if result:
        _refuse(result, offset, 0)
    sequence, position, wall_ns, kind, *rest = header
    return RecordHeader(sequence, position, wall_ns, RecordType(kind), *rest)


def _refuse(result: int, offset: int, frame: int) -> NoReturn:
    code, message = _FAILURES[result]
    if frame:
        message += f" ({FAILURES[frame][0]}): {FAILURES[frame][1]}"
    raise RecordError(code, offset, message)
