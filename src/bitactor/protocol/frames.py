"""Frames: up to 8,192 signals of one producer as checked bytes, big-endian. Pure; any thread."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from bitactor._core._codec import FRAME_HEADER_BYTES, SIGNAL_BYTES, frame_decode, frame_encode, frame_split
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.signals import SIGNAL_DTYPE, check_lane, value_types

SIGNALS_MAX: Final = 8192
_HEADER: Final = struct.Struct(">QIIQ")
_OFFSETS: Final = np.dtype(">u2")
BYTES_MAX: Final = FRAME_HEADER_BYTES + SIGNAL_BYTES * SIGNALS_MAX

# In the order of enum ba_frame_result: a code, and what to say.
FAILURES: Final = (
    ("ok", ""),
    ("short", "it ends before its header's count says"),
    ("magic", "it does not begin with BAF1: these bytes are no frame"),
    ("version", "its version is not 1, the one known here"),
    ("type", "its type is not 1 (data)"),
    ("flags", "a reserved bit of its header is set"),
    ("count", f"its count is not 1 to {SIGNALS_MAX}"),
    ("long", "it goes on after its header's count says"),
    ("crc", "its checksum does not match: the bytes were changed on the way"),
    ("sequence", "its sequence and count go past 2**64 - 1"),
    ("signal_flags", "a signal has a reserved flag set"),
    ("signal_kind", "a signal's kind is 0 or not declared"),
)


class FrameError(ValueError):
    """Bytes that are no frame. code: a word of docs/adr/0005; offset: where in the bytes the trouble lies."""

    def __init__(self, code: str, offset: int, message: str) -> None:
        super().__init__(f"frame refused ({code}) at offset {offset}: {message}")
        self.code = code
        self.offset = offset


def raise_frame_error(result: int, offset: int) -> NoReturn:
    """Raise what an enum ba_frame_result other than 0 says."""
    code, message = FAILURES[result]
    raise FrameError(code, offset, message)


_CODES: Final = {"short": Code.LENGTH, "long": Code.LENGTH, "sequence": Code.SEQUENCE_OVERFLOW}


def refusal(error: FrameError, sequence: int = 0) -> ProtocolError:
    """What a peer is told of a frame that was refused: the same place, the wire's code."""
    code = _CODES.get(error.code) or Code[error.code.upper()]
    return ProtocolError(code, str(error), offset=error.offset, sequence=sequence)


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame. sequence: index of its first signal in the producer's stream. trace: 24 bytes, or zeros."""

    producer: int
    epoch: int
    sequence: int
    signals: npt.NDArray[Any]
    trace: bytes


def encode_frame(
    signals: npt.NDArray[Any], *, producer: int, sequence: int, epoch: int = 0, trace: bytes = b""
) -> bytes:
    """The bytes of a frame of 1 to 8,192 signals (any signal dtype). ValueError or TypeError says what does not fit."""
    value_types(signals.dtype)
    data = frame_encode(producer, epoch, sequence, trace, np.ascontiguousarray(signals))
    if data is None:
        raise ValueError(
            f"a frame holds 1 to {SIGNALS_MAX} signals and ends before sequence 2**64 - 1; this would hold "
            f"{len(signals)} from {sequence}"
        )
    return data


def frame_header(data: bytes | bytearray | memoryview) -> tuple[int, int, int, int]:
    """(producer, epoch, sequence, count) as they stand in the header of a frame of at least 64 bytes; unchecked."""
    producer, epoch, count, sequence = _HEADER.unpack_from(data, 8)
    return producer, epoch, sequence, count


def kind_set(kinds: Iterable[Any]) -> bytes:
    """The set of declared kinds (Kind objects or numbers) that decode_frame checks against."""
    bits = np.zeros(65536, np.uint8)
    for kind in kinds:
        bits[getattr(kind, "number", kind)] = 1
    words = np.packbits(bits, bitorder="little")
    return words.tobytes() if np.little_endian else words.view("<u8").astype("=u8").tobytes()


def decode_frame(data: bytes | bytearray | memoryview, kinds: bytes | None = None) -> Frame:
    """The frame that these bytes are, wholly. kinds: from kind_set; None allows any kind but 0. FrameError otherwise.

    The signals are the frame's own array, value f8 and aux u4: view them as the dtype of their kind.
    """
    out: npt.NDArray[Any] = np.empty(SIGNALS_MAX, SIGNAL_DTYPE)
    result, offset, producer, epoch, sequence, count, trace = frame_decode(data, kinds, out)
    if result:
        raise_frame_error(result, offset)
    return Frame(producer, epoch, sequence, out[:count].copy(), trace)


def check_frame(data: bytes | bytearray | memoryview, kinds: bytes | None, scratch: npt.NDArray[Any]) -> None:
    """See that these bytes are a frame, wholly, as decode_frame does; FrameError otherwise.

    scratch: 8,192 signals that are written over, so that checking many frames needs no memory.
    """
    result, offset, *_ = frame_decode(data, kinds, scratch)
    if result:
        raise_frame_error(result, offset)


class Piece(NamedTuple):
    """A frame's signals in one lane. rows: 32 bytes each, as on the wire; offsets: big-endian u2, each one's index."""

    lane: int
    rows: bytes
    offsets: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SplitFrame:
    """A frame cut by lane. pieces: one for each lane that it touches, in order of the lanes."""

    producer: int
    epoch: int
    sequence: int
    count: int
    trace: bytes
    pieces: list[Piece]


def split_frame(data: bytes | bytearray | memoryview, lanes: int, kinds: bytes | None = None) -> SplitFrame:
    """Check a whole frame as decode_frame does, and cut it by the lanes of its keys (bitactor.signals.lanes_of).

    Signals keep their order in each lane. Other threads run meanwhile when the frame is long. FrameError, or ValueError
    when `lanes` does not divide 64.
    """
    check_lane(0, lanes)
    result, offset, producer, epoch, sequence, count, trace, found = frame_split(data, kinds, lanes)
    if result:
        raise_frame_error(result, offset)
    pieces = [Piece(lane, rows, np.frombuffer(places, _OFFSETS)) for lane, rows, places in found]
    return SplitFrame(producer, epoch, sequence, count, trace, pieces)
